// The framing of gRPC messages: one byte of flags, four bytes of length, the message.

import type { Codec } from "./method.js";

const HEADER_BYTES = 5;

export function frame<T>(codec: Codec<T>, message: T): Buffer {
  const bytes = codec.encode(message).finish();
  const framed = Buffer.allocUnsafe(HEADER_BYTES + bytes.length);
  framed[0] = 0;
  framed.writeUInt32BE(bytes.length, 1);
  framed.set(bytes, HEADER_BYTES);
  return framed;
}

/** Cuts what arrives into messages. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** Bytes that are needed before another message can be complete. */
  #needed = HEADER_BYTES;

  /** Calls `message` with each complete message. */
  read(chunk: Buffer, message: (bytes: Buffer) => void): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes < this.#needed) return;
    const all = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks, this.#bytes);
    let at = 0;
    this.#needed = HEADER_BYTES;
    while (all.length - at >= HEADER_BYTES) {
      if (all[at] !== 0) throw new Error("the message is compressed, although this was not requested");
      const end = at + HEADER_BYTES + all.readUInt32BE(at + 1);
      if (end > all.length) {
        this.#needed = end - at;
        break;
      }
      message(all.subarray(at + HEADER_BYTES, end));
      at = end;
    }
    const rest = all.subarray(at);
    this.#chunks = rest.length === 0 ? [] : [rest];
    this.#bytes = rest.length;
  }
}
