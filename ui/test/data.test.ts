import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { asCli, asCurl, asPython, quote, submissionJson } from "../src/command";
import { asText, hex, isImage } from "../src/content";
import { duration } from "../src/data/convert";
import { deniesMethod } from "../src/data/denial";
import { fromQuery, isSet, toProto, toQuery, withWords } from "../src/data/filter";
import { History, joined, KEPT, sampleOf } from "../src/data/history";
import { fieldsOf, payloadOf, valuesOf } from "../src/data/schema_form";
import { BusyHistory, WORKER_SECONDS } from "../src/data/workers";
import { PoolMetricsSchema, PoolSampleSchema, WorkerSchema } from "../src/gen/lineshaft/v1/pool_service_pb";
import { Priority, type TaskEvent, TaskEventSchema, TaskSchema, TaskState } from "../src/gen/lineshaft/v1/task_pb";
import { phasesOfEvents, phasesOfTask } from "../src/timeline";
import { waitText } from "../src/words";

const pool = (second: number, completed: number, since = 0, name = "default") =>
  create(PoolMetricsSchema, {
    pool: name,
    time: timestampFromMs(1_000_000 + second * 1000),
    countersSince: timestampFromMs(since),
    completed: BigInt(completed),
    submitted: BigInt(completed * 2),
    size: 4,
    busy: 3,
    idle: 1,
    priorities: [{ priority: Priority.HIGH, queued: 5n }],
  });

test("a waiting task names its parents once it could start without them", () => {
  const text = (parents: number, eligibleAt: number, hold = "") => waitText({ hold, parents, eligibleAt }, 9_000);
  expect(text(1, 5_000)).toBe("waits for 1 parent");
  expect(text(1_200, 5_000)).toBe("waits for parents, 1,200 in all");
  expect(text(2, 5_000, "limit mail")).toBe("limit mail");
  expect([text(2, 10_000), text(0, 10_000), text(0, 5_000)]).toEqual(["", "", ""]);
});

describe("history", () => {
  test("rates are those between two messages", () => {
    const history = new History();
    history.add([pool(0, 10), pool(0, 0, 0, "other")]);
    history.add([pool(1, 30), pool(1, 5, 0, "other")]);
    const all = history.samples.get("")!;
    expect(all.map(({ completed }) => completed)).toEqual([null, 25]);
    expect(all[1]).toMatchObject({ submitted: 50, depth: [0, 0, 10, 0], busy: 6, slots: 8 });
    expect(history.samples.get("default")![1]!.completed).toBe(20);
  });

  test("a restart of the server, a reset and a long gap have no rate", () => {
    const history = new History();
    for (const metrics of [pool(0, 100), pool(1, 3, 500), pool(2, 5, 500), pool(60, 90, 500)]) history.add([metrics]);
    expect(history.samples.get("default")!.map(({ completed }) => completed)).toEqual([null, null, 2, null]);
  });

  test("messages that arrive together make one sample", () => {
    const history = new History();
    for (const [second, completed] of [[0, 0], [1, 10], [1.01, 12], [2, 20]] as const) history.add([pool(second, completed)]);
    expect(history.samples.get("default")!.map(({ completed }) => completed)).toEqual([null, 10, 10]);
  });

  test("old samples and pools that are gone are dropped", () => {
    const history = new History();
    history.add([pool(0, 0), pool(0, 0, 0, "gone")]);
    for (let second = 1; second < KEPT + 50; second++) history.add([pool(second, second)]);
    expect([...history.samples.keys()]).toEqual(["default", ""]);
    expect(history.samples.get("")!.length).toBe(KEPT + 1);
  });

  test("the busy time of a worker is a share of each second", () => {
    const history = new BusyHistory();
    const worker = (busy: number) => create(WorkerSchema, { pool: "p", name: "w", busyTime: duration(busy) });
    for (const busy of [10, 10.5, 11.5, 11.5]) history.add([create(PoolMetricsSchema, { pool: "p", workers: [worker(busy)] })]);
    const shares = history.of(worker(0));
    expect(shares.length).toBe(WORKER_SECONDS);
    expect(shares.slice(-4)).toEqual([null, 0.5, 1, 0]);
  });
});

describe("filter", () => {
  test("survives the URL", () => {
    const text = "state=failed%2Ccancelled&priority=high&handler=a%26b&since=15m&label=team%3Dweb&label=x%3Dy%3Dz&text=a+b";
    const filter = fromQuery(new URLSearchParams(text));
    expect(filter).toMatchObject({ states: [TaskState.FAILED, TaskState.CANCELLED], handler: "a&b", labels: ["team=web", "x=y=z"], texts: ["a b"] });
    expect(fromQuery(toQuery(filter))).toEqual(filter);
    const proto = toProto(filter, 2_000_000);
    expect(proto.labels).toEqual({ team: "web", x: "y=z" });
    expect(proto.submittedAfter).toEqual(timestampFromMs(1_100_000));
  });

  test("what a URL says wrongly filters nothing", () => {
    const filter = fromQuery(new URLSearchParams("state=x&priority=&since=soon&label=nothing&label=%3Dv"));
    expect(isSet(filter)).toBe(false);
  });

  test("has the words of the command line", () => {
    const none = fromQuery(new URLSearchParams());
    const words = "state=failed,cancelled handler=io label=team=red label=a=b since=1h until=2026-05-01T10:00:00Z id=a id=b";
    const filter = withWords(none, words);
    if (typeof filter === "string") throw new Error(filter);
    expect(toQuery(filter).toString()).toBe("state=failed%2Ccancelled&handler=io&since=1h&until=2026-05-01T10%3A00%3A00Z&label=team%3Dred&label=a%3Db&id=a&id=b");
    const proto = toProto(filter, 7_200_000);
    expect(proto).toMatchObject({ taskIds: ["a", "b"], labels: { team: "red", a: "b" }, submittedAfter: timestampFromMs(3_600_000) });
    expect(proto.submittedBefore).toEqual(timestampFromMs(Date.UTC(2026, 4, 1, 10)));
    expect(withWords(filter, "handler=compute state=running")).toMatchObject({ handler: "compute", states: [TaskState.RUNNING], ids: ["a", "b"] });
    expect(withWords(none, 'refused "a=b c" text="x y" label=team="big red"')).toMatchObject({ texts: ["refused", "a=b c", "x y"], labels: ["team=big red"] });
    for (const wrong of ["team=red", "state=lost", "state=failed,lost", "priority=x", "since=soon", "label=x"]) {
      expect(withWords(none, wrong), wrong).toBeTypeOf("string");
    }
  });
});

describe("timeline", () => {
  const at = timestampFromMs;
  test("of a task in its first attempt", () => {
    const task = create(TaskSchema, { state: TaskState.COMPLETED, attempt: 1, submittedAt: at(0), eligibleAt: at(5), startedAt: at(7), finishedAt: at(9) });
    expect(phasesOfTask(task).map(({ kind, from, to }) => [kind, from, to])).toEqual([["delay", 0, 5], ["queued", 5, 7], ["running", 7, 9]]);
  });

  test("of a task that never started, and of one between two attempts", () => {
    const expired = create(TaskSchema, { state: TaskState.FAILED, submittedAt: at(0), eligibleAt: at(0), finishedAt: at(9) });
    expect(phasesOfTask(expired).map(({ kind, from, to }) => [kind, from, to])).toEqual([["queued", 0, 9]]);
    const retried = create(TaskSchema, { state: TaskState.QUEUED, attempt: 1, submittedAt: at(0), eligibleAt: at(8), startedAt: at(1) });
    expect(phasesOfTask(retried).map(({ kind, from, to }) => [kind, from, to])).toEqual([["earlier attempts", 0, 8], ["queued", 8, undefined]]);
  });

  test("of events with a retry and a requested cancellation", () => {
    const { UNSPECIFIED, QUEUED, RUNNING, WAITING, CANCELLED } = TaskState;
    const states: [TaskState, TaskState][] = [[UNSPECIFIED, QUEUED], [QUEUED, RUNNING], [RUNNING, WAITING], [WAITING, QUEUED], [QUEUED, RUNNING], [RUNNING, RUNNING], [RUNNING, CANCELLED]];
    const events = states.map(([previousState, state], time) => create(TaskEventSchema, { time: at(time), previousState, state }));
    expect(phases(events)).toEqual([["queued", 0, 1], ["running", 1, 2], ["delay", 2, 3], ["queued", 3, 4], ["running", 4, 6]]);
  });

  const phases = (events: TaskEvent[], hasParents = false, now = 9_000) => phasesOfEvents(events, hasParents, now).map(({ kind, from, to }) => [kind, from, to]);
  const event = (time: number, previousState: TaskState, state: TaskState, more: MessageInitShape<typeof TaskEventSchema> = {}) =>
    create(TaskEventSchema, { time: at(time), previousState, state, ...more });
  const { UNSPECIFIED, WAITING, QUEUED, RUNNING } = TaskState;
  const limitHold = { name: "db", key: "eu", reason: { case: "places" as const, value: { taken: 1, max: 1 } } };

  test("says what held a task: its delay, then a limit, and later its back-off", () => {
    const events = [
      event(0, UNSPECIFIED, WAITING, { notBefore: at(500) }),
      event(501, WAITING, WAITING, { limitHold }),
      event(700, WAITING, QUEUED),
      event(710, QUEUED, RUNNING),
      event(800, RUNNING, WAITING, { failure: {}, notBefore: at(1_800) }),
      event(1_801, WAITING, WAITING, { limitHold }),
    ];
    expect(phases(events)).toEqual([
      ["delay", 0, 501], ["limit db/eu", 501, 700], ["queued", 700, 710], ["running", 710, 800], ["back-off", 800, 1_801], ["limit db/eu", 1_801, undefined],
    ]);
  });

  test("divides the wait of a task with a delay and parents", () => {
    const submitted = event(0, UNSPECIFIED, WAITING, { notBefore: at(500) });
    expect(phases([submitted, event(900, WAITING, QUEUED)], true)).toEqual([["delay", 0, 500], ["dependencies", 500, 900], ["queued", 900, undefined]]);
    expect(phases([submitted, event(502, WAITING, QUEUED)], true), "the parents had ended").toEqual([["delay", 0, 502], ["queued", 502, undefined]]);
    expect(phases([submitted], true, 300)).toEqual([["delay", 0, undefined]]);
    expect(phases([event(0, UNSPECIFIED, WAITING)], true)).toEqual([["dependencies", 0, undefined]]);
  });

  test("of a task that waits now says what for", () => {
    const kind = (more: MessageInitShape<typeof TaskSchema>) => phasesOfTask(create(TaskSchema, { state: WAITING, submittedAt: at(0), eligibleAt: at(9), ...more }))[0]!.kind;
    expect([kind({}), kind({ limitHold }), kind({ dependencies: { unfinishedParents: 2 } })]).toEqual(["delay", "limit db/eu", "dependencies"]);
  });
});

describe("commands", () => {
  const data = (text: string) => ({ kind: { case: "data" as const, value: new TextEncoder().encode(text) }, contentType: "application/json" });
  const task = create(TaskSchema, {
    handler: "compute",
    pool: "default",
    namespace: "default",
    priority: Priority.HIGH,
    displayName: "it's $HOME `x`",
    labels: { team: "web" },
    args: ["-x", "a b"],
    payload: data('{"n": 12345678901234567890}'),
  });

  test("a shell takes every argument as one word", () => {
    expect(quote("plain-1.5")).toBe("plain-1.5");
    expect(quote("it's")).toBe(`'it'\\''s'`);
    expect(quote("")).toBe("''");
    const cli = asCli(task, "http://localhost:7070")!;
    expect(cli).toContain(`--json '{"n": 12345678901234567890}'`);
    expect(cli).toContain(`--name 'it'\\''s $HOME \`x\`'`);
    expect(cli).toContain("--arg=-x '--arg=a b'");
  });

  test("the submission keeps the digits of its payload", () => {
    expect(submissionJson(task)).toContain('"payload":{"json":{"n": 12345678901234567890}}');
    expect(JSON.parse(submissionJson(task))).toMatchObject({ handler: "compute", priority: "PRIORITY_HIGH", labels: { team: "web" } });
    const binary = create(TaskSchema, { handler: "x", priority: Priority.NORMAL, payload: { kind: { case: "data", value: new Uint8Array([0, 255]) }, contentType: "a/b" } });
    expect(JSON.parse(submissionJson(binary))).toEqual({ handler: "x", payload: { data: "AP8=", contentType: "a/b" } });
    expect(asCli(binary, "http://x")).toBeUndefined();
  });

  test("a program in Python has the same values", () => {
    const program = asPython(task, "https://tasks.example.com/tools/lineshaft");
    expect(program).toContain('with lineshaft.Client("https://tasks.example.com") as client:');
    expect(program).toContain('client.submit("compute", {"n": 12345678901234567890}, priority="high", pool="default", name="it\'s $HOME `x`", labels={"team":"web"}, args=["-x","a b"])');
    const of = (json: string) => asPython(create(TaskSchema, { handler: "h", priority: Priority.NORMAL, payload: data(json) }), "http://x");
    expect(of('[true, false, null, "\\ud83d\\ude00", {}]')).toContain('client.submit("h", [True, False, None, "😀", {}])');
    const binary = create(TaskSchema, { handler: "x", priority: Priority.NORMAL, payload: { kind: { case: "data", value: new Uint8Array([0, 255]) } } });
    expect(asPython(binary, "http://x")).toContain('import base64\n\nimport lineshaft\n');
    expect(asPython(binary, "http://x")).toContain('client.submit("x", base64.b64decode("AP8="))');
  });

  test("the limits of a task are copied too", () => {
    const limits = [
      { name: "db", key: "eu", maxRunning: 7 },
      { key: "tenant-1", maxRunning: 3, rate: { starts: 5, interval: duration(60), burst: 2 } },
    ];
    const limited = create(TaskSchema, { handler: "h", priority: Priority.NORMAL, limits });
    expect(JSON.parse(submissionJson(limited)).limits).toEqual([
      { name: "db", key: "eu" },
      { key: "tenant-1", maxRunning: 3, rate: { starts: 5, interval: "60s", burst: 2 } },
    ]);
    expect(asCli(limited, "http://x")).toContain("--task-limit db/eu --task-limit tenant-1,max=3,rate=5/60000ms,burst=2");
    expect(asPython(limited, "http://x")).toContain('limits=[lineshaft.Limit("eu", name="db"), lineshaft.Limit("tenant-1", max_running=3, starts=5, interval=60, burst=2)]');
  });

  test("a token is never copied", () => {
    expect(asCurl(task, "http://x", true)).toContain('"authorization: Bearer $LINESHAFT_TOKEN"');
    expect(asCurl(task, "http://x", false)).not.toContain("authorization");
  });
});

test("samples of the server come before those of this page, and alone where the page has none", () => {
  const history = new History();
  for (const second of [0, 1, 2]) history.add([pool(second, second * 10)]);
  const seconds = history.samples.get("")!;
  const of = (second: number) => sampleOf(create(PoolSampleSchema, { time: timestampFromMs(1_000_000 + second * 1000), completeRate: 7, queued: [1n, 2n, 3n, 4n], slots: 4 }));
  const ring = [of(-30), of(-15), of(0), of(15)];
  expect(ring[0]).toMatchObject({ time: 970, completed: 7, depth: [1, 2, 3, 4], slots: 4, oldestWait: 0 });
  expect(joined(ring, seconds, 300).map(({ time }) => time)).toEqual([970, 985, 1001, 1002]);
  expect(joined([], seconds, 300)).toHaveLength(3);
  expect(joined(ring, seconds, KEPT + 1)).toBe(ring);
  expect(joined(ring, [], 300)).toHaveLength(4);
});

describe("form of a schema", () => {
  const schema = JSON.stringify({
    type: "object",
    required: ["path", "rows"],
    properties: {
      path: { type: "string", title: "File", description: "below /data" },
      rows: { type: "integer", default: 10 },
      rate: { type: "number" },
      mode: { enum: ["fast", "slow", 3] },
      dry: { type: "boolean" },
      tags: { type: "array" },
    },
  });
  const fields = fieldsOf(schema)!;

  test("has a field for each property", () => {
    expect(fields.map(({ name, kind, isRequired }) => [name, kind, isRequired])).toEqual([
      ["path", "text", true], ["rows", "integer", true], ["rate", "number", false], ["mode", "choice", false], ["dry", "choice", false], ["tags", "json", false],
    ]);
    expect(fields[0]).toMatchObject({ title: "File", hint: "below /data" });
    expect([fields[1]!.placeholder, fields[3]!.choices, fields[4]!.choices]).toEqual(["10", ['"fast"', '"slow"', "3"], ["true", "false"]]);
  });

  test("keeps digits and members that the schema does not name", () => {
    const values = { ...valuesOf(fields, '{"path": "a\\"b", "dry": true, "other": [1]}'), rows: "12345678901234567890", tags: '["x"]' };
    const { text, wrong } = payloadOf(fields, values);
    expect(text).toBe('{"path": "a\\"b", "rows": 12345678901234567890, "dry": true, "tags": ["x"], "other": [1]}');
    expect(wrong).toEqual({});
  });

  test("says what is wrong", () => {
    const { wrong } = payloadOf(fields, { rows: "1.5", rate: "x", tags: "[" });
    expect(Object.keys(wrong)).toEqual(["path", "rows", "rate", "tags"]);
    expect(wrong).toMatchObject({ path: "required", rows: "a whole number", rate: "a number" });
  });

  test("needs a schema of an object", () => {
    for (const other of ["", "{", "true", '{"type":"integer"}', '{"type":"object"}', '{"type":"object","properties":{}}']) expect(fieldsOf(other), other).toBeUndefined();
  });
});

test("only a denial of the method itself hides it", () => {
  const error = (code: Code, reason: string, metadata: Record<string, string>) => {
    const made = new ConnectError("refused", code);
    made.details = [{ type: "google.rpc.ErrorInfo", value: new Uint8Array(), debug: { reason, metadata } }];
    return made;
  };
  expect(deniesMethod(error(Code.PermissionDenied, "PERMISSION_DENIED", { namespace: "*" }))).toBe(true);
  expect(deniesMethod(error(Code.PermissionDenied, "PERMISSION_DENIED", {}))).toBe(true);
  expect(deniesMethod(error(Code.PermissionDenied, "PERMISSION_DENIED", { namespace: "team-b" }))).toBe(false);
  expect(deniesMethod(error(Code.PermissionDenied, "FOREIGN_ORIGIN", {}))).toBe(false);
  expect(deniesMethod(error(Code.Unavailable, "PERMISSION_DENIED", {}))).toBe(false);
  expect(deniesMethod(new ConnectError("refused", Code.PermissionDenied))).toBe(false);
});

test("content is text only if it is UTF-8", () => {
  expect(asText(new TextEncoder().encode("é"))).toBe("é");
  expect(asText(new Uint8Array([0xff, 0xfe]))).toBeUndefined();
  expect(asText(new Uint8Array([65, 0]))).toBeUndefined();
  expect(hex(new Uint8Array([0x41, 0, 0xff]))).toBe(`00000000  41 00 ff${" ".repeat(39)}  A..`);
  expect([isImage("image/PNG; x=1"), isImage("text/html"), isImage("image/x")]).toEqual([true, false, false]);
});
