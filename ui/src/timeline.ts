// The phases of a task as bars on a time axis.
import type { Task, TaskEvent } from "./gen/lineshaft/v1/task_pb";
import { TaskState } from "./gen/lineshaft/v1/task_pb";
import { millis } from "./data/convert";
import { limitName } from "./words";

export interface Phase {
  /** What the task did, or what held it: `delay`, `dependencies`, `back-off` or `limit NAME`; `waiting` if that is not known. */
  kind: string;
  from: number;
  /** `undefined` while it lasts. */
  to: number | undefined;
  attempt: number;
}

/** Milliseconds after the end of a delay within which a task is QUEUED that waits for nothing else. */
const LAG = 50;

const KINDS: Partial<Record<TaskState, string>> = { [TaskState.QUEUED]: "queued", [TaskState.RUNNING]: "running" };

/** What holds a WAITING task from an event on, and from the end of its delay on if it also waits for parents. */
function holds(event: TaskEvent, hasParents: boolean): [string] | [string, number] {
  if (event.limitHold) return [`limit ${limitName(event.limitHold)}`];
  if (event.failure) return ["back-off"];
  if (!hasParents) return ["delay"];
  if (event.updated) return ["waiting"];
  const until = millis(event.notBefore);
  return until === undefined ? ["dependencies"] : ["delay", until];
}

/** From the events, if the first of them is kept. */
export function phasesOfEvents(events: TaskEvent[], hasParents: boolean, now: number): Phase[] {
  const phases: Phase[] = [];
  const end = (at: number) => {
    const last = phases.at(-1);
    if (last && last.to === undefined) last.to = at;
  };
  events.forEach((event, index) => {
    const at = millis(event.time) ?? 0;
    const isWaiting = event.state === TaskState.WAITING;
    // A cancellation that was requested changes no state. What holds a waiting task can change.
    const isChanged = event.state !== event.previousState || (isWaiting && (event.limitHold || event.updated));
    if (event.deleted || !isChanged) return;
    end(at);
    const { attempt } = event;
    if (!isWaiting) {
      const kind = KINDS[event.state];
      if (kind) phases.push({ kind, from: at, to: undefined, attempt });
      return;
    }
    const [kind, until] = holds(event, hasParents);
    phases.push({ kind, from: at, to: undefined, attempt });
    const next = events.slice(index + 1).find(({ state, limitHold, updated }) => state !== TaskState.WAITING || limitHold || updated);
    if (until !== undefined && until + LAG < (millis(next?.time) ?? now)) {
      end(until);
      phases.push({ kind: "dependencies", from: until, to: undefined, attempt });
    }
  });
  return phases;
}

/** What holds a task that is WAITING now. */
function presentHold(task: Task): string {
  if (task.limitHold) return `limit ${limitName(task.limitHold)}`;
  if (task.failure) return "back-off";
  return task.dependencies?.unfinishedParents ? "dependencies" : "delay";
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
    phases.push({ kind: isFirst ? presentHold(task) : "earlier attempts", from: submitted, to: undefined, attempt: task.attempt });
    return phases;
  }
  if (ready > submitted) {
    const hold = task.limits.length || task.dependencies ? "waiting" : "delay";
    phases.push({ kind: isFirst ? hold : "earlier attempts", from: submitted, to: ready, attempt: task.attempt });
  }
  const hasRun = started !== undefined && task.state !== TaskState.QUEUED && started >= ready;
  phases.push({ kind: "queued", from: ready, to: hasRun ? started : finished, attempt: task.attempt });
  if (hasRun) phases.push({ kind: "running", from: started, to: finished, attempt: task.attempt });
  return phases;
}
