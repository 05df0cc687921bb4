// A transport for programs that stay. Connect knows no service config: what it says is written out here.
import { setTimeout } from "node:timers/promises";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

const ATTEMPTS = 8; // with the pauses about seven seconds: a server that starts again
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
 * The server said UNAVAILABLE, nobody could be reached, or the connection broke. connect-node reports the
 * last as Aborted, Canceled or Internal, mostly with the error of the system as its cause.
 */
export function mayHelpToRepeat(error: unknown): boolean {
  const { code, cause } = ConnectError.from(error);
  const ofSystem = cause instanceof Error && "errno" in cause;
  return ofSystem || [Code.Unavailable, Code.Aborted, Code.Canceled].includes(code);
}

/** Sends a token with every call; only with TLS, or everybody on the way can read it. */
const bearer = (token: string): Interceptor => (next) => (request) => {
  request.header.set("authorization", `Bearer ${token}`);
  return next(request);
};

/** `http://127.0.0.1:7070`, or `https://…` with the PEM text of the certificates to trust. */
export function connect(baseUrl: string, ca?: Buffer, token?: string): Transport {
  return createGrpcTransport({
    baseUrl,
    interceptors: token ? [retry, bearer(token)] : [retry],
    nodeOptions: { ca },
    pingIntervalMs: 60_000,
  });
}
