// Functions that the tests run in threads.

import { setTimeout as sleep } from "node:timers/promises";
import { parentPort } from "node:worker_threads";
import { Payload, PermanentError, type TaskContext } from "../src/index.js";

export default function add({ a, b }: { a: number; b: number }): number {
  return a + b;
}

export async function report(_: unknown, context: TaskContext): Promise<Uint8Array> {
  console.log("from the thread");
  context.log(context.taskId);
  context.progress(0.5);
  return Buffer.from("bytes");
}

export function spin(): void {
  for (;;);
}

export function obey(_: unknown, { signal }: TaskContext): Promise<void> {
  return sleep(60_000, undefined, { signal });
}

export function fail(how: string): void {
  if (how === "exit") process.exit(7);
  if (how === "permanent") throw new PermanentError("never again");
  throw new RangeError("broken", { cause: new Error("deep") });
}

export async function wait(_: unknown, { suspend }: TaskContext): Promise<string> {
  await suspend(sleep(1));
  return "resumed";
}

export async function join(_: unknown, { parents }: TaskContext): Promise<unknown[]> {
  const found = [];
  for await (const { taskId, state, result } of parents())
    found.push([taskId, state, (result as Buffer | undefined)?.length ?? -1]);
  return found;
}

export async function leave(_: unknown, context: TaskContext): Promise<string> {
  await context.artifact("x.txt", Buffer.from("from the thread"));
  return "left";
}

/** Ends the thread after the function has returned. */
export function late(how: string): string {
  setImmediate(() => {
    if (how === "exit") process.exit(0);
    if (how === "reject") void Promise.reject(new Error("late rejection"));
    else throw new Error("late error");
  });
  return "returned";
}

let earlier: TaskContext;

export function remember(_: unknown, context: TaskContext): string {
  earlier = context;
  return "remembered";
}

/** Reports with the context of an earlier task, and posts messages of its own. */
export function confuse(): string {
  earlier.progress(0.9, "of the earlier task");
  earlier.log("of the earlier task");
  void earlier.suspend(Promise.resolve());
  for (const message of [null, "text", { kind: "returned" }, { kind: "threw" }]) parentPort?.postMessage(message);
  return "confused";
}

function circular(): Error {
  const error = new Error("own cause");
  error.cause = error;
  return error;
}

function mutual(): Error {
  const [first, second] = [new Error("first"), new Error("second")];
  [first.cause, second.cause] = [second, first];
  return first;
}

function withMessage(property: PropertyDescriptor): Error {
  return Object.defineProperty(new Error("hidden"), "message", property);
}

const refuse = () => {
  throw new Error("no access");
};

/** An error with one cause more each time it is asked for it. */
class Endless extends Error {
  override get cause(): Error {
    return new Endless();
  }
}

/** Values that are hard to describe, and the beginning of the message of their failure. */
export const THROWN: Record<string, [make: () => unknown, message: string]> = {
  circular: [circular, "Error: own cause"],
  mutual: [mutual, "Error: first"],
  endless: [() => new Endless("many"), "Error: many"],
  "no prototype": [() => Object.create(null) as unknown, "[Object: null prototype] {}"],
  symbol: [() => Symbol("s"), "Symbol(s)"],
  undefined: [() => undefined, "undefined"],
  null: [() => null, "null"],
  "message getter": [() => withMessage({ get: refuse }), "Error: undefined"],
  "message object": [() => withMessage({ value: Object.create(null) }), "Error: [Object: null prototype] {}"],
  "stack list": [() => Object.assign(new Error("listed"), { stack: [1, 2] }), "Error: listed"],
  "all getters": [
    () => Object.defineProperties(new Error(), Object.fromEntries(FIELDS.map((name) => [name, { get: refuse }]))),
    "undefined: undefined",
  ],
  proxy: [() => new Proxy(new Error(), { get: refuse, getPrototypeOf: refuse }), ""],
  revoked: [revoked, "<Revoked Proxy>"],
  "no text": [() => ({ toString: refuse, [Symbol.for("nodejs.util.inspect.custom")]: refuse }), "a value of which no text"],
  surrogate: [() => new Error("half \ud800"), "Error: half \ufffd"],
};
const FIELDS = ["stack", "name", "message", "cause", "code"];

function revoked(): unknown {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

export function throwing(name: string): void {
  throw THROWN[name]![0]();
}

/** Results that cannot be sent, and a part of the message of their failure. */
export const UNSENDABLE: Record<string, [make: () => unknown, message: string]> = {
  bigint: [() => 10n, "serialize a BigInt"],
  circular: [() => ((list: unknown[]) => (list.push(list), list))([]), "circular structure"],
  function: [() => () => 1, "a function cannot be sent"],
  symbol: [() => Symbol("s"), "a symbol cannot be sent"],
  toJSON: [() => ({ toJSON: refuse }), "no access"],
  "no content type": [() => new Payload(Buffer.from("x"), Object.create(null) as string), "content type of a Payload has type object"],
  "no bytes": [() => new Payload("x" as unknown as Uint8Array, "text/plain"), "data of a Payload has type string"],
};

export function unsendable(name: string): unknown {
  return UNSENDABLE[name]![0]();
}
