// What a function of a worker knows about its task, and what it can report.

import type { Artifact as WireArtifact, OutputStream } from "../gen/lineshaft/v1/task.js";
import type { Client } from "../client.js";
import type { SubmitOptions } from "../client.js";
import type { Payload } from "../payload.js";
import type { ArtifactContent, Parent, Priority } from "../types.js";

export interface TaskContext {
  readonly taskId: string;
  readonly namespace: string;
  readonly handler: string;
  /** Number of the attempt, from 1. */
  readonly attempt: number;
  readonly priority: Priority;
  readonly labels: Readonly<Record<string, string>>;
  /** The payload as it was submitted; of a task without payload, no bytes. */
  readonly payload: Payload | undefined;
  /** Time after which the attempt is cancelled, in milliseconds from its start. */
  readonly timeout: number | undefined;
  /**
   * Aborted when the task is cancelled, its timeout has passed, or the attempt is not the worker's any more. A function
   * cannot be stopped from outside, so pass the signal to what it waits for, such as `fetch`.
   */
  readonly signal: AbortSignal;
  /** For tasks that this one submits. */
  readonly client: Client;

  /** Reports progress, 0 to 1, and the current activity. */
  progress(fraction: number, note?: string): void;

  /** Writes a line to the output of the task, formatted as `console.log` does, and not to that of the program. */
  log(...values: unknown[]): void;

  /**
   * The tasks that had to end before this one, in the order of the submission, with their results. Each result is read when
   * the loop asks for it, so that they need not fit into memory together.
   */
  parents(): AsyncGenerator<Parent, void, undefined>;

  /**
   * Uploads a file that the task leaves. It becomes an artifact of the task if the function returns; one with the same name is
   * replaced. The content type is by default that of the extension of the name. After a broken connection the upload begins
   * anew. For this, what was read of a stream is kept in a temporary file; if there is no room for it, the upload fails.
   */
  artifact(name: string, content: ArtifactContent, contentType?: string): Promise<void>;

  /** Submits a task, waits for its end and returns its result. The slot of this attempt is free for others meanwhile. */
  run<Result = unknown>(handler: string, payload?: unknown, options?: SubmitOptions): Promise<Result>;

  /** Waits without using a slot of the pool, for example for the results of other tasks. */
  suspend<T>(waiting: Promise<T>): Promise<T>;
}

/** What this package adds for its own functions. */
export interface InternalContext extends TaskContext {
  readonly token: string;
  /** Aborted when the attempt has to be stopped by force. */
  readonly forced: AbortSignal;
  /** Writes to the output of the task. */
  output(stream: OutputStream, data: Buffer): void;
  /** Adds an artifact that was uploaded to the result. */
  leave(artifact: WireArtifact): void;
}

/** A function that runs tasks. What it returns is the result: bytes as they are, any other value as JSON. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type HandlerFunction<P = any, R = unknown> = (payload: P, context: TaskContext) => R | Promise<R>;

/** The arguments of `progress` as they are sent, whatever a program in JavaScript passes. */
export function progressOf(fraction: number, note: string | null | undefined): { fraction: number; note: string } {
  return { fraction: Math.min(1, Math.max(0, Number(fraction))) || 0, note: String(note ?? "") };
}
