// Copies what a task writes to the console into its output.

import { AsyncLocalStorage } from "node:async_hooks";
import { OutputStream } from "../gen/lineshaft/v1/task.js";

/** Gets what was written. */
export type Sink = (stream: OutputStream, data: Buffer) => void;

const current = new AsyncLocalStorage<Sink | undefined>();
let users = 0;
let restore: () => void = () => {};

/** Runs a function; what it and what it calls write goes to `sink` too, while some worker captures. */
export function captured<T>(sink: Sink, run: () => T): T {
  return users === 0 ? run() : current.run(sink, run);
}

/** Runs a function; what is written because of it is not captured. */
export function uncaptured<T>(run: () => T): T {
  return current.run(undefined, run);
}

/** Starts to capture, and returns a function that ends it. */
export function capture(): () => void {
  if (users++ === 0) restore = patch();
  return () => {
    if (--users === 0) restore();
  };
}

function patch(): () => void {
  return tee((stream, data) => current.getStore()?.(stream, data));
}

/** Passes everything that is written to the console to `sink` too, and returns a function that ends this. */
export function tee(sink: Sink): () => void {
  const ends = [
    teeStream(process.stdout, (data) => sink(OutputStream.STDOUT, data)),
    teeStream(process.stderr, (data) => sink(OutputStream.STDERR, data)),
  ];
  return () => ends.forEach((end) => end());
}

function teeStream(stream: NodeJS.WriteStream, sink: (data: Buffer) => void): () => void {
  const write = stream.write;
  const patched = function (this: NodeJS.WriteStream, ...args: Parameters<typeof write>): boolean {
    const [data, encoding] = args;
    sink(
      typeof data === "string"
        ? Buffer.from(data, typeof encoding === "string" ? encoding : "utf8")
        : Buffer.from(data),
    );
    return write.apply(this, args);
  } as typeof write;
  stream.write = patched;
  return () => {
    // Another library may have patched it since.
    if (stream.write === patched) stream.write = write;
  };
}
