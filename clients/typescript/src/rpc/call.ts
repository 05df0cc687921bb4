// One gRPC call on an HTTP/2 connection.

import { type ClientHttp2Session, type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";
import { type CallError, callError, Code } from "../errors.js";
import { FrameReader, frame } from "./frames.js";
import type { Method } from "./method.js";
import { fromHttp, fromReset, fromTrailers } from "./status.js";

export interface Listener<Response> {
  message(response: Response): void;
  /** Called once, at the end of the call. */
  end(error: CallError | undefined): void;
}

/** Keeps the process alive while calls wait for a response. */
export interface Keeper {
  begin(session: ClientHttp2Session): void;
  end(): void;
}

const TIMEOUT_HEADER_MAX = 99_999_999;

export class Call<Request, Response> {
  readonly #method: Method<Request, Response>;
  readonly #listener: Listener<Response>;
  readonly #stream: ClientHttp2Stream;
  readonly #reader = new FrameReader();
  #timer: NodeJS.Timeout | undefined;
  #error: CallError | undefined;
  #trailers: IncomingHttpHeaders | undefined;
  #httpStatus = 0;
  readonly #session: ClientHttp2Session;
  readonly #keeper: Keeper;
  #isKeeping = false;

  /**
   * `timeout`: in milliseconds.
   *
   * @throws UnavailableError if the session accepts no more calls
   */
  constructor(
    session: ClientHttp2Session,
    method: Method<Request, Response>,
    headers: Record<string, string>,
    timeout: number | undefined,
    listener: Listener<Response>,
    keeper: Keeper,
  ) {
    this.#method = method;
    this.#session = session;
    this.#keeper = keeper;
    this.#listener = listener;
    const all: Record<string, string> = {
      [constants.HTTP2_HEADER_METHOD]: "POST",
      [constants.HTTP2_HEADER_PATH]: method.path,
      te: "trailers",
      "content-type": "application/grpc",
      ...headers,
    };
    if (timeout !== undefined) {
      all["grpc-timeout"] = `${Math.min(TIMEOUT_HEADER_MAX, Math.max(1, Math.ceil(timeout)))}m`;
    }
    try {
      this.#stream = session.request(all);
    } catch (cause) {
      throw callError(Code.UNAVAILABLE, `the connection is closed: ${(cause as Error).message}`, { cause });
    }
    this.ref();
    if (timeout !== undefined) this.#timer = setTimeout(() => this.#exceed(timeout), Math.min(timeout, 2 ** 31 - 1));
    this.#stream.on("response", (headers, flags) => {
      this.#httpStatus = Number(headers[constants.HTTP2_HEADER_STATUS]);
      if (flags & constants.NGHTTP2_FLAG_END_STREAM) this.#trailers = headers;
    });
    this.#stream.on("trailers", (headers) => {
      this.#trailers = headers;
    });
    this.#stream.on("data", (chunk: Buffer) => this.#read(chunk));
    // The call has ended with the trailers, also if the request has not.
    this.#stream.on("end", () => {
      if (!this.#stream.writableEnded) this.#stream.close(constants.NGHTTP2_NO_ERROR);
    });
    let cause: Error | undefined;
    this.#stream.on("error", (error) => {
      cause = error;
    });
    this.#stream.on("close", () => this.#end(cause));
  }

  /** Returns false if the stream is congested: see `drained`. */
  send(request: Request): boolean {
    if (this.#stream.destroyed || this.#stream.writableEnded) return true;
    return this.#stream.write(frame(this.#method.request, request));
  }

  /** Sends the last message, or none, and ends the request. */
  finish(request?: Request): void {
    if (this.#stream.destroyed) return;
    if (request === undefined) this.#stream.end();
    else this.#stream.end(frame(this.#method.request, request));
  }

  /** Calls `listener` once when the stream is no longer congested. */
  drained(listener: () => void): void {
    this.#stream.once("drain", listener);
  }

  /** Ends the call; the listener gets this error. */
  cancel(error: CallError = callError(Code.CANCELLED, "the call was cancelled")): void {
    this.#error ??= error;
    if (!this.#stream.closed) this.#stream.close(constants.NGHTTP2_CANCEL);
    // A paused stream does not close.
    this.#stream.resume();
  }

  /** Lets the call keep the process alive, which it does unless `unref` was called. */
  ref(): void {
    if (this.#isKeeping || this.#stream.destroyed) return;
    this.#isKeeping = true;
    this.#keeper.begin(this.#session);
  }

  unref(): void {
    if (!this.#isKeeping) return;
    this.#isKeeping = false;
    this.#keeper.end();
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  #exceed(timeout: number): void {
    this.cancel(callError(Code.DEADLINE_EXCEEDED, `${this.#method.path} took longer than ${Math.round(timeout)} ms`));
  }

  #read(chunk: Buffer): void {
    if (this.#error) return;
    try {
      this.#reader.read(chunk, (bytes) => this.#listener.message(this.#method.response.decode(bytes)));
    } catch (cause) {
      this.cancel(callError(Code.INTERNAL, `cannot read the response: ${(cause as Error).message}`, { cause }));
    }
  }

  #end(cause: Error | undefined): void {
    clearTimeout(this.#timer);
    this.unref();
    this.#listener.end(this.#error ?? this.#outcome(cause));
  }

  #outcome(cause: Error | undefined): CallError | undefined {
    if (this.#trailers?.["grpc-status"] !== undefined) return fromTrailers(this.#trailers);
    if (this.#httpStatus !== 0 && this.#httpStatus !== 200) return fromHttp(this.#httpStatus);
    return fromReset(this.#stream.rstCode, cause);
  }
}
