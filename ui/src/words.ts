// Names of states, priorities and reasons.
import { number } from "./format";
import { FailureReason, type LimitHold, Priority, StopMethod, TaskState } from "./gen/lineshaft/v1/task_pb";

export const STATES = [
  TaskState.WAITING,
  TaskState.QUEUED,
  TaskState.RUNNING,
  TaskState.COMPLETED,
  TaskState.FAILED,
  TaskState.CANCELLED,
] as const;

export const PRIORITIES = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL] as const;

export const stateName = (state: TaskState) => TaskState[state] ?? `state ${state}`;
export const priorityName = (priority: Priority) => Priority[priority] ?? `priority ${priority}`;
export const reasonName = (reason: FailureReason) => FailureReason[reason] ?? `reason ${reason}`;
export const stopName = (method: StopMethod) => (StopMethod[method] ?? `method ${method}`).toLowerCase().replaceAll("_", " ");

export const isFinished = (state: TaskState) =>
  state === TaskState.COMPLETED || state === TaskState.FAILED || state === TaskState.CANCELLED;

/** Name and key of a limit. */
export const limitName = ({ name, key }: { name: string; key: string }) => [name, key].filter((part) => part !== "").join("/");

/** What a limit lacks for a task that waits for it; empty if there is no limit. */
export function holdText(hold: LimitHold | undefined): string {
  if (!hold) return "";
  const name = limitName(hold);
  switch (hold.reason.case) {
    case "places":
      return `limit ${name}: ${hold.reason.value.taken} of ${hold.reason.value.max} places taken`;
    case "rate":
      return `rate limit ${name}`;
    default:
      return `limit ${name} is not configured`;
  }
}

interface Wait {
  hold: string;
  parents: number;
  eligibleAt: number | undefined;
}

/** What a waiting task waits for; empty if that is a time. Lists do not contain how many of the parents are unfinished. */
export function waitText({ hold, parents, eligibleAt }: Wait, now: number): string {
  if (hold || parents === 0 || (eligibleAt ?? 0) > now) return hold;
  return parents === 1 ? "waits for 1 parent" : `waits for parents, ${number(parents)} in all`;
}
