// What a function returns, as its result.

import { PermanentError } from "../errors.js";
import type { Payload } from "../gen/lineshaft/v1/task.js";
import { encode } from "../payload.js";
import { describe } from "./failure.js";

/** @throws PermanentError if the value cannot be sent, since another attempt would most likely return the same */
export function encodeResult(value: unknown): Payload | undefined {
  try {
    return encode(value);
  } catch (error) {
    throw new PermanentError(`the result cannot be sent: ${describe(error).message}`, { cause: error });
  }
}
