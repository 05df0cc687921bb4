// Reports that wait to be sent. All reports of one turn of the event loop leave in one message.

import type { OutputStream } from "../gen/lineshaft/v1/task.js";
import { WorkRequest, type WorkerMessage } from "../gen/lineshaft/v1/worker_service.js";
import type { CallError } from "../errors.js";
import type { Call } from "../rpc/call.js";
import type { WorkResponse } from "../gen/lineshaft/v1/worker_service.js";

const MESSAGES_MAX = 5_000;
/** Of output and results in one message; the server accepts 16 MiB. */
const BYTES_MAX = 4 << 20;
/** Output that is kept while it cannot be sent. Beyond it, output is dropped. */
const OUTPUT_BYTES_MAX = 16 << 20;

/** Of a payload or result in one message; larger ones travel in chunks. */
export const INLINE_BYTES_MAX = 1 << 20;
const CHUNK_BYTES = 64 << 10;

export type Report = NonNullable<WorkerMessage["kind"]>;

export class Outbox {
  #reports: Report[] = [];
  /** Results of which chunks are sent, in turn. */
  #transfers: { token: string; data: Buffer; offset: number }[] = [];
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

  /** Sends a result in chunks, which other reports may pass. */
  transfer(token: string, data: Buffer): void {
    if (this.#transfers.some((transfer) => transfer.token === token)) return;
    this.#transfers.push({ token, data, offset: 0 });
    this.#schedule();
  }

  /** Ends the stream with an error. */
  fail(error: CallError): void {
    this.#call?.cancel(error);
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
    this.#transfers = [];
    this.#reports = this.#reports.filter(({ $case }) => $case === "output" || $case === "progress");
  }

  /** Ends the stream when everything is sent. */
  finish(): void {
    while (this.#call && this.#hasMore()) this.#send();
    this.#call?.finish();
  }

  get isOpen(): boolean {
    return this.#call !== undefined;
  }

  /** Drops the reports of an attempt that is not the worker's any more. */
  drop(tokens: Set<string>): void {
    this.#reports = this.#reports.filter(({ value }) => !("token" in value && tokens.has(value.token)));
    this.#transfers = this.#transfers.filter(({ token }) => !tokens.has(token));
  }

  #hasMore(): boolean {
    return this.#reports.length > 0 || this.#transfers.length > 0;
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isCongested || !this.#call || !this.#hasMore()) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#send();
    });
  }

  #send(): void {
    const call = this.#call;
    if (!call || !this.#hasMore()) return;
    const messages = [...this.#take(), ...this.#takeChunk()];
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

  #takeChunk(): WorkerMessage[] {
    const transfer = this.#transfers.shift();
    if (!transfer) return [];
    const { token, offset } = transfer;
    const data = transfer.data.subarray(offset, offset + CHUNK_BYTES);
    transfer.offset += data.length;
    if (transfer.offset < transfer.data.length) this.#transfers.push(transfer);
    return [{ kind: { $case: "chunk", value: { token, offset: BigInt(offset), data } } }];
  }
}

function size(report: Report): number {
  if (report.$case === "output") return report.value.data.length;
  if (report.$case !== "finished" || report.value.outcome?.$case !== "result") return 0;
  const { kind } = report.value.outcome.value;
  return kind?.$case === "data" ? kind.value.length : 0;
}
