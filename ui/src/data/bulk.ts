// Actions on many tasks, which the server takes at once.
import { create } from "@bufbuild/protobuf";
import { signal } from "@preact/signals";
import { type TaskFilter, TaskFilterSchema, TaskState } from "../gen/lineshaft/v1/task_pb";
import { tasks } from "./client";

/** IDs that a filter can have. */
const IDS_MAX = 1_000;

export const progress = signal<{ text: string; done: number; total: number } | undefined>(undefined);

export type Action = "cancel" | "retry" | "delete";

const FINISHED = [TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED];

/** States of the tasks that an action can change. */
export const APPLIES_TO: Record<Action, readonly TaskState[]> = {
  cancel: [TaskState.WAITING, TaskState.QUEUED, TaskState.RUNNING],
  retry: FINISHED,
  delete: FINISHED,
};

/** The filter for those that the action changes; `undefined` if there can be none. Without states, only what has failed is retried. */
export function narrowed(filter: TaskFilter, action: Action): TaskFilter | undefined {
  const usual = action === "retry" ? [TaskState.FAILED] : [...APPLIES_TO[action]];
  const states = filter.states.length ? filter.states.filter((state) => APPLIES_TO[action].includes(state)) : usual;
  return states.length ? { ...filter, states } : undefined;
}

/** Filters for these tasks. */
export function named(ids: string[], action: Action): TaskFilter[] {
  const parts = Array.from({ length: Math.ceil(ids.length / IDS_MAX) }, (_, at) => ids.slice(at * IDS_MAX, (at + 1) * IDS_MAX));
  return parts.map((taskIds) => create(TaskFilterSchema, { taskIds, states: [...APPLIES_TO[action]] }));
}

export interface Outcome {
  matched: number;
  done: number;
  /** Tasks that the action no longer applied to. */
  skipped: number;
}

/** What was done so far. */
async function* steps(action: Action, filter: TaskFilter, validateOnly: boolean): AsyncGenerator<Outcome> {
  const step = (matched: bigint, done: bigint, skipped: bigint) => ({ matched: Number(matched), done: Number(done), skipped: Number(skipped) });
  switch (action) {
    case "cancel":
      for await (const at of tasks.cancelTasks({ filter, validateOnly, reason: "dashboard" })) yield step(at.matched, at.cancelled, at.skipped);
      return;
    case "retry":
      for await (const at of tasks.retryTasks({ filter, validateOnly })) yield step(at.matched, at.retried, at.skipped);
      return;
    case "delete": {
      const { deleted } = await tasks.deleteTasks({ filter, validateOnly });
      yield step(deleted, deleted, 0n);
    }
  }
}

async function run(action: Action, filters: TaskFilter[], validateOnly: boolean, show: (sum: Outcome) => void): Promise<Outcome> {
  const sum: Outcome = { matched: 0, done: 0, skipped: 0 };
  for (const filter of filters) {
    const before = { ...sum };
    for await (const { matched, done, skipped } of steps(action, filter, validateOnly)) {
      Object.assign(sum, { matched: before.matched + matched, done: before.done + done, skipped: before.skipped + skipped });
      show(sum);
    }
  }
  return sum;
}

/** Number of the tasks that the action would change. */
export const preview = async (action: Action, filters: TaskFilter[]) => (await run(action, filters, true, () => {})).matched;

/** `total`: the number of the preview. */
export async function perform(action: Action, filters: TaskFilter[], text: string, total: number): Promise<Outcome> {
  progress.value = { text, done: 0, total };
  try {
    return await run(action, filters, false, ({ done, skipped }) => (progress.value = { text, done: done + skipped, total }));
  } finally {
    progress.value = undefined;
  }
}
