// Reports that wait to be sent. All reports of one turn of the event loop leave in one message.

import type { OutputStream } from "../gen/lineshaft/v1/task.js";
import { WorkRequest, type WorkerMessage } from "../gen/lineshaft/v1/worker_service.js";
import type { Call } from "../rpc/call.js";
import type { WorkResponse } from "../gen/lineshaft/v1/worker_service.js";

const MESSAGES_MAX = 5_000;
/** Of output and results in one message; the server accepts 16 MiB. */
const BYTES_MAX = 4 << 20;
/** Output that is kept while it cannot be sent. Beyond it, output is dropped. */
const OUTPUT_BYTES_MAX = 16 << 20;

export type Report = NonNullable<WorkerMessage["kind"]>;

export class Outbox {
  #reports: Report[] = [];
  #outputBytes = 0;
  #call: Call<WorkRequest, WorkResponse> | undefined;
  #isScheduled = false;
  #isCongested = false;
  /** Of the last message, in milliseconds since the epoch. */
  sentAt = 0;

  get isEmpty(): boolean {
    return this.#reports.length === 0;
  }

  push(report: Report): void {
    this.#reports.push(report);
    this.#schedule();
  }

  output(token: string, stream: OutputStream, data: Buffer): void {
    if (this.#outputBytes + data.length > OUTPUT_BYTES_MAX) return;
    this.#outputBytes += data.length;
    const last = this.#reports.at(-1);
    if (last?.$case === "output" && last.value.token === token && last.value.stream === stream) {
      last.value.data = Buffer.concat([last.value.data, data]);
      return;
    }
    this.push({ $case: "output", value: { token, stream, data } });
  }

  /** Replaces the last report of progress, if it has not left yet. */
  progress(token: string, fraction: number, note: string): void {
    const last = this.#reports.at(-1);
    if (last?.$case === "progress" && last.value.token === token) {
      Object.assign(last.value, { fraction, note });
      return;
    }
    this.push({ $case: "progress", value: { token, fraction, note } });
  }

  /** Starts to send on this stream. `reports` leave before those that wait. */
  open(call: Call<WorkRequest, WorkResponse>, reports: Report[]): void {
    this.#call = call;
    this.#isCongested = false;
    this.#reports = [...reports, ...this.#reports];
    this.#schedule();
  }

  /** The stream has ended. What the next stream repeats or the server no longer needs is dropped. */
  close(): void {
    this.#call = undefined;
    this.#reports = this.#reports.filter(({ $case }) => $case === "output" || $case === "progress");
  }

  /** Ends the stream when everything is sent. */
  finish(): void {
    while (this.#call && this.#reports.length > 0) this.#send();
    this.#call?.finish();
  }

  get isOpen(): boolean {
    return this.#call !== undefined;
  }

  /** Drops the reports of an attempt that is not the worker's any more. */
  drop(tokens: Set<string>): void {
    this.#reports = this.#reports.filter(({ value }) => !("token" in value && tokens.has(value.token)));
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isCongested || !this.#call || this.#reports.length === 0) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#send();
    });
  }

  #send(): void {
    const call = this.#call;
    if (!call || this.#reports.length === 0) return;
    const messages = this.#take();
    this.sentAt = Date.now();
    if (!call.send({ hello: undefined, messages })) {
      this.#isCongested = true;
      call.drained(() => {
        if (this.#call !== call) return;
        this.#isCongested = false;
        this.#schedule();
      });
    }
    this.#schedule();
  }

  #take(): WorkerMessage[] {
    let [count, bytes] = [0, 0];
    for (const report of this.#reports) {
      if (count >= MESSAGES_MAX || bytes >= BYTES_MAX) break;
      count++;
      bytes += size(report);
      if (report.$case === "output") this.#outputBytes -= report.value.data.length;
    }
    const taken = count === this.#reports.length ? this.#reports : this.#reports.slice(0, count);
    this.#reports = count === this.#reports.length ? [] : this.#reports.slice(count);
    return taken.map((kind) => ({ kind }));
  }
}

function size(report: Report): number {
  if (report.$case === "output") return report.value.data.length;
  if (report.$case !== "finished" || report.value.outcome?.$case !== "result") return 0;
  const { kind } = report.value.outcome.value;
  return kind?.$case === "data" ? kind.value.length : 0;
}
