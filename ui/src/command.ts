// A submission as a command that does the same.
import type { Task, TaskLimit } from "./gen/lineshaft/v1/task_pb";
import { Priority } from "./gen/lineshaft/v1/task_pb";
import { asText, mediaType } from "./content";
import { seconds as inSeconds } from "./data/convert";
import { prettyTokens } from "./json";
import { limitName } from "./words";

/** One argument of a POSIX shell. */
export function quote(text: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** The text of a JSON payload; `undefined` for all other content. */
function jsonOf(task: Task): string | undefined {
  const payload = task.payload;
  if (payload?.kind.case !== "data" || mediaType(payload.contentType) !== "application/json") return undefined;
  return asText(payload.kind.value);
}

function base64(data: Uint8Array): string {
  let binary = "";
  for (const byte of data) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** The message of SubmitTask in JSON. The text of a JSON payload is kept as it is. */
export function submissionJson(task: Task): string {
  const members: [string, string][] = [["handler", JSON.stringify(task.handler)]];
  const json = jsonOf(task);
  if (json !== undefined) members.push(["payload", `{"json":${json}}`]);
  else if (task.payload?.kind.case === "data") {
    const { contentType, kind } = task.payload;
    members.push(["payload", JSON.stringify({ data: base64(kind.value), contentType })]);
  }
  if (task.priority !== Priority.NORMAL) members.push(["priority", `"PRIORITY_${Priority[task.priority]}"`]);
  if (task.pool) members.push(["pool", JSON.stringify(task.pool)]);
  if (task.namespace && task.namespace !== "default") members.push(["namespace", JSON.stringify(task.namespace)]);
  if (task.displayName) members.push(["displayName", JSON.stringify(task.displayName)]);
  if (Object.keys(task.labels).length) members.push(["labels", JSON.stringify(task.labels)]);
  if (task.args.length) members.push(["args", JSON.stringify(task.args)]);
  if (task.atMostOnce) members.push(["atMostOnce", "true"]);
  if (task.limits.length) members.push(["limits", JSON.stringify(task.limits.map(limitJson))]);
  return `{${members.map(([name, value]) => `"${name}":${value}`).join(",")}}`;
}

/** What a submission says about a limit; the configuration sets the numbers of one with a name. */
function limitJson({ name, key, maxRunning, rate }: TaskLimit) {
  if (name) return { name, ...(key && { key }) };
  const interval = inSeconds(rate?.interval) ?? 1;
  return { key, ...(maxRunning && { maxRunning }), ...(rate && { rate: { starts: rate.starts, interval: `${interval}s`, burst: rate.burst } }) };
}

function limitOption(limit: TaskLimit): string {
  const { rate } = limit;
  if (limit.name) return limitName(limit);
  const parts = [limit.key];
  if (limit.maxRunning) parts.push(`max=${limit.maxRunning}`);
  if (rate) parts.push(`rate=${rate.starts}/${Math.round((inSeconds(rate.interval) ?? 1) * 1000)}ms`);
  if (rate?.burst) parts.push(`burst=${rate.burst}`);
  return parts.join(",");
}

function limitPython({ name, key, maxRunning, rate }: TaskLimit): string {
  const args: string[] = [];
  if (key) args.push(JSON.stringify(key));
  if (name) args.push(`name=${JSON.stringify(name)}`);
  else if (maxRunning) args.push(`max_running=${maxRunning}`);
  if (!name && rate) args.push(`starts=${rate.starts}`, `interval=${inSeconds(rate.interval) ?? 1}`, `burst=${rate.burst}`);
  return `lineshaft.Limit(${args.join(", ")})`;
}

/** A token is named, never copied. */
export function asCurl(task: Task, server: string, hasToken: boolean): string {
  const authorization = hasToken ? ` -H "authorization: Bearer $LINESHAFT_TOKEN"` : "";
  const url = `${server}/lineshaft.v1.TaskService/SubmitTask?strict=true`;
  return `curl -H 'content-type: application/json'${authorization} -d ${quote(submissionJson(task))} ${quote(url)}`;
}

/** `undefined` if the payload is not text, which a command line cannot contain. */
export function asCli(task: Task, server: string): string | undefined {
  const words = ["lineshaft", "task", "submit", quote(task.handler), "--server", quote(server)];
  const option = (name: string, value: string) => words.push(`--${name}`, quote(value));
  const json = jsonOf(task);
  if (json !== undefined) option("json", json);
  else if (task.payload?.kind.case === "data" && task.payload.kind.value.length) {
    const text = asText(task.payload.kind.value);
    if (text === undefined || text.startsWith("@") || text === "-") return undefined;
    option("payload", text);
  }
  if (task.priority !== Priority.NORMAL) option("priority", (Priority[task.priority] ?? "").toLowerCase());
  if (task.pool) option("pool", task.pool);
  if (task.namespace && task.namespace !== "default") option("namespace", task.namespace);
  if (task.displayName) option("name", task.displayName);
  for (const [key, value] of Object.entries(task.labels)) option("label", `${key}=${value}`);
  for (const arg of task.args) words.push(quote(`--arg=${arg}`));
  const timeout = inSeconds(task.timeout);
  if (timeout) option("timeout", `${Math.round(timeout * 1000)}ms`);
  if (task.atMostOnce) words.push("--at-most-once");
  for (const limit of task.limits) option("task-limit", limitOption(limit));
  return words.join(" ");
}

const LITERALS: Record<string, string> = { true: "True", false: "False", null: "None" };

/** A JSON document as an expression of Python, with all digits of its numbers. */
function pythonOf(json: string): string | undefined {
  const tokens = prettyTokens(json);
  // The escape of half a character is another one in Python.
  return tokens?.map(({ kind, text }) => (kind === "space" ? "" : kind === "literal" ? LITERALS[text] : text.startsWith('"') ? JSON.stringify(JSON.parse(text)) : text.replace(",", ", "))).join("");
}

/** A program that submits the same with the SDK for Python, and waits for the result. */
export function asPython(task: Task, server: string): string {
  const imports = ["import lineshaft"];
  const args = [JSON.stringify(task.handler)];
  const json = jsonOf(task);
  const expression = json === undefined ? undefined : pythonOf(json);
  const { payload } = task;
  if (expression !== undefined) args.push(expression);
  else if (payload?.kind.case === "data" && payload.kind.value.length) {
    const text = asText(payload.kind.value);
    if (text === undefined) imports.unshift("import base64\n");
    args.push(text === undefined ? `base64.b64decode("${base64(payload.kind.value)}")` : `${JSON.stringify(text)}.encode()`);
  }
  const option = (name: string, value: string) => args.push(`${name}=${value}`);
  if (task.priority !== Priority.NORMAL) option("priority", JSON.stringify((Priority[task.priority] ?? "").toLowerCase()));
  if (task.pool) option("pool", JSON.stringify(task.pool));
  if (task.displayName) option("name", JSON.stringify(task.displayName));
  if (Object.keys(task.labels).length) option("labels", JSON.stringify(task.labels));
  if (task.args.length) option("args", JSON.stringify(task.args));
  const timeout = inSeconds(task.timeout);
  if (timeout) option("timeout", String(timeout));
  if (task.atMostOnce) option("at_most_once", "True");
  if (task.limits.length) option("limits", `[${task.limits.map(limitPython).join(", ")}]`);
  const client = [JSON.stringify(new URL(server).origin)];
  if (task.namespace && task.namespace !== "default") client.push(`namespace=${JSON.stringify(task.namespace)}`);
  return `${imports.join("\n")}

with lineshaft.Client(${client.join(", ")}) as client:
    task = client.submit(${args.join(", ")})
    print(task.result())
`;
}
