// What a grpc-js client must be able to do; run by tests/clients/run.sh.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { channelOptions, secure } from "./channel.js";
import { details } from "./details.js";
import { PoolServiceClient, StreamPoolMetricsRequest } from "./gen/lineshaft/v1/pool_service.js";
import { Durability, Priority, StopMethod, TaskState } from "./gen/lineshaft/v1/task.js";
import {
  BatchSubmitTasksRequest,
  CancelTaskRequest,
  GetTaskRequest,
  ListTasksRequest,
  SubmitTaskRequest,
  SubmitTasksRequest,
  type SubmitTasksResponse,
  TaskServiceClient,
  WaitTaskRequest,
  WatchTasksRequest,
} from "./gen/lineshaft/v1/task_service.js";
import { watch } from "./watch.js";

const address = process.env.LINESHAFT_PROXY!;
const tasks = new TaskServiceClient(address, credentials.createInsecure(), channelOptions);
const pools = new PoolServiceClient(address, credentials.createInsecure(), channelOptions);

type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: { deadline: number },
  done: (error: ServiceError | null, response: Response) => void,
) => unknown;

/** A unary call as a promise. */
function call<Request, Response>(
  method: Unary<Request, Response>,
  request: Request,
  milliseconds = 30_000,
  client = tasks,
) {
  return new Promise<Response>((resolve, reject) => {
    const options = { deadline: Date.now() + milliseconds };
    method.call(client, request, new Metadata(), options, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

async function refused(calling: Promise<unknown>): Promise<ServiceError> {
  const error = await calling.then(() => undefined, (error: ServiceError) => error);
  assert(error, "the call should have been refused");
  return error;
}

/** Asks the harness to break a connection or the server; resolves when this is done. */
async function control(word: string) {
  const [host, port] = process.env.LINESHAFT_CONTROL!.split(":");
  const end = connect(Number(port), host);
  end.write(`${word}\n`);
  const [response] = await once(end, "data");
  assert.equal(String(response), "done\n");
  end.destroy();
}

const payload = (value: unknown) => ({
  kind: { $case: "data" as const, value: Buffer.from(JSON.stringify(value)) },
  contentType: "application/json",
});
const nap = (seconds: number, more: Partial<SubmitTaskRequest> = {}) =>
  SubmitTaskRequest.fromPartial({ handler: "io", payload: payload(seconds), ...more });
const naps = (count: number, seconds: number) => Array.from({ length: count }, () => nap(seconds));

async function submit() {
  const request = SubmitTaskRequest.fromPartial({
    handler: "compute",
    payload: payload(100),
    requestId: "node-submit",
    priority: Priority.PRIORITY_HIGH,
    labels: { from: "node" },
  });
  const first = await call(tasks.submitTask, request);
  assert(first.taskId && !first.duplicate && first.durability === Durability.DURABILITY_FSYNC);
  const done = await call(tasks.waitTask, WaitTaskRequest.fromPartial({ taskId: first.taskId }));
  assert(done.finished && done.task?.state === TaskState.TASK_STATE_COMPLETED);
  assert(done.task.result?.kind?.$case === "data");
  assert.equal(JSON.parse(done.task.result.kind.value.toString()).value, 4950);
  const again = await call(tasks.submitTask, request);
  assert(again.duplicate && again.taskId === first.taskId);
  const get = GetTaskRequest.fromPartial({ taskId: first.taskId, includePayload: true });
  const { task } = await call(tasks.getTask, get);
  assert(task?.payload?.kind?.$case === "data" && task.payload.kind.value.toString() === "100");
  assert.deepEqual(task.labels, { from: "node" });
  assert(task.finishedAt! >= task.submittedAt!);
}

async function batch() {
  const accepted = await call(
    tasks.batchSubmitTasks,
    BatchSubmitTasksRequest.fromPartial({ tasks: naps(20, 0) }),
  );
  const listed: string[] = [];
  let pageToken = "";
  do {
    const filter = { batchId: accepted.batchId };
    const page = await call(tasks.listTasks, ListTasksRequest.fromPartial({ filter, pageSize: 7, pageToken }));
    listed.push(...page.tasks.map((task) => task.taskId));
    pageToken = page.nextPageToken;
  } while (pageToken);
  assert.equal(listed.length, 20);
  assert.deepEqual(listed.reverse(), accepted.taskIds);
}

async function stream() {
  const both = tasks.submitTasks(new Metadata(), { deadline: Date.now() + 20_000 });
  for (let sequence = 0n; sequence < 50n; sequence++) {
    const task = nap(0, sequence === 7n ? { labels: { "": "x" } } : {});
    both.write(SubmitTasksRequest.fromPartial({ sequence, task }));
  }
  both.end();
  const responses = new Map<bigint, SubmitTasksResponse["outcome"]>();
  for await (const response of both) responses.set(response.sequence, response.outcome);
  assert.equal(responses.size, 50);
  const rejected = responses.get(7n);
  assert(rejected?.$case === "rejected");
  assert.equal(rejected.value.reason, "INVALID_FIELD");
  assert.equal(rejected.value.field, 'task.labels[""]');
  assert.equal(rejected.value.code, status.INVALID_ARGUMENT);
  responses.delete(7n);
  for (const outcome of responses.values()) assert(outcome?.$case === "accepted");
}

async function resumedWatch() {
  const request = BatchSubmitTasksRequest.fromPartial({ tasks: naps(40, 0.05) });
  const { batchId, resumeToken } = await call(tasks.batchSubmitTasks, request);
  const filter = { batchId };
  const states = new Map<string, TaskState>();
  const seen: [bigint, string, TaskState][] = [];
  let completed = 0;
  for await (const event of watch(tasks, filter, resumeToken)) {
    assert.equal(event.previousState, states.get(event.taskId) ?? TaskState.TASK_STATE_UNSPECIFIED);
    assert(seen.length === 0 || seen.at(-1)![0] < event.revision, "revisions rise");
    states.set(event.taskId, event.state);
    seen.push([event.revision, event.taskId, event.state]);
    if (seen.length === 15) await control("cut");
    if (seen.length === 60) await control("crash");
    if (event.state === TaskState.TASK_STATE_COMPLETED && ++completed === 40) break;
  }
  const replayed: typeof seen = [];
  for await (const event of watch(tasks, filter, resumeToken)) {
    replayed.push([event.revision, event.taskId, event.state]);
    if (event.revision === seen.at(-1)![0]) break;
  }
  assert.deepEqual(seen, replayed, "events were lost or repeated");
}

async function cancel() {
  const { taskId, resumeToken } = await call(tasks.submitTask, nap(60));
  for await (const event of watch(tasks, { taskIds: [taskId] }, resumeToken)) {
    if (event.state === TaskState.TASK_STATE_RUNNING && !event.cancel) {
      const request = CancelTaskRequest.fromPartial({ taskId, reason: "not needed" });
      const response = await call(tasks.cancelTask, request);
      assert.equal(response.state, TaskState.TASK_STATE_RUNNING);
    }
    if (event.state > TaskState.TASK_STATE_RUNNING) {
      assert.equal(event.state, TaskState.TASK_STATE_CANCELLED);
      assert.equal(event.cancel?.reason, "not needed");
      assert.equal(event.cancel?.method, StopMethod.STOP_METHOD_TOKEN);
      assert(event.cancel?.stoppedAt);
      return;
    }
  }
}

async function errors() {
  let error = await refused(call(tasks.submitTask, SubmitTaskRequest.fromPartial({ handler: "nosuch" })));
  assert.equal(error.code, status.NOT_FOUND);
  assert.equal(details(error).info?.reason, "UNKNOWN_HANDLER");
  assert.equal(details(error).info?.domain, "lineshaft.dev");
  assert.equal(details(error).info?.metadata.handler, "nosuch");
  const bad = { tasks: [nap(0), nap(0, { displayName: "x".repeat(200) })] };
  error = await refused(call(tasks.batchSubmitTasks, BatchSubmitTasksRequest.fromPartial(bad)));
  assert.equal(error.code, status.INVALID_ARGUMENT);
  assert.equal(details(error).info?.reason, "INVALID_FIELD");
  assert.equal(details(error).badRequest?.fieldViolations[0]?.field, "tasks[1].display_name");
}

async function deadline() {
  const { taskId } = await call(tasks.submitTask, nap(60));
  const begin = Date.now();
  let error = await refused(call(tasks.waitTask, WaitTaskRequest.fromPartial({ taskId }), 300));
  assert.equal(error.code, status.DEADLINE_EXCEEDED);
  const steps = tasks.watchTasks(WatchTasksRequest.fromPartial({}), new Metadata(), { deadline: Date.now() + 300 });
  error = await refused(steps.toArray());
  assert.equal(error.code, status.DEADLINE_EXCEEDED);
  assert(Date.now() - begin < 5_000);
  // The deadline ended the call, not the task.
  const { task } = await call(tasks.getTask, GetTaskRequest.fromPartial({ taskId }));
  assert(task && task.state <= TaskState.TASK_STATE_RUNNING);
  await call(tasks.cancelTask, CancelTaskRequest.fromPartial({ taskId }));
}

async function metrics() {
  const interval = { seconds: 0n, nanos: 100_000_000 };
  const request = StreamPoolMetricsRequest.fromPartial({ pools: ["default"], interval, includeWorkers: true });
  const stream = pools.streamPoolMetrics(request);
  const readings = [];
  for await (const reading of stream) {
    readings.push(reading);
    if (readings.length === 1) await call(tasks.submitTask, nap(0));
    if (readings.length === 5) break;
  }
  const [first, last] = [readings[0]!.pools[0]!, readings[4]!.pools[0]!];
  assert.equal(first.pool, "default");
  assert.equal(first.size, 4);
  assert.equal(first.workers.length, 4);
  assert(last.submitted > first.submitted && last.time! > first.time!);
  assert(readings[4]!.system!.cores > 0);
}

async function retry() {
  // The server is down during this call; the service config of the channel waits and retries.
  await control("crash");
  const first = await call(tasks.submitTask, nap(0, { requestId: "node-retry" }));
  assert(!first.duplicate);
  assert((await call(tasks.submitTask, nap(0, { requestId: "node-retry" }))).duplicate);
}

async function tls() {
  const ca = readFileSync(process.env.LINESHAFT_CA!);
  const secured = (token?: string) =>
    new TaskServiceClient(process.env.LINESHAFT_SECURE!, secure(ca, token), channelOptions);
  const submitter = secured(process.env.LINESHAFT_SUBMITTER);
  const { taskId } = await call(submitter.submitTask, nap(0), 30_000, submitter);
  const { task } = await call(submitter.waitTask, WaitTaskRequest.fromPartial({ taskId }), 30_000, submitter);
  assert.equal(task?.state, TaskState.TASK_STATE_COMPLETED);
  assert.match(task.submittedBy, /submitter/);
  const viewer = secured(process.env.LINESHAFT_VIEWER);
  let error = await refused(call(viewer.submitTask, nap(0), 30_000, viewer));
  assert.equal(error.code, status.PERMISSION_DENIED);
  assert.equal(details(error).info?.reason, "PERMISSION_DENIED");
  assert.equal(details(error).info?.metadata.role, "submitter");
  const anonymous = secured();
  error = await refused(call(anonymous.submitTask, nap(0), 30_000, anonymous));
  assert.equal(error.code, status.UNAUTHENTICATED);
  assert.equal(details(error).info?.reason, "UNAUTHENTICATED");
  for (const client of [submitter, viewer, anonymous]) client.close();
}

const checks = { submit, batch, stream, watch: resumedWatch, cancel, errors, deadline, metrics, retry, tls };
for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
tasks.close();
pools.close();
