// A transport for long-running programs. Connect does not support service configs, so it retries here.
import { setTimeout } from "node:timers/promises";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

const ATTEMPTS = 8; // about seven seconds with the pauses: enough for a server to restart
const PAUSE_MILLISECONDS_MAX = 2_000;
// Calls that may be retried; a submission only with a request id.
const RETRYABLE = /^(SubmitTask|BatchSubmitTasks|CancelTask|WaitTask|Get.*|List.*)$/;

const retry: Interceptor = (next) => async (request) => {
  for (let attempt = 1, pause = 100; ; attempt++, pause = Math.min(pause * 2, PAUSE_MILLISECONDS_MAX)) {
    try {
      return await next(request);
    } catch (error) {
      const last = request.stream || attempt === ATTEMPTS || !RETRYABLE.test(request.method.name);
      if (last || request.signal.aborted || !isRetryable(error)) throw error;
    }
    await setTimeout(pause * (0.8 + 0.4 * Math.random()), undefined, { signal: request.signal });
  }
};

/**
 * True if the server returned UNAVAILABLE, could not be reached, or the connection broke. connect-node reports a
 * broken connection as Aborted, Canceled or Internal, usually with the system error as its cause.
 */
export function isRetryable(error: unknown): boolean {
  const { code, cause } = ConnectError.from(error);
  const ofSystem = cause instanceof Error && "errno" in cause;
  return ofSystem || [Code.Unavailable, Code.Aborted, Code.Canceled].includes(code);
}

/** Sends a token with every call. Use it only with TLS: otherwise anyone on the network path can read it. */
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
