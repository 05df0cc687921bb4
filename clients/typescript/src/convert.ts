// Messages of the contract as the types of this package, and back.

import { fields, labels, list, text } from "./check.js";
import { Duration } from "./gen/google/protobuf/duration.js";
import * as wire from "./gen/lineshaft/v1/task.js";
import type { ReadOutputResponse } from "./gen/lineshaft/v1/task_service.js";
import { decode } from "./payload.js";
import type {
  CancelReceipt,
  Durability,
  Failure,
  FailureReason,
  OnParentFailure,
  OnUniqueConflict,
  OutputChunk,
  OutputStream,
  Priority,
  RetryPolicy,
  StopMethod,
  TaskEvent,
  TaskFilter,
  TaskInfo,
  TaskLimit,
  TaskState,
  TraceMode,
} from "./types.js";

/** From milliseconds. */
export function duration(milliseconds: number): Duration;
export function duration(milliseconds: number | undefined): Duration | undefined;
export function duration(milliseconds: number | undefined): Duration | undefined {
  if (milliseconds === undefined) return undefined;
  if (!Number.isFinite(milliseconds)) throw new TypeError(`a duration of ${milliseconds} ms, must be a finite number`);
  const seconds = Math.trunc(milliseconds / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((milliseconds - seconds * 1000) * 1e6) };
}

export function milliseconds(duration: Duration): number;
export function milliseconds(duration: Duration | undefined): number | undefined;
export function milliseconds(duration: Duration | undefined): number | undefined {
  return duration && Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

export const priority = (name: Priority | undefined) => lower<wire.Priority>(wire.Priority, name, "priority");
export const durability = (name: Durability | undefined) => lower<wire.Durability>(wire.Durability, name, "durability");
export const traceMode = (name: TraceMode | undefined) => lower<wire.TraceMode>(wire.TraceMode, name, "traceMode");
export const onParentFailure = (name: OnParentFailure | undefined) =>
  lower<wire.OnParentFailure>(wire.OnParentFailure, name, "onParentFailure");
export const onUniqueConflict = (name: OnUniqueConflict | undefined) =>
  lower<wire.OnUniqueConflict>(wire.OnUniqueConflict, name, "onUniqueConflict");
export const outputStream = (name: OutputStream | undefined) =>
  lower<wire.OutputStream>(wire.OutputStream, name, "stream");
export const priorityName = (priority: wire.Priority) => wire.Priority[priority]!.toLowerCase() as Priority;

type Enumeration<E> = Record<string, E | string>;

/** The value of a name in lower case; 0 if there is none. */
function lower<E extends number>(values: Enumeration<E>, name: string | undefined, field: string): E {
  if (name === undefined) return 0 as E;
  const value = name === name.toLowerCase() ? values[name.toUpperCase()] : undefined;
  if (typeof value === "number") return value;
  throw unknownName(values, name, field, (known) => known.toLowerCase());
}

/** The value of a name in upper case. */
function upper<E extends number>(values: Enumeration<E>, name: string, field: string): E {
  const value = values[name];
  if (typeof value === "number") return value;
  throw unknownName(values, name, field, (known) => known);
}

function unknownName<E>(
  values: Enumeration<E>,
  name: string,
  field: string,
  show: (known: string) => string,
): TypeError {
  const known = Object.keys(values).filter((key) => /^[A-Z]/.test(key) && key !== "UNSPECIFIED");
  return new TypeError(`${field} is ${JSON.stringify(name)}, must be one of ${known.map(show).join(", ")}`);
}

export function retryPolicy(retry: RetryPolicy | number | undefined): wire.RetryPolicy | undefined {
  if (retry === undefined) return undefined;
  const policy = typeof retry === "number" ? { maxAttempts: retry } : retry;
  return {
    maxAttempts: policy.maxAttempts ?? 0,
    delay: duration(policy.delay),
    factor: policy.factor ?? 0,
    maxDelay: duration(policy.maxDelay),
    jitter: policy.jitter,
  };
}

export function taskLimit({ name, key, maxRunning, rate }: TaskLimit): wire.TaskLimit {
  return {
    name: name ?? "",
    key: key ?? "",
    maxRunning: maxRunning ?? 0,
    rate: rate && { starts: rate.starts, interval: duration(rate.interval), burst: rate.burst ?? 0 },
  };
}

// An unknown field would let the filter match more, up to all tasks.
const checkFilter = fields<TaskFilter>({
  taskIds: list(text),
  batchId: text,
  labels,
  states: list(text),
  pool: text,
  handler: text,
  namespace: text,
  priorities: list(text),
  texts: list(text),
});

export function filter(filter: TaskFilter): wire.TaskFilter {
  checkFilter(filter, "filter");
  return wire.TaskFilter.fromPartial({
    ...filter,
    states: filter.states?.map((state) => upper<wire.TaskState>(wire.TaskState, state, "state")),
    priorities: filter.priorities?.map((name) => priority(name)),
  });
}

export const stateName = (state: wire.TaskState) => wire.TaskState[state] as TaskState;

export function isFinal(state: TaskState): boolean {
  return state === "COMPLETED" || state === "FAILED" || state === "CANCELLED";
}

export function isFinalOnWire(state: wire.TaskState): boolean {
  return state >= wire.TaskState.COMPLETED;
}

export function failure(failure: wire.Failure): Failure;
export function failure(failure: wire.Failure | undefined): Failure | undefined;
export function failure(failure: wire.Failure | undefined): Failure | undefined {
  return failure && { ...failure, reason: wire.FailureReason[failure.reason] as FailureReason };
}

function receipt(receipt: wire.CancelReceipt | undefined): CancelReceipt | undefined {
  if (receipt === undefined) return undefined;
  const { method, ...rest } = receipt;
  return {
    ...rest,
    method: method === wire.StopMethod.UNSPECIFIED ? undefined : (wire.StopMethod[method] as StopMethod),
  };
}

export function taskInfo<Result = unknown>(task: wire.Task): TaskInfo<Result> {
  return {
    id: task.taskId,
    namespace: task.namespace,
    handler: task.handler,
    pool: task.pool,
    priority: priorityName(task.priority),
    state: stateName(task.state),
    displayName: task.displayName,
    labels: task.labels,
    batchId: task.batchId,
    attempt: task.attempt,
    timeout: milliseconds(task.timeout) ?? 0,
    submittedAt: task.submittedAt,
    startedAt: task.startedAt,
    finishedAt: task.finishedAt,
    eligibleAt: task.eligibleAt,
    submittedBy: task.submittedBy,
    worker: task.worker,
    failure: failure(task.failure),
    cancel: receipt(task.cancel),
    result: decode(task.result) as Result,
    progress: task.progress,
    progressNote: task.progressNote,
  };
}

export function taskEvent(event: wire.TaskEvent): TaskEvent {
  const { UNSPECIFIED } = wire.TaskState;
  return {
    taskId: event.taskId,
    state: stateName(event.state),
    previousState: event.previousState === UNSPECIFIED ? undefined : stateName(event.previousState),
    time: event.time,
    attempt: event.attempt,
    handler: event.handler,
    pool: event.pool,
    batchId: event.batchId,
    worker: event.worker,
    failure: failure(event.failure),
    cancel: receipt(event.cancel),
    deleted: event.deleted,
    labels: event.labels,
    resumeToken: event.resumeToken,
    isSnapshot: false,
  };
}

export function outputChunk(chunk: ReadOutputResponse): OutputChunk {
  return { data: chunk.data, offset: Number(chunk.offset), skipped: Number(chunk.skipped), attempt: chunk.attempt };
}
