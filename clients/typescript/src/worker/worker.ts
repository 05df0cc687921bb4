// A worker: runs the tasks of its handlers in this program.

import { hostname } from "node:os";
import { callable, fields, flag, labels, positive, text } from "../check.js";
import { Client } from "../client.js";
import { milliseconds } from "../convert.js";
import { CallError, callError, Code, LineshaftError } from "../errors.js";
import {
  type AttemptAssigned,
  type AttemptCancel,
  type AttemptChunk,
  type AttemptFinished,
  type ServerMessage,
  StopReason,
  type WorkerWelcome,
} from "../gen/lineshaft/v1/worker_service.js";
import { type Artifact, StopMethod } from "../gen/lineshaft/v1/task.js";
import { Backoff } from "../rpc/backoff.js";
import { Channel } from "../rpc/channel.js";
import { CONNECT_OPTIONS, type ConnectOptions, endpoint } from "../rpc/endpoint.js";
import { VERSION } from "../version.js";
import { Attempt, finished, type Outcome } from "./attempt.js";
import { capture } from "./capture.js";
import type { HandlerFunction } from "./context.js";
import { INLINE_BYTES_MAX, Outbox, type Report } from "./outbox.js";
import { stopOnSignals } from "./signals.js";
import { runStream } from "./stream.js";
import { Threads } from "./threads.js";

const CONCURRENCY_DEFAULT = 10;
/** Of a result, for a server that receives no chunks. */
const WHOLE_RESULT_BYTES_MAX = 15 << 20;
/** Time for the server to end a stream that the worker has ended. */
const END_TIMEOUT_MS = 5_000;

export interface WorkerOptions extends ConnectOptions {
  /** Number of tasks that run at a time, 1 to 10,000. Default: 10. */
  concurrency?: number;
  /** Pool in which the worker works. Default: the first pool of kind `remote`. */
  pool?: string;
  /** Unique for each running program. Default: made of the name of the host and the process ID. */
  workerId?: string;
  /** Shown with the worker; at most 16. */
  labels?: Record<string, string>;
  /** Whether what a task writes to the console is also kept as output of the task. Default: true. */
  captureConsole?: boolean;
  /** Gets a line about each connection and problem. Default: `console.error`. */
  log?: (line: string) => void;
}

export interface HandlerOptions {
  /** Shown in the list of handlers. */
  description?: string;
}

export interface ThreadHandlerOptions extends HandlerOptions {
  /** Name of the exported function. Default: `default`. */
  export?: string;
}

export interface RunOptions {
  /** Whether SIGTERM and SIGINT stop the worker. Default: true. */
  signals?: boolean;
}

export interface StopOptions {
  /** Stop the tasks that run, instead of waiting for them; they start again elsewhere. */
  force?: boolean;
}

const checkWorker = fields<WorkerOptions>({
  ...CONNECT_OPTIONS,
  concurrency: positive,
  pool: text,
  workerId: text,
  labels,
  captureConsole: flag,
  log: callable,
});
const checkHandler = fields<HandlerOptions>({ description: text });
const checkThreadHandler = fields<ThreadHandlerOptions>({ description: text, export: text });
const checkRun = fields<RunOptions>({ signals: flag });
const checkStop = fields<StopOptions>({ force: flag });

interface Incoming {
  assigned: AttemptAssigned;
  parts: Buffer[];
  bytes: number;
}

interface Handler {
  call: HandlerFunction;
  description: string;
}

export class Worker {
  readonly id: string;
  readonly #options: WorkerOptions;
  readonly #handlers = new Map<string, Handler>();
  readonly #outbox = new Outbox();
  readonly #running = new Map<string, Attempt>();
  /** Ends that the server has not acknowledged. */
  readonly #unsettled = new Map<string, AttemptFinished>();
  /** Attempts whose payload has not arrived completely on this stream. */
  readonly #incoming = new Map<string, Incoming>();
  /** Of a result that the server receives in chunks; 0: it receives none. */
  #chunkedResultBytesMax = 0;
  readonly #closing = new AbortController();
  readonly #log: (line: string) => void;
  readonly #threads: Threads;
  #client: Client | undefined;
  #hasStarted = false;
  #isDraining = false;
  #isWelcome = false;
  #problem = "";

  /**
   * @throws TypeError if an option is unknown or of another type
   * @throws LineshaftError if the options contradict each other
   */
  constructor(options: string | WorkerOptions = {}) {
    this.#options = typeof options === "string" ? { address: options } : options;
    checkWorker(this.#options, "");
    endpoint(this.#options);
    this.id = this.#options.workerId ?? defaultId();
    this.#log = this.#options.log ?? ((line) => console.error(line));
    this.#threads = new Threads(this.#options, this.#log);
  }

  /**
   * Registers a function for the tasks of a handler.
   *
   * @throws TypeError if an option is unknown or of another type
   * @throws LineshaftError if the handler has a function, or the worker has started
   */
  handle(name: string, call: HandlerFunction, options: HandlerOptions = {}): this {
    text(name, "the name of the handler");
    callable(call, `the function of handler ${name}`);
    checkHandler(options, "");
    const { description = "" } = options;
    if (this.#hasStarted) throw new LineshaftError(`handler ${name}: the worker has started`);
    if (this.#handlers.has(name)) throw new LineshaftError(`handler ${name} has a function already`);
    this.#handlers.set(name, { call, description });
    return this;
  }

  /**
   * Registers the function that a module exports. It runs in a thread of its own, so that it may use the CPU for long, and
   * is really stopped when its task is cancelled or its timeout has passed.
   *
   * @param module such as `new URL("./resize.js", import.meta.url)`
   */
  handleInThread(name: string, module: URL | string, options: ThreadHandlerOptions = {}): this {
    if (typeof module !== "object") text(module, `the module of handler ${name}`);
    checkThreadHandler(options, "");
    const { export: exported = "default", description } = options;
    return this.handle(name, this.#threads.handler(String(module), exported), { description });
  }

  /**
   * Connects and runs tasks until the worker is stopped, by `stop`, SIGTERM or SIGINT. After a broken connection it connects
   * again, without a limit.
   *
   * @throws CallError if the server refuses the worker
   */
  async run(options: RunOptions = {}): Promise<void> {
    checkRun(options, "");
    const { signals = true } = options;
    if (this.#hasStarted) throw new LineshaftError("a worker runs once: create another one");
    if (this.#handlers.size === 0) throw new LineshaftError("the worker has no handler: call handle() before run()");
    this.#hasStarted = true;
    const channel = new Channel(endpoint(this.#options));
    const isCapturing = this.#options.captureConsole ?? true;
    const endCapture = isCapturing ? capture() : undefined;
    const endSignals = signals ? stopOnSignals(this, this.#log) : undefined;
    try {
      await this.#connectUntilStopped(channel);
    } finally {
      this.#abandon();
      await this.#threads.end();
      endSignals?.();
      endCapture?.();
      this.#client?.close();
      channel.close();
    }
  }

  /** Accepts no more tasks; `run` returns when those that run have ended. */
  stop(options: StopOptions = {}): void {
    checkStop(options, "");
    const { force = false } = options;
    if (force) {
      this.#closing.abort();
    } else if (!this.#isDraining) {
      this.#isDraining = true;
      this.#outbox.push({ $case: "draining", value: {} });
      this.#endIfDrained();
    }
  }

  async #connectUntilStopped(channel: Channel): Promise<void> {
    const backoff = new Backoff();
    while (!this.#closing.signal.aborted) {
      let error: unknown;
      try {
        const hello = this.#hello();
        const listener = {
          welcome: (welcome: WorkerWelcome) => (backoff.succeeded(), this.#welcome(welcome)),
          message: this.#message,
        };
        error = await runStream(channel, hello, this.#outbox, listener, this.#closing.signal);
      } catch (caught) {
        error = caught;
      }
      if (this.#closing.signal.aborted || this.#isDone()) return;
      if (error instanceof CallError && isFinal(error, this.#isWelcome)) throw error;
      if (error !== undefined && !(error instanceof CallError)) throw error;
      this.#report((error as CallError | undefined)?.message ?? "the server closed the stream");
      backoff.failed();
      await backoff.pause(this.#closing.signal).catch(() => {});
    }
  }

  /** Logs why the worker is not connected, once for each reason in a row. */
  #report(problem: string): void {
    if (problem !== this.#problem) this.#log(`lineshaft: not connected, trying again: ${problem}`);
    this.#problem = problem;
  }

  #hello() {
    const { pool = "", concurrency = CONCURRENCY_DEFAULT, labels = {} } = this.#options;
    return {
      workerId: this.id,
      pool,
      handlers: [...this.#handlers].map(([name, { description }]) => ({ name, description })),
      slots: concurrency,
      labels,
      version: `lineshaft-typescript/${VERSION}`,
      unfinished: [...this.#running.keys(), ...this.#unsettled.keys()],
      chunks: true,
    };
  }

  #welcome({ pool, stale, maxResultBytes }: WorkerWelcome): Report[] {
    this.#isWelcome = true;
    this.#incoming.clear();
    this.#chunkedResultBytesMax = Number(maxResultBytes);
    this.#problem = "";
    this.#log(`lineshaft: worker ${this.id} runs ${[...this.#handlers.keys()].join(", ")} in pool ${pool}`);
    for (const token of stale) {
      this.#unsettled.delete(token);
      this.#forget(token);
    }
    this.#outbox.drop(new Set(stale));
    const reports: Report[] = [];
    if (this.#isDraining) reports.push({ $case: "draining", value: {} });
    for (const attempt of this.#running.values()) reports.push(...attempt.slot.reports());
    for (const value of this.#unsettled.values()) reports.push({ $case: "finished", value: this.#announced(value) });
    setImmediate(() => this.#endIfDrained());
    return reports;
  }

  readonly #message = (message: NonNullable<ServerMessage["kind"]>): void => {
    switch (message.$case) {
      case "assigned":
        return this.#assigned(message.value);
      case "cancel":
        return this.#cancel(message.value);
      case "settled":
        for (const token of message.value.tokens) this.#unsettled.delete(token);
        return this.#endIfDrained();
      case "resumed":
        return this.#running.get(message.value.token)?.slot.resume();
      case "draining":
        return this.#log("lineshaft: the server is about to stop");
      case "chunk":
        return this.#chunk(message.value);
      case "resultRequested": {
        const data = resultData(this.#unsettled.get(message.value.token));
        return data && this.#outbox.transfer(message.value.token, data);
      }
      case "heartbeat":
    }
  };

  /** The next bytes of a payload. Those for an attempt that was cancelled are ignored. */
  #chunk({ token, offset, data }: AttemptChunk): void {
    const incoming = this.#incoming.get(token);
    if (!incoming) return;
    const end = incoming.bytes + data.length;
    if (Number(offset) !== incoming.bytes || end > Number(incoming.assigned.payloadBytes)) {
      const text = `the server sent bytes ${offset} to ${end} of a payload after ${incoming.bytes} bytes`;
      return this.#outbox.fail(callError(Code.INTERNAL, text));
    }
    incoming.parts.push(data);
    incoming.bytes = end;
    if (end < Number(incoming.assigned.payloadBytes)) return;
    this.#incoming.delete(token);
    const { assigned, parts } = incoming;
    const contentType = assigned.payload?.contentType ?? "";
    const payload = { kind: { $case: "data" as const, value: Buffer.concat(parts) }, contentType };
    this.#assigned({ ...assigned, payload, payloadBytes: 0n });
  }

  #assigned(assigned: AttemptAssigned): void {
    const { token } = assigned;
    if (this.#isDraining) return this.#finish(token, { $case: "notStarted", value: {} });
    if (assigned.payloadBytes > 0n) return void this.#incoming.set(token, { assigned, parts: [], bytes: 0 });
    this.#outbox.push({ $case: "accepted", value: { token } });
    const attempt = new Attempt(assigned, this.#outbox, () => (this.#client ??= this.#connect()));
    this.#running.set(token, attempt);
    // A function can block the event loop from its first line on, so `accepted` is sent before: it is given to the
    // connection in the next turn, and is written in the one after it.
    setImmediate(() => setImmediate(() => void this.#start(attempt, assigned.handler)));
  }

  async #start(attempt: Attempt, handler: string): Promise<void> {
    const { token } = attempt;
    // The end of an attempt that is not the worker's any more is of no interest.
    const isOurs = () => this.#running.get(token) === attempt;
    if (!isOurs()) return;
    const { call } = this.#handlers.get(handler) ?? { call: unknownHandler(handler) };
    const bytesMax = this.#chunkedResultBytesMax || WHOLE_RESULT_BYTES_MAX;
    const outcome = await attempt.run(call, this.#options.captureConsole ?? true, bytesMax);
    if (!isOurs()) return;
    this.#running.delete(token);
    this.#finish(token, outcome, [...attempt.artifacts.values()]);
  }

  #connect(): Client {
    const { address, token, tls } = this.#options;
    return new Client({ address, token, tls });
  }

  #finish(token: string, outcome: Outcome, artifacts: Artifact[] = []): void {
    const report = finished(token, outcome, artifacts);
    this.#unsettled.set(token, report);
    this.#outbox.push({ $case: "finished", value: this.#announced(report) });
  }

  /** The report of an end. The bytes of a large result follow when the server requests them. */
  #announced(report: AttemptFinished): AttemptFinished {
    const data = resultData(report);
    if (!data || data.length <= INLINE_BYTES_MAX || !this.#chunkedResultBytesMax) return report;
    if (report.outcome?.$case !== "result") return report;
    const { contentType } = report.outcome.value;
    const outcome = { $case: "result" as const, value: { kind: undefined, contentType } };
    return { ...report, outcome, resultBytes: BigInt(data.length) };
  }

  #cancel({ token, reason, grace }: AttemptCancel): void {
    if (reason === StopReason.STALE) return this.#forget(token);
    this.#outbox.push({ $case: "cancelAcknowledged", value: { token } });
    if (this.#incoming.delete(token))
      return this.#finish(token, { $case: "stopped", value: { method: StopMethod.NEVER_STARTED } });
    this.#running.get(token)?.stop(reason, milliseconds(grace) ?? 0);
  }

  /** The attempt is not the worker's any more. */
  #forget(token: string): void {
    this.#running.get(token)?.stop(StopReason.STALE, 0);
    this.#running.delete(token);
    this.#unsettled.delete(token);
    this.#incoming.delete(token);
  }

  #abandon(): void {
    for (const token of [...this.#running.keys()]) this.#forget(token);
  }

  #isDone(): boolean {
    return this.#isDraining && this.#running.size === 0 && this.#unsettled.size === 0;
  }

  #endIfDrained(): void {
    if (!this.#isDone()) return;
    if (!this.#outbox.isOpen) return this.#closing.abort();
    this.#outbox.finish();
    setTimeout(() => this.#closing.abort(), END_TIMEOUT_MS).unref();
  }
}

/** The bytes of a result. */
function resultData(report: AttemptFinished | undefined): Buffer | undefined {
  if (report?.outcome?.$case !== "result") return undefined;
  const { kind } = report.outcome.value;
  return kind?.$case === "data" ? kind.value : undefined;
}

function unknownHandler(name: string): HandlerFunction {
  return () => {
    throw new LineshaftError(`this worker has no function for handler ${name}`);
  };
}

/** Whether a new connection would be refused for the same reason. */
function isFinal(error: CallError, wasWelcome: boolean): boolean {
  if (error.reason === "WORKER_REPLACED") return true;
  switch (error.code) {
    case Code.INVALID_ARGUMENT:
    case Code.NOT_FOUND:
    case Code.FAILED_PRECONDITION:
    case Code.UNIMPLEMENTED:
      return true;
    // A token can be replaced while the worker runs.
    case Code.UNAUTHENTICATED:
    case Code.PERMISSION_DENIED:
      return !wasWelcome;
    default:
      return false;
  }
}

function defaultId(): string {
  const random = Math.random().toString(36).slice(2, 6);
  return `${hostname()
    .replaceAll(/[^A-Za-z0-9._:-]/g, "-")
    .slice(0, 48)}-${process.pid}-${random}`;
}
