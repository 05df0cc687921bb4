// What the browser keeps of the choices of the user, besides the theme and the filters.
import { effect, type Signal } from "@preact/signals";
import { isReadOnly } from "./data/permissions";
import { isUtc } from "./format";

function keep(key: string, choice: Signal<boolean>) {
  choice.value = localStorage.getItem(key) === "1";
  effect(() => {
    if (choice.value) localStorage.setItem(key, "1");
    else localStorage.removeItem(key);
  });
}

export function keepPreferences() {
  keep("lineshaft.utc", isUtc);
  keep("lineshaft.read-only", isReadOnly);
}
