// One attempt: runs the function, and tells the function how to report and when to stop.

import { format } from "node:util";
import { upload } from "../artifact.js";
import { channelOf, type Client, type SubmitOptions } from "../client.js";
import { milliseconds, priorityName } from "../convert.js";
import { LineshaftError } from "../errors.js";
import { type Artifact, FailureReason, OutputStream, type Payload as WirePayload, StopMethod } from "../gen/lineshaft/v1/task.js";
import { type AttemptAssigned, type AttemptFinished, StopReason } from "../gen/lineshaft/v1/worker_service.js";
import { parents } from "../parents.js";
import { decode, Payload } from "../payload.js";
import { withTrace } from "../trace.js";
import { captured } from "./capture.js";
import { type HandlerFunction, type InternalContext, progressOf } from "./context.js";
import { describe, type Description, field, isA } from "./failure.js";
import type { Outbox } from "./outbox.js";
import { encodeResult } from "./result.js";
import { Slot } from "./slot.js";

/** Most attempts are not aborted and do not look at their signal, whose creation takes as long as all the rest. */
class LazySignal {
  #controller: AbortController | undefined;
  isAborted = false;
  #reason: unknown;

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.isAborted) this.#controller.abort(this.#reason);
    return this.#controller.signal;
  }

  abort(reason?: unknown): void {
    if (this.isAborted) return;
    this.isAborted = true;
    this.#reason = reason;
    this.#controller?.abort(reason);
  }
}

/** A function was stopped by force. */
export class TerminatedError extends Error {}

export type Outcome = NonNullable<AttemptFinished["outcome"]>;

const STOP_TEXTS: Partial<Record<StopReason, string>> = {
  [StopReason.TIMEOUT]: "the attempt has run for longer than its timeout",
  [StopReason.STALE]: "the attempt is not this worker's any more",
};

export class Attempt {
  readonly token: string;
  readonly slot: Slot;
  /** Those that it has left so far, by name. */
  readonly artifacts = new Map<string, Artifact>();
  readonly #assigned: AttemptAssigned;
  readonly #outbox: Outbox;
  readonly #client: () => Client;
  readonly #abort = new LazySignal();
  readonly #force = new LazySignal();
  #grace: NodeJS.Timeout | undefined;

  constructor(assigned: AttemptAssigned, outbox: Outbox, client: () => Client) {
    this.token = assigned.token;
    this.slot = new Slot(assigned.token, outbox);
    this.#assigned = assigned;
    this.#outbox = outbox;
    this.#client = client;
  }

  /** Asks the function to stop. `grace`: time after which it is stopped by force, if that is possible, in milliseconds. */
  stop(reason: StopReason, grace: number): void {
    this.#abort.abort(new DOMException(STOP_TEXTS[reason] ?? "the task was cancelled", "AbortError"));
    this.slot.stop();
    clearTimeout(this.#grace);
    this.#grace = setTimeout(() => this.#force.abort(), grace);
  }

  /** Runs the function to its end and returns how it ended. Never fails. */
  async run(call: HandlerFunction, isCapturing: boolean, resultBytesMax: number): Promise<Outcome> {
    let payload: unknown;
    try {
      payload = isEmpty(this.#assigned.payload) ? undefined : decode(this.#assigned.payload);
    } catch (error) {
      return failed(FailureReason.INVALID_PAYLOAD, { ...describe(error), isPermanent: true });
    }
    const sink = (stream: OutputStream, data: Buffer) => this.#outbox.output(this.token, stream, data);
    const begin = () => withTrace(this.#assigned, () => call(payload, this.#context()));
    try {
      return completed(await (isCapturing ? captured(sink, begin) : begin()), resultBytesMax);
    } catch (error) {
      if (isA(error, TerminatedError)) return { $case: "stopped", value: { method: StopMethod.ABORT } };
      if (this.#abort.isAborted) return { $case: "stopped", value: { method: StopMethod.TOKEN } };
      return failed(reasonOf(error), describe(error));
    } finally {
      this.slot.stop();
      clearTimeout(this.#grace);
    }
  }

  #context(): InternalContext {
    const { taskId, namespace, handler, attempt, priority, labels, payload, timeout } = this.#assigned;
    const [client, abort, force] = [this.#client, this.#abort, this.#force];
    const kind = payload?.kind;
    const leave = (artifact: Artifact) => void this.artifacts.set(artifact.name, artifact);
    return {
      token: this.token,
      taskId,
      namespace,
      handler,
      attempt,
      labels,
      priority: priorityName(priority),
      payload: kind?.$case === "data" ? new Payload(kind.value, payload!.contentType) : undefined,
      timeout: milliseconds(timeout),
      get signal() {
        return abort.signal;
      },
      get forced() {
        return force.signal;
      },
      get client() {
        return client();
      },
      progress: (...values) => {
        const { fraction, note } = progressOf(...values);
        this.#outbox.progress(this.token, fraction, note);
      },
      output: (stream, data) => this.#outbox.output(this.token, stream, data),
      log: (...values) => this.#outbox.output(this.token, OutputStream.STDERR, Buffer.from(`${format(...values)}\n`)),
      leave,
      artifact: async (name, content, contentType) => {
        const target = { taskId, token: this.token, name, contentType };
        leave(await upload(channelOf(client()), target, content, abort.signal));
      },
      parents: () => parents(channelOf(client()), taskId, this.token, abort.signal),
      suspend: (waiting) => this.slot.during(waiting),
      run: <Result>(handler: string, payload?: unknown, options?: SubmitOptions) =>
        this.slot.during(client().run<Result>(handler, payload, { signal: this.#abort.signal, namespace, ...options })),
    };
  }
}

/** The server does not distinguish a task without payload from one with no bytes. */
function isEmpty(payload: WirePayload | undefined): boolean {
  return payload?.kind?.$case === "data" && payload.kind.value.length === 0;
}

export function finished(token: string, outcome: Outcome, left: Artifact[]): AttemptFinished {
  const artifacts = outcome.$case === "result" ? left : [];
  return { token, outcome, cpuTime: undefined, peakMemoryBytes: undefined, resultBytes: 0n, artifacts };
}

function completed(value: unknown, bytesMax: number): Outcome {
  const result = encodeResult(value) ?? { kind: { $case: "data", value: Buffer.alloc(0) }, contentType: "application/json" };
  const bytes = result.kind?.$case === "data" ? result.kind.value.length : 0;
  if (bytes <= bytesMax) return { $case: "result", value: result };
  const error = new LineshaftError(`result has ${bytes} bytes, at most ${bytesMax} are allowed`);
  return failed(FailureReason.RESULT_TOO_LARGE, { ...describe(error), isPermanent: true });
}

function reasonOf(error: unknown): FailureReason {
  const isOutOfMemory = field(error, "code") === "ERR_WORKER_OUT_OF_MEMORY";
  return isOutOfMemory ? FailureReason.OUT_OF_MEMORY : FailureReason.HANDLER_ERROR;
}

function failed(reason: FailureReason, { message, detail, isPermanent }: Description): Outcome {
  const value = { reason, message, detail, attempt: 0, exitCode: undefined, signal: undefined, retryable: !isPermanent };
  return { $case: "failure", value };
}
