// The program of a thread.

import { format } from "node:util";
import { parentPort } from "node:worker_threads";
import { upload } from "../artifact.js";
import { channelOf, Client, type SubmitOptions } from "../client.js";
import { PermanentError } from "../errors.js";
import { OutputStream } from "../gen/lineshaft/v1/task.js";
import { parents } from "../parents.js";
import { decode, encode, Payload } from "../payload.js";
import type { ConnectOptions } from "../rpc/endpoint.js";
import { tee } from "./capture.js";
import type { HandlerFunction, TaskContext } from "./context.js";
import { describe } from "./failure.js";
import type { FromThread, Start, ToThread } from "./thread-messages.js";

const port = parentPort!;
const post = (message: FromThread) => port.postMessage(message);
const output = (stream: OutputStream, data: Buffer) => post({ kind: "output", stream, data });

let abort = new AbortController();
let client: Client | undefined;
let waits = 0;
const resumed = new Map<number, () => void>();

tee(output);
port.on("message", (message: ToThread) => {
  switch (message.kind) {
    case "start":
      return void run(message);
    case "abort":
      return abort.abort(new DOMException(message.message, "AbortError"));
    case "resumed":
      resumed.get(message.wait)?.();
      return void resumed.delete(message.wait);
  }
});

async function run(start: Start): Promise<void> {
  abort = new AbortController();
  try {
    const module = (await import(start.module)) as Record<string, unknown>;
    const call = module[start.export];
    if (typeof call !== "function") throw new PermanentError(`${start.module} exports no function ${start.export}`);
    const payload = start.payload && new Payload(start.payload.data, start.payload.contentType);
    const value = payload?.data.length === 0 ? undefined : decode(encode(payload));
    const result = encode(await (call as HandlerFunction)(value, context(start, payload)));
    const data = result?.kind?.$case === "data" ? result.kind.value : undefined;
    post({ kind: "returned", payload: data && { data, contentType: result!.contentType } });
  } catch (error) {
    post({ kind: "threw", description: describe(error) });
  }
}

function context({ context, connect }: Start, payload: Payload | undefined): TaskContext {
  const { namespace, taskId, token } = context;
  const connected = () => (client ??= new Client(connect as ConnectOptions));
  const { signal } = abort;
  return {
    ...context,
    payload,
    signal,
    get client() {
      return connected();
    },
    progress: (fraction, note) => post({ kind: "progress", fraction, note }),
    log: (...values) => output(OutputStream.STDERR, Buffer.from(`${format(...values)}\n`)),
    artifact: async (name, content, contentType) => {
      const target = { taskId, token, name, contentType };
      post({ kind: "artifact", artifact: await upload(channelOf(connected()), target, content, signal) });
    },
    parents: () => parents(channelOf(connected()), taskId, token, signal),
    suspend,
    run: <Result>(handler: string, payload?: unknown, options?: SubmitOptions) =>
      suspend(connected().run<Result>(handler, payload, { signal, namespace, ...options })),
  };
}

async function suspend<T>(waiting: Promise<T>): Promise<T> {
  const wait = waits++;
  post({ kind: "suspend", wait });
  try {
    return await waiting;
  } finally {
    await new Promise<void>((resolve) => {
      resumed.set(wait, resolve);
      post({ kind: "resume", wait });
    });
  }
}
