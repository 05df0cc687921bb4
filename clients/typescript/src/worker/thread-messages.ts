// What a worker and its threads send each other.

import type { Artifact, OutputStream } from "../gen/lineshaft/v1/task.js";
import type { ConnectOptions } from "../rpc/endpoint.js";
import type { Priority } from "../types.js";
import type { Description } from "./failure.js";

/** The parts of a context that can be copied. */
export interface ContextFields {
  taskId: string;
  token: string;
  namespace: string;
  handler: string;
  attempt: number;
  priority: Priority;
  labels: Record<string, string>;
  timeout: number | undefined;
}

export interface Start {
  kind: "start";
  module: string;
  export: string;
  payload: { data: Uint8Array; contentType: string } | undefined;
  context: ContextFields;
  connect: ConnectOptions;
}

export type ToThread = Start | { kind: "abort"; message: string } | { kind: "resumed"; wait: number };

/** `token`: of the attempt that it is about. A function can report after its end, when its thread has another task. */
export interface FromThread {
  token: string;
  report: ThreadReport;
}

export type ThreadReport =
  | { kind: "output"; stream: OutputStream; data: Uint8Array }
  | { kind: "progress"; fraction: number; note: string }
  | { kind: "artifact"; artifact: Artifact }
  | { kind: "suspend"; wait: number }
  | { kind: "resume"; wait: number }
  | { kind: "returned"; payload: { data: Uint8Array; contentType: string } | undefined }
  | { kind: "threw"; description: Description };
