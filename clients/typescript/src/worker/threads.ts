// Threads that run the functions of modules, each one task at a time. They are kept for further tasks.

import { Worker as Thread } from "node:worker_threads";
import { LineshaftError } from "../errors.js";
import { Payload } from "../payload.js";
import type { ConnectOptions } from "../rpc/endpoint.js";
import { TerminatedError } from "./attempt.js";
import { uncaptured } from "./capture.js";
import type { HandlerFunction, InternalContext } from "./context.js";
import { describe, DescribedError } from "./failure.js";
import type { FromThread, Start, ThreadReport, ToThread } from "./thread-messages.js";

const MAIN = new URL("./thread-main.js", import.meta.url);

export class Threads {
  readonly #connect: ConnectOptions;
  readonly #log: (line: string) => void;
  /** Those that have not ended. */
  readonly #threads = new Set<TaskThread>();
  readonly #idle: TaskThread[] = [];
  #isEnding = false;

  constructor(connect: ConnectOptions, log: (line: string) => void) {
    this.#connect = connect;
    this.#log = log;
  }

  /** A function that runs one that a module exports. */
  handler(module: string, name: string): HandlerFunction {
    return (_, context) => this.#run(module, name, context as InternalContext);
  }

  async end(): Promise<void> {
    this.#isEnding = true;
    await Promise.all([...this.#threads].map((thread) => thread.terminate()));
  }

  async #run(module: string, name: string, context: InternalContext): Promise<unknown> {
    const { address, token, tls } = this.#connect;
    const connect = { address, tls, token: typeof token === "function" ? token() : token };
    const { taskId, namespace, handler, attempt, priority, labels, timeout, payload } = context;
    const fields = { taskId, token: context.token, namespace, handler, attempt, priority, labels, timeout };
    const copied = payload && { data: payload.data, contentType: payload.contentType };
    const start: Start = { kind: "start", module, export: name, payload: copied, context: { ...fields }, connect };
    const thread = this.#take();
    let result: End;
    try {
      result = await thread.run(start, context);
    } finally {
      if (thread.isUsable) this.#idle.push(thread);
    }
    if (result.kind === "returned")
      return result.payload && new Payload(result.payload.data, result.payload.contentType);
    throw new DescribedError(result.description);
  }

  #take(): TaskThread {
    for (let idle = this.#idle.pop(); idle; idle = this.#idle.pop()) if (idle.isUsable) return idle;
    const thread = new TaskThread((reason, wasIdle) => {
      this.#threads.delete(thread);
      if (wasIdle && !this.#isEnding) this.#log(`lineshaft: a thread has ended after its task: ${describe(reason).message}`);
    });
    this.#threads.add(thread);
    return thread;
  }
}

type End = Extract<ThreadReport, { kind: "returned" | "threw" }>;

interface RunningTask {
  token: string;
  report(report: ThreadReport): void;
  fail(reason: unknown): void;
}

class TaskThread {
  readonly #thread: Thread;
  #task: RunningTask | undefined;
  isUsable = true;

  /** `ended` is called when the thread has ended: after an error in a task or later, `process.exit`, or `terminate`. */
  constructor(ended: (reason: unknown, wasIdle: boolean) => void) {
    this.#thread = uncaptured(() => new Thread(MAIN));
    let failure: { error: unknown } | undefined;
    this.#thread.on("error", (error) => {
      failure = { error };
      this.isUsable = false;
    });
    // Comes after all messages, while an error can overtake the result of the function.
    this.#thread.on("exit", (code) => {
      const reason = failure ? failure.error : new LineshaftError(`the thread has exited with code ${code}`);
      this.isUsable = false;
      ended(reason, this.#task === undefined);
      this.#task?.fail(reason);
    });
    // What an earlier task or the module itself posts is ignored.
    this.#thread.on("message", (message: FromThread | undefined | null) => {
      if (this.#task && message?.token === this.#task.token) this.#task.report(message.report);
    });
  }

  async terminate(): Promise<void> {
    await this.#thread.terminate();
  }

  /** Resolves with the end of the function, and rejects if the thread has ended. */
  async run(start: Start, context: InternalContext): Promise<End> {
    const post = (message: ToThread) => this.#thread.postMessage(message);
    const waits = new Map<number, () => void>();
    let isForced = false;
    const abort = () => post({ kind: "abort", message: (context.signal.reason as Error).message });
    const force = () => {
      isForced = true;
      void this.terminate();
    };
    try {
      return await new Promise<End>((resolve, reject) => {
        const report = (report: ThreadReport) => {
          switch (report.kind) {
            case "output":
              return context.output(report.stream, Buffer.from(report.data));
            case "progress":
              return context.progress(report.fraction, report.note);
            case "artifact":
              return context.leave(report.artifact);
            case "suspend": {
              const { wait } = report;
              const waiting = new Promise<void>((resolve) => waits.set(wait, resolve));
              return void context.suspend(waiting).then(() => post({ kind: "resumed", wait }));
            }
            case "resume":
              waits.get(report.wait)?.();
              return void waits.delete(report.wait);
            default:
              this.#task = undefined;
              resolve(report);
          }
        };
        const fail = (reason: unknown) =>
          reject(isForced ? new TerminatedError("the thread was terminated") : reason);
        post(start);
        this.#task = { token: context.token, report, fail };
        context.signal.addEventListener("abort", abort);
        context.forced.addEventListener("abort", force);
        // The attempt can be stopped before it starts.
        if (context.signal.aborted) abort();
        if (context.forced.aborted) force();
      });
    } finally {
      this.#task = undefined;
      context.signal.removeEventListener("abort", abort);
      context.forced.removeEventListener("abort", force);
      // Waits that the function has left behind.
      for (const resume of waits.values()) resume();
    }
  }
}
