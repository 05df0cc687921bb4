// A submitted task.

import { CancelMode, TaskFilter, TaskState, type Task as WireTask } from "./gen/lineshaft/v1/task.js";
import { fields, flag, number, signal, text } from "./check.js";
import { artifacts, content } from "./artifact.js";
import { duration, isFinal, taskInfo } from "./convert.js";
import { callError, Code, TaskCancelledError, TaskFailedError, traced, WaitTimeoutError } from "./errors.js";
import { events } from "./events.js";
import { output, type OutputOptions } from "./output.js";
import { decode } from "./payload.js";
import type { Submitted, Results, Wait } from "./results.js";
import type { Channel } from "./rpc/channel.js";
import { cancelTask, getTask } from "./rpc/method.js";
import type { Artifact, OutputChunk, TaskEvent, TaskInfo } from "./types.js";

export interface WaitOptions {
  /** Time to wait in milliseconds. Default: no limit. */
  timeout?: number;
  signal?: AbortSignal;
}

export interface CancelOptions {
  /** Stored in the receipt. */
  reason?: string;
  /** Stop the task by force immediately, instead of after the grace period. */
  force?: boolean;
  /** Time between the request to stop and the forced stop, in milliseconds. Default: that of the handler. */
  grace?: number;
}

const checkWait = fields<WaitOptions>({ timeout: number, signal });
const checkCancel = fields<CancelOptions>({ reason: text, force: flag, grace: number });

export class Task<Result = unknown> {
  readonly id: string;
  /** True if an earlier submission used the same request ID or task ID, so that nothing was added. */
  readonly isDuplicate: boolean;
  readonly #channel: Channel;
  readonly #results: Results;
  readonly #submitted: Submitted;
  #wait: Wait | undefined;
  #waiters = 0;

  /** @internal */
  constructor(channel: Channel, results: Results, submitted: Submitted, isDuplicate: boolean) {
    this.id = submitted.id;
    this.isDuplicate = isDuplicate;
    this.#channel = channel;
    this.#results = results;
    this.#submitted = submitted;
  }

  /**
   * Waits for the end of the task and returns its result.
   *
   * @throws TaskFailedError, TaskCancelledError, WaitTimeoutError
   */
  async result(options: WaitOptions = {}): Promise<Result> {
    const task = await this.#finished(options);
    if (task.state === TaskState.COMPLETED) return decode(task.result) as Result;
    const info = taskInfo(task);
    throw task.state === TaskState.CANCELLED ? new TaskCancelledError(info) : new TaskFailedError(info);
  }

  /**
   * Waits for the end of the task, however it ends.
   *
   * @throws WaitTimeoutError
   */
  async wait(options: WaitOptions = {}): Promise<TaskInfo<Result>> {
    return taskInfo(await this.#finished(options));
  }

  /** The task as it is now. */
  async refresh(): Promise<TaskInfo<Result>> {
    const { task } = await this.#channel.unary(getTask, { taskId: this.id, includePayload: false, includeOutput: false });
    if (!task) throw callError(Code.INTERNAL, "the response has no task");
    return taskInfo(task);
  }

  /**
   * Cancels the task. A running task may still be stopping when this returns: `wait` waits for its end.
   *
   * @throws FailedPreconditionError if the task has COMPLETED or FAILED
   */
  async cancel(options: CancelOptions = {}): Promise<void> {
    checkCancel(options, "");
    const { reason = "", force = false, grace } = options;
    const mode = force ? CancelMode.FORCE : CancelMode.GRACEFUL;
    await this.#channel.unary(cancelTask, { taskId: this.id, reason, mode, grace: duration(grace) });
  }

  /** Yields the state changes of the task, from the first one on, until it is finished. */
  async *watch({ signal }: { signal?: AbortSignal } = {}): AsyncGenerator<TaskEvent, void, undefined> {
    const filter = TaskFilter.fromPartial({ taskIds: [this.id] });
    const resumeToken = this.#submitted.batch?.resumeToken ?? "";
    for await (const event of events(
      this.#channel,
      { filter, resumeToken, includeSnapshot: resumeToken === "" },
      signal,
    )) {
      yield event;
      if (isFinal(event.state)) return;
    }
  }

  /** Yields what the task wrote; with `follow` until it is finished. */
  output(options: OutputOptions = {}): AsyncGenerator<OutputChunk, void, undefined> {
    return output(this.#channel, this.id, options);
  }

  /** What the task wrote, as text. */
  async outputText(options: OutputOptions = {}): Promise<string> {
    const chunks: Uint8Array[] = [];
    for await (const { data } of this.output(options)) chunks.push(data);
    return Buffer.concat(chunks).toString();
  }

  /** The files that the task has left, by name. There are none unless it has COMPLETED. */
  artifacts({ signal }: { signal?: AbortSignal } = {}): Promise<Artifact[]> {
    return artifacts(this.#channel, this.id, signal);
  }

  /**
   * Yields the content of a file that the task has left. After a broken connection it continues where it was.
   *
   * @throws NotFoundError
   * @throws ChecksumError at the end, if the content does not have the SHA-256 of the artifact
   */
  readArtifact(name: string, { signal }: { signal?: AbortSignal } = {}): AsyncGenerator<Uint8Array, void, undefined> {
    return content(this.#channel, this.id, name, signal);
  }

  async #finished(options: WaitOptions): Promise<WireTask> {
    checkWait(options, "");
    const { timeout, signal } = options;
    signal?.throwIfAborted();
    this.#wait ??= this.#results.wait(this.#submitted);
    const wait = this.#wait;
    this.#waiters++;
    let isSettled = false;
    try {
      const task = await limited(wait.finished, timeout, signal);
      isSettled = true;
      return task;
    } catch (error) {
      throw traced(error);
    } finally {
      this.#waiters--;
      if (!isSettled && this.#waiters === 0) {
        this.#wait = undefined;
        wait.cancel();
      }
    }
  }
}

function limited<T>(promise: Promise<T>, timeout: number | undefined, signal: AbortSignal | undefined): Promise<T> {
  if (timeout === undefined && signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal!.reason);
    const exceed = () =>
      reject(new WaitTimeoutError(`the task did not finish within ${timeout} ms; it continues to run`));
    const timer = timeout === undefined ? undefined : setTimeout(exceed, Math.min(timeout, 2 ** 31 - 1));
    signal?.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    });
  });
}
