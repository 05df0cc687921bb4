// A connection to the server that is opened when it is needed, and opened again after it broke.

import { type ClientHttp2Session, connect } from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { type CallError, callError, Code, UnavailableError } from "../errors.js";
import { Backoff } from "./backoff.js";
import type { Endpoint } from "./endpoint.js";

const CONNECT_TIMEOUT_MS = 5_000;
/** While calls are active, a connection that answers no ping for this time is closed. */
const PING_INTERVAL_MS = 10_000;
const PING_TIMEOUT_MS = 20_000;
const STREAM_WINDOW_BYTES = 4 << 20;
const CONNECTION_WINDOW_BYTES = 16 << 20;

export class Connection {
  readonly #endpoint: Endpoint;
  readonly #backoff = new Backoff();
  #session: ClientHttp2Session | undefined;
  #connecting: Promise<ClientHttp2Session> | undefined;
  #next = 0;
  #token: string | undefined;
  #active = 0;
  #isClosed = false;
  /** False until a server has been reached. */
  wasConnected = false;

  constructor(endpoint: Endpoint) {
    this.#endpoint = endpoint;
  }

  /** The token to send, if the server requires one. */
  get token(): string | undefined {
    return this.#token;
  }

  /**
   * The open session, or a promise of one.
   *
   * @throws UnavailableError if no server can be reached
   */
  session(): ClientHttp2Session | Promise<ClientHttp2Session> {
    if (this.#isClosed) throw callError(Code.CANCELLED, "the client is closed");
    if (this.#session && !this.#session.closed && !this.#session.destroyed) return this.#session;
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  /** While a call is active, the connection keeps the process alive. */
  begin(session: ClientHttp2Session): void {
    if (this.#active++ === 0) session.ref();
  }

  end(): void {
    if (--this.#active === 0 && this.#session && !this.#session.destroyed) this.#session.unref();
  }

  close(): void {
    this.#isClosed = true;
    this.#session?.destroy();
  }

  async #connect(): Promise<ClientHttp2Session> {
    if (this.wasConnected) await this.#backoff.pause();
    const { urls } = this.#endpoint;
    const url = urls[this.#next++ % urls.length]!;
    try {
      this.#token = this.#endpoint.token();
      const session = await open(url, this.#endpoint);
      if (this.#isClosed) {
        session.destroy();
        throw callError(Code.CANCELLED, "the client is closed");
      }
      this.#use(session);
      return session;
    } catch (error) {
      this.#backoff.failed();
      throw error;
    }
  }

  #use(session: ClientHttp2Session): void {
    this.wasConnected = true;
    this.#session = session;
    this.#next--; // Come back to this address while it works.
    const openedAt = Date.now();
    const stopPings = this.#ping(session);
    session.on("close", () => {
      stopPings();
      // Another session has taken its place, if the server asked for a new connection.
      if (this.#session !== session) return;
      this.#session = undefined;
      // A server that accepts connections and closes them at once is not called again at once.
      if (Date.now() - openedAt < CONNECT_TIMEOUT_MS) this.#backoff.failed();
      else this.#backoff.succeeded();
      this.#next++;
    });
    if (this.#active === 0) session.unref();
  }

  #ping(session: ClientHttp2Session): () => void {
    let answeredAt = Date.now();
    const timer = setInterval(() => {
      if (this.#active === 0 || session.destroyed) {
        answeredAt = Date.now();
        return;
      }
      session.ping((error) => {
        if (!error) answeredAt = Date.now();
      });
      if (Date.now() - answeredAt < PING_TIMEOUT_MS + PING_INTERVAL_MS) return;
      // If the event loop was blocked, answers that have arrived are read first.
      setImmediate(() => {
        if (Date.now() - answeredAt >= PING_TIMEOUT_MS + PING_INTERVAL_MS && !session.destroyed) {
          session.destroy(new Error(`the server has not answered a ping for ${PING_TIMEOUT_MS / 1000} s`));
        }
      });
    }, PING_INTERVAL_MS).unref();
    return () => clearInterval(timer);
  }
}

async function open(url: string, { tls }: Endpoint): Promise<ClientHttp2Session> {
  const session = connect(url, { ...tls, settings: { enablePush: false, initialWindowSize: STREAM_WINDOW_BYTES } });
  const stop = new AbortController();
  try {
    await Promise.race([opened(session), expire(url, stop.signal)]);
  } catch (error) {
    session.destroy();
    throw error instanceof UnavailableError ? error : refused(url, error as Error);
  } finally {
    stop.abort();
  }
  session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
  return session;
}

/** The server's settings prove that it speaks HTTP/2. */
function opened(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve, reject) => {
    session.once("remoteSettings", () => resolve());
    // Errors after the opening are reported by the streams.
    session.on("error", reject);
    session.once("close", () => reject(new Error("the server closed the connection at once")));
  });
}

async function expire(url: string, signal: AbortSignal): Promise<never> {
  await sleep(CONNECT_TIMEOUT_MS, undefined, { signal }).catch(() => {});
  throw callError(Code.UNAVAILABLE, `no answer from ${url} within ${CONNECT_TIMEOUT_MS / 1000} s`);
}

function refused(url: string, cause: Error): CallError {
  const { code } = cause as NodeJS.ErrnoException;
  const text = cause.message || code || "unknown error";
  const hint = code === "ECONNREFUSED" ? "; start a server with `lineshaft serve`, or set the address" : "";
  return callError(Code.UNAVAILABLE, `cannot connect to ${url}: ${text}${hint}`, { cause });
}
