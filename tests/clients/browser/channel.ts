// A transport for long-running pages, with retries.
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";

const ATTEMPTS = 8; // about seven seconds with the pauses: enough for a server to restart
const PAUSE_MILLISECONDS_MAX = 2_000;
// Calls that may be retried; a submission only with a request id.
const RETRYABLE = /^(SubmitTask|BatchSubmitTasks|CancelTask|WaitTask|Get.*|List.*)$/;

export const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** For the `interceptors` of `createConnectTransport` or `createGrpcWebTransport`. */
export const retry: Interceptor = (next) => async (request) => {
  for (let attempt = 1, wait = 100; ; attempt++, wait = Math.min(wait * 2, PAUSE_MILLISECONDS_MAX)) {
    try {
      return await next(request);
    } catch (error) {
      const last = request.stream || attempt === ATTEMPTS || !RETRYABLE.test(request.method.name);
      if (last || request.signal.aborted || !isRetryable(error)) throw error;
    }
    await pause(wait * (0.8 + 0.4 * Math.random()));
  }
};

/** True if the server returned UNAVAILABLE or the connection failed, which browsers report only as Unknown. */
export function isRetryable(error: unknown): boolean {
  return [Code.Unavailable, Code.Unknown].includes(ConnectError.from(error).code);
}

/** Sends a token with every call. Use it only with TLS: otherwise anyone on the network path can read it. */
export const bearer = (token: string): Interceptor => (next) => (request) => {
  request.header.set("authorization", `Bearer ${token}`);
  return next(request);
};
