// Client and worker of Lineshaft.

export { asCompleted, Client } from "./client.js";
export type { BatchOptions, ClientOptions, ListOptions, MapOptions, SubmitOptions, WatchOptions } from "./client.js";
export {
  AlreadyExistsError,
  CallError,
  ChecksumError,
  Code,
  DeadlineExceededError,
  FailedPreconditionError,
  InvalidArgumentError,
  LineshaftError,
  NotFoundError,
  PermanentError,
  PermissionDeniedError,
  ResourceExhaustedError,
  TaskCancelledError,
  TaskError,
  TaskFailedError,
  UnauthenticatedError,
  UnavailableError,
  WaitTimeoutError,
} from "./errors.js";
export type { FieldViolation } from "./errors.js";
export type { OutputOptions } from "./output.js";
export { Payload } from "./payload.js";
export type { ConnectOptions, TlsOptions } from "./rpc/endpoint.js";
export type { Submission, TaskOptions } from "./submit.js";
export * as report from "./report.js";
export { Task } from "./task.js";
export type { CancelOptions, WaitOptions } from "./task.js";
export type * from "./types.js";
export type { HandlerFunction, TaskContext } from "./worker/context.js";
export { Worker } from "./worker/worker.js";
export type { HandlerOptions, RunOptions, StopOptions, ThreadHandlerOptions, WorkerOptions } from "./worker/worker.js";
