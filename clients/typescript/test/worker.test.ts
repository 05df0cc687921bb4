// Workers with the real server.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Client,
  PermanentError,
  type Task,
  TaskCancelledError,
  TaskFailedError,
  Worker,
  type WorkerOptions,
} from "../src/index.js";
import { join } from "./functions.js";
import { Proxy, Server } from "./server.js";

const HANDLERS = [
  ...["greet", "back", "double", "second", "permanent", "report", "wait", "spin", "child", "parent", "slow", "where", "brief"],
  ...["endless", "join", "threadJoin"],
];
// A short lease, so that the tasks of a killed worker are soon given to others.
const CONFIG = `
[server]
worker_lease = "3s"
${HANDLERS.map((name) => `[[handler]]\nname = "${name}"\nrunner = "remote"\n`).join("")}`;

/** Time for a worker to drain at the end of a test. */
const DRAIN_MS = 20_000;

let server: Server;
let proxy: Proxy;
let client: Client;
const ends: (() => Promise<unknown>)[] = [];

before(async () => {
  server = await new Server(CONFIG).start();
  proxy = await new Proxy(server).start();
  client = new Client(proxy.address);
});

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

after(async () => {
  client.close();
  proxy.end();
  await server.end();
});

/** A worker with a method that starts it, and resolves when the server has accepted it. */
function worker(options: WorkerOptions = {}) {
  let welcome: () => void;
  const welcomed = new Promise<void>((resolve) => (welcome = resolve));
  const log = (line: string) => / runs /.test(line) && welcome();
  const worker = new Worker({ address: proxy.address, log, ...options });
  const ready = async () => {
    const running = worker.run({ signals: false });
    ends.push(async () => {
      worker.stop();
      // After a failed test a function may wait for ever; the failure must be seen all the same.
      const late = setTimeout(() => worker.stop({ force: true }), DRAIN_MS);
      await running;
      clearTimeout(late);
    });
    await Promise.race([welcomed, running]);
  };
  return Object.assign(worker, { ready });
}

/** Starts a program with a worker; resolves when the server has accepted it. */
async function program(handlers: string): Promise<ChildProcess> {
  const source = `
    import { Worker } from ${JSON.stringify(new URL("../src/index.js", import.meta.url).href)};
    import { setTimeout as sleep } from "node:timers/promises";
    const worker = new Worker(${JSON.stringify(proxy.address)});
    ${handlers}
    await worker.run();
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", source], {
    stdio: ["ignore", "inherit", "pipe"],
  });
  ends.push(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  let text = "";
  while (!/ runs /.test(text)) text += (await once(child.stderr!, "data"))[0];
  child.stderr!.resume();
  return child;
}

async function until(task: Task, state: string): Promise<void> {
  for await (const event of task.watch()) if (event.state === state) return;
}

/** Waits until the function of a task has written to its log: the task is RUNNING before the worker has got it. */
async function untilLogged(task: Task): Promise<void> {
  for await (const _ of task.output({ stream: "stderr", follow: true })) return;
}

async function failure(promise: Promise<unknown>) {
  const error = await promise.then(
    () => assert.fail("should have failed"),
    (error: unknown) => error,
  );
  assert(error instanceof TaskFailedError, `${error}`);
  return error.failure;
}

test("a function runs as a task", async () => {
  await worker()
    .handle("greet", ({ name }: { name: string }) => `Hello, ${name}!`)
    .ready();
  assert.equal(await client.run("greet", { name: "Ada" }), "Hello, Ada!");
  const task = await client.submit("greet", { name: "Grace" }, { labels: { a: "b" } });
  assert.equal(await task.result(), "Hello, Grace!");
  assert.match((await task.refresh()).worker, /remote/);
});

test("values of all kinds are passed unchanged", async () => {
  await worker()
    .handle("back", (payload) => payload)
    .ready();
  for (const value of [null, 0, "text", [1, { a: "ü" }], { nested: { list: [] } }])
    assert.deepEqual(await client.run("back", value), value);
  const bytes = Buffer.from([0, 255, 1]);
  assert.deepEqual(await client.run("back", bytes), bytes);
  assert.equal(await client.run("back"), undefined);
});

test("a function reads the results of its parents", async () => {
  const module = new URL("./functions.js", import.meta.url);
  await worker()
    .handle("back", (bytes: number) => {
      if (bytes < 0) throw new PermanentError("negative");
      return Buffer.alloc(bytes);
    })
    .handle("join", join)
    .handleInThread("threadJoin", module, { export: "join" })
    .ready();
  const sizes = [3, -1, 1_000_000];
  const parents = await Promise.all(sizes.map((size) => client.submit("back", size)));
  const expected = parents.map(({ id }, at) => (sizes[at]! < 0 ? [id, "FAILED", -1] : [id, "COMPLETED", sizes[at]]));
  const after = parents.map(({ id }) => id);
  for (const handler of ["join", "threadJoin"]) {
    assert.deepEqual(await client.run(handler, undefined, { after, onParentFailure: "run" }), expected);
    assert.deepEqual(await client.run(handler), []);
  }
});

test("many tasks run through few calls", async () => {
  await worker({ concurrency: 100 })
    .handle("double", (n: number) => 2 * n)
    .ready();
  const numbers = Array.from({ length: 3_000 }, (_, n) => n);
  assert.deepEqual(
    await Promise.all(numbers.map((n) => client.run("double", n))),
    numbers.map((n) => 2 * n),
  );
});

test("failed attempts are retried, unless the error is permanent", async () => {
  const attempts: number[] = [];
  await worker()
    .handle("second", (_, { attempt }) => {
      attempts.push(attempt);
      if (attempt === 1) throw new Error("not yet");
      return attempt;
    })
    .handle("permanent", () => {
      throw new PermanentError("never");
    })
    .ready();
  assert.equal(await client.run("second", undefined, { retry: { delay: 1 } }), 2);
  assert.deepEqual(attempts, [1, 2]);
  const { reason, message, attempt, detail, retryable } = await failure(client.run("permanent"));
  assert.deepEqual([reason, message, attempt, retryable], ["HANDLER_ERROR", "PermanentError: never", 1, false]);
  assert.match(detail, /worker\.test/);
});

test("progress and output can be followed", async () => {
  let go: () => void = () => {};
  const gone = new Promise<void>((resolve) => (go = resolve));
  await worker()
    .handle("report", async (_, context) => {
      console.log("to the console");
      context.log("to the log");
      context.progress(0.5, "half");
      await gone;
      console.log("the end");
    })
    .ready();
  const task = await client.submit("report");
  let text = "";
  for await (const { data } of task.output({ follow: true })) {
    if (text === "") {
      while ((await task.refresh()).progress !== 0.5);
      assert.equal((await task.refresh()).progressNote, "half");
      go();
    }
    text += Buffer.from(data).toString();
  }
  assert.equal(text, "to the console\nthe end\n");
  assert.equal(await task.outputText({ stream: "stderr" }), "to the log\nhalf\n", "the server adds the note");
});

test("a cancelled task is stopped, and so is one that exceeds its timeout", async () => {
  await worker()
    .handle("wait", (_, { signal }) => sleep(60_000, undefined, { signal }))
    .ready();
  const task = await client.submit("wait");
  await until(task, "RUNNING");
  await task.cancel({ reason: "enough" });
  await assert.rejects(task.result(), (error) => {
    assert(error instanceof TaskCancelledError);
    assert.deepEqual([error.receipt.method, error.receipt.reason], ["TOKEN", "enough"]);
    return true;
  });
  assert.equal(
    (await failure(client.run("wait", undefined, { timeout: 50, retry: { maxAttempts: 1 } }))).reason,
    "TIMEOUT",
  );
});

test("a function in a thread that does not stop is terminated", async () => {
  await worker()
    .handleInThread("spin", new URL("./functions.js", import.meta.url), { export: "spin" })
    .ready();
  const task = await client.submit("spin");
  await until(task, "RUNNING");
  await task.cancel({ force: true });
  await assert.rejects(
    task.result(),
    (error) => error instanceof TaskCancelledError && error.receipt.method === "ABORT",
  );
});

test("a parent waits for children in its only slot", async () => {
  await worker({ concurrency: 1 })
    .handle("child", (n: number) => n * n)
    .handle("parent", async (count: number, { run }) => {
      const squares = await Promise.all(Array.from({ length: count }, (_, n) => run<number>("child", n)));
      return squares.reduce((sum, square) => sum + square, 0);
    })
    .ready();
  assert.equal(await client.run("parent", 10), 285);
});

test("running attempts survive a broken connection and a killed server", async () => {
  const starts: number[] = [];
  const go: (() => void)[] = [];
  await worker()
    .handle("slow", async (n: number, { log }) => {
      starts.push(n);
      log("started");
      await new Promise<void>((resolve) => go.push(resolve));
      return n;
    })
    .ready();
  const tasks = await Promise.all([1, 2].map((n) => client.submit("slow", n)));
  // Both run, and their starts are durable.
  await Promise.all(tasks.flatMap((task) => [until(task, "RUNNING"), untilLogged(task)]));
  assert(proxy.cut() > 0);
  go[0]!();
  await Promise.race(tasks.map((task) => task.result()));
  await server.kill();
  proxy.cut();
  await server.start();
  go[1]!();
  assert.deepEqual(await Promise.all(tasks.map((task) => task.result())), [1, 2]);
  assert.deepEqual(starts.sort(), [1, 2], "each ran once");
});

test("the tasks of a killed worker run elsewhere", async () => {
  const child = await program(`worker.handle("where", () => sleep(60_000));`);
  const task = await client.submit("where");
  await until(task, "RUNNING");
  child.kill("SIGKILL");
  await once(child, "exit");
  await worker()
    .handle("where", () => "elsewhere")
    .ready();
  assert.equal(await task.result(), "elsewhere");
});

test("SIGTERM lets running tasks end and leaves the others to other workers", async () => {
  const child = await program(`
    worker.handle("brief", async (_, { log }) => {
      log("started");
      await sleep(200);
      return process.pid;
    });
  `);
  const task = await client.submit("brief");
  await untilLogged(task);
  const exited = once(child, "exit"); // It can come before the result.
  child.kill("SIGTERM");
  assert.equal(await task.result(), child.pid);
  assert.deepEqual(await exited, [0, null]);
  const next = client.run("brief");
  await worker()
    .handle("brief", () => "other")
    .ready();
  assert.equal(await next, "other");
});

test("a second signal ends the program at once", async () => {
  const child = await program(`worker.handle("endless", (_, { log }) => (log("started"), sleep(60_000)));`);
  const task = await client.submit("endless");
  await untilLogged(task);
  const stopping = once(child.stderr!, "data");
  child.kill("SIGINT");
  await stopping;
  child.kill("SIGINT");
  assert.deepEqual(await once(child, "exit"), [null, "SIGINT"]);
  await task.cancel();
});

test("a worker that the server refuses ends with the reason", async () => {
  await assert.rejects(
    worker({ pool: "nosuch" })
      .handle("x", () => {})
      .ready(),
    /nosuch/,
  );
  ends.length = 0;
});
