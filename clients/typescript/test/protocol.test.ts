// What a worker sends, message by message.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  CallError,
  LineshaftError,
  PermanentError,
  type TaskContext,
  Worker,
  type WorkerOptions,
} from "../src/index.js";
import { FailureReason, OutputStream, StopMethod } from "../src/gen/lineshaft/v1/task.js";
import { StopReason } from "../src/gen/lineshaft/v1/worker_service.js";
import { FakeServer } from "./fake-server.js";

let server: FakeServer;
const ends: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  server = await new FakeServer().start();
});

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
  server.end();
});

function worker(options: WorkerOptions = {}): Worker {
  return new Worker({ address: server.address, log: () => {}, ...options });
}

/** Starts a worker; it is stopped at the end of the test. */
async function started(worker: Worker) {
  const running = worker.run({ signals: false });
  running.catch(() => {});
  ends.push(async () => {
    worker.stop({ force: true });
    await running.catch(() => {});
  });
  const stream = await server.stream();
  const hello = await stream.hello();
  stream.welcome();
  return { stream, hello, running };
}

test("a worker introduces itself, runs a task and forgets it when its end is stored", async () => {
  const { stream, hello, running } = await started(
    worker({ workerId: "w-1", concurrency: 3, pool: "p", labels: { zone: "a" } })
      .handle("add", ({ a, b }: { a: number; b: number }) => a + b, { description: "Adds." })
      .handle("other", () => {}),
  );
  const { workerId, slots, pool, labels, handlers, unfinished, version } = hello;
  assert.deepEqual(
    { workerId, slots, pool, labels, unfinished },
    { workerId: "w-1", slots: 3, pool: "p", labels: { zone: "a" }, unfinished: [] },
  );
  assert.deepEqual(handlers, [
    { name: "add", description: "Adds." },
    { name: "other", description: "" },
  ]);
  assert.match(version, /^lineshaft-typescript\/\d/);
  stream.assign("t1", "add", { a: 2, b: 3 });
  assert.equal((await stream.expect("accepted")).token, "t1");
  const { token, outcome } = await stream.expect("finished");
  assert.equal(token, "t1");
  assert(outcome?.$case === "result" && outcome.value.kind?.$case === "data");
  assert.equal(outcome.value.kind.value.toString(), "5");
  assert.equal(outcome.value.contentType, "application/json");
  stream.send({ $case: "settled", value: { tokens: ["t1"] } });
  stream.assign("t2", "other");
  await stream.expect("accepted");
  await stream.expect("finished");
  server.cut();
  const again = await server.stream();
  assert.deepEqual((await again.hello()).unfinished, ["t2"]);
  assert.equal((await again.hello()).workerId, "w-1");
  void running;
});

test("the context describes the task", async () => {
  let seen: TaskContext | undefined;
  const { stream } = await started(worker().handle("look", (_, context) => void (seen = context)));
  stream.assign("t1", "look", [1]);
  await stream.expect("accepted");
  const { outcome } = await stream.expect("finished");
  assert(outcome?.$case === "result", "nothing is a result");
  const { taskId, handler, attempt, namespace, priority, timeout, payload, signal } = seen!;
  assert.deepEqual(
    { taskId, handler, attempt, namespace, priority, timeout },
    {
      taskId: "task-t1",
      handler: "look",
      attempt: 1,
      namespace: "default",
      priority: "normal",
      timeout: 300_000,
    },
  );
  assert.equal(Buffer.from(payload!.data).toString(), "[1]");
  assert.equal(signal.aborted, false);
});

test("errors become failures", async () => {
  class OddError extends Error {
    override name = "OddError";
  }
  const { stream } = await started(
    worker()
      .handle("throw", () => {
        throw new OddError("broken\nsecond line", { cause: new Error("deep") });
      })
      .handle("permanent", async () => {
        throw new PermanentError("never");
      })
      .handle("text", () => Promise.reject("just text"))
      .handle("unsendable", () => 10n)
      .handle("payload", () => 1),
  );
  const failureOf = async (handler: string, payload?: unknown) => {
    stream.assign(handler, handler, payload);
    await stream.expect("accepted");
    const { outcome } = await stream.expect("finished");
    assert(outcome?.$case === "failure");
    return outcome.value;
  };
  const thrown = await failureOf("throw");
  assert.deepEqual(
    [thrown.reason, thrown.message, thrown.retryable],
    [FailureReason.HANDLER_ERROR, "OddError: broken", true],
  );
  assert.match(thrown.detail, /protocol\.test.*caused by: Error: deep/s);
  const permanent = await failureOf("permanent");
  assert.deepEqual([permanent.message, permanent.retryable], ["PermanentError: never", false]);
  assert.equal((await failureOf("text")).message, "just text");
  assert.match((await failureOf("unsendable")).message, /BigInt/);
  assert.match((await failureOf("nosuch")).message, /no function for handler nosuch/);
  stream.send({
    $case: "assigned",
    value: {
      token: "bad",
      taskId: "x",
      namespace: "",
      handler: "payload",
      attempt: 1,
      timeout: undefined,
      traceparent: "",
      tracestate: "",
      payloadBytes: 0n,
      priority: 2,
      labels: {},
      payload: { kind: { $case: "data", value: Buffer.from("{") }, contentType: "application/json" },
    },
  });
  await stream.expect("accepted");
  const { outcome } = await stream.expect("finished");
  assert(outcome?.$case === "failure");
  assert.deepEqual([outcome.value.reason, outcome.value.retryable], [FailureReason.INVALID_PAYLOAD, false]);
});

test("a cancel is acknowledged at once and aborts the signal", async () => {
  const { stream } = await started(
    worker()
      .handle("obedient", (_, { signal }) => sleep(60_000, undefined, { signal }))
      .handle("stubborn", async (_, { signal }) => {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        return "done anyway";
      }),
  );
  for (const handler of ["obedient", "stubborn"]) {
    stream.assign(handler, handler);
    await stream.expect("accepted");
    stream.send({ $case: "cancel", value: { token: handler, reason: StopReason.CANCEL, grace: undefined } });
    assert.equal((await stream.expect("cancelAcknowledged")).token, handler);
    const { outcome } = await stream.expect("finished");
    if (handler === "obedient") assert.deepEqual(outcome, { $case: "stopped", value: { method: StopMethod.TOKEN } });
    else assert(outcome?.$case === "result");
  }
  // A cancel of an attempt that has ended is acknowledged too.
  stream.send({ $case: "cancel", value: { token: "obedient", reason: StopReason.CANCEL, grace: undefined } });
  await stream.expect("cancelAcknowledged");
});

test("after a broken connection the attempts go on and unacknowledged ends are repeated", async () => {
  let finish: (value: string) => void = () => {};
  const { stream } = await started(
    worker()
      .handle("quick", () => 1)
      .handle("slow", () => new Promise<string>((resolve) => (finish = resolve))),
  );
  stream.assign("slow-1", "slow");
  await stream.expect("accepted");
  stream.assign("quick-1", "quick");
  await stream.expect("accepted");
  await stream.expect("finished");
  server.cut();
  const second = await server.stream();
  assert.deepEqual(new Set((await second.hello()).unfinished), new Set(["slow-1", "quick-1"]));
  second.welcome();
  assert.equal((await second.expect("finished")).token, "quick-1");
  second.send({ $case: "settled", value: { tokens: ["quick-1"] } });
  finish("at last");
  assert.equal((await second.expect("finished")).token, "slow-1");
});

test("an attempt that is not the worker's any more is stopped and not reported", async () => {
  const aborted: unknown[] = [];
  const { stream } = await started(
    worker()
      .handle("wait", async (_, { signal }) => {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        aborted.push(signal.reason.message);
      })
      .handle("quick", () => 1),
  );
  for (const token of ["a", "b"]) {
    stream.assign(token, "wait");
    await stream.expect("accepted");
  }
  stream.send({ $case: "cancel", value: { token: "a", reason: StopReason.STALE, grace: undefined } });
  stream.assign("q", "quick");
  await stream.expect("accepted");
  await stream.expect("finished");
  server.cut();
  const second = await server.stream();
  assert.deepEqual((await second.hello()).unfinished, ["b", "q"]);
  second.welcome(["b", "q"]);
  second.assign("c", "quick");
  assert.equal((await second.expect("accepted")).token, "c");
  assert.equal((await second.expect("finished")).token, "c");
  assert.deepEqual(aborted, Array(2).fill("the attempt is not this worker's any more"));
});

test("progress and output are reported in order", async () => {
  const { stream } = await started(
    worker().handle("report", async (_, context) => {
      console.log("to the console");
      console.error("to the log");
      context.progress(0.25, "a quarter");
      context.log("number %d", 5, { a: 1 });
      await sleep(1);
      process.stdout.write("later\n");
      return "done";
    }),
  );
  stream.assign("t", "report");
  await stream.expect("accepted");
  const reports: Awaited<ReturnType<typeof stream.report>>[] = [];
  for (let report; (report = await stream.report()).$case !== "finished";) reports.push(report);
  const written = (stream: OutputStream) =>
    reports
      .flatMap((report) =>
        report.$case === "output" && report.value.stream === stream ? [report.value.data.toString()] : [],
      )
      .join("");
  assert.equal(written(OutputStream.STDOUT), "to the console\nlater\n");
  assert.equal(written(OutputStream.STDERR), "to the log\nnumber 5 { a: 1 }\n");
  const progress = reports.find(({ $case }) => $case === "progress");
  assert.deepEqual(progress?.value, { token: "t", fraction: 0.25, note: "a quarter" });
});

test("console output of concurrent tasks is kept apart, and can be left out", async () => {
  const write = async (text: string) => {
    await sleep(1);
    console.log(text);
  };
  const { stream } = await started(worker().handle("write", write));
  for (const token of ["a", "b"]) stream.assign(token, "write", token);
  const outputs = new Map<string, string>();
  for (let ended = 0; ended < 2;) {
    const report = await stream.report();
    if (report.$case === "output") outputs.set(report.value.token, report.value.data.toString());
    if (report.$case === "finished") ended++;
  }
  assert.deepEqual(
    outputs,
    new Map([
      ["a", "a\n"],
      ["b", "b\n"],
    ]),
  );
});

test("a draining worker finishes what runs, returns what is assigned, and ends the stream", async () => {
  let finish: () => void = () => {};
  const draining = worker().handle("slow", () => new Promise<void>((resolve) => (finish = resolve)));
  const { stream, running } = await started(draining);
  stream.assign("t1", "slow");
  await stream.expect("accepted");
  draining.stop();
  await stream.expect("draining");
  stream.assign("t2", "slow");
  assert.deepEqual((await stream.expect("finished")).outcome, { $case: "notStarted", value: {} });
  stream.send({ $case: "settled", value: { tokens: ["t2"] } });
  finish();
  assert.equal((await stream.expect("finished")).token, "t1");
  stream.send({ $case: "settled", value: { tokens: ["t1"] } });
  await stream.ended();
  stream.end();
  await running;
});

test("a worker whose tasks have ended stops at once", async () => {
  const idle = worker().handle("quick", () => {});
  const { stream, running } = await started(idle);
  stream.assign("t", "quick");
  await stream.expect("accepted");
  await stream.expect("finished");
  idle.stop(); // Waits until the end is stored.
  await stream.expect("draining");
  stream.send({ $case: "settled", value: { tokens: ["t"] } });
  await stream.ended();
  stream.end();
  await running;
});

test("a worker that is not connected stops at once", async () => {
  server.end();
  const away = worker().handle("none", () => {});
  const running = away.run({ signals: false });
  away.stop();
  await running;
});

test("a worker that stops by force aborts its tasks", async () => {
  let reason: unknown;
  let begin: () => void;
  const begun = new Promise<void>((resolve) => (begin = resolve));
  const forced = worker().handle("wait", async (_, { signal }) => {
    begin();
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    reason = signal.reason;
  });
  const { stream, running } = await started(forced);
  stream.assign("t", "wait");
  await stream.expect("accepted");
  await begun;
  forced.stop({ force: true });
  await running;
  assert(reason instanceof Error);
});

test("the slot is free while a task waits for others", async () => {
  let [go, inside]: [() => void, boolean] = [() => {}, false];
  const { stream } = await started(
    worker().handle("parent", async (_, { suspend }) => {
      const waiting = new Promise<void>((resolve) => (go = resolve));
      await Promise.all([suspend(waiting), suspend(waiting)]);
      inside = true;
      return "resumed";
    }),
  );
  stream.assign("t", "parent");
  await stream.expect("accepted");
  await stream.expect("suspended");
  go();
  await stream.expect("resuming");
  assert.equal(inside, false, "it waits for a slot");
  stream.send({ $case: "resumed", value: { token: "t" } });
  const { outcome } = await stream.expect("finished");
  assert(outcome?.$case === "result" && inside);
});

test("an attempt that waits for a slot can be stopped, and reports of its leftovers do no harm", async () => {
  let [left, after]: [Promise<unknown>, boolean] = [Promise.resolve(), false];
  const { stream } = await started(
    worker()
      .handle("parent", async (_, { suspend, signal }) => {
        await suspend(Promise.resolve());
        after = true;
        signal.throwIfAborted();
      })
      .handle("leaver", (_, { suspend }) => void setImmediate(() => (left = suspend(Promise.resolve())))),
  );
  stream.assign("t", "parent");
  await stream.expect("accepted");
  await stream.expect("suspended");
  await stream.expect("resuming");
  assert.equal(after, false, "it waits for a slot");
  stream.send({ $case: "cancel", value: { token: "t", reason: StopReason.CANCEL, grace: { seconds: 60n, nanos: 0 } } });
  await stream.expect("cancelAcknowledged");
  assert.equal((await stream.expect("finished")).outcome?.$case, "stopped");
  stream.assign("u", "leaver");
  await stream.expect("accepted");
  await stream.expect("finished");
  await left;
});

test("an attempt is accepted before its function can block the event loop", async () => {
  const directory = mkdtempSync(join(tmpdir(), "lineshaft-ts-"));
  const go = join(directory, "go");
  const program = `
    import { existsSync } from "node:fs";
    import { Worker } from ${JSON.stringify(new URL("../src/index.js", import.meta.url).href)};
    const block = () => { while (!existsSync(${JSON.stringify(go)})); };
    await new Worker({ address: ${JSON.stringify(server.address)} }).handle("block", block).run();
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: "ignore" });
  try {
    const stream = await server.stream();
    await stream.hello();
    stream.welcome();
    stream.assign("t", "block");
    await stream.expect("accepted");
    writeFileSync(go, "");
    await stream.expect("finished");
    stream.send({ $case: "settled", value: { tokens: ["t"] } });
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    await stream.expect("draining");
    await stream.ended();
    stream.end();
    assert.deepEqual(await exited, [0, null]);
  } finally {
    child.kill("SIGKILL");
    rmSync(directory, { recursive: true });
  }
});

test("a worker that the server refuses ends with the reason", async () => {
  const { stream, running } = await started(worker().handle("x", () => {}));
  stream.end(10, "WORKER_REPLACED");
  const again = await server.stream(); // ABORTED without the reason is not final.
  await again.hello();
  again.end(3, "worker_id is bad");
  await assert.rejects(running, (error) => error instanceof CallError && /worker_id is bad/.test(error.message));
});

test("mistakes in the use of a worker are errors", async () => {
  const twice = worker().handle("x", () => {});
  assert.throws(() => twice.handle("x", () => {}), LineshaftError);
  await assert.rejects(worker().run(), /no handler/);
  await started(twice);
  assert.throws(() => twice.handle("y", () => {}), /has started/);
  await assert.rejects(twice.run(), /runs once/);
});

test("a large payload is whole before the task begins, and a large result follows when the server requests it", async () => {
  const server = await new FakeServer().start();
  const reversed = new Worker({ address: server.address, log: () => {} });
  reversed.handle("reverse", (data: Uint8Array) => Buffer.from(data).reverse());
  const running = reversed.run({ signals: false });
  const stream = await server.stream();
  assert.equal((await stream.hello()).chunks, true);
  stream.welcome([], 10, 8n << 20n);
  const sent = Buffer.from(Array.from({ length: (1 << 20) + 10 }, (_, at) => at % 251));
  stream.assignLarge("t1", "reverse", sent.length);
  stream.assignLarge("t2", "reverse", sent.length);
  stream.chunk("t1", 0, sent.subarray(0, 1 << 20));
  stream.chunk("t2", 0, sent.subarray(0, 1 << 20));
  stream.chunk("unknown", 5, sent.subarray(0, 5));
  stream.send({ $case: "cancel", value: { token: "t2", reason: StopReason.CANCEL, grace: undefined } });
  assert.equal((await stream.expect("cancelAcknowledged")).token, "t2");
  const stopped = await stream.expect("finished");
  assert.deepEqual(stopped.outcome, { $case: "stopped", value: { method: StopMethod.NEVER_STARTED } });
  stream.chunk("t2", 1 << 20, sent.subarray(1 << 20));
  stream.chunk("t1", 1 << 20, sent.subarray(1 << 20));
  assert.equal((await stream.expect("accepted")).token, "t1");
  const announced = await stream.expect("finished");
  assert.equal(announced.resultBytes, BigInt(sent.length));
  assert(announced.outcome?.$case === "result" && announced.outcome.value.kind === undefined);
  stream.send({ $case: "resultRequested", value: { token: "t1" } });
  const parts: Buffer[] = [];
  for (let offset = 0; offset < sent.length; ) {
    const chunk = await stream.expect("chunk");
    assert.deepEqual([chunk.token, chunk.offset], ["t1", BigInt(offset)]);
    parts.push(chunk.data);
    offset += chunk.data.length;
  }
  assert(Buffer.concat(parts).equals(Buffer.from(sent).reverse()));
  reversed.stop({ force: true });
  await running;
  server.end();
});

test("a chunk that does not follow the one before it ends the stream", async () => {
  const { stream } = await started(worker().handle("h", () => {}));
  stream.assignLarge("t1", "h", 10);
  stream.chunk("t1", 3, Buffer.from("abc"));
  const again = await server.stream();
  assert.deepEqual((await again.hello()).unfinished, []);
});
