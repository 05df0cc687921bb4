// What the server has refused this user. The pages hide it.
import { computed, effect, signal } from "@preact/signals";
import { token } from "./session";

const denied = signal<ReadonlySet<string>>(new Set());

export function deny(method: string) {
  if (!denied.peek().has(method)) denied.value = new Set([...denied.peek(), method]);
}

/** Whether the user may, as far as this page knows. */
export const may = (method: string) => !denied.value.has(method);

/** Whether pools and workers may be seen; they show the work of all namespaces. */
export const seesPools = computed(() => may("StreamPoolMetrics"));

effect(() => {
  token.value;
  denied.value = new Set();
});
