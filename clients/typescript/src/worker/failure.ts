// Describes what a function has thrown, which can be any value: an error that is its own cause, one whose getters throw, or an
// object without methods. Nothing here throws.

import { inspect } from "node:util";
import { PermanentError } from "../errors.js";

const MESSAGE_CHARACTERS_MAX = 1_000;
const DETAIL_CHARACTERS_MAX = 8_000;
const NO_TEXT = "a value of which no text can be made";

/** What a failure shows of a thrown value. */
export interface Description {
  message: string;
  detail: string;
  isPermanent: boolean;
}

/** An error that was described in another thread. */
export class DescribedError extends Error {
  constructor(readonly description: Description) {
    super(description.message);
  }
}

export function describe(thrown: unknown): Description {
  if (isA(thrown, DescribedError)) return thrown.description;
  const isError = isA(thrown, Error);
  const text = isError ? `${textOf(field(thrown, "name"))}: ${textOf(field(thrown, "message"))}` : textOf(thrown);
  return {
    message: text.split("\n", 1)[0]!.slice(0, MESSAGE_CHARACTERS_MAX),
    detail: isError ? withCauses(thrown, text).slice(0, DETAIL_CHARACTERS_MAX) : "",
    isPermanent: isA(thrown, PermanentError),
  };
}

/** `instanceof`, which throws for some proxies. */
export function isA<T>(value: unknown, type: abstract new (...args: never[]) => T): value is T {
  try {
    return value instanceof type;
  } catch {
    return false;
  }
}

/** A field of a thrown value; `undefined` if it cannot be read. */
export function field(thrown: unknown, name: string): unknown {
  try {
    return (thrown as Record<string, unknown> | null | undefined)?.[name];
  } catch {
    return undefined;
  }
}

function textOf(value: unknown): string {
  try {
    return String(value);
  } catch {
    // Has no toString, or one that throws.
  }
  try {
    return inspect(value);
  } catch {
    return NO_TEXT;
  }
}

function withCauses(error: Error, text: string): string {
  const seen = new Set<unknown>();
  let detail = "";
  for (let next: unknown = error; isA(next, Error) && !seen.has(next); next = field(next, "cause")) {
    if (seen.size > 0) detail += "\ncaused by: ";
    detail += textOf(field(next, "stack") ?? (next === error ? text : next));
    seen.add(next);
    // A getter can return another cause each time.
    if (detail.length > DETAIL_CHARACTERS_MAX) break;
  }
  return detail;
}
