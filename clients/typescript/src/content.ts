// The content of an artifact, which may have to be sent again.

import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rule } from "./check.js";
import type { ArtifactContent } from "./types.js";

/** Of an artifact in one message. */
const UPLOAD_BYTES = 256 << 10;

export interface Content {
  /** Whether `parts` can be called again. */
  readonly isRepeatable: boolean;
  /** The content from its beginning, in parts for one message each. */
  parts(): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

const isContent = rule(
  "bytes, a stream or an object with a path",
  (value) => typeof value === "object" && value !== null && (Symbol.asyncIterator in value || value instanceof Uint8Array || "path" in value),
);

export function contentOf(content: ArtifactContent): Content {
  isContent(content, "the content of the artifact");
  // A stream of a file has a path too.
  if (!(content instanceof Uint8Array) && Symbol.asyncIterator in content) return new StreamContent(content);
  const chunks = () =>
    content instanceof Uint8Array ? [content] : createReadStream(content.path, { highWaterMark: UPLOAD_BYTES });
  const parts = async function* () {
    for await (const chunk of chunks()) yield* cut(chunk as Uint8Array);
  };
  return { isRepeatable: true, parts, close: async () => {} };
}

/** A content that can be read once: what was read is kept in a temporary file, if there is room for it. */
class StreamContent implements Content {
  isRepeatable = true;
  readonly #source: AsyncIterator<Uint8Array | string>;
  #isOver = false;
  #file: FileHandle | undefined;
  #keptBytes = 0;

  constructor(stream: AsyncIterable<Uint8Array | string>) {
    this.#source = stream[Symbol.asyncIterator]();
  }

  async *parts(): AsyncGenerator<Buffer, void, undefined> {
    yield* this.#kept();
    // A `for await` would end the stream when the connection breaks.
    while (!this.#isOver) {
      const chunk = await this.#next();
      if (chunk !== undefined) yield* cut(chunk);
    }
  }

  async close(): Promise<void> {
    await this.#file?.close();
    if (!this.#isOver) await this.#source.return?.();
  }

  async #next(): Promise<Uint8Array | undefined> {
    let next: IteratorResult<Uint8Array | string>;
    try {
      next = await this.#source.next();
    } catch (error) {
      this.#isOver = true;
      throw error;
    }
    if (next.done) {
      this.#isOver = true;
      return undefined;
    }
    const chunk = typeof next.value === "string" ? Buffer.from(next.value) : next.value;
    if (this.isRepeatable) await this.#keep(chunk);
    return chunk;
  }

  async #keep(chunk: Uint8Array): Promise<void> {
    try {
      this.#file ??= await temporaryFile();
      for (let at = 0; at < chunk.length; ) {
        const { bytesWritten } = await this.#file.write(chunk, at, chunk.length - at, this.#keptBytes);
        at += bytesWritten;
        this.#keptBytes += bytesWritten;
      }
    } catch {
      // There is no room for it. The upload goes on, but cannot begin anew.
      this.isRepeatable = false;
    }
  }

  async *#kept(): AsyncGenerator<Buffer, void, undefined> {
    for (let at = 0; at < this.#keptBytes; ) {
      const { buffer, bytesRead } = await this.#file!.read(Buffer.alloc(UPLOAD_BYTES), 0, UPLOAD_BYTES, at);
      if (bytesRead === 0) throw new Error("the temporary file of an artifact is too short");
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }
}

async function temporaryFile(): Promise<FileHandle> {
  const path = join(tmpdir(), `lineshaft-artifact-${randomUUID()}`);
  const file = await open(path, "wx+", 0o600);
  await unlink(path);
  return file;
}

function* cut(bytes: Uint8Array): Generator<Buffer, void, undefined> {
  for (let at = 0; at < bytes.length; at += UPLOAD_BYTES) yield Buffer.from(bytes.subarray(at, at + UPLOAD_BYTES));
}
