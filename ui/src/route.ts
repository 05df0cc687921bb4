// The place in the dashboard, in the fragment of the URL: `#/tasks?state=failed`. Fragments need nothing from the server and
// from proxies.
import { computed, signal } from "@preact/signals";

const fragment = signal(location.hash);
addEventListener("hashchange", () => (fragment.value = location.hash));

const parts = computed(() => {
  const [path = "", query = ""] = fragment.value.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { path: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query) };
});

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Segments of the path; empty for the first page. */
export const path = computed(() => parts.value.path);
export const query = computed(() => parts.value.query);
export const page = computed(() => path.value[0] ?? "overview");

export function href(segments: string[], parameters?: URLSearchParams): string {
  const text = parameters?.toString();
  return `#/${segments.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export const taskHref = (id: string) => href(["tasks", id]);

export function go(target: string) {
  location.hash = target;
}

/** Changes the query without an entry in the history of the browser. */
export function replaceQuery(parameters: URLSearchParams) {
  history.replaceState(null, "", href(path.value, parameters));
  fragment.value = location.hash;
}
