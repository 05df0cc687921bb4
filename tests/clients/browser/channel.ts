// A transport for pages that stay: calls that may be repeated are.
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";

const ATTEMPTS = 5;
const PAUSE_MILLISECONDS_MAX = 2_000;
// What may be repeated; a submission only with a request id.
const REPEATABLE = /^(SubmitTask|BatchSubmitTasks|CancelTask|WaitTask|Get.*|List.*)$/;

export const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** For the `interceptors` of `createConnectTransport` or `createGrpcWebTransport`. */
export const retry: Interceptor = (next) => async (request) => {
  for (let attempt = 1, wait = 100; ; attempt++, wait = Math.min(wait * 2, PAUSE_MILLISECONDS_MAX)) {
    try {
      return await next(request);
    } catch (error) {
      const last = request.stream || attempt === ATTEMPTS || !REPEATABLE.test(request.method.name);
      if (last || request.signal.aborted || !mayHelpToRepeat(error)) throw error;
    }
    await pause(wait * (0.8 + 0.4 * Math.random()));
  }
};

/** The server said UNAVAILABLE, or the connection failed: of that a browser says no more than Unknown. */
export function mayHelpToRepeat(error: unknown): boolean {
  return [Code.Unavailable, Code.Unknown].includes(ConnectError.from(error).code);
}
