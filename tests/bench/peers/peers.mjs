// Node: Lineshaft and BullMQ. See README.md for the commands that each program has.

import { execFile } from "node:child_process";
import { closeSync, fstatSync, openSync, writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

const ADDRESS = process.env.PEER_ADDRESS;
const CONCURRENCY = Number(process.env.PEER_CONCURRENCY);
const DONE = openSync(process.env.PEER_DONE, "a+");
const WAIT_MS_MAX = 60_000;
const BACKLOG_MAX = 2_000;
const run = promisify(execFile);

const functions = {
  async noop() {
    writeSync(DONE, ".");
  },
  async sleep() {
    await delay(5);
    writeSync(DONE, ".");
  },
  async true() {
    await run("/bin/true");
    writeSync(DONE, ".");
  },
};

async function lineshaft() {
  const { Client, Worker } = await import("lineshaft");
  const client = new Client(ADDRESS);
  return {
    submit: (name) => client.submit(name),
    call: (name) => client.run(name),
    work() {
      const worker = new Worker({ address: ADDRESS, concurrency: CONCURRENCY });
      for (const [name, call] of Object.entries(functions)) worker.handle(name, call);
      return worker.run();
    },
  };
}

async function bullmq() {
  const { Queue, QueueEvents, Worker } = await import("bullmq");
  const [host, port] = ADDRESS.split(":");
  const connection = { host, port: Number(port), maxRetriesPerRequest: null };
  const queue = new Queue("peers", { connection });
  let events;
  return {
    submit: (name) => queue.add(name, undefined, { removeOnComplete: true }),
    async call(name) {
      events ??= new QueueEvents("peers", { connection });
      await events.waitUntilReady();
      const job = await queue.add(name, undefined, { removeOnComplete: { count: 1_000 } });
      return job.waitUntilFinished(events);
    },
    work() {
      new Worker("peers", (job) => functions[job.name](), { connection, concurrency: CONCURRENCY });
      return new Promise(() => {});
    },
  };
}

const done = () => fstatSync(DONE).size;

/** Each caller submits in a loop, one after the other, until `ended()`; returns the number of submissions. */
async function submitUntil(system, name, callers, ended, backlogMax = Infinity) {
  let count = 0;
  const before = done();
  const loop = async () => {
    while (!ended()) {
      if (count % 20 === 0) while (count - (done() - before) > backlogMax && !ended()) await delay(1);
      count++;
      await system.submit(name);
    }
  };
  await Promise.all(Array.from({ length: callers }, loop));
  return count;
}

async function waitFor(count) {
  const until = Date.now() + WAIT_MS_MAX;
  while (done() < count) {
    if (Date.now() > until) throw new Error(`${done()} of ${count} tasks have run`);
    await delay(1);
  }
}

const commands = {
  work: (system) => system.work(),

  /** Submissions per second; no worker runs. */
  async submit(system, callers, seconds) {
    await system.submit("noop");
    const start = performance.now();
    const count = await submitUntil(system, "noop", callers, () => performance.now() > start + seconds * 1_000);
    return (count / (performance.now() - start)) * 1_000;
  },

  /** Tasks per second that the worker completes while the callers submit. */
  async run(system, name, callers, seconds) {
    const before = done();
    await system.submit(name);
    await waitFor(before + 1);
    let isEnding = false;
    const submitting = submitUntil(system, name, callers, () => isEnding, BACKLOG_MAX);
    await delay((seconds * 1_000) / 3);
    const [count, start] = [done(), performance.now()];
    await delay(seconds * 1_000);
    const rate = ((done() - count) / (performance.now() - start)) * 1_000;
    isEnding = true;
    await waitFor(before + 1 + (await submitting));
    return rate;
  },

  /** Median time in ms from the submission to the result, one task at a time. */
  async call(system, name, seconds) {
    for (let i = 0; i < 20; i++) await system.call(name);
    const times = [];
    const end = performance.now() + seconds * 1_000;
    while (performance.now() < end) {
      const start = performance.now();
      await system.call(name);
      times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[times.length >> 1];
  },
};

const [name, command, ...values] = process.argv.slice(2);
const system = await { lineshaft, bullmq }[name]();
const result = await commands[command](system, ...values.map((value) => (isNaN(value) ? value : Number(value))));
closeSync(DONE);
writeSync(1, `${JSON.stringify(result)}\n`);
process.exit(0);
