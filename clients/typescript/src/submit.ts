// Submissions: options, and the request that they become.

import { randomUUID } from "node:crypto";
import type { SubmitTaskRequest } from "./gen/lineshaft/v1/task_service.js";
import { anything, type Check, type Checks, fields, flag, labels, list, number, positive, rule, text, whole } from "./check.js";
import { durability, duration, onParentFailure, onUniqueConflict, priority, retryPolicy, taskLimit, traceMode } from "./convert.js";
import { encode } from "./payload.js";
import type { ActiveTrace } from "./trace.js";
import type {
  Durability,
  OnParentFailure,
  OnUniqueConflict,
  Priority,
  RetryPolicy,
  StartRate,
  TaskLimit,
  TraceMode,
} from "./types.js";

export interface TaskOptions {
  /** Pool to run in, if the handler allows pools besides its own. */
  pool?: string;
  priority?: Priority;
  /** At most 16 labels. */
  labels?: Record<string, string>;
  /** Human-readable name. */
  displayName?: string;
  /** Timeout of each attempt, in milliseconds. Default: that of the handler. */
  timeout?: number;
  /** Minimum time between submission and start, in milliseconds. */
  delay?: number;
  /** Fail the task if it has not started this long after submission, in milliseconds. */
  expiresAfter?: number;
  /** A policy, or the number of attempts including the first, 1 to 100. Default: the policy of the handler. */
  retry?: RetryPolicy | number;
  /**
   * Idempotency key: a repeated submission with the same content returns the first task. Default: a random one, so that
   * a submission can be repeated after a broken connection.
   */
  requestId?: string;
  /** Task ID. Default: the server creates one. */
  taskId?: string;
  /** Arguments for handlers that accept them. */
  args?: string[];
  /** Never start the task a second time. */
  atMostOnce?: boolean;
  /** Default: that of the pool. */
  durability?: Durability;
  /** Default: that of the client, or the caller's only namespace. */
  namespace?: string;
  traceMode?: TraceMode;
  /** IDs of tasks that have to end before this one starts. */
  after?: string[];
  /** What happens when one of these has failed or was cancelled. Default: `fail`. */
  onParentFailure?: OnParentFailure;
  /** At most 8 limits, which the task shares with others. */
  limits?: TaskLimit[];
  /** Such as the customer for whom the task is: tasks with different keys take turns. */
  fairnessKey?: string;
  /** At most one task of the namespace with this key waits for its first start. */
  uniqueKey?: string;
  /** What happens if a task with the same unique key has not ended. Default: `fail`. */
  onUniqueConflict?: OnUniqueConflict;
  /**
   * Returns the newest completed task with the same unique key instead, if it was submitted with this option as well and ended
   * at most this long ago, in milliseconds.
   */
  reuseResultWithin?: number;
}

/** A task of a batch. */
export interface Submission extends TaskOptions {
  handler: string;
  /** Bytes are sent as they are, `undefined` as no payload, and any other value as JSON. */
  payload?: unknown;
}

const policy = fields<RetryPolicy>({
  maxAttempts: positive,
  delay: number,
  factor: number,
  maxDelay: number,
  jitter: number,
});
const numberOrObject = rule("a number of attempts or an object", (value) => /number|object/.test(typeof value));
const retry: Check = (value, path) => {
  numberOrObject(value, path);
  (typeof value === "number" ? positive : policy)(value, path);
};
const limit = fields<TaskLimit>({
  key: text,
  name: text,
  maxRunning: whole,
  rate: fields<StartRate>({ starts: whole, interval: number, burst: whole }),
});

export const TASK_OPTIONS: Checks<TaskOptions> = {
  pool: text,
  priority: text,
  labels,
  displayName: text,
  timeout: number,
  delay: number,
  expiresAfter: number,
  retry,
  requestId: text,
  taskId: text,
  args: list(text),
  atMostOnce: flag,
  durability: text,
  namespace: text,
  traceMode: text,
  after: list(text),
  onParentFailure: text,
  limits: list(limit),
  fairnessKey: text,
  uniqueKey: text,
  onUniqueConflict: text,
  reuseResultWithin: number,
};
export const checkSubmissions = list(fields<Submission>({ ...TASK_OPTIONS, handler: text, payload: anything }));

export function submitRequest(
  handler: string,
  payload: unknown,
  options: TaskOptions,
  namespace: string,
  { traceparent, tracestate }: ActiveTrace,
): SubmitTaskRequest {
  return {
    handler,
    payload: encode(payload),
    priority: priority(options.priority),
    taskId: options.taskId ?? "",
    batchId: "",
    requestId: options.requestId ?? randomUUID(),
    pool: options.pool ?? "",
    displayName: options.displayName ?? "",
    labels: options.labels ?? {},
    timeout: duration(options.timeout),
    retry: retryPolicy(options.retry),
    args: options.args ?? [],
    delay: duration(options.delay),
    atMostOnce: options.atMostOnce ?? false,
    durability: durability(options.durability),
    namespace: options.namespace ?? namespace,
    expiresAfter: duration(options.expiresAfter),
    traceMode: traceMode(options.traceMode),
    traceparent,
    tracestate,
    dependencies: options.after?.length
      ? { taskIds: options.after, batchIndices: [], onParentFailure: onParentFailure(options.onParentFailure) }
      : undefined,
    limits: options.limits?.map(taskLimit) ?? [],
    fairnessKey: options.fairnessKey ?? "",
    uniqueKey: options.uniqueKey ?? "",
    onUniqueConflict: onUniqueConflict(options.onUniqueConflict),
    reuseResultWithin: duration(options.reuseResultWithin),
  };
}
