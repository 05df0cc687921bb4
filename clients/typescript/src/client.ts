// Submits, follows and cancels tasks.

import { randomUUID } from "node:crypto";
import { BatchSubmitTasksRequest } from "./gen/lineshaft/v1/task_service.js";
import { fields, flag, number, positive, signal, text } from "./check.js";
import { filter as wireFilter, taskInfo } from "./convert.js";
import { traced } from "./errors.js";
import { events } from "./events.js";
import { Results } from "./results.js";
import { CALL_TIMEOUT_MS, Channel } from "./rpc/channel.js";
import { CONNECT_OPTIONS, type ConnectOptions, endpoint } from "./rpc/endpoint.js";
import { batchSubmitTasks, deleteTasks, listTasks } from "./rpc/method.js";
import { checkSubmissions, type Submission, submitRequest, TASK_OPTIONS, type TaskOptions } from "./submit.js";
import { type Accepted, Submitter } from "./submitter.js";
import { Task } from "./task.js";
import { activeTrace } from "./trace.js";
import type { TaskEvent, TaskFilter, TaskInfo } from "./types.js";

export interface ClientOptions extends ConnectOptions {
  /** Namespace of submissions that set none. */
  namespace?: string;
}

export interface SubmitOptions extends TaskOptions {
  /**
   * Time for the submission with its retries, while the server is away or the queue is full, in milliseconds.
   * Default: 30,000.
   */
  submitTimeout?: number;
  /** Batch that the task joins, 1 to 64 characters of [A-Za-z0-9._:-]. It is created unless it exists. */
  batchId?: string;
  /** Ends the submission; a task that was already accepted is not cancelled. */
  signal?: AbortSignal;
}

export interface BatchOptions {
  /** Batch ID, 1 to 64 characters of [A-Za-z0-9._:-]. Default: a random one. */
  batchId?: string;
  submitTimeout?: number;
  signal?: AbortSignal;
}

export interface MapOptions extends SubmitOptions {
  /** Number of tasks that are submitted before the first result is read. Default: 1,000. */
  ahead?: number;
}

export interface WatchOptions {
  /** Continue after the event with this token. Default: events from now on. */
  resumeToken?: string;
  /** Yield the existing tasks first. */
  includeSnapshot?: boolean;
  signal?: AbortSignal;
}

export interface ListOptions {
  includeResults?: boolean;
  /** Number of tasks that are read at once, 1 to 1,000. Default: 100. */
  pageSize?: number;
  signal?: AbortSignal;
}

const checkClient = fields<ClientOptions>({ ...CONNECT_OPTIONS, namespace: text });
const checkSubmit = fields<SubmitOptions>({ ...TASK_OPTIONS, submitTimeout: number, batchId: text, signal });
const checkBatch = fields<BatchOptions>({ batchId: text, submitTimeout: number, signal });
const checkWatch = fields<WatchOptions>({ resumeToken: text, includeSnapshot: flag, signal });
const checkList = fields<ListOptions>({ includeResults: flag, pageSize: positive, signal });

/** The channel of a client, for other parts of this package. */
export let channelOf: (client: Client) => Channel;

export class Client {
  static {
    channelOf = (client) => client.#channel;
  }

  readonly #channel: Channel;
  readonly #submitter: Submitter;
  readonly #results: Results;
  readonly #namespace: string;

  /**
   * Connects when the first call needs it.
   *
   * @param options the address of the server, such as `127.0.0.1:7070`, or options
   * @throws TypeError if an option is unknown or of another type
   * @throws LineshaftError if the options contradict each other
   */
  constructor(options: string | ClientOptions = {}) {
    const settings = typeof options === "string" ? { address: options } : options;
    checkClient(settings, "");
    this.#channel = new Channel(endpoint(settings));
    this.#submitter = new Submitter(this.#channel, `session:${randomUUID()}`);
    this.#results = new Results(this.#channel, this.#submitter.sessionId);
    this.#namespace = settings.namespace ?? "";
  }

  /**
   * Submits a task and returns when the server has accepted it. Submissions that are made at the same time share calls.
   *
   * @param payload bytes are sent as they are, `undefined` as no payload, and any other value as JSON
   * @throws TypeError if an option is unknown or of another type
   */
  async submit<Result = unknown>(
    handler: string,
    payload?: unknown,
    options: SubmitOptions = {},
  ): Promise<Task<Result>> {
    checkSubmit(options, "");
    const { submitTimeout = CALL_TIMEOUT_MS, batchId = this.#submitter.sessionId, signal } = options;
    const trace = activeTrace();
    const request = submitRequest(handler, payload, options, this.#namespace, trace);
    let accepted: Accepted;
    try {
      accepted = await this.#submitter.submit(request, batchId, trace.headers, submitTimeout, signal);
    } catch (error) {
      throw traced(error);
    }
    return this.#accepted(accepted, options, batchId);
  }

  #accepted<Result>({ taskId: id, duplicate, revision, resumeToken }: Accepted, options: TaskOptions, batchId: string) {
    // Without an ID of the caller, a duplicate is a repetition of the same submission after a broken connection: the task
    // is of this batch and may have ended before this revision.
    const isDuplicate = duplicate && (options.requestId !== undefined || options.taskId !== undefined);
    const batch = isDuplicate ? undefined : { id: batchId, revision: duplicate ? -1n : revision, resumeToken };
    return new Task<Result>(this.#channel, this.#results, { id, batch }, isDuplicate);
  }

  /** Submits a task, waits for its end and returns its result. */
  async run<Result = unknown>(handler: string, payload?: unknown, options: SubmitOptions = {}): Promise<Result> {
    const task = await this.submit<Result>(handler, payload, options);
    return task.result({ signal: options.signal });
  }

  /** Submits all tasks as a batch in one durable commit, or none of them; at most 10,000. */
  async batch<Result = unknown>(submissions: Submission[], options: BatchOptions = {}): Promise<Task<Result>[]> {
    checkSubmissions(submissions, "submissions");
    checkBatch(options, "");
    const { batchId = randomUUID(), submitTimeout = CALL_TIMEOUT_MS, signal } = options;
    const trace = activeTrace();
    const tasks = submissions.map(({ handler, payload, ...rest }) =>
      submitRequest(handler, payload, rest, this.#namespace, trace),
    );
    const call = { timeout: submitTimeout, signal, headers: trace.headers };
    const response = await this.#channel.unary(
      batchSubmitTasks,
      BatchSubmitTasksRequest.create({ tasks, batchId }),
      call,
    );
    const { revision, resumeToken } = response;
    return response.taskIds.map((taskId, index) => {
      const duplicate = response.duplicates[index] ?? false;
      return this.#accepted<Result>({ taskId, duplicate, revision, resumeToken }, submissions[index]!, batchId);
    });
  }

  /**
   * Submits one task for each payload, all in one batch, and yields the results in the order of the payloads.
   *
   * @throws TaskFailedError, TaskCancelledError at the first task that did not complete
   */
  async *map<Result = unknown>(
    handler: string,
    payloads: Iterable<unknown> | AsyncIterable<unknown>,
    { ahead = 1_000, batchId = randomUUID(), ...options }: MapOptions = {},
  ): AsyncGenerator<Result, void, undefined> {
    const running: Promise<Result>[] = [];
    const next = async () => running.shift()!;
    try {
      for await (const payload of payloads) {
        const result = this.run<Result>(handler, payload, { ...options, batchId });
        result.catch(() => {}); // It is thrown when its turn comes.
        running.push(result);
        if (running.length >= ahead) yield await next();
      }
      while (running.length > 0) yield await next();
    } finally {
      this.#results.release(batchId);
    }
  }

  /** A task that was submitted before, by any client. */
  task<Result = unknown>(id: string): Task<Result> {
    return new Task(this.#channel, this.#results, { id }, false);
  }

  /** Yields the tasks that match, the newest submission first. */
  async *list(filter: TaskFilter = {}, options: ListOptions = {}): AsyncGenerator<TaskInfo, void, undefined> {
    checkList(options, "");
    const { includeResults = false, pageSize = 0, signal } = options;
    let pageToken = "";
    do {
      const request = { filter: wireFilter(filter), pageSize, pageToken, includeResults };
      const page = await this.#channel.unary(listTasks, request, { signal });
      for (const task of page.tasks) yield taskInfo(task);
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /**
   * Yields each state change of the tasks that match once and in order, without an end. After a broken connection it
   * continues by itself.
   */
  watch(filter: TaskFilter = {}, options: WatchOptions = {}): AsyncGenerator<TaskEvent, void, undefined> {
    checkWatch(options, "");
    const { resumeToken = "", includeSnapshot = false, signal } = options;
    return events(this.#channel, { filter: wireFilter(filter), resumeToken, includeSnapshot }, signal);
  }

  /** Deletes the finished tasks that match, and returns their number. */
  async delete(filter: TaskFilter): Promise<number> {
    const { deleted } = await this.#channel.unary(deleteTasks, { filter: wireFilter(filter), validateOnly: false });
    return Number(deleted);
  }

  /** Closes the connection. Calls and waits that have not ended fail. A process also ends without it, when nothing waits. */
  close(): void {
    this.#results.close();
    this.#channel.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Yields the tasks in the order in which they end. */
export async function* asCompleted<Result>(
  tasks: Iterable<Task<Result>>,
): AsyncGenerator<Task<Result>, void, undefined> {
  const ended: Task<Result>[] = [];
  let [left, failed, wake]: [number, unknown, () => void] = [0, undefined, () => {}];
  for (const task of tasks) {
    left++;
    task.wait().then(
      () => (ended.push(task), wake()),
      (error) => ((failed = error), wake()),
    );
  }
  while (left > 0) {
    if (ended.length === 0 && failed === undefined) await new Promise<void>((resolve) => (wake = resolve));
    if (failed !== undefined) throw failed;
    left -= ended.length;
    yield* ended.splice(0);
  }
}
