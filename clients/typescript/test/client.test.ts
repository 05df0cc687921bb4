import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  AlreadyExistsError,
  asCompleted,
  Client,
  DeadlineExceededError,
  FailedPreconditionError,
  InvalidArgumentError,
  LineshaftError,
  NotFoundError,
  Payload,
  ResourceExhaustedError,
  TaskCancelledError,
  type TaskEvent,
  TaskFailedError,
  WaitTimeoutError,
} from "../src/index.js";
import { Server } from "./server.js";

let server: Server;
let client: Client;

before(async () => {
  server = await new Server().start();
  client = new Client(server.address);
});

after(async () => {
  client.close();
  await server.end();
});

/** The error that a promise is rejected with. */
async function rejection<E extends Error>(promise: Promise<unknown>, kind: new (...args: never[]) => E): Promise<E> {
  const error = await promise.then(
    () => assert.fail("should have failed"),
    (error: unknown) => error,
  );
  assert(error instanceof kind, `${error}`);
  return error;
}

const sumTo = (n: number) => ({ op: "sum", n, value: n === 0 ? 0 : (n * (n - 1)) / 2 });

test("a task is submitted and returns its result", async () => {
  const task = await client.submit("compute", 100);
  assert.deepEqual(await task.result(), sumTo(100));
  assert.deepEqual(await task.result(), sumTo(100), "again");
  assert.equal(task.isDuplicate, false);
  assert.deepEqual(await client.run("compute", 10), sumTo(10));
});

test("bytes, text and other values are passed unchanged", async () => {
  // The result of a program is text, if it is UTF-8.
  const bytes = new Uint8Array([0, 255, 10, 128]);
  assert.deepEqual(new Uint8Array(await client.run<Uint8Array>("echo", bytes)), bytes);
  assert.deepEqual(new Uint8Array(await client.run<Uint8Array>("echo", bytes.buffer)), bytes);
  assert.equal(await client.run("echo", new Payload(Buffer.from("grüße"), "text/x")), "grüße");
  assert.equal(await client.run("echo", { a: [1, null, "ü"] }), '{"a":[1,null,"ü"]}');
  assert.equal(await client.run("echo"), "");
  await rejection(
    client.submit("echo", () => 1),
    LineshaftError,
  );
});

test("options of a submission are those of the task", async () => {
  const task = await client.submit("io", 0, {
    priority: "high",
    labels: { team: "red" },
    displayName: "a name",
    timeout: 12_345,
    taskId: "options-1",
  });
  const info = await task.wait();
  assert.equal(task.id, "options-1");
  const { priority, labels, displayName, timeout, state, namespace, handler } = info;
  assert.deepEqual(
    { priority, labels, displayName, timeout, state, namespace, handler },
    {
      priority: "high",
      labels: { team: "red" },
      displayName: "a name",
      timeout: 12_345,
      state: "COMPLETED",
      namespace: "default",
      handler: "io",
    },
  );
  assert(info.finishedAt! >= info.submittedAt!);
  await assert.rejects(
    client.submit("io", 0, { priority: "urgent" as "high" }),
    /must be one of low, normal, high, critical/,
  );
});

test("a result is used again", async () => {
  const options = { uniqueKey: "sum:5", reuseResultWithin: 3_600_000 };
  const first = await client.submit("compute", 5, options);
  assert.deepEqual(await first.result(), sumTo(5));
  const again = await client.submit("compute", 5, options);
  assert.deepEqual([again.id, await again.result()], [first.id, sumTo(5)]);
});

test("a task waits for a place of its limit", async () => {
  const limits = [{ key: "place", maxRunning: 1 }, { key: "rate", rate: { starts: 100, interval: 500, burst: 3 } }];
  const first = await client.submit("io", 60, { limits });
  const second = await client.submit("io", 0, { limits });
  assert.equal((await second.refresh()).state, "WAITING");
  await first.cancel();
  assert.equal((await second.wait()).state, "COMPLETED");
  await rejection(client.submit("io", 0, { limits: [{ key: "place" }] }), InvalidArgumentError);
});

test("a unique key is used once", async () => {
  const first = await client.submit("io", 60, { uniqueKey: "u" });
  const same = await client.submit("io", 60, { uniqueKey: "u", onUniqueConflict: "use_existing" });
  assert.equal(same.id, first.id);
  const refused = await rejection(client.submit("io", 60, { uniqueKey: "u" }), AlreadyExistsError);
  assert.equal(refused.reason, "UNIQUE_KEY_TAKEN");
  await first.cancel();
  const together = Array.from({ length: 50 }, () =>
    client.submit("io", 60, { uniqueKey: "v", onUniqueConflict: "use_existing" }),
  );
  const ids = new Set((await Promise.all(together)).map(({ id }) => id));
  assert.equal(ids.size, 1, "submissions at the same time follow the rule");
  const rivals = await Promise.allSettled(Array.from({ length: 50 }, () => client.submit("io", 60, { uniqueKey: "w" })));
  assert.equal(rivals.filter(({ status }) => status === "fulfilled").length, 1, "one of many at the same time has the key");
});

test("a failed task throws its failure", async () => {
  const error = await rejection(client.run("fail"), TaskFailedError);
  assert.equal(error.failure.reason, "HANDLER_ERROR");
  assert.equal(error.failure.exitCode, 3);
  assert.match(error.failure.detail, /broken/);
  assert.match(error.stack!, /client\.test/, "the stack shows the caller");
  assert.equal((await client.task(error.task.id).wait()).state, "FAILED");
});

test("submissions at the same time keep their payloads, and many waits their results", async () => {
  const numbers = Array.from({ length: 3_000 }, (_, index) => index);
  const results = await Promise.all(numbers.map((n) => client.run("compute", n)));
  assert.deepEqual(results, numbers.map(sumTo));
});

test("large payloads and results are passed unchanged", async () => {
  const texts = Array.from({ length: 12 }, (_, index) => String(index).repeat(1_000_000 / String(index).length));
  const results = await Promise.all(texts.map((text) => client.run("echo", Buffer.from(text))));
  assert(results.every((result, index) => result === texts[index]));
  await rejection(client.submit("echo", Buffer.alloc(2 << 20)), InvalidArgumentError);
});

test("a result can be waited for long after the task has finished", async () => {
  const tasks = await Promise.all(Array.from({ length: 50 }, (_, n) => client.submit("compute", n)));
  for await (const _ of asCompleted(tasks)); // Ends of tasks that have no wait are remembered.
  const early = await client.submit("compute", 7);
  for await (const event of early.watch()) assert(event.taskId === early.id);
  const blocked = await Promise.all(Array.from({ length: 8 }, () => client.submit("io", 0.05)));
  assert.deepEqual(await Promise.all([...blocked.map((task) => task.result()), early.result()]), [
    ...blocked.map(() => ({ waited_seconds: 0.05 })),
    sumTo(7),
  ]);
});

test("map yields results in order and throws the first failure", async () => {
  const results: unknown[] = [];
  for await (const result of client.map("compute", [5, 3, 9, 1], { ahead: 2 })) results.push(result);
  assert.deepEqual(results, [5, 3, 9, 1].map(sumTo));
  for (const count of [2, 300, 2_500]) {
    const batchId = `map-${count}`;
    const seen: unknown[] = [];
    for await (const { n } of client.map<{ n: number }>("compute", Array(count).keys(), { batchId })) seen.push(n);
    assert.deepEqual(seen, [...Array(count).keys()]);
    let listed = 0;
    for await (const _ of client.list({ batchId }, { pageSize: 1_000 })) listed++;
    assert.equal(listed, count, "all in one batch");
  }
  const failing = client.map("compute", [1, "x", 2]);
  assert.deepEqual((await failing.next()).value, sumTo(1));
  const error = await rejection(failing.next(), TaskFailedError);
  assert.equal(error.failure.reason, "INVALID_PAYLOAD");
});

test("a batch is accepted as a whole or not at all", async () => {
  const tasks = await client.batch(
    [1, 2, 3].map((payload) => ({ handler: "compute", payload })),
    { batchId: "batch-1" },
  );
  assert.deepEqual(await Promise.all(tasks.map((task) => task.result())), [1, 2, 3].map(sumTo));
  const many = await client.batch(Array.from({ length: 500 }, (_, payload) => ({ handler: "compute", payload })));
  assert.deepEqual(
    await Promise.all(many.map((task) => task.result())),
    many.map((_, n) => sumTo(n)),
  );
  const bad = [{ handler: "compute" }, { handler: "compute", labels: { "": "x" } }];
  const error = await rejection(client.batch(bad, { batchId: "batch-2" }), InvalidArgumentError);
  assert.equal(error.violations[0]!.field, 'tasks[1].labels[""]');
  const listed: string[] = [];
  for await (const task of client.list({ batchId: "batch-1" }, { pageSize: 2 })) listed.push(task.id);
  assert.deepEqual(
    listed.reverse(),
    tasks.map(({ id }) => id),
  );
  for await (const task of client.list({ batchId: "batch-2" })) assert.fail(task.id);
});

test("asCompleted yields tasks as they end", async () => {
  const slow = await client.submit("io", 60);
  const quick = await client.submit("io", 0);
  const seen: string[] = [];
  for await (const task of asCompleted([slow, quick])) {
    seen.push(task.id);
    if (task === quick) await slow.cancel();
  }
  assert.deepEqual(seen, [quick.id, slow.id]);
});

test("a repeated request id returns the first task", async () => {
  const first = await client.submit("compute", 4, { requestId: "once" });
  await first.result();
  const again = await client.submit("compute", 4, { requestId: "once" });
  assert.deepEqual([again.id, again.isDuplicate], [first.id, true]);
  assert.deepEqual(await again.result(), sumTo(4));
  const error = await rejection(client.submit("compute", 5, { requestId: "once" }), AlreadyExistsError);
  assert.equal(error.reason, "REQUEST_ID_REUSED");
});

test("a refused submission does not affect those that share its call", async () => {
  const outcomes = await Promise.allSettled([
    client.run("compute", 1),
    client.run("compute", 2, { labels: { "": "x" } }),
    client.run("compute", 3, { requestId: "once-2" }).then(() => client.run("compute", 4)),
    client.run("compute", 5, { taskId: "not valid" }),
    client.run("nosuch"),
  ]);
  const [valid, label, later, id, unknown] = outcomes;
  assert.deepEqual(valid, { status: "fulfilled", value: sumTo(1) });
  assert.deepEqual(later, { status: "fulfilled", value: sumTo(4) });
  assert(label!.status === "rejected" && label.reason instanceof InvalidArgumentError);
  assert(label.reason.violations.every(({ field }) => field === 'labels[""]'));
  assert.doesNotMatch(label.reason.message, /tasks\[/);
  assert(id!.status === "rejected" && id.reason instanceof InvalidArgumentError);
  assert.deepEqual(
    id.reason.violations.map(({ field }) => field),
    ["task_id"],
  );
  assert(unknown!.status === "rejected" && unknown.reason instanceof NotFoundError);
  assert.equal(unknown.reason.reason, "UNKNOWN_HANDLER");
  assert.equal(unknown.reason.metadata.field, "handler");
  const reused = await Promise.allSettled([
    client.run("compute", 6),
    client.run("compute", 7, { requestId: "once-2" }),
    client.run("compute", 8),
  ]);
  assert.deepEqual(
    reused.map(({ status }) => status),
    ["fulfilled", "rejected", "fulfilled"],
  );
});

test("a full queue takes as many tasks as it has room for, and the others later", async () => {
  const tasks = Array.from({ length: 12 }, () => client.run("brief", 0));
  assert.equal((await Promise.all(tasks)).length, 12);
});

test("a submission to a queue that stays full fails after its timeout", async () => {
  const blocker = await client.submit("brief", 60);
  for await (const { state } of blocker.watch()) if (state === "RUNNING") break;
  const waiting = await Promise.all(Array.from({ length: 5 }, () => client.submit("brief", 0)));
  const error = await rejection(client.submit("brief", 0, { submitTimeout: 300 }), ResourceExhaustedError);
  assert.equal(error.reason, "QUEUE_FULL");
  assert(error.retryAfter! > 0);
  await blocker.cancel();
  await Promise.all(waiting.map((task) => task.result()));
});

test("a submission can be aborted before it leaves", async () => {
  const stop = new AbortController();
  const submission = client.submit("compute", 1, { taskId: "aborted", signal: stop.signal });
  stop.abort();
  assert.equal((await rejection(submission, Error)).name, "AbortError");
  await client.run("compute", 1);
  await rejection(client.task("aborted").refresh(), NotFoundError);
});

test("cancel stops a running task", async () => {
  const task = await client.submit("io", 60);
  for await (const { state } of task.watch()) if (state === "RUNNING") break;
  await task.cancel({ reason: "not needed" });
  const error = await rejection(task.result(), TaskCancelledError);
  assert.equal(error.receipt.reason, "not needed");
  assert.equal(error.receipt.method, "TOKEN");
  assert(error.receipt.stoppedAt);
  assert.match(error.message, /not needed/);
  await task.cancel();
  const finished = await client.submit("io", 0);
  await finished.wait();
  assert.equal((await rejection(finished.cancel(), FailedPreconditionError)).reason, "TASK_FINISHED");
});

test("a wait ends at its timeout or signal, and can be repeated", async () => {
  const task = await client.submit("io", 60);
  await rejection(task.result({ timeout: 20 }), WaitTimeoutError);
  const aborted = AbortSignal.abort();
  assert.equal((await rejection(task.result({ signal: aborted }), Error)).name, "AbortError");
  const stop = new AbortController();
  const waits = [task.wait({ signal: stop.signal }), task.wait()];
  stop.abort(new Error("enough"));
  await assert.rejects(waits[0]!, /enough/);
  await task.cancel();
  assert.equal((await waits[1]!).state, "CANCELLED");
});

test("watch yields the events of the tasks that match", async () => {
  const stop = new AbortController();
  const events = client.watch({ labels: { watched: "yes" } }, { signal: stop.signal });
  const first = events.next();
  await client.run("io", 0); // Does not match. The watch has begun by the time that a later call ends.
  const tasks = await client.batch([0, 0].map((payload) => ({ handler: "io", payload, labels: { watched: "yes" } })));
  const seen: TaskEvent[] = [(await first).value as TaskEvent];
  for await (const event of events) {
    seen.push(event);
    if (seen.length === 6) break;
  }
  assert.deepEqual(new Set(seen.map(({ taskId }) => taskId)), new Set(tasks.map(({ id }) => id)));
  assert.deepEqual(seen.map(({ state }) => state).sort(), [
    "COMPLETED",
    "COMPLETED",
    "QUEUED",
    "QUEUED",
    "RUNNING",
    "RUNNING",
  ]);
  const resumed = client.watch({ labels: { watched: "yes" } }, { resumeToken: seen[3]!.resumeToken });
  assert.deepEqual((await resumed.next()).value, seen[4]);
  await resumed.return();
  const snapshot = client.watch({ taskIds: [tasks[0]!.id] }, { includeSnapshot: true, signal: stop.signal });
  const { state, isSnapshot } = (await snapshot.next()).value as TaskEvent;
  assert.deepEqual({ state, isSnapshot }, { state: "COMPLETED", isSnapshot: true });
  const next = snapshot.next();
  stop.abort(new Error("enough"));
  await assert.rejects(next, /enough/);
});

test("output is read while the task runs, and afterwards", async () => {
  const task = await client.submit("speak", new Uint8Array());
  let text = "";
  for await (const { data } of task.output({ follow: true })) text += Buffer.from(data).toString();
  assert.equal(text, "one\nthree\n");
  assert.equal(await task.outputText({ stream: "stderr" }), "two\n");
  await rejection(client.task("no-such-task").outputText(), NotFoundError);
});

test("finished tasks can be deleted", async () => {
  const task = await client.submit("io", 0, { labels: { deleted: "yes" } });
  await task.wait();
  assert.equal(await client.delete({ labels: { deleted: "yes" } }), 1);
  await rejection(task.refresh(), NotFoundError);
  assert.equal((await task.wait()).state, "COMPLETED", "it was read before");
  assert.equal((await rejection(client.task(task.id).result(), NotFoundError)).reason, "TASK_NOT_FOUND");
});

test("a call ends at its timeout", async () => {
  await rejection(client.submit("compute", 1, { submitTimeout: 0 }), DeadlineExceededError);
});
