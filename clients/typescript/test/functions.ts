// Functions that the tests run in threads.

import { setTimeout as sleep } from "node:timers/promises";
import { PermanentError, type TaskContext } from "../src/index.js";

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
