// Waits for the ends of tasks with few calls.
//
// A few waits are one WaitTask each, which is quickest. Beyond that, tasks of one batch share a watch, and their results
// are read together: while one read is in flight, further finished tasks gather for the next.

import { TaskFilter, TaskState, type Task } from "./gen/lineshaft/v1/task.js";
import { duration, isFinalOnWire } from "./convert.js";
import { CallError, callError, Code } from "./errors.js";
import type { Channel } from "./rpc/channel.js";
import { getTask, listTasks, waitTask } from "./rpc/method.js";
import { Watch } from "./watch.js";

const DIRECT_WAITS_MAX = 4;
const WAIT_MS = 60_000;
/** Longer than the server waits, so that it is the server that ends the call. */
const WAIT_CALL_MS = WAIT_MS + 30_000;
const LIST_TASKS_MAX = 1_000;
/** A second list is not begun for fewer tasks. */
const SECOND_LIST_TASKS_MIN = 200;
const LISTS_IN_FLIGHT_MAX = 2;
/**
 * A list waits until the server's index is up to date, which can take seconds while tasks end quickly, and the server keeps
 * only a number of finished tasks. So results are read one by one, which needs no index, while a list takes longer than this.
 */
const SLOW_LIST_MS = 200;
const GETS_IN_FLIGHT_MAX = 32;
/** Ends of tasks that are remembered in case that somebody waits for them later. */
const REMEMBERED_MAX = 20_000;
/** Watches of the session and of other batches stay open for this time without waits. */
const SESSION_IDLE_MS = 30_000;
const BATCH_IDLE_MS = 1_000;
const PROGRESS_MS = 30_000;

/** A task as its submission returned it. */
export interface Submitted {
  id: string;
  /** `undefined`: the task may be of any batch. */
  batch?: { id: string; revision: bigint; resumeToken: string };
}

/** A wait for the end of a task; `cancel` ends the wait, not the task. */
export interface Wait {
  finished: Promise<Task>;
  cancel(): void;
}

export class Results {
  readonly #channel: Channel;
  readonly #sessionId: string;
  readonly #collectors = new Map<string, Collector>();
  #waits = 0;

  constructor(channel: Channel, sessionId: string) {
    this.#channel = channel;
    this.#sessionId = sessionId;
  }

  wait(task: Submitted): Wait {
    const isDirect = task.batch === undefined || this.#waits < DIRECT_WAITS_MAX;
    this.#waits++;
    const ended = () => void this.#waits--;
    if (isDirect) return waitDirectly(this.#channel, task.id, ended);
    return this.#collector(task.batch!.id).wait(task.id, task.batch!, ended);
  }

  /** No further waits for tasks of this batch will begin. */
  release(batchId: string): void {
    this.#collectors.get(batchId)?.release();
  }

  close(): void {
    for (const collector of this.#collectors.values()) collector.close();
  }

  #collector(batchId: string): Collector {
    let collector = this.#collectors.get(batchId);
    if (!collector) {
      const idle = batchId === this.#sessionId ? SESSION_IDLE_MS : BATCH_IDLE_MS;
      collector = new Collector(this.#channel, batchId, idle, () => this.#collectors.delete(batchId));
      this.#collectors.set(batchId, collector);
    }
    return collector;
  }
}

function waitDirectly(channel: Channel, taskId: string, ended: () => void): Wait {
  const stop = new AbortController();
  const request = { taskId, timeout: duration(WAIT_MS) };
  const wait = async () => {
    for (;;) {
      const { task, finished } = await patiently(channel, () =>
        channel.unary(waitTask, request, { timeout: WAIT_CALL_MS, signal: stop.signal }),
      );
      if (finished && task) return task;
    }
  };
  return { finished: wait().finally(ended), cancel: () => stop.abort() };
}

/** Repeats a call for as long as the server is away. */
async function patiently<T>(channel: Channel, call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const isTemporary = error instanceof CallError && [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED].includes(error.code);
      if (!isTemporary || !channel.wasConnected) throw error;
    }
  }
}

interface Waiting {
  ended(): void;
  resolve(task: Task): void;
  reject(error: unknown): void;
}

/** Waits for tasks of one batch. */
class Collector {
  readonly #channel: Channel;
  readonly #batchId: string;
  /** Time for which the watch stays open without waits, in milliseconds. */
  #idleTime: number;
  readonly #closed: () => void;
  readonly #waiting = new Map<string, Waiting>();
  /** Finished tasks that nobody has waited for yet, the oldest first, with the revision of their end. */
  readonly #ended = new Map<string, bigint>();
  /** Ends up to this revision may have been forgotten. */
  #forgotten = -1n;
  #watch: Watch | undefined;
  /** The watch reports every end of the tasks that were submitted at this revision or later. */
  #since = 0n;
  /** Tasks to read: finished ones, and some that may be. */
  #ready: string[] = [];
  #isScheduled = false;
  // Reads in flight.
  #lists = 0;
  #slowLists = 0;
  #gets = 0;
  #idle: NodeJS.Timeout | undefined;

  constructor(channel: Channel, batchId: string, idleTime: number, closed: () => void) {
    this.#channel = channel;
    this.#batchId = batchId;
    this.#idleTime = idleTime;
    this.#closed = closed;
  }

  wait(id: string, { revision, resumeToken }: { revision: bigint; resumeToken: string }, ended: () => void): Wait {
    const finished = new Promise<Task>((resolve, reject) => this.#waiting.set(id, { ended, resolve, reject }));
    clearTimeout(this.#idle);
    if (this.#watch) this.#watch.setRef(true);
    else this.#open(revision, resumeToken);
    const hasEnded = this.#ended.delete(id);
    if (hasEnded || revision < this.#since || revision <= this.#forgotten) this.#read(id);
    return { finished, cancel: () => this.#settled(id)?.reject(callError(Code.CANCELLED, "the wait was cancelled")) };
  }

  release(): void {
    this.#idleTime = 0;
    if (this.#waiting.size === 0) this.#close();
  }

  close(): void {
    clearTimeout(this.#idle);
    this.#watch?.close();
    for (const id of [...this.#waiting.keys()]) {
      this.#settled(id)?.reject(callError(Code.CANCELLED, "the client is closed"));
    }
  }

  #open(since: bigint, resumeToken: string): void {
    this.#since = since;
    const states = [TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED];
    const filter = TaskFilter.fromPartial({ batchId: this.#batchId, states });
    this.#watch = new Watch(
      this.#channel,
      { filter, resumeToken, progressInterval: PROGRESS_MS },
      {
        event: ({ taskId, revision }) => {
          if (this.#waiting.has(taskId)) this.#read(taskId);
          else this.#remember(taskId, revision);
        },
        failed: (error) => void this.#restart(error),
      },
    );
  }

  #remember(id: string, revision: bigint): void {
    this.#ended.set(id, revision);
    if (this.#ended.size <= REMEMBERED_MAX) return;
    for (const [oldest, ended] of this.#ended) {
      this.#ended.delete(oldest);
      this.#forgotten = ended;
      break;
    }
  }

  /** Starts another watch, if the server no longer has the events that this one would continue with. */
  async #restart(error: CallError): Promise<void> {
    this.#watch = undefined;
    try {
      const isOutdated = error.code === Code.OUT_OF_RANGE || error.reason === "INVALID_FIELD";
      if (!isOutdated) throw error;
      const filter = TaskFilter.fromPartial({ batchId: this.#batchId });
      const request = { filter, pageSize: 1, pageToken: "", includeResults: false };
      const { revision, resumeToken } = await patiently(this.#channel, () => this.#channel.unary(listTasks, request));
      if (this.#waiting.size === 0) return this.#close();
      this.#open(revision, resumeToken);
      for (const id of this.#waiting.keys()) this.#read(id);
    } catch (error) {
      for (const id of [...this.#waiting.keys()]) this.#settled(id)?.reject(error);
    }
  }

  #read(id: string): void {
    this.#ready.push(id);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#startReads();
    });
  }

  #startReads(): void {
    while (this.#ready.length > 0 && this.#startRead());
  }

  /** Returns false if the reads in flight are enough. */
  #startRead(): boolean {
    const isGet = this.#ready.length === 1 || this.#slowLists > 0;
    const isListEnough = this.#lists > 0 && this.#ready.length < SECOND_LIST_TASKS_MIN;
    if (isGet ? this.#gets >= GETS_IN_FLIGHT_MAX : this.#lists >= LISTS_IN_FLIGHT_MAX || isListEnough) return false;
    const ids = this.#ready.splice(0, isGet ? 1 : LIST_TASKS_MAX);
    const reading = isGet ? this.#get(ids[0]!) : this.#list(ids);
    const failed = (error: unknown) => ids.forEach((id) => this.#settled(id)?.reject(error));
    void reading.catch(failed).finally(() => this.#startReads());
    return true;
  }

  async #get(taskId: string): Promise<void> {
    this.#gets++;
    try {
      const { task } = await patiently(this.#channel, () =>
        this.#channel.unary(getTask, { taskId, includePayload: false, includeOutput: false }),
      );
      if (task) this.#took(task);
    } finally {
      this.#gets--;
    }
  }

  async #list(ids: string[]): Promise<void> {
    this.#lists++;
    let isSlow = false;
    const timer = setTimeout(() => {
      isSlow = true;
      this.#slowLists++;
      this.#startReads();
    }, SLOW_LIST_MS);
    try {
      await this.#listPages(ids);
    } finally {
      clearTimeout(timer);
      this.#lists--;
      if (isSlow) this.#slowLists--;
    }
  }

  async #listPages(ids: string[]): Promise<void> {
    const missing = new Set(ids);
    const filter = TaskFilter.fromPartial({ taskIds: ids });
    let pageToken = "";
    do {
      const request = { filter, pageSize: LIST_TASKS_MAX, pageToken, includeResults: true };
      const page = await patiently(this.#channel, () => this.#channel.unary(listTasks, request));
      for (const task of page.tasks) {
        missing.delete(task.taskId);
        this.#took(task);
      }
      pageToken = page.nextPageToken;
    } while (pageToken);
    for (const id of missing) this.#settled(id)?.reject(notFound(id));
  }

  #took(task: Task): void {
    if (isFinalOnWire(task.state)) this.#settled(task.taskId)?.resolve(task);
  }

  /** Ends the wait for a task and returns it, if there is one. */
  #settled(id: string): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    if (!waiting) return undefined;
    this.#waiting.delete(id);
    waiting.ended();
    if (this.#waiting.size > 0) return waiting;
    this.#watch?.setRef(false);
    this.#idle = setTimeout(() => this.#close(), this.#idleTime).unref();
    return waiting;
  }

  #close(): void {
    clearTimeout(this.#idle);
    this.#watch?.close();
    this.#closed();
  }
}

function notFound(id: string): CallError {
  const metadata = { task: id };
  return callError(Code.NOT_FOUND, `task ${id} was deleted before its result was read`, {
    reason: "TASK_NOT_FOUND",
    metadata,
  });
}
