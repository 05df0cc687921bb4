// Calls with retries, deadlines, the token and the trace context.

import { setTimeout as sleep } from "node:timers/promises";
import { CallError, callError, Code, traced } from "../errors.js";
import { Call, type Listener } from "./call.js";
import { Connection } from "./connection.js";
import type { Endpoint } from "./endpoint.js";
import type { Method } from "./method.js";

/** Default time for one call with its retries. */
export const CALL_TIMEOUT_MS = 30_000;
/** Before a server has been reached for the first time, calls fail after this time. */
const FIRST_CONNECT_MS = 3_000;
const FIRST_CONNECT_PAUSE_MS = 100;
const ATTEMPTS_MAX = 3;
const PAUSE_FIRST_MS = 50;
const PAUSE_MAX_MS = 2_000;

export interface CallOptions {
  /** Time for the call with its retries, in milliseconds. */
  timeout?: number;
  signal?: AbortSignal;
  headers?: Record<string, string>;
  /** False: an error is returned without a retry. */
  retry?: boolean;
}

export class Channel {
  readonly #connection: Connection;
  readonly #createdAt = Date.now();

  constructor(endpoint: Endpoint) {
    this.#connection = new Connection(endpoint);
  }

  /** False until a server has been reached. */
  get wasConnected(): boolean {
    return this.#connection.wasConnected;
  }

  close(): void {
    this.#connection.close();
  }

  /** Calls a method that is safe to repeat. */
  async unary<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    const until = Date.now() + (options.timeout ?? CALL_TIMEOUT_MS);
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(method, request, until - Date.now(), options);
      } catch (error) {
        options.signal?.throwIfAborted();
        if (!(error instanceof CallError) || options.retry === false) throw traced(error);
        const pause = this.pauseBeforeRetry(error, attempt);
        if (pause === undefined || Date.now() + pause >= until) throw traced(error);
        await pausing(pause, options.signal);
      }
    }
  }

  /** Time before an attempt after the `attempt`th in milliseconds; `undefined` if the error is final. */
  pauseBeforeRetry(error: CallError, attempt: number): number | undefined {
    const grown = Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** (attempt - 1)) * (0.8 + 0.4 * Math.random());
    switch (error.code) {
      case Code.UNAVAILABLE:
        if (!this.#connection.wasConnected) {
          return Date.now() - this.#createdAt < FIRST_CONNECT_MS ? FIRST_CONNECT_PAUSE_MS : undefined;
        }
        return Math.max(grown, error.retryAfter ?? 0);
      case Code.RESOURCE_EXHAUSTED:
        return error.retryAfter === undefined ? undefined : Math.max(grown, error.retryAfter);
      case Code.CANCELLED:
      case Code.UNKNOWN:
      case Code.INTERNAL:
        return attempt < ATTEMPTS_MAX ? grown : undefined;
      default:
        return undefined;
    }
  }

  async #once<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    timeout: number,
    options: CallOptions,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      let response: Response | undefined;
      const listener: Listener<Response> = {
        message(message) {
          response = message;
        },
        end(error) {
          if (error) reject(error);
          else if (response === undefined) reject(callError(Code.INTERNAL, "the response has no message"));
          else resolve(response);
        },
      };
      this.open(method, listener, { ...options, timeout }).then((call) => call.finish(request), reject);
    });
  }

  /** Starts a call, without retries. If it cannot be started, the promise is rejected and the listener is not called. */
  async open<Request, Response>(
    method: Method<Request, Response>,
    listener: Listener<Response>,
    options: CallOptions = {},
  ): Promise<Call<Request, Response>> {
    const { signal, timeout } = options;
    signal?.throwIfAborted();
    const session = this.#connection.session();
    const begun = Date.now();
    const ready = session instanceof Promise ? await within(session, timeout, signal) : session;
    const headers = { ...options.headers };
    const { token } = this.#connection;
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    const left = timeout === undefined ? undefined : timeout - (Date.now() - begun);
    if (!signal) return new Call(ready, method, headers, left, listener, this.#connection);
    const abort = () => call.cancel(callError(Code.CANCELLED, "the call was aborted", { cause: signal.reason }));
    const end = (error: CallError | undefined) => {
      signal.removeEventListener("abort", abort);
      listener.end(error);
    };
    const message = (response: Response) => listener.message(response);
    const call = new Call(ready, method, headers, left, { message, end }, this.#connection);
    signal.addEventListener("abort", abort);
    return call;
  }
}

/** Waits, and rejects with the reason of the signal if it is aborted before. */
export async function pausing(milliseconds: number, signal?: AbortSignal): Promise<void> {
  try {
    await sleep(milliseconds, undefined, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

function within<T>(promise: Promise<T>, timeout: number | undefined, signal: AbortSignal | undefined): Promise<T> {
  if (timeout === undefined && signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal!.reason);
    const exceed = () => reject(callError(Code.DEADLINE_EXCEEDED, `no connection within ${Math.round(timeout!)} ms`));
    const timer = timeout === undefined ? undefined : setTimeout(exceed, timeout);
    signal?.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    });
  });
}
