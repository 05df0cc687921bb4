// The token of the user, kept for this tab only.
import { signal } from "@preact/signals";

const KEY = "lineshaft.token";

export const token = signal(sessionStorage.getItem(KEY) ?? "");
/** Why the server wants a token; empty if it has not asked for one. */
export const loginRequired = signal("");

export function logIn(text: string) {
  token.value = text;
  sessionStorage.setItem(KEY, text);
  loginRequired.value = "";
}

export function logOut(reason = "logged out") {
  token.value = "";
  sessionStorage.removeItem(KEY);
  loginRequired.value = reason;
}
