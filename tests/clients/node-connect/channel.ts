// A transport for programs that stay. Connect knows no service config: what it says is written out here.
import { setTimeout } from "node:timers/promises";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

const ATTEMPTS = 5;
const PAUSE_MILLISECONDS_MAX = 2_000;
// What may be repeated; a submission only with a request id.
const REPEATABLE = /^(SubmitTask|BatchSubmitTasks|CancelTask|WaitTask|Get.*|List.*)$/;

const retry: Interceptor = (next) => async (request) => {
  for (let attempt = 1, pause = 100; ; attempt++, pause = Math.min(pause * 2, PAUSE_MILLISECONDS_MAX)) {
    try {
      return await next(request);
    } catch (error) {
      const last = request.stream || attempt === ATTEMPTS || !REPEATABLE.test(request.method.name);
      if (last || request.signal.aborted || !mayHelpToRepeat(error)) throw error;
    }
    await setTimeout(pause * (0.8 + 0.4 * Math.random()), undefined, { signal: request.signal });
  }
};

/**
 * The server said UNAVAILABLE, nobody could be reached (Unavailable), or the connection broke, which
 * connect-node reports as Aborted or Canceled.
 */
export function mayHelpToRepeat(error: unknown): boolean {
  return [Code.Unavailable, Code.Aborted, Code.Canceled].includes(ConnectError.from(error).code);
}

export function connect(address: string): Transport {
  return createGrpcTransport({
    baseUrl: `http://${address}`,
    interceptors: [retry],
    pingIntervalMs: 60_000,
  });
}
