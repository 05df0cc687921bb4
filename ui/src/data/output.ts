// The output of a task: read in pieces, followed while the task runs.
import { signal } from "@preact/signals";
import { AnsiReader, type Span } from "../ansi";
import { OutputStream } from "../gen/lineshaft/v1/task_pb";
import { tasks } from "./client";

/** Characters that are shown of one stream; the oldest are left out. */
const SHOWN_MAX = 400_000;

/** A piece of output, or a note about what is missing. */
export interface Piece {
  id: number;
  spans: Span[];
  note?: string;
  length: number;
}

export class Output {
  readonly pieces = signal<Piece[]>([]);
  private decoder = new TextDecoder();
  private ansi = new AnsiReader();
  /** Bytes up to the end of what was read. */
  readonly written = signal(0n);
  private next = 0;

  constructor(private taskId: string, private stream: OutputStream, private attempt: number) {}

  /** Reads what was written since the last call. */
  async read(ended: AbortSignal) {
    const request = { taskId: this.taskId, stream: this.stream, offset: this.written.peek(), attempt: this.attempt };
    for await (const chunk of tasks.readOutput(request, { signal: ended })) {
      if (ended.aborted) return;
      if (chunk.skipped > 0n) this.push([], `${chunk.skipped} bytes were not kept`);
      this.written.value = chunk.offset + BigInt(chunk.data.length);
      const spans = this.ansi.read(this.decoder.decode(chunk.data, { stream: true }));
      if (spans.length) this.push(spans);
    }
  }

  private push(spans: Span[], note?: string) {
    const length = spans.reduce((total, span) => total + span.text.length, 0);
    const pieces = [...this.pieces.value, { id: this.next++, spans, length, ...(note && { note }) }];
    let total = pieces.reduce((sum, piece) => sum + piece.length, 0);
    while (total > SHOWN_MAX && pieces.length > 1) total -= pieces.shift()!.length;
    this.pieces.value = pieces;
  }

  /** What is shown, without colours. */
  text(): string {
    return this.pieces.value.flatMap((piece) => piece.spans.map((span) => span.text)).join("");
  }
}
