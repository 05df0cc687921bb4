// Values as payloads and results: bytes with a content type.

import { isUtf8 } from "node:buffer";
import type { Payload as WirePayload } from "./gen/lineshaft/v1/task.js";
import { LineshaftError } from "./errors.js";

const JSON_TYPE = "application/json";
const BYTES_TYPE = "application/octet-stream";

/** Bytes with a content type other than `application/octet-stream`. */
export class Payload {
  constructor(
    readonly data: Uint8Array,
    readonly contentType: string,
  ) {}
}

/** Bytes are sent as they are, `undefined` as no payload, and any other value as JSON. */
export function encode(value: unknown): WirePayload | undefined {
  if (value === undefined) return undefined;
  if (value instanceof Payload) return wire(value.data, value.contentType);
  if (value instanceof Uint8Array) return wire(value, BYTES_TYPE);
  if (value instanceof ArrayBuffer) return wire(new Uint8Array(value), BYTES_TYPE);
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw new LineshaftError(`a ${typeof value} cannot be sent as JSON`);
  return wire(Buffer.from(text), JSON_TYPE);
}

function wire(data: Uint8Array, contentType: string): WirePayload {
  if (!ArrayBuffer.isView(data)) throw new TypeError(`the data of a Payload has type ${typeof data}, must be a Uint8Array`);
  if (typeof contentType !== "string")
    throw new TypeError(`the content type of a Payload has type ${typeof contentType}, must be a string`);
  const bytes = Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return { kind: { $case: "data", value: bytes }, contentType };
}

/** JSON becomes a value, text in UTF-8 a string, and everything else bytes. */
export function decode(payload: WirePayload | undefined): unknown {
  if (payload?.kind === undefined) return undefined;
  if (payload.kind.$case === "json") return payload.kind.value;
  const { value } = payload.kind;
  const type = payload.contentType;
  if (type === JSON_TYPE || type.startsWith(`${JSON_TYPE};`)) {
    return value.length === 0 ? undefined : JSON.parse(value.toString());
  }
  return type.startsWith("text/") && isUtf8(value) ? value.toString() : value;
}
