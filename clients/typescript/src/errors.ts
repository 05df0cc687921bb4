// Errors of calls and of tasks.

import type { CancelReceipt, Failure, TaskInfo } from "./types.js";

/** Base class of all errors of this package. */
export class LineshaftError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** Codes of gRPC. */
export enum Code {
  OK = 0,
  CANCELLED = 1,
  UNKNOWN = 2,
  INVALID_ARGUMENT = 3,
  DEADLINE_EXCEEDED = 4,
  NOT_FOUND = 5,
  ALREADY_EXISTS = 6,
  PERMISSION_DENIED = 7,
  RESOURCE_EXHAUSTED = 8,
  FAILED_PRECONDITION = 9,
  ABORTED = 10,
  OUT_OF_RANGE = 11,
  UNIMPLEMENTED = 12,
  INTERNAL = 13,
  UNAVAILABLE = 14,
  DATA_LOSS = 15,
  UNAUTHENTICATED = 16,
}

/** An invalid field of a request. */
export interface FieldViolation {
  /** Path of the field, such as `labels["x"]`. */
  field: string;
  description: string;
}

/** What the server returned besides the code of an error. */
export interface CallErrorDetails {
  /** Reason for programs to branch on, such as `QUEUE_FULL`; empty for an error from below the server's own code. */
  reason?: string;
  metadata?: Record<string, string>;
  violations?: FieldViolation[];
  /** Time after which a retry can succeed, in milliseconds; `undefined` if the server did not set one. */
  retryAfter?: number;
  cause?: unknown;
}

/** A call that the server refused or that could not be made. `docs/errors.md` lists the reasons. */
export class CallError extends LineshaftError {
  readonly code: Code;
  /** Reason for programs to branch on, such as `QUEUE_FULL`; empty for an error from below the server's own code. */
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** The invalid fields of the request. */
  readonly violations: readonly FieldViolation[];
  /** Time after which a retry can succeed, in milliseconds; `undefined` if the server did not set one. */
  readonly retryAfter: number | undefined;

  constructor(code: Code, message: string, details: CallErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.code = code;
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.retryAfter = details.retryAfter;
  }
}

/** A field of the request is invalid: see `violations`. */
export class InvalidArgumentError extends CallError {}
/** There is no such task, handler or pool: see `reason`. */
export class NotFoundError extends CallError {}
/** The task ID or request ID was used with different content. */
export class AlreadyExistsError extends CallError {}
/** The token is missing, wrong, expired or revoked. */
export class UnauthenticatedError extends CallError {}
/** The token does not have the role that the call requires. */
export class PermissionDeniedError extends CallError {}
/** A queue, a quota or the server is full: see `reason` and `retryAfter`. */
export class ResourceExhaustedError extends CallError {}
/** No server could be reached, or it is shutting down. A submission may have been accepted. */
export class UnavailableError extends CallError {}
/** The call took longer than its timeout. A submission may have been accepted. */
export class DeadlineExceededError extends CallError {}
/** The task has finished. */
export class FailedPreconditionError extends CallError {}

const CLASSES: Partial<Record<Code, typeof CallError>> = {
  [Code.INVALID_ARGUMENT]: InvalidArgumentError,
  [Code.NOT_FOUND]: NotFoundError,
  [Code.ALREADY_EXISTS]: AlreadyExistsError,
  [Code.UNAUTHENTICATED]: UnauthenticatedError,
  [Code.PERMISSION_DENIED]: PermissionDeniedError,
  [Code.RESOURCE_EXHAUSTED]: ResourceExhaustedError,
  [Code.UNAVAILABLE]: UnavailableError,
  [Code.DEADLINE_EXCEEDED]: DeadlineExceededError,
  [Code.FAILED_PRECONDITION]: FailedPreconditionError,
};

/** The error of the class for this code. */
export function callError(code: Code, message: string, details?: CallErrorDetails): CallError {
  return new (CLASSES[code] ?? CallError)(code, message, details);
}

/** Shows where the call was made, instead of where its response was read. */
export function traced(error: unknown): unknown {
  if (error instanceof CallError) Error.captureStackTrace(error, traced);
  return error;
}

/** A task that did not complete. */
export class TaskError extends LineshaftError {
  /** The finished task. */
  readonly task: TaskInfo;

  constructor(message: string, task: TaskInfo) {
    super(message);
    this.task = task;
  }
}

/** The task FAILED. */
export class TaskFailedError extends TaskError {
  constructor(task: TaskInfo) {
    super(`task ${task.id} failed: ${task.failure?.reason}: ${task.failure?.message}`, task);
  }

  get failure(): Failure {
    return this.task.failure!;
  }
}

/** The task was CANCELLED. */
export class TaskCancelledError extends TaskError {
  constructor(task: TaskInfo) {
    const reason = task.cancel?.reason;
    super(`task ${task.id} was cancelled${reason ? `: ${reason}` : ""}`, task);
  }

  get receipt(): CancelReceipt {
    return this.task.cancel!;
  }
}

/** The content of an artifact does not have its SHA-256. */
export class ChecksumError extends LineshaftError {}

/** Thrown by a function of a worker: the task fails and is not retried. */
export class PermanentError extends LineshaftError {}

/** The task did not finish within the `timeout` of the wait. It continues to run. */
export class WaitTimeoutError extends LineshaftError {}
