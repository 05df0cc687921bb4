// What a connect-es client must be able to do; run by tests/clients/run.sh.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as dial } from "node:net";
import { create, fromJson, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampDate, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { connect } from "./channel.js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { PoolService } from "./gen/lineshaft/v1/pool_service_pb.js";
import { Durability, Priority, StopMethod, TaskState } from "./gen/lineshaft/v1/task_pb.js";
import {
  type SubmitTaskRequestSchema,
  SubmitTasksRequestSchema,
  type SubmitTasksResponse,
  TaskService,
} from "./gen/lineshaft/v1/task_service_pb.js";
import { watch } from "./watch.js";

const transport = connect(`http://${process.env.LINESHAFT_PROXY}`);
const tasks = createClient(TaskService, transport);
const pools = createClient(PoolService, transport);
const withDeadline = { timeoutMs: 30_000 };

async function refused(calling: Promise<unknown>): Promise<ConnectError> {
  const error = await calling.then(() => undefined, ConnectError.from);
  assert(error, "the call should have been refused");
  return error;
}

/** Asks the harness to break a connection or the server; resolves when this is done. */
async function control(word: string) {
  const [host, port] = process.env.LINESHAFT_CONTROL!.split(":");
  const end = dial(Number(port), host);
  end.write(`${word}\n`);
  const [response] = await once(end, "data");
  assert.equal(String(response), "done\n");
  end.destroy();
}

type Task = MessageInitShape<typeof SubmitTaskRequestSchema>;

const payload = (value: number) => ({ kind: { case: "json" as const, value: fromJson(ValueSchema, value) } });
const nap = (seconds: number, more: Task = {}): Task =>
  Object.assign({ handler: "io", payload: payload(seconds) }, more);
const naps = (count: number, seconds: number) => Array.from({ length: count }, () => nap(seconds));

async function submit() {
  const request: Task = {
    handler: "compute",
    payload: payload(100),
    requestId: "connect-submit",
    priority: Priority.HIGH,
    labels: { from: "connect" },
  };
  const first = await tasks.submitTask(request, withDeadline);
  assert(first.taskId && !first.duplicate && first.durability === Durability.FSYNC);
  const done = await tasks.waitTask({ taskId: first.taskId }, withDeadline);
  assert(done.finished && done.task?.state === TaskState.COMPLETED);
  assert(done.task.result?.kind.case === "data");
  assert.equal(JSON.parse(new TextDecoder().decode(done.task.result.kind.value)).value, 4950);
  const again = await tasks.submitTask(request, withDeadline);
  assert(again.duplicate && again.taskId === first.taskId);
  const { task } = await tasks.getTask({ taskId: first.taskId, includePayload: true }, withDeadline);
  assert.equal(task?.labels.from, "connect");
  assert(task.payload?.kind.case === "data" && new TextDecoder().decode(task.payload.kind.value) === "100");
  assert(timestampDate(task.finishedAt!) >= timestampDate(task.submittedAt!));
}

async function batch() {
  const { batchId, taskIds } = await tasks.batchSubmitTasks({ tasks: naps(20, 0) }, withDeadline);
  const listed: string[] = [];
  let pageToken = "";
  do {
    const page = await tasks.listTasks({ filter: { batchId }, pageSize: 7, pageToken }, withDeadline);
    listed.push(...page.tasks.map((task) => task.taskId));
    pageToken = page.nextPageToken;
  } while (pageToken);
  assert.equal(listed.length, 20);
  assert.deepEqual(listed.reverse(), taskIds);
}

async function stream() {
  async function* requests() {
    for (let sequence = 0n; sequence < 50n; sequence++) {
      const task = nap(0, sequence === 7n ? { labels: { "": "x" } } : {});
      yield create(SubmitTasksRequestSchema, { sequence, task });
    }
  }
  const responses = new Map<bigint, SubmitTasksResponse["outcome"]>();
  for await (const response of tasks.submitTasks(requests(), withDeadline)) responses.set(response.sequence, response.outcome);
  assert.equal(responses.size, 50);
  const rejected = responses.get(7n);
  assert(rejected?.case === "rejected");
  assert.equal(rejected.value.reason, "INVALID_FIELD");
  assert.equal(rejected.value.field, 'task.labels[""]');
  assert.equal(rejected.value.code, Code.InvalidArgument);
  responses.delete(7n);
  for (const outcome of responses.values()) assert(outcome.case === "accepted");
}

async function resumedWatch() {
  const { batchId, resumeToken } = await tasks.batchSubmitTasks({ tasks: naps(40, 0.05) }, withDeadline);
  const states = new Map<string, TaskState>();
  const seen: [bigint, string, TaskState][] = [];
  let completed = 0;
  for await (const event of watch(tasks, { batchId }, resumeToken)) {
    assert.equal(event.previousState, states.get(event.taskId) ?? TaskState.UNSPECIFIED);
    assert(seen.length === 0 || seen.at(-1)![0] < event.revision, "revisions rise");
    states.set(event.taskId, event.state);
    seen.push([event.revision, event.taskId, event.state]);
    if (seen.length === 15) await control("cut");
    if (seen.length === 60) await control("crash");
    if (event.state === TaskState.COMPLETED && ++completed === 40) break;
  }
  const replayed: typeof seen = [];
  for await (const event of watch(tasks, { batchId }, resumeToken)) {
    replayed.push([event.revision, event.taskId, event.state]);
    if (event.revision === seen.at(-1)![0]) break;
  }
  assert.deepEqual(seen, replayed, "events were lost or repeated");
}

async function cancel() {
  const { taskId, resumeToken } = await tasks.submitTask(nap(60), withDeadline);
  for await (const event of watch(tasks, { taskIds: [taskId] }, resumeToken)) {
    if (event.state === TaskState.RUNNING && !event.cancel) {
      const response = await tasks.cancelTask({ taskId, reason: "not needed" }, withDeadline);
      assert.equal(response.state, TaskState.RUNNING);
    }
    if (event.state > TaskState.RUNNING) {
      assert.equal(event.state, TaskState.CANCELLED);
      assert.equal(event.cancel?.reason, "not needed");
      assert.equal(event.cancel?.method, StopMethod.TOKEN);
      assert(event.cancel?.stoppedAt);
      return;
    }
  }
}

async function errors() {
  let error = await refused(tasks.submitTask({ handler: "nosuch" }, withDeadline));
  assert.equal(error.code, Code.NotFound);
  const [info] = error.findDetails(ErrorInfoSchema);
  assert.equal(info?.reason, "UNKNOWN_HANDLER");
  assert.equal(info.domain, "lineshaft.dev");
  assert.equal(info.metadata.handler, "nosuch");
  const bad = { tasks: [nap(0), nap(0, { displayName: "x".repeat(200) })] };
  error = await refused(tasks.batchSubmitTasks(bad, withDeadline));
  assert.equal(error.code, Code.InvalidArgument);
  assert.equal(error.findDetails(ErrorInfoSchema)[0]?.reason, "INVALID_FIELD");
  const [badRequest] = error.findDetails(BadRequestSchema);
  assert.equal(badRequest?.fieldViolations[0]?.field, "tasks[1].display_name");
}

async function deadline() {
  const { taskId } = await tasks.submitTask(nap(60), withDeadline);
  const begin = Date.now();
  let error = await refused(tasks.waitTask({ taskId }, { timeoutMs: 300 }));
  assert.equal(error.code, Code.DeadlineExceeded);
  const steps = tasks.watchTasks({}, { timeoutMs: 300 });
  error = await refused((async () => { for await (const _ of steps); })());
  assert.equal(error.code, Code.DeadlineExceeded);
  assert(Date.now() - begin < 5_000);
  // The deadline ended the call, not the task.
  const { task } = await tasks.getTask({ taskId }, withDeadline);
  assert(task && task.state <= TaskState.RUNNING);
  await tasks.cancelTask({ taskId }, withDeadline);
}

async function metrics() {
  const readings = [];
  const request = { pools: ["default"], interval: durationFromMs(100), includeWorkers: true };
  for await (const reading of pools.streamPoolMetrics(request, withDeadline)) {
    readings.push(reading);
    if (readings.length === 1) await tasks.submitTask(nap(0), withDeadline);
    if (readings.length === 5) break;
  }
  const [first, last] = [readings[0]!.pools[0]!, readings[4]!.pools[0]!];
  assert.equal(first.pool, "default");
  assert.equal(first.size, 4);
  assert.equal(first.workers.length, 4);
  assert(last.submitted > first.submitted && timestampDate(last.time!) > timestampDate(first.time!));
  assert(readings[4]!.system!.cores > 0);
}

async function retry() {
  // The server is down during this call; the interceptor of the transport retries it.
  await control("crash");
  const first = await tasks.submitTask(nap(0, { requestId: "connect-retry" }), withDeadline);
  assert(!first.duplicate);
  assert((await tasks.submitTask(nap(0, { requestId: "connect-retry" }), withDeadline)).duplicate);
}

async function tls() {
  const ca = readFileSync(process.env.LINESHAFT_CA!);
  const secured = (token?: string) =>
    createClient(TaskService, connect(`https://${process.env.LINESHAFT_SECURE}`, ca, token));
  const submitter = secured(process.env.LINESHAFT_SUBMITTER);
  const { taskId } = await submitter.submitTask(nap(0), withDeadline);
  const { task } = await submitter.waitTask({ taskId }, withDeadline);
  assert.equal(task?.state, TaskState.COMPLETED);
  assert.match(task.submittedBy, /submitter/);
  let error = await refused(secured(process.env.LINESHAFT_VIEWER).submitTask(nap(0), withDeadline));
  assert.equal(error.code, Code.PermissionDenied);
  const [info] = error.findDetails(ErrorInfoSchema);
  assert.equal(info?.reason, "PERMISSION_DENIED");
  assert.equal(info.metadata.role, "submitter");
  error = await refused(secured().submitTask(nap(0), withDeadline));
  assert.equal(error.code, Code.Unauthenticated);
  assert.equal(error.findDetails(ErrorInfoSchema)[0]?.reason, "UNAUTHENTICATED");
}

const checks = { submit, batch, stream, watch: resumedWatch, cancel, errors, deadline, metrics, retry, tls };
for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
process.exit(0); // the transport keeps its connection open
