// Actions on many tasks.
import { Code } from "@connectrpc/connect";
import { signal } from "@preact/signals";
import { TaskState, type TaskFilter } from "../gen/lineshaft/v1/task_pb";
import { hasCode, tasks } from "./client";

const PARALLEL = 4;
/** Tasks that one action changes; more would take minutes. */
export const BULK_MAX = 10_000;

export const progress = signal<{ text: string; done: number; total: number } | undefined>(undefined);

export type Action = "cancel" | "retry" | "delete";

/** States of the tasks that an action applies to. */
export const APPLIES_TO: Record<Action, readonly TaskState[]> = {
  cancel: [TaskState.WAITING, TaskState.QUEUED, TaskState.RUNNING],
  retry: [TaskState.FAILED],
  delete: [TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED],
};

/** IDs of the tasks that match and that the action applies to, at most `BULK_MAX`. */
export async function matching(filter: TaskFilter, action: Action): Promise<string[]> {
  const possible = APPLIES_TO[action];
  const states = filter.states.length ? filter.states.filter((state) => possible.includes(state)) : [...possible];
  if (states.length === 0) return [];
  const found: string[] = [];
  let pageToken = "";
  do {
    const page = await tasks.listTasks({ filter: { ...filter, states }, pageSize: 1000, pageToken });
    found.push(...page.tasks.map((task) => task.taskId));
    pageToken = page.nextPageToken;
  } while (pageToken && found.length < BULK_MAX);
  return found.slice(0, BULK_MAX);
}

export interface Outcome {
  done: number;
  /** Tasks that the action no longer applied to. */
  skipped: number;
  failed: number;
}

export const cancelAll = (ids: string[], reason: string) => each(ids, "cancelling", (taskId) => tasks.cancelTask({ taskId, reason }));

export const retryAll = (ids: string[]) => each(ids, "retrying", (taskId) => tasks.retryTask({ taskId }));

async function each(ids: string[], text: string, call: (taskId: string) => Promise<unknown>): Promise<Outcome> {
  const outcome: Outcome = { done: 0, skipped: 0, failed: 0 };
  let next = 0;
  const work = async () => {
    while (next < ids.length) {
      const taskId = ids[next++]!;
      try {
        await call(taskId);
        outcome.done++;
      } catch (error) {
        if (hasCode(error, Code.FailedPrecondition) || hasCode(error, Code.NotFound)) outcome.skipped++;
        else outcome.failed++;
      }
      progress.value = { text, done: outcome.done + outcome.skipped + outcome.failed, total: ids.length };
    }
  };
  try {
    await Promise.all(Array.from({ length: PARALLEL }, work));
  } finally {
    progress.value = undefined;
  }
  return outcome;
}

/** Deletes finished tasks, as many in one call as a filter can name. */
export async function deleteAll(ids: string[]): Promise<Outcome> {
  const outcome: Outcome = { done: 0, skipped: 0, failed: 0 };
  try {
    for (let at = 0; at < ids.length; at += 1000) {
      const taskIds = ids.slice(at, at + 1000);
      const deleted = Number((await tasks.deleteTasks({ filter: { taskIds } })).deleted);
      outcome.done += deleted;
      outcome.skipped += taskIds.length - deleted;
      progress.value = { text: "deleting", done: at + taskIds.length, total: ids.length };
    }
  } finally {
    progress.value = undefined;
  }
  return outcome;
}
