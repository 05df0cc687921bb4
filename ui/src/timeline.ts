// The phases of a task as bars on a time axis.
import type { Task, TaskEvent } from "./gen/lineshaft/v1/task_pb";
import { TaskState } from "./gen/lineshaft/v1/task_pb";
import { millis } from "./data/convert";

export interface Phase {
  kind: "waiting" | "queued" | "running" | "earlier attempts";
  from: number;
  /** `undefined` while it lasts. */
  to: number | undefined;
  attempt: number;
}

const KINDS: Partial<Record<TaskState, Phase["kind"]>> = {
  [TaskState.WAITING]: "waiting",
  [TaskState.QUEUED]: "queued",
  [TaskState.RUNNING]: "running",
};

/** From the events, if the first of them is kept. */
export function phasesOfEvents(events: TaskEvent[]): Phase[] {
  const phases: Phase[] = [];
  for (const event of events) {
    const at = millis(event.time) ?? 0;
    const last = phases.at(-1);
    // A cancellation that was requested changes no state.
    if (event.deleted || event.state === event.previousState) continue;
    if (last && last.to === undefined) last.to = at;
    const kind = KINDS[event.state];
    if (kind) phases.push({ kind, from: at, to: undefined, attempt: event.attempt });
  }
  return phases;
}

/** From the times of the task, which are those of its last attempt. */
export function phasesOfTask(task: Task): Phase[] {
  const [submitted, eligible, started, finished] = [task.submittedAt, task.eligibleAt, task.startedAt, task.finishedAt].map(millis);
  if (submitted === undefined) return [];
  const phases: Phase[] = [];
  const ready = eligible ?? submitted;
  const isWaiting = task.state === TaskState.WAITING;
  // Until its first attempt, a task becomes eligible once; its times before the last one are in the events only.
  const isFirst = task.attempt + (task.state === TaskState.QUEUED || isWaiting ? 1 : 0) <= 1;
  if (isWaiting) {
    phases.push({ kind: isFirst ? "waiting" : "earlier attempts", from: submitted, to: undefined, attempt: task.attempt });
    return phases;
  }
  if (ready > submitted) {
    phases.push({ kind: isFirst ? "waiting" : "earlier attempts", from: submitted, to: ready, attempt: task.attempt });
  }
  const hasRun = started !== undefined && task.state !== TaskState.QUEUED && started >= ready;
  phases.push({ kind: "queued", from: ready, to: hasRun ? started : finished, attempt: task.attempt });
  if (hasRun) phases.push({ kind: "running", from: started, to: finished, attempt: task.attempt });
  return phases;
}
