import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { after, before, test } from "node:test";
import { FailureReason, OutputStream, StopMethod } from "../src/gen/lineshaft/v1/task.js";
import { AttemptAssigned, StopReason } from "../src/gen/lineshaft/v1/worker_service.js";
import { Worker } from "../src/index.js";
import { THROWN, throwing, UNSENDABLE, unsendable } from "./functions.js";
import { FakeServer, type FakeStream } from "./fake-server.js";

let server: FakeServer;
let worker: Worker;
let stream: FakeStream;
let running: Promise<void>;
const logged = new EventEmitter();

before(async () => {
  server = await new FakeServer().start();
  worker = new Worker({ address: server.address, log: (line) => logged.emit("line", line) });
  const module = new URL("./functions.js", import.meta.url);
  worker.handleInThread("add", module);
  for (const name of ["report", "spin", "obey", "fail", "wait", "missing", "throwing", "late", "remember", "confuse", "unsendable"])
    worker.handleInThread(name, module, { export: name });
  worker.handle("throwingHere", throwing).handle("unsendableHere", unsendable);
  running = worker.run({ signals: false });
  stream = await server.stream();
  await stream.hello();
  stream.welcome();
});

after(async () => {
  worker.stop({ force: true });
  await running;
  server.end();
});

async function outcome(token: string, handler: string, payload?: unknown) {
  stream.assign(token, handler, payload);
  await stream.expect("accepted");
  return (await stream.expect("finished")).outcome;
}

test("a function in a thread returns its result", async () => {
  for (const token of ["a1", "a2"]) {
    const result = await outcome(token, "add", { a: 1, b: 2 });
    assert(result?.$case === "result" && result.value.kind?.$case === "data");
    assert.equal(result.value.kind.value.toString(), "3");
    assert.equal(result.value.contentType, "application/json");
  }
});

test("a function in a thread reports progress and output before its end", async () => {
  stream.assign("r", "report");
  await stream.expect("accepted");
  const first = await stream.expect("output");
  assert.deepEqual([first.stream, first.data.toString()], [OutputStream.STDOUT, "from the thread\n"]);
  const second = await stream.expect("output");
  assert.deepEqual([second.stream, second.data.toString()], [OutputStream.STDERR, "task-r\n"]);
  assert.equal((await stream.expect("progress")).fraction, 0.5);
  const { outcome } = await stream.expect("finished");
  assert(outcome?.$case === "result" && outcome.value.kind?.$case === "data");
  assert.equal(outcome.value.kind.value.toString(), "bytes");
  assert.equal(outcome.value.contentType, "application/octet-stream");
});

test("errors in a thread are failures", async () => {
  const failureOf = async (token: string, handler: string, payload?: unknown) => {
    const result = await outcome(token, handler, payload);
    assert(result?.$case === "failure", JSON.stringify(result));
    return result.value;
  };
  const thrown = await failureOf("f1", "fail", "throw");
  assert.deepEqual(
    [thrown.reason, thrown.message, thrown.retryable],
    [FailureReason.HANDLER_ERROR, "RangeError: broken", true],
  );
  assert.match(thrown.detail, /functions\.js.*caused by: Error: deep/s);
  const permanent = await failureOf("f2", "fail", "permanent");
  assert.deepEqual([permanent.message, permanent.retryable], ["PermanentError: never again", false]);
  assert.match((await failureOf("f3", "fail", "exit")).message, /exited with code 7/);
  assert.match((await failureOf("f4", "missing")).message, /exports no function missing/);
});

test("whatever a function throws, its attempt is reported", async () => {
  for (const [name, [, message]] of Object.entries(THROWN)) {
    for (const handler of ["throwingHere", "throwing"]) {
      const result = await outcome(`${handler} ${name}`, handler, name);
      assert(result?.$case === "failure", `${name}: ${JSON.stringify(result)}`);
      assert(result.value.message.startsWith(message), `${name}: ${result.value.message}`);
      assert.equal(result.value.retryable, true);
    }
  }
  const mutual = await outcome("mutual again", "throwing", "mutual");
  assert(mutual?.$case === "failure");
  assert.match(mutual.value.detail, /^Error: first\n.*\ncaused by: Error: second\n/s);
  assert.equal(mutual.value.detail.split("caused by").length, 2, "each cause once");
});

test("a result that cannot be sent fails the task", async () => {
  for (const [name, [, message]] of Object.entries(UNSENDABLE)) {
    for (const handler of ["unsendableHere", "unsendable"]) {
      const result = await outcome(`${handler} ${name}`, handler, name);
      assert(result?.$case === "failure", `${name}: ${JSON.stringify(result)}`);
      assert(result.value.message.startsWith("PermanentError: the result cannot be sent: "), result.value.message);
      assert(result.value.message.includes(message), result.value.message);
      assert.equal(result.value.retryable, false);
    }
  }
});

test("a function that uses the CPU for ever is stopped by force, and one that obeys is not", async () => {
  for (const [token, handler, grace, method] of [
    ["s", "spin", 0n, StopMethod.ABORT],
    ["o", "obey", 60n, StopMethod.TOKEN],
  ] as const) {
    stream.assign(token, handler);
    await stream.expect("accepted");
    stream.send({ $case: "cancel", value: { token, reason: StopReason.CANCEL, grace: { seconds: grace, nanos: 0 } } });
    await stream.expect("cancelAcknowledged");
    assert.deepEqual((await stream.expect("finished")).outcome, { $case: "stopped", value: { method } });
  }
});

async function resultOf(token: string, handler: string, payload?: unknown): Promise<string> {
  const result = await outcome(token, handler, payload);
  assert(result?.$case === "result" && result.value.kind?.$case === "data", JSON.stringify(result));
  return result.value.kind.value.toString();
}

test("a thread that ends after its task is replaced", async () => {
  for (const [how, reason] of [
    ["throw", "Error: late error"],
    ["reject", "Error: late rejection"],
    ["exit", "LineshaftError: the thread has exited with code 0"],
  ] as const) {
    const ended = once(logged, "line");
    assert.equal(await resultOf(`late ${how}`, "late", how), '"returned"');
    assert.deepEqual(await ended, [`lineshaft: a thread has ended after its task: ${reason}`]);
    assert.equal(await resultOf(`after ${how}`, "add", { a: 1, b: 2 }), "3");
  }
});

test("what an earlier task of a thread reports is ignored", async () => {
  assert.equal(await resultOf("earlier", "remember"), '"remembered"');
  assert.equal(await resultOf("later", "confuse"), '"confused"');
});

test("a function in a thread is told that its attempt was stopped before it started", async () => {
  const value = AttemptAssigned.fromPartial({ token: "early", handler: "obey", taskId: "task-early", priority: 2 });
  const cancel = { token: "early", reason: StopReason.CANCEL, grace: { seconds: 60n, nanos: 0 } };
  stream.send({ $case: "assigned", value }, { $case: "cancel", value: cancel });
  await stream.expect("accepted");
  await stream.expect("cancelAcknowledged");
  assert.deepEqual((await stream.expect("finished")).outcome, { $case: "stopped", value: { method: StopMethod.TOKEN } });
});

test("a function in a thread gives its slot back while it waits", async () => {
  stream.assign("w", "wait");
  await stream.expect("accepted");
  await stream.expect("suspended");
  await stream.expect("resuming");
  stream.send({ $case: "resumed", value: { token: "w" } });
  const { outcome } = await stream.expect("finished");
  assert(outcome?.$case === "result" && outcome.value.kind?.$case === "data");
  assert.equal(outcome.value.kind.value.toString(), '"resumed"');
});
