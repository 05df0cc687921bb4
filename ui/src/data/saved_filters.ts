// Filters of the task table that this browser keeps, as queries.
import { effect, signal } from "@preact/signals";

const KEY = "lineshaft.filters";
export const SAVED_MAX = 20;

export const savedFilters = signal<string[]>(read());

function read(): string[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one === "string").slice(0, SAVED_MAX) : [];
  } catch {
    return [];
  }
}

effect(() => {
  if (savedFilters.value.length === 0) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, JSON.stringify(savedFilters.value));
});

export const isSaved = (query: string) => savedFilters.value.includes(query);

/** Keeps a filter, and forgets the oldest if there are too many. */
export function save(query: string) {
  savedFilters.value = [...savedFilters.value.filter((one) => one !== query), query].slice(-SAVED_MAX);
}

export function forget(query: string) {
  savedFilters.value = savedFilters.value.filter((one) => one !== query);
}

/** A filter in words, such as `failed, io, team=web`. */
export function inWords(query: string): string {
  return [...new URLSearchParams(query)].map(([name, value]) => (name === "since" ? `since ${value}` : value.replaceAll(",", " or "))).join(", ");
}
