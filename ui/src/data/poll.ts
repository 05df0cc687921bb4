// Calls that are repeated while a page is open and visible.
import { type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { errorText } from "./client";

export interface Polled<T> {
  value: Signal<T | undefined>;
  error: Signal<string>;
  refresh: () => void;
}

/** Repeats a call, `pause` ms after the previous one has ended. `undefined` ends it. */
export function usePoll<T>(call: (signal: AbortSignal) => Promise<T>, pause: (value: T | undefined) => number | undefined, keys: unknown[]): Polled<T> {
  const value = useSignal<T | undefined>(undefined);
  const error = useSignal("");
  const kick = useSignal(0);
  useEffect(() => {
    const end = new AbortController();
    void (async () => {
      while (!end.signal.aborted) {
        if (!document.hidden) {
          try {
            const found = await call(end.signal);
            if (end.signal.aborted) return;
            value.value = found;
            error.value = "";
          } catch (failure) {
            if (end.signal.aborted) return;
            error.value = errorText(failure);
          }
        }
        const wait = pause(value.peek()) ?? (error.peek() ? 2_000 : undefined);
        if (wait === undefined) return;
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    })();
    return () => end.abort();
  }, [...keys, kick.value]);
  return { value, error, refresh: () => kick.value++ };
}
