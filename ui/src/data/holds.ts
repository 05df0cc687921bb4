// Tasks that wait for the same limit, as one.
import type { LimitHold, Task } from "../gen/lineshaft/v1/task_pb";
import { limitName } from "../words";
import { millis } from "./convert";

export interface HoldGroup {
  limit: string;
  count: number;
  handlers: string[];
  /** When the first of them was submitted, and which it is. */
  oldest: number;
  oldestId: string;
  /** What the limit lacked when the last of them began to wait. */
  hold: LimitHold;
}

/** The limits that most tasks wait for first. The tasks are newest first. */
export function groupHolds(tasks: Task[]): HoldGroup[] {
  const groups = new Map<string, HoldGroup>();
  for (const { limitHold, handler, submittedAt, taskId, namespace } of tasks) {
    if (!limitHold) continue;
    // A limit of the configuration is that of all namespaces, unless it has keys.
    const scope = limitHold.key && namespace !== "default" ? `${namespace}: ` : "";
    const limit = scope + limitName(limitHold);
    const at = millis(submittedAt) ?? 0;
    const found = groups.get(limit);
    if (!found) {
      groups.set(limit, { limit, count: 1, handlers: [handler], oldest: at, oldestId: taskId, hold: limitHold });
      continue;
    }
    found.count++;
    if (!found.handlers.includes(handler)) found.handlers.push(handler);
    if (at <= found.oldest) Object.assign(found, { oldest: at, oldestId: taskId });
  }
  return [...groups.values()].sort((a, b) => b.count - a.count);
}
