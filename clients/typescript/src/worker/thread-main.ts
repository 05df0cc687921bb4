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
import { type HandlerFunction, progressOf, type TaskContext } from "./context.js";
import { describe } from "./failure.js";
import { encodeResult } from "./result.js";
import type { FromThread, Start, ThreadReport, ToThread } from "./thread-messages.js";

const port = parentPort!;
const post = (token: string, report: ThreadReport) => port.postMessage({ token, report } satisfies FromThread);

/** Of the last attempt. */
let current = "";
let abort = new AbortController();
let client: Client | undefined;
let waits = 0;
const resumed = new Map<number, () => void>();

tee((stream, data) => post(current, { kind: "output", stream, data }));
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
  const { token } = start.context;
  current = token;
  abort = new AbortController();
  try {
    const module = (await import(start.module)) as Record<string, unknown>;
    const call = module[start.export];
    if (typeof call !== "function") throw new PermanentError(`${start.module} exports no function ${start.export}`);
    const payload = start.payload && new Payload(start.payload.data, start.payload.contentType);
    const value = payload?.data.length === 0 ? undefined : decode(encode(payload));
    const result = encodeResult(await (call as HandlerFunction)(value, context(start, payload)));
    const data = result?.kind?.$case === "data" ? result.kind.value : undefined;
    post(token, { kind: "returned", payload: data && { data, contentType: result!.contentType } });
  } catch (error) {
    post(token, { kind: "threw", description: describe(error) });
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
    progress: (...values) => post(token, { kind: "progress", ...progressOf(...values) }),
    log: (...values) =>
      post(token, { kind: "output", stream: OutputStream.STDERR, data: Buffer.from(`${format(...values)}\n`) }),
    artifact: async (name, content, contentType) => {
      const target = { taskId, token, name, contentType };
      post(token, { kind: "artifact", artifact: await upload(channelOf(connected()), target, content, signal) });
    },
    parents: () => parents(channelOf(connected()), taskId, token, signal),
    suspend: (waiting) => suspend(token, waiting),
    run: <Result>(handler: string, payload?: unknown, options?: SubmitOptions) =>
      suspend(token, connected().run<Result>(handler, payload, { signal, namespace, ...options })),
  };
}

async function suspend<T>(token: string, waiting: Promise<T>): Promise<T> {
  const wait = waits++;
  post(token, { kind: "suspend", wait });
  try {
    return await waiting;
  } finally {
    await new Promise<void>((resolve) => {
      resumed.set(wait, resolve);
      post(token, { kind: "resume", wait });
    });
  }
}
