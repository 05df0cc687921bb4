// Failures that are alike, as one.
import { FailureReason, type Task } from "../gen/lineshaft/v1/task_pb";
import { reasonName } from "../words";
import { millis } from "./convert";

export interface FailureGroup {
  key: string;
  handler: string;
  reason: string;
  /** The message of the newest. */
  message: string;
  count: number;
  newest: number;
  oldest: number;
  newestId: string;
}

/** What differs between failures with one cause: numbers, addresses, IDs and quoted texts. */
export function fingerprint(message: string): string {
  return message
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gi, "#")
    .replace(/\b0x[0-9a-f]+\b/gi, "#")
    .replace(/"[^"]*"|'[^']*'|`[^`]*`/g, "#")
    .replace(/\d+(?:[.,:]\d+)*/g, "#");
}

/** The groups, most frequent first. The tasks are newest first. */
export function group(tasks: Task[]): FailureGroup[] {
  const groups = new Map<string, FailureGroup>();
  for (const task of tasks) {
    const failure = task.failure;
    if (!failure || failure.reason === FailureReason.UNSPECIFIED) continue;
    const key = JSON.stringify([task.handler, failure.reason, fingerprint(failure.message), fingerprint(failure.detail)]);
    const at = millis(task.finishedAt) ?? millis(task.submittedAt) ?? 0;
    const found = groups.get(key);
    if (found) {
      found.count++;
      found.oldest = Math.min(found.oldest, at);
      if (at > found.newest) Object.assign(found, { newest: at, newestId: task.taskId });
    } else {
      groups.set(key, {
        key,
        handler: task.handler,
        reason: reasonName(failure.reason),
        message: [failure.message, failure.detail.trim().split("\n").at(-1) ?? ""].filter(Boolean).join(" · "),
        count: 1,
        newest: at,
        oldest: at,
        newestId: task.taskId,
      });
    }
  }
  return [...groups.values()].sort((a, b) => b.count - a.count || b.newest - a.newest);
}
