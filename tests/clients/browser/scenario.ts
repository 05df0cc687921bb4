// What a browser client must be able to do, with Connect JSON and with gRPC-Web; run by tests/clients/run.sh.
// `SubmitTasks` is missing because a browser cannot send a request stream.
import { fromJson, toJson, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampDate, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { bearer, retry as interceptor } from "./channel.js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { PoolService } from "./gen/lineshaft/v1/pool_service_pb.js";
import { Durability, type Payload, StopMethod, TaskState } from "./gen/lineshaft/v1/task_pb.js";
import { type SubmitTaskRequestSchema, TaskService } from "./gen/lineshaft/v1/task_service_pb.js";
import { watch } from "./watch.js";

declare global {
  /** Asks the harness to break a connection or the server; resolves when this is done. Defined in look.js. */
  function control(word: string): Promise<void>;
}

type Task = MessageInitShape<typeof SubmitTaskRequestSchema>;

const given = new URLSearchParams(location.search);
const withDeadline = { timeoutMs: 30_000 };
const payload = (value: number) => ({ kind: { case: "json" as const, value: fromJson(ValueSchema, value) } });
const nap = (seconds: number, more: Task = {}): Task =>
  Object.assign({ handler: "io", payload: payload(seconds) }, more);
const naps = (count: number, seconds: number) => Array.from({ length: count }, () => nap(seconds));

/** A JSON result arrives as `json` in Connect JSON and as `data` in gRPC-Web. */
function isSum(result: Payload["kind"] | undefined, value: number) {
  if (result?.case === "data") return JSON.parse(new TextDecoder().decode(result.value)).value === value;
  return result?.case === "json" && (toJson(ValueSchema, result.value) as { value: number }).value === value;
}

function check(holds: unknown, what: unknown): asserts holds {
  const show = (_: string, value: unknown) => (typeof value === "bigint" ? String(value) : value);
  if (!holds) throw new Error(`not as it should be: ${JSON.stringify(what, show)} ${what}`);
}

async function refused(calling: Promise<unknown>): Promise<ConnectError> {
  const error = await calling.then(() => undefined, ConnectError.from);
  check(error, "the call should have been refused");
  return error;
}

function scenario(protocol: string, make: typeof createConnectTransport | typeof createGrpcWebTransport) {
  const transport = make({ baseUrl: given.get("server")!, interceptors: [interceptor] });
  const tasks = createClient(TaskService, transport);
  const pools = createClient(PoolService, transport);

  async function submit() {
    const request: Task = { handler: "compute", payload: payload(100), requestId: `${protocol}-submit` };
    const first = await tasks.submitTask(request, withDeadline);
    check(first.taskId && !first.duplicate && first.durability === Durability.FSYNC, first);
    const done = await tasks.waitTask({ taskId: first.taskId }, withDeadline);
    check(done.finished && done.task?.state === TaskState.COMPLETED, done);
    check(isSum(done.task.result?.kind, 4950), done);
    const again = await tasks.submitTask(request, withDeadline);
    check(again.duplicate && again.taskId === first.taskId, again);
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
    check(listed.length === 20 && listed.reverse().join() === taskIds.join(), listed);
  }

  async function resumedWatch() {
    const { batchId, resumeToken } = await tasks.batchSubmitTasks({ tasks: naps(40, 0.05) }, withDeadline);
    const states = new Map<string, TaskState>();
    const seen: string[] = [];
    let last = 0n;
    let completed = 0;
    for await (const event of watch(tasks, { batchId }, resumeToken)) {
      check(event.previousState === (states.get(event.taskId) ?? TaskState.UNSPECIFIED), event);
      check(event.revision > last, event);
      last = event.revision;
      states.set(event.taskId, event.state);
      seen.push(`${event.revision} ${event.taskId} ${event.state}`);
      if (seen.length === 15) await control("cut");
      if (seen.length === 60) await control("crash");
      if (event.state === TaskState.COMPLETED && ++completed === 40) break;
    }
    const replayed: string[] = [];
    for await (const event of watch(tasks, { batchId }, resumeToken)) {
      replayed.push(`${event.revision} ${event.taskId} ${event.state}`);
      if (event.revision === last) break;
    }
    check(seen.join() === replayed.join(), "events were lost or repeated");
  }

  async function cancel() {
    const { taskId, resumeToken } = await tasks.submitTask(nap(60), withDeadline);
    for await (const event of watch(tasks, { taskIds: [taskId] }, resumeToken)) {
      if (event.state === TaskState.RUNNING && !event.cancel) {
        const response = await tasks.cancelTask({ taskId, reason: "not needed" }, withDeadline);
        check(response.state === TaskState.RUNNING, response);
      }
      if (event.state > TaskState.RUNNING) {
        check(event.state === TaskState.CANCELLED && event.cancel?.reason === "not needed", event);
        check(event.cancel.method === StopMethod.TOKEN && event.cancel.stoppedAt, event);
        return;
      }
    }
  }

  async function errors() {
    let error = await refused(tasks.submitTask({ handler: "nosuch" }, withDeadline));
    check(error.code === Code.NotFound, error);
    const [info] = error.findDetails(ErrorInfoSchema);
    check(info?.reason === "UNKNOWN_HANDLER" && info.domain === "lineshaft.dev", error);
    check(info.metadata.handler === "nosuch", info);
    const bad = { tasks: [nap(0), nap(0, { displayName: "x".repeat(200) })] };
    error = await refused(tasks.batchSubmitTasks(bad, withDeadline));
    check(error.code === Code.InvalidArgument, error);
    check(error.findDetails(ErrorInfoSchema)[0]?.reason === "INVALID_FIELD", error);
    const [badRequest] = error.findDetails(BadRequestSchema);
    check(badRequest?.fieldViolations[0]?.field === "tasks[1].display_name", badRequest);
  }

  async function deadline() {
    const { taskId } = await tasks.submitTask(nap(60), withDeadline);
    const begin = Date.now();
    let error = await refused(tasks.waitTask({ taskId }, { timeoutMs: 300 }));
    check(error.code === Code.DeadlineExceeded, error);
    const steps = tasks.watchTasks({}, { timeoutMs: 300 });
    error = await refused((async () => { for await (const _ of steps); })());
    check(error.code === Code.DeadlineExceeded, error);
    check(Date.now() - begin < 5_000, "the deadlines came late");
    // The deadline ended the call, not the task.
    const { task } = await tasks.getTask({ taskId }, withDeadline);
    check(task && task.state <= TaskState.RUNNING, task);
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
    check(first.pool === "default" && first.size === 4 && first.workers.length === 4, first);
    check(last.submitted > first.submitted && timestampDate(last.time!) > timestampDate(first.time!), last);
    check(readings[4]!.system!.cores > 0, readings[4]);
  }

  async function retry() {
    // The server is down during this call; the interceptor of the transport retries it.
    await control("crash");
    const first = await tasks.submitTask(nap(0, { requestId: `${protocol}-retry` }), withDeadline);
    check(!first.duplicate, first);
    check((await tasks.submitTask(nap(0, { requestId: `${protocol}-retry` }), withDeadline)).duplicate, first);
  }

  async function tls() {
    const secured = (token?: string) => {
      const interceptors = token ? [interceptor, bearer(token)] : [interceptor];
      return createClient(TaskService, make({ baseUrl: given.get("secure")!, interceptors }));
    };
    const submitter = secured(given.get("submitter")!);
    const { taskId } = await submitter.submitTask(nap(0), withDeadline);
    const { task } = await submitter.waitTask({ taskId }, withDeadline);
    check(task?.state === TaskState.COMPLETED && task.submittedBy.includes("submitter"), task);
    let error = await refused(secured(given.get("viewer")!).submitTask(nap(0), withDeadline));
    check(error.code === Code.PermissionDenied, error);
    const [info] = error.findDetails(ErrorInfoSchema);
    check(info?.reason === "PERMISSION_DENIED" && info.metadata.role === "submitter", info);
    error = await refused(secured().submitTask(nap(0), withDeadline));
    check(error.code === Code.Unauthenticated, error);
    check(error.findDetails(ErrorInfoSchema)[0]?.reason === "UNAUTHENTICATED", error);
  }

  return { submit, batch, watch: resumedWatch, cancel, errors, deadline, metrics, retry, tls };
}

const transports = { connect: createConnectTransport, "grpc-web": createGrpcWebTransport };
try {
  for (const [protocol, make] of Object.entries(transports)) {
    for (const [name, check] of Object.entries(scenario(protocol, make))) {
      await check();
      console.log(`ok ${protocol}/${name}`);
    }
  }
  document.title = "done";
} catch (error) {
  console.log(error instanceof Error ? error.stack : String(error));
  document.title = "failed";
}
