// The filter of the task table, as it stands in the URL.
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
  /** Tasks that were submitted in this time until now, such as `15m`; empty for all. */
  within: string;
}

export function fromQuery(query: URLSearchParams): Filter {
  const names = (name: string) => (query.get(name) ?? "").split(",").map((text) => text.trim().toUpperCase());
  return {
    states: STATES.filter((state) => names("state").includes(stateName(state))),
    priorities: PRIORITIES.filter((priority) => names("priority").includes(priorityName(priority))),
    handler: query.get("handler") ?? "",
    pool: query.get("pool") ?? "",
    namespace: query.get("namespace") ?? "",
    batch: query.get("batch") ?? "",
    labels: query.getAll("label").filter((label) => /^[^=]+=/.test(label)),
    within: parseSeconds(query.get("within") ?? "") ? (query.get("within") ?? "") : "",
  };
}

export function toQuery(filter: Filter): URLSearchParams {
  const query = new URLSearchParams();
  const set = (name: string, value: string) => value && query.set(name, value);
  set("state", filter.states.map((state) => stateName(state).toLowerCase()).join(","));
  set("priority", filter.priorities.map((priority) => priorityName(priority).toLowerCase()).join(","));
  for (const name of ["handler", "pool", "namespace", "batch", "within"] as const) set(name, filter[name]);
  for (const label of filter.labels) query.append("label", label);
  return query;
}

export function toProto(filter: Filter, now: number): TaskFilter {
  const within = parseSeconds(filter.within);
  const labels = filter.labels.map((label) => {
    const at = label.indexOf("=");
    return [label.slice(0, at), label.slice(at + 1)] as const;
  });
  return create(TaskFilterSchema, {
    states: filter.states,
    priorities: filter.priorities,
    handler: filter.handler,
    pool: filter.pool,
    namespace: filter.namespace,
    batchId: filter.batch,
    labels: Object.fromEntries(labels),
    ...(within && { submittedAfter: timestampFromMs(now - within * 1000) }),
  });
}

/** Whether it leaves out any task. */
export const isSet = (filter: Filter) => toQuery(filter).size > 0;
