// Submissions that are made at the same time share calls.
//
// A submission leaves when the event loop turns. While two calls are in flight, further submissions wait and leave
// together, so that the size of the calls grows with the load and a single submission never waits for a timer.

import type { BatchSubmitTasksResponse, SubmitTaskRequest } from "./gen/lineshaft/v1/task_service.js";
import { CallError, callError, Code } from "./errors.js";
import { type Channel, pausing } from "./rpc/channel.js";
import { batchSubmitTasks } from "./rpc/method.js";

const CALLS_IN_FLIGHT_MAX = 2;
const BATCH_TASKS_MAX = 1_000;
const BATCH_BYTES_MAX = 1 << 20;

/** Reasons of a refusal that can concern some tasks of a group only. */
const REASONS_OF_SOME = new Set([
  "INVALID_FIELD",
  "TASK_EXISTS",
  "REQUEST_ID_REUSED",
  "UNIQUE_KEY_TAKEN",
  "MESSAGE_TOO_LARGE",
  "QUOTA_EXCEEDED",
]);

export interface Accepted {
  taskId: string;
  duplicate: boolean;
  /** At most the revision of an event of the task after its first. */
  revision: bigint;
  /** For a watch that receives every event of the task. */
  resumeToken: string;
}

interface Waiting {
  request: SubmitTaskRequest;
  /** In milliseconds since the epoch. */
  deadline: number;
  isCancelled: boolean;
  resolve(accepted: Accepted): void;
  reject(error: unknown): void;
}

export class Submitter {
  readonly #channel: Channel;
  readonly #groups = new Map<string, Group>();
  /** Batch of the tasks that are submitted without one, so that one watch sees them. */
  readonly sessionId: string;

  constructor(channel: Channel, sessionId: string) {
    this.#channel = channel;
    this.sessionId = sessionId;
  }

  submit(
    request: SubmitTaskRequest,
    batchId: string,
    headers: Record<string, string>,
    timeout: number,
    signal: AbortSignal | undefined,
  ): Promise<Accepted> {
    return new Promise((resolve, reject) => {
      const waiting = { request, deadline: Date.now() + timeout, isCancelled: false, resolve, reject };
      if (signal) {
        const abort = () => {
          waiting.isCancelled = true;
          reject(signal.reason);
        };
        if (signal.aborted) return abort();
        signal.addEventListener("abort", abort);
        const settled = () => signal.removeEventListener("abort", abort);
        waiting.resolve = (accepted) => (settled(), resolve(accepted));
        waiting.reject = (error) => (settled(), reject(error));
      }
      this.#group(request, batchId, headers).add(waiting);
    });
  }

  /** Tasks of one group are refused for the same reasons, unless one of them has an invalid field. */
  #group(request: SubmitTaskRequest, batchId: string, headers: Record<string, string>): Group {
    const { handler, pool, namespace, priority, durability } = request;
    const key = [batchId, handler, pool, namespace, priority, durability, ...Object.values(headers)].join("\n");
    let group = this.#groups.get(key);
    if (!group) {
      const ended = () => this.#groups.delete(key);
      group = new Group(this.#channel, batchId, headers, ended);
      this.#groups.set(key, group);
    }
    return group;
  }
}

class Group {
  readonly #channel: Channel;
  readonly #batchId: string;
  readonly #headers: Record<string, string>;
  readonly #ended: () => void;
  #queue: Waiting[] = [];
  #callsInFlight = 0;
  #isScheduled = false;
  /** Halved when a queue has no room for a batch, and doubled when one was accepted. */
  #tasksMax = BATCH_TASKS_MAX;

  constructor(channel: Channel, batchId: string, headers: Record<string, string>, ended: () => void) {
    this.#channel = channel;
    this.#batchId = batchId;
    this.#headers = headers;
    this.#ended = ended;
  }

  add(waiting: Waiting): void {
    this.#queue.push(waiting);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled || this.#callsInFlight >= CALLS_IN_FLIGHT_MAX) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#start();
    });
  }

  #start(): void {
    const batch = this.#take();
    if (batch.length > 0) {
      this.#callsInFlight++;
      void this.#send(batch).finally(() => {
        this.#callsInFlight--;
        this.#start();
      });
      if (this.#queue.length > 0) this.#schedule();
    } else if (this.#callsInFlight === 0 && !this.#isScheduled) {
      this.#ended();
    }
  }

  /** Removes the next tasks from the queue, as many as may leave together. */
  #take(): Waiting[] {
    const batch: Waiting[] = [];
    let taken = 0;
    let bytes = 0;
    const now = Date.now();
    for (const waiting of this.#queue) {
      bytes += size(waiting.request);
      if (batch.length >= this.#tasksMax || (batch.length > 0 && bytes > BATCH_BYTES_MAX)) break;
      taken++;
      if (waiting.isCancelled) continue;
      if (waiting.deadline <= now)
        waiting.reject(callError(Code.DEADLINE_EXCEEDED, "the task was not submitted in time"));
      else batch.push(waiting);
    }
    this.#queue = taken === this.#queue.length ? [] : this.#queue.slice(taken);
    return batch;
  }

  async #send(batch: Waiting[]): Promise<void> {
    for (let attempt = 1; batch.length > 0; attempt++) {
      const deadline = batch.reduce((least, { deadline }) => Math.min(least, deadline), Infinity);
      try {
        const response = await this.#call(batch, deadline - Date.now());
        this.#tasksMax = Math.min(BATCH_TASKS_MAX, this.#tasksMax * 2);
        accept(batch, response);
        return;
      } catch (error) {
        if (!(error instanceof CallError)) return batch.forEach((waiting) => waiting.reject(error));
        const pause = this.#channel.pauseBeforeRetry(error, attempt);
        if (pause === undefined && error.code !== Code.DEADLINE_EXCEEDED) return this.#refused(batch, error);
        batch = expire(batch, error, pause ?? 0);
        if (error.code === Code.RESOURCE_EXHAUSTED) batch = this.#shrink(batch);
        if (batch.length > 0 && pause !== undefined) await pausing(pause);
      }
    }
  }

  #call(batch: Waiting[], timeout: number): Promise<BatchSubmitTasksResponse> {
    const request = { tasks: batch.map(({ request }) => request), batchId: this.#batchId };
    return this.#channel.unary(batchSubmitTasks, request, { timeout, headers: this.#headers, retry: false });
  }

  /** A queue that has no room for all these tasks may have room for some. Returns those to try next. */
  #shrink(batch: Waiting[]): Waiting[] {
    this.#tasksMax = Math.max(1, Math.ceil(batch.length / 2));
    this.#queue = [...batch.slice(this.#tasksMax), ...this.#queue];
    return batch.slice(0, this.#tasksMax);
  }

  /** Rejects the tasks that this final error concerns, and submits the others. */
  async #refused(batch: Waiting[], error: CallError): Promise<void> {
    const [only] = batch;
    if (batch.length === 1) return only!.reject(ofTask(error, 0));
    if (!REASONS_OF_SOME.has(error.reason))
      return batch.forEach((waiting, index) => waiting.reject(ofTask(error, index)));
    const invalid = new Set(error.violations.map(({ field }) => indexOf(field)));
    if (invalid.size > 0 && !invalid.has(undefined)) {
      for (const index of invalid) batch[index!]?.reject(ofTask(error, index!));
      return this.#send(batch.filter((_, index) => !invalid.has(index)));
    }
    const middle = batch.length >> 1;
    await this.#send(batch.slice(0, middle));
    await this.#send(batch.slice(middle));
  }
}

function accept(batch: Waiting[], response: BatchSubmitTasksResponse): void {
  const { taskIds, duplicates, revision, resumeToken } = response;
  for (const [index, waiting] of batch.entries()) {
    waiting.resolve({ taskId: taskIds[index]!, duplicate: duplicates[index] ?? false, revision, resumeToken });
  }
}

/** Rejects the tasks whose deadline comes before the next attempt, and returns the others. */
function expire(batch: Waiting[], error: CallError, pause: number): Waiting[] {
  const next = Date.now() + pause;
  return batch.filter((waiting) => {
    if (waiting.isCancelled) return false;
    if (waiting.deadline > next) return true;
    waiting.reject(error);
    return false;
  });
}

/** Bytes of a request in a message, roughly. */
function size(request: SubmitTaskRequest): number {
  const kind = request.payload?.kind;
  return (
    128 + (kind?.$case === "data" ? kind.value.length : 0) + request.args.reduce((sum, arg) => sum + arg.length, 0)
  );
}

const ITEM = /^tasks\[(\d+)\]\.?/;

function indexOf(field: string): number | undefined {
  const match = ITEM.exec(field);
  return match ? Number(match[1]) : undefined;
}

/** The error of a batch as that of one of its tasks. */
function ofTask(error: CallError, index: number): CallError {
  const violations = error.violations.filter(({ field }) => (indexOf(field) ?? index) === index);
  const { code, reason, retryAfter, cause } = error;
  const metadata = { ...error.metadata };
  if (metadata.field) metadata.field = metadata.field.replace(ITEM, "");
  const named = violations.map(({ field, description }) => ({ field: field.replace(ITEM, ""), description }));
  const shown = named.map(({ field, description }) => `\`${field}\` ${description}`).join("; ");
  const message = shown || error.message.replaceAll(/tasks\[\d+\]\./g, "");
  return callError(code, message, { reason, metadata, violations: named, retryAfter, cause });
}
