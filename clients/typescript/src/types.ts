// Tasks as this package returns them.

/** `COMPLETED`, `FAILED` and `CANCELLED` are final. */
export type TaskState = "WAITING" | "QUEUED" | "RUNNING" | "COMPLETED" | "FAILED" | "CANCELLED";

/** No worker starts a task while a task of a higher priority is queued in the same pool. */
export type Priority = "low" | "normal" | "high" | "critical";

/** When a submission is acknowledged: after it is synced to disk, or after it is written, so that a power failure can lose it. */
export type Durability = "fsync" | "memory";

/** What a task does when one of its parents has failed or was cancelled: fail, run once all have ended, or be cancelled. */
export type OnParentFailure = "fail" | "run" | "cancel";

/** What a submission does if a task with the same unique key has not ended. */
export type OnUniqueConflict = "fail" | "use_existing" | "replace_queued";

/** How the trace of an attempt relates to the trace of its submission. */
export type TraceMode = "auto" | "parent" | "link";

export type FailureReason =
  | "HANDLER_ERROR"
  | "TIMEOUT"
  | "PANIC"
  | "KILLED"
  | "OUT_OF_MEMORY"
  | "WORKER_LOST"
  | "EXPIRED"
  | "DEPENDENCY_FAILED"
  | "RESULT_TOO_LARGE"
  | "INVALID_PAYLOAD"
  | "STACK_OVERFLOW";

/** What stopped the work of a cancelled task. */
export type StopMethod = "NEVER_STARTED" | "TOKEN" | "SIGNAL_TERM" | "SIGNAL_KILL" | "ABORT" | "FINISHED";

export type OutputStream = "stdout" | "stderr";

/** When and how often a failed attempt is retried. Fields that are not set take the values of the handler. */
export interface RetryPolicy {
  /** Maximum number of attempts including the first, 1 to 100; 1 disables retries. */
  maxAttempts?: number;
  /** Delay before the second attempt, in milliseconds. */
  delay?: number;
  /** Factor by which the delay grows with each further attempt, 1 to 10. */
  factor?: number;
  /** Upper bound of the delay, in milliseconds. */
  maxDelay?: number;
  /** Maximum random increase of each delay, as a fraction of it, 0 to 1. */
  jitter?: number;
}

/** How many tasks with the same key run at once, how many start in an interval, or both. */
export interface TaskLimit {
  /** Shared by the tasks of the namespace with the same key, and the same name if there is one. */
  key?: string;
  /** A limit in the configuration of the server, which then sets the numbers. */
  name?: string;
  maxRunning?: number;
  rate?: StartRate;
}

/** In any time t, at most `burst + t × starts / interval` tasks start. */
export interface StartRate {
  starts: number;
  /** In milliseconds. Default: 1000. */
  interval?: number;
  /** Number of tasks that start at once after a pause. Default: 1. */
  burst?: number;
}

/** Why an attempt or a task failed. */
export interface Failure {
  reason: FailureReason;
  message: string;
  /** Further detail, such as a stack or the last lines of stderr; can be empty. */
  detail: string;
  /** Number of the failed attempt; 0 if no attempt ran. */
  attempt: number;
  exitCode?: number;
  signal?: number;
  /** Whether another attempt could succeed. */
  retryable: boolean;
}

/** Who requested a cancellation, when the work stopped, and how. */
export interface CancelReceipt {
  requestedAt?: Date;
  /** `undefined` while the task is being stopped. */
  stoppedAt?: Date;
  method?: StopMethod;
  reason: string;
  requestedBy: string;
}

/** A task at one moment. */
export interface TaskInfo<Result = unknown> {
  id: string;
  namespace: string;
  handler: string;
  pool: string;
  priority: Priority;
  state: TaskState;
  displayName: string;
  labels: Record<string, string>;
  batchId: string;
  /** Number of the current or last attempt; 0 before the first. */
  attempt: number;
  /** Timeout of each attempt, in milliseconds. */
  timeout: number;
  submittedAt?: Date;
  startedAt?: Date;
  finishedAt?: Date;
  /** While WAITING: when the task becomes eligible. */
  eligibleAt?: Date;
  submittedBy: string;
  /** Worker of the current or last attempt. */
  worker: string;
  /** Failure of the last attempt. */
  failure?: Failure;
  cancel?: CancelReceipt;
  /** Result of a COMPLETED task; `undefined` in lists, unless `includeResults` is set. */
  result?: Result;
  /** Progress of a RUNNING task, 0 to 1. */
  progress: number;
  progressNote: string;
}

/** One state change of one task. */
export interface TaskEvent {
  taskId: string;
  state: TaskState;
  /** `undefined` for the first event of a task. */
  previousState?: TaskState;
  time?: Date;
  attempt: number;
  handler: string;
  pool: string;
  batchId: string;
  worker: string;
  failure?: Failure;
  cancel?: CancelReceipt;
  /** True if the finished task was deleted. */
  deleted: boolean;
  /** Labels. Only in the first event of a task. */
  labels: Record<string, string>;
  /** Token for a watch that continues after this event; empty for a task of the snapshot. */
  resumeToken: string;
  /** True for a task that existed before; only with `includeSnapshot`. */
  isSnapshot: boolean;
}

/** Selects tasks. A task matches if it matches every field that is set. */
export interface TaskFilter {
  /** Any of these task IDs; at most 1,000. */
  taskIds?: string[];
  batchId?: string;
  /** All of these labels. */
  labels?: Record<string, string>;
  /** Any of these states. */
  states?: TaskState[];
  pool?: string;
  handler?: string;
  namespace?: string;
  priorities?: Priority[];
  /** All of these texts occur in the ID, display name, handler, arguments, failure or reason of the cancel, in upper or lower case. */
  texts?: string[];
}

/** Part of the output of an attempt. */
export interface OutputChunk {
  data: Uint8Array;
  /** Offset of the first byte. */
  offset: number;
  /** Number of bytes directly before `data` that were written but not kept. */
  skipped: number;
  attempt: number;
}

/** A task that had to end before the one that a function runs. */
export interface Parent<Result = unknown> {
  taskId: string;
  state: TaskState;
  /** `undefined` unless it is COMPLETED. */
  result: Result | undefined;
}

/** A file that a task has left. */
export interface Artifact {
  name: string;
  contentType: string;
  /** In bytes. */
  size: number;
  /** SHA-256 of the content, 64 hexadecimal digits. */
  sha256: string;
  /** Path and query, below the address of the server, at which anyone can download it with GET for an hour. */
  link: string;
}

/** Bytes, a stream of bytes or text such as a `Readable`, or the path of a file. */
export type ArtifactContent = Uint8Array | AsyncIterable<Uint8Array | string> | { path: string | URL };
