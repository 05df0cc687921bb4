// The filter of the task table, as it stands in the URL: the same names and values as the words of `lineshaft task list --filter`.
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Priority, type TaskFilter, TaskFilterSchema, TaskState } from "../gen/lineshaft/v1/task_pb";
import { parseSeconds } from "../format";
import { PRIORITIES, priorityName, STATES, stateName } from "../words";

export interface Filter {
  states: TaskState[];
  priorities: Priority[];
  handler: string;
  pool: string;
  namespace: string;
  batch: string;
  /** `key=value`. */
  labels: string[];
  ids: string[];
  /** ID of a group of failures with one cause. */
  failureGroup: string;
  /** All of these occur in texts of the task. */
  texts: string[];
  /** When the tasks were submitted: a time, or a duration before now, such as `15m`; empty for all. */
  since: string;
  until: string;
}

const ONCE = ["handler", "pool", "namespace", "batch", "since", "until"] as const;
const GROUP = "failure-group";
const NAMES = ["state", "priority", ...ONCE, GROUP, "label", "id", "text"];
const isLabel = (text: string) => /^[^=]+=/.test(text);

/** Milliseconds since 1970; `undefined` if the text is neither a duration nor a time. */
function parseTime(text: string, now: number): number | undefined {
  const ago = parseSeconds(text);
  const at = ago === undefined ? Date.parse(text) : now - ago * 1000;
  return text && Number.isFinite(at) ? at : undefined;
}

export function fromQuery(query: URLSearchParams): Filter {
  const names = (name: string) => (query.get(name) ?? "").split(",").map((text) => text.trim().toUpperCase());
  const time = (name: string) => (parseTime(query.get(name) ?? "", 0) === undefined ? "" : (query.get(name) ?? ""));
  return {
    states: STATES.filter((state) => names("state").includes(stateName(state))),
    priorities: PRIORITIES.filter((priority) => names("priority").includes(priorityName(priority))),
    handler: query.get("handler") ?? "",
    pool: query.get("pool") ?? "",
    namespace: query.get("namespace") ?? "",
    batch: query.get("batch") ?? "",
    labels: query.getAll("label").filter(isLabel),
    ids: query.getAll("id"),
    failureGroup: query.get(GROUP) ?? "",
    texts: query.getAll("text").filter(Boolean),
    since: time("since"),
    until: time("until"),
  };
}

export function toQuery(filter: Filter): URLSearchParams {
  const query = new URLSearchParams();
  const set = (name: string, value: string) => value && query.set(name, value);
  set("state", filter.states.map((state) => stateName(state).toLowerCase()).join(","));
  set("priority", filter.priorities.map((priority) => priorityName(priority).toLowerCase()).join(","));
  for (const name of ONCE) set(name, filter[name]);
  set(GROUP, filter.failureGroup);
  for (const label of filter.labels) query.append("label", label);
  for (const id of filter.ids) query.append("id", id);
  for (const text of filter.texts) query.append("text", text);
  return query;
}

/** The words of a text, without the double quotes that enclose blanks, and whether each begins with one. */
const split = (text: string) =>
  [...text.matchAll(/(?:"[^"]*"?|[^\s"])+/g)].map(([word]) => ({ word: word.replaceAll('"', ""), isQuoted: word.startsWith('"') }));

/** The filter with further words, such as `state=failed label=team=red refused`; a text says what is wrong with them. */
export function withWords(filter: Filter, text: string): Filter | string {
  const query = toQuery(filter);
  for (const { word, isQuoted } of split(text).filter(({ word }) => word)) {
    const isText = isQuoted || !word.includes("=");
    const [name = "", value = ""] = isText ? ["text", word] : word.split(/=(.*)/s);
    if (!NAMES.includes(name)) return `there is no name “${name}”; the names are ${NAMES.join(", ")}`;
    if (name === "label" && !isLabel(value)) return "a label has the form label=KEY=VALUE";
    if (name === "label" || name === "id" || name === "text") {
      if (!query.getAll(name).includes(value)) query.append(name, value);
      continue;
    }
    query.set(name, value);
    const kept = toQuery(fromQuery(query)).get(name) ?? "";
    // What the table does not know it leaves out.
    if (kept.split(",").length !== value.split(",").length || (value && !kept)) return `“${value}” is not a valid ${name}`;
  }
  return fromQuery(query);
}

export function toProto(filter: Filter, now: number): TaskFilter {
  const labels = filter.labels.map((label) => {
    const at = label.indexOf("=");
    return [label.slice(0, at), label.slice(at + 1)] as const;
  });
  const [since, until] = [parseTime(filter.since, now), parseTime(filter.until, now)];
  return create(TaskFilterSchema, {
    taskIds: filter.ids,
    states: filter.states,
    priorities: filter.priorities,
    handler: filter.handler,
    pool: filter.pool,
    namespace: filter.namespace,
    batchId: filter.batch,
    failureGroup: filter.failureGroup,
    texts: filter.texts,
    labels: Object.fromEntries(labels),
    ...(since !== undefined && { submittedAfter: timestampFromMs(since) }),
    ...(until !== undefined && { submittedBefore: timestampFromMs(until) }),
  });
}

/** Whether it leaves out any task. */
export const isSet = (filter: Filter) => toQuery(filter).size > 0;
