// Light or dark: as the system, or as the user has chosen.
import { computed, effect, signal } from "@preact/signals";

const KEY = "lineshaft.theme";
export type Choice = "system" | "light" | "dark";

export const choice = signal<Choice>(read());
const dark = matchMedia("(prefers-color-scheme: dark)");
const isSystemDark = signal(dark.matches);
dark.addEventListener("change", () => (isSystemDark.value = dark.matches));

export const theme = computed<"light" | "dark">(() =>
  choice.value === "system" ? (isSystemDark.value ? "dark" : "light") : choice.value,
);

function read(): Choice {
  const kept = localStorage.getItem(KEY);
  return kept === "light" || kept === "dark" ? kept : "system";
}

effect(() => {
  document.documentElement.dataset.theme = choice.value;
  if (choice.value === "system") localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, choice.value);
});

export function switchTheme() {
  choice.value = theme.value === "dark" ? "light" : "dark";
}
