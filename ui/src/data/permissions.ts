// What this user may do. The pages hide the rest.
import { computed, effect, signal } from "@preact/signals";
import { info } from "./info";
import { token } from "./session";

const READS = /^(Get|List|Explain|Watch|Wait|Read|Stream|Preview)/;

/** Methods that the server has refused since the page was loaded, although it had listed them. */
const denied = signal<ReadonlySet<string>>(new Set());
/** Those that it lists for the caller; `undefined` until it has answered. */
const granted = computed(() => {
  const methods = info.value?.caller?.methods;
  return methods && new Set(methods.map((method) => method.slice(method.indexOf("/") + 1)));
});

/** Whether the user has hidden everything that changes something. */
export const isReadOnly = signal(false);

export function deny(method: string) {
  if (!denied.peek().has(method)) denied.value = new Set([...denied.peek(), method]);
}

/** Before the server has answered, a page without a token hides nothing, so that it can say what is wrong. */
const isGranted = (method: string) => !denied.value.has(method) && (granted.value?.has(method) ?? !token.value);

/** Whether the user may and wants to call the method, as far as this page knows. */
export const may = (method: string) => isGranted(method) && (!isReadOnly.value || READS.test(method));

/** Whether there is anything to hide from a user who wants to change nothing. */
export const mayChange = () => [...(granted.value ?? [])].some((method) => !READS.test(method));

/** Whether pools and workers may be seen; they show the work of all namespaces. */
export const seesPools = computed(() => may("StreamPoolMetrics"));

effect(() => {
  token.value;
  denied.value = new Set();
  info.value = undefined;
});
