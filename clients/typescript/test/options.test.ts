// Options of programs in JavaScript, which no compiler has checked. No server is needed: none of them is sent.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, Worker } from "../src/index.js";
import { upload as uploadTo } from "../src/artifact.js";
import { channelOf } from "../src/client.js";
import { submitRequest } from "../src/submit.js";

const client = new Client("127.0.0.1:1");

test("an option of a submission is refused if it is unknown or of another type", async () => {
  for (const [options, message] of [
    [{ retries: 1 }, /^retries is unknown, must be one of pool, priority, .*retry/],
    [{ retry: 0 }, /^retry is 0, must be a whole number, at least 1$/],
    [{ retry: 1.5 }, /^retry is 1.5, must be a whole number/],
    [{ retry: "3" }, /^retry is "3", must be a number of attempts or an object$/],
    [{ retry: true }, /^retry is true, must be a number of attempts or an object$/],
    [{ retry: { attempts: 3 } }, /^retry.attempts is unknown, must be one of maxAttempts, delay/],
    [{ retry: { maxAttempts: "3" } }, /^retry.maxAttempts is "3", must be a whole number/],
    [{ args: "one two" }, /^args is "one two", must be an array$/],
    [{ args: ["one", 2] }, /^args\[1\] is 2, must be a string$/],
    [{ after: "01a22df6-5049-714e-b34c-7221bf08a569" }, /^after is "01a2.*", must be an array$/],
    [{ after: client.task("a") }, /^after is a value of type object, must be an array$/],
    [{ labels: { user: 7 } }, /^labels\["user"\] is 7, must be a string$/],
    [{ labels: ["a"] }, /^labels is an array, must be an object$/],
    [{ timeout: "10s" }, /^timeout is "10s", must be a finite number$/],
    [{ delay: NaN }, /^delay is NaN, must be a finite number$/],
    [{ priority: 3 }, /^priority is 3, must be a string$/],
    [{ priority: "urgent" }, /^priority is "urgent", must be one of low/],
    [{ atMostOnce: "yes" }, /^atMostOnce is "yes", must be true or false$/],
    [{ limits: [{ key: "a", rate: { starts: 1, per: 1 } }] }, /^limits\[0\].rate.per is unknown, must be one of starts/],
    [{ signal: new AbortController() }, /^signal is a value of type object, must be an AbortSignal$/],
    [{ pool: null }, /^pool is null, must be a string$/],
    [null, /^options is null, must be an object$/],
  ] as [object, RegExp][]) {
    await assert.rejects(client.submit("resize", 1, options), { name: "TypeError", message });
  }
});

test("a number of attempts is a retry policy", () => {
  const trace = { traceparent: "", tracestate: "", headers: {} };
  assert.equal(submitRequest("resize", 1, { retry: 3 }, "", trace).retry?.maxAttempts, 3);
});

test("an option that is undefined is not set", () => {
  new Worker({ address: "127.0.0.1:1", pool: undefined }).handle("resize", () => {}, { description: undefined });
});

test("an unknown field of a filter does not select all tasks", async () => {
  const filter = { handlers: "resize" } as never;
  const message = /^filter.handlers is unknown, must be one of taskIds, .*handler/;
  await assert.rejects(client.delete(filter), { message });
  await assert.rejects(client.list(filter).next(), { message });
  assert.throws(() => client.watch(filter), { message });
  await assert.rejects(client.delete(undefined as never), { message: "filter is undefined, must be an object" });
  await assert.rejects(client.delete({ states: "FAILED" as never }), { message: 'filter.states is "FAILED", must be an array' });
});

test("an artifact is refused if its name or content is of another type", async () => {
  const upload = (name: unknown, content: unknown) =>
    uploadTo(channelOf(client), { taskId: "a", token: "b", name: name as string, contentType: undefined }, content as never, new AbortController().signal);
  await assert.rejects(upload(undefined, Buffer.from("x")), { message: "the name of the artifact is undefined, must be a string" });
  for (const content of ["text", null, {}]) await assert.rejects(upload("a", content), { message: /^the content of the artifact is / });
});

test("other calls refuse such options too", async () => {
  const other = { other: 1 };
  const unknown = other as never;
  const message = /^other is unknown, must be one of /;
  const task = client.task("a");
  await assert.rejects(client.batch([], unknown), { message });
  await assert.rejects(client.batch([{ handler: "a" }, { handler: "b", ...other }]), {
    message: /^submissions\[1\].other is unknown/,
  });
  await assert.rejects(client.list({}, unknown).next(), { message });
  assert.throws(() => client.watch({}, unknown), { message });
  await assert.rejects(task.result(unknown), { message });
  await assert.rejects(task.cancel(unknown), { message });
  assert.throws(() => new Client(unknown), { message });
  assert.throws(() => new Worker(unknown), { message });
  assert.throws(() => new Worker({ concurrency: "5" as never }), { message: /^concurrency is "5", must be a whole number/ });
  const worker = new Worker("127.0.0.1:1");
  assert.throws(() => worker.handle("a", undefined as never), { message: /^the function of handler a is undefined/ });
  assert.throws(() => worker.handleInThread("a", (() => 1) as never), { message: /^the module of handler a is a value of type f/ });
  assert.throws(() => worker.stop(true as never), { message: "options is true, must be an object" });
});
