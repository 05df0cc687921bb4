// Threads that run the functions of modules, each one task at a time. They are kept for further tasks.

import { Worker as Thread } from "node:worker_threads";
import { LineshaftError } from "../errors.js";
import { Payload } from "../payload.js";
import type { ConnectOptions } from "../rpc/endpoint.js";
import { TerminatedError } from "./attempt.js";
import { uncaptured } from "./capture.js";
import type { HandlerFunction, InternalContext } from "./context.js";
import { DescribedError } from "./failure.js";
import type { FromThread, Start, ToThread } from "./thread-messages.js";

const MAIN = new URL("./thread-main.js", import.meta.url);

export class Threads {
  readonly #connect: ConnectOptions;
  readonly #idle: Thread[] = [];

  constructor(connect: ConnectOptions) {
    this.#connect = connect;
  }

  /** A function that runs one that a module exports. */
  handler(module: string, name: string): HandlerFunction {
    return (_, context) => this.#run(module, name, context as InternalContext);
  }

  async end(): Promise<void> {
    await Promise.all(this.#idle.splice(0).map((thread) => thread.terminate()));
  }

  async #run(module: string, name: string, context: InternalContext): Promise<unknown> {
    const { address, token, tls } = this.#connect;
    const connect = { address, tls, token: typeof token === "function" ? token() : token };
    const { taskId, namespace, handler, attempt, priority, labels, timeout, payload } = context;
    const fields = { taskId, token: context.token, namespace, handler, attempt, priority, labels, timeout };
    const copied = payload && { data: payload.data, contentType: payload.contentType };
    const thread = this.#idle.pop() ?? uncaptured(() => new Thread(MAIN));
    const start: Start = { kind: "start", module, export: name, payload: copied, context: { ...fields }, connect };
    const result = await conversation(thread, start, context);
    this.#idle.push(thread);
    if (result.kind === "returned")
      return result.payload && new Payload(result.payload.data, result.payload.contentType);
    throw new DescribedError(result.description);
  }
}

type End = Extract<FromThread, { kind: "returned" | "threw" }>;

/** Resolves with the end of the function, and rejects if the thread has ended. */
function conversation(thread: Thread, start: Start, context: InternalContext): Promise<End> {
  const post = (message: ToThread) => thread.postMessage(message);
  const waits = new Map<number, () => void>();
  return new Promise<End>((resolve, reject) => {
    const message = (message: FromThread) => {
      switch (message.kind) {
        case "output":
          return context.output(message.stream, Buffer.from(message.data));
        case "progress":
          return context.progress(message.fraction, message.note);
        case "artifact":
          return context.leave(message.artifact);
        case "suspend": {
          const { wait } = message;
          const waiting = new Promise<void>((resolve) => waits.set(wait, resolve));
          return void context.suspend(waiting).then(() => post({ kind: "resumed", wait }));
        }
        case "resume":
          waits.get(message.wait)?.();
          return void waits.delete(message.wait);
        default:
          settle();
          resolve(message);
      }
    };
    const abort = () => post({ kind: "abort", message: (context.signal.reason as Error).message });
    const force = () => {
      settle();
      void thread.terminate().then(() => reject(new TerminatedError("the thread was terminated")));
    };
    const error = (error: Error) => {
      settle();
      reject(error);
    };
    const exit = (code: number) => {
      settle();
      reject(new LineshaftError(`the thread has exited with code ${code}`));
    };
    const settle = () => {
      thread.off("message", message).off("error", error).off("exit", exit);
      context.signal.removeEventListener("abort", abort);
      context.forced.removeEventListener("abort", force);
      // Waits that the function has left behind.
      for (const resume of waits.values()) resume();
    };
    thread.on("message", message).on("error", error).on("exit", exit);
    context.signal.addEventListener("abort", abort);
    context.forced.addEventListener("abort", force);
    post(start);
  });
}
