// Asks for a token. It stays in this tab.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { errorText, system } from "../data/client";
import { info } from "../data/info";
import { logIn, loginRequired } from "../data/session";
import { ErrorNote } from "../components/basic";

export function Login() {
  const text = useSignal("");
  const error = useSignal("");
  const isBusy = useSignal(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const submit = async (event: Event) => {
    event.preventDefault();
    const given = text.value.trim();
    if (!/^[\x21-\x7e]+$/.test(given)) {
      error.value = "a token has no spaces and only ASCII characters";
      return;
    }
    isBusy.value = true;
    try {
      const found = await system.getServerInfo({}, { headers: { authorization: `Bearer ${given}` } });
      logIn(given);
      info.value = found;
    } catch (failure) {
      error.value = errorText(failure);
    } finally {
      isBusy.value = false;
    }
  };
  return (
    <main class="login">
      <form class="card" onSubmit={submit}>
        <h1>Lineshaft</h1>
        <p class="muted">Enter an API key or a JWT for this server: {loginRequired.value}. The token is kept until you close this tab.</p>
        <label class="field">
          <span>Token</span>
          <input ref={field} type="password" autocomplete="off" value={text.value} onInput={(event) => (text.value = event.currentTarget.value)} />
        </label>
        <ErrorNote text={error.value} />
        <button type="submit" class="button primary" disabled={isBusy.value || !text.value.trim()}>Log in</button>
      </form>
    </main>
  );
}
