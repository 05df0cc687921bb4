// What the form for submissions contains, and the message that it becomes.
import { create } from "@bufbuild/protobuf";
import { parseSeconds } from "../format";
import { Priority, type Task, type TaskLimit } from "../gen/lineshaft/v1/task_pb";
import { type SubmitTaskRequest, SubmitTaskRequestSchema } from "../gen/lineshaft/v1/task_service_pb";
import { problem } from "../json";
import { asText, mediaType } from "../content";
import { duration } from "./convert";

/** `form`: JSON that the fields of a schema make. */
export type PayloadKind = "form" | "JSON" | "text" | "none";

export interface Form {
  handler: string;
  kind: PayloadKind;
  payload: string;
  /** One a line. */
  args: string;
  priority: Priority;
  name: string;
  /** `key=value`, one a line. */
  labels: string;
  pool: string;
  namespace: string;
  taskId: string;
  delay: string;
  timeout: string;
  expiresAfter: string;
  attempts: string;
  atMostOnce: boolean;
  /** Those of a task that is submitted again. */
  limits: TaskLimit[];
}

export const EMPTY: Form = {
  handler: "",
  kind: "JSON",
  payload: "",
  args: "",
  priority: Priority.NORMAL,
  name: "",
  labels: "",
  pool: "",
  namespace: "",
  taskId: "",
  delay: "",
  timeout: "",
  expiresAfter: "",
  attempts: "",
  atMostOnce: false,
  limits: [],
};

/** The same submission once more. `undefined` if its payload is not text, which the form cannot show. */
export function formOf(task: Task): Form | undefined {
  const data = task.payload?.kind.case === "data" ? task.payload.kind.value : new Uint8Array();
  const text = asText(data);
  if (text === undefined) return undefined;
  const hasJson = mediaType(task.payload?.contentType ?? "") === "application/json";
  return {
    ...EMPTY,
    handler: task.handler,
    kind: data.length === 0 ? "none" : hasJson ? "JSON" : "text",
    payload: text,
    args: task.args.join("\n"),
    priority: task.priority,
    name: task.displayName,
    labels: Object.entries(task.labels).map(([key, value]) => `${key}=${value}`).join("\n"),
    pool: task.pool,
    namespace: task.namespace === "default" ? "" : task.namespace,
    atMostOnce: task.atMostOnce,
    limits: task.limits,
  };
}

export const isJson = (kind: PayloadKind) => kind === "JSON" || kind === "form";

export type Problems = Partial<Record<keyof Form, string>>;

const lines = (text: string) => text.split("\n").filter((line) => line !== "");

/** What the server would refuse, by field. */
export function problems(form: Form): Problems {
  const found: Problems = {};
  if (!form.handler) found.handler = "choose a handler";
  const json = isJson(form.kind) && form.payload.trim() ? problem(form.payload) : undefined;
  if (json) found.payload = json;
  const label = lines(form.labels).find((line) => !/^[^=]+=/.test(line));
  if (label !== undefined) found.labels = `“${label}” is not key=value`;
  for (const name of ["delay", "timeout", "expiresAfter"] as const) {
    if (form[name].trim() && parseSeconds(form[name]) === undefined) found[name] = "a duration such as 30s or 1h30m";
  }
  if (form.attempts.trim() && !/^[1-9]\d{0,2}$/.test(form.attempts.trim())) found.attempts = "a number from 1 to 100";
  if (form.taskId && !/^[A-Za-z0-9._:-]{1,64}$/.test(form.taskId)) found.taskId = "1 to 64 of A-Z a-z 0-9 . _ : -";
  return found;
}

/** The message; its payload is `payload` if given. */
export function toRequest(form: Form, payload = form.payload): SubmitTaskRequest {
  const labels = lines(form.labels).map((line) => {
    const at = line.indexOf("=");
    return [line.slice(0, at).trim(), line.slice(at + 1)] as const;
  });
  const hasPayload = form.kind === "text" ? payload !== "" : isJson(form.kind) && payload.trim() !== "";
  const time = (text: string) => {
    const value = parseSeconds(text);
    return value === undefined ? undefined : duration(value);
  };
  const [delay, timeout, expiresAfter] = [time(form.delay), time(form.timeout), time(form.expiresAfter)];
  return create(SubmitTaskRequestSchema, {
    handler: form.handler,
    // The text as it stands: a number keeps all of its digits.
    ...(hasPayload && {
      payload: {
        kind: { case: "data", value: new TextEncoder().encode(payload) },
        contentType: form.kind === "text" ? "text/plain" : "application/json",
      },
    }),
    args: lines(form.args),
    priority: form.priority,
    displayName: form.name,
    labels: Object.fromEntries(labels),
    pool: form.pool,
    namespace: form.namespace,
    taskId: form.taskId,
    atMostOnce: form.atMostOnce,
    limits: form.limits,
    ...(delay && { delay }),
    ...(timeout && { timeout }),
    ...(expiresAfter && { expiresAfter }),
    ...(form.attempts.trim() && { retry: { maxAttempts: Number(form.attempts) } }),
  });
}

/** Payloads of a file, one a line; empty lines are none. */
export function payloadsOf(file: string): string[] {
  return file.split(/\r?\n/).filter((line) => line.trim() !== "");
}
