// Why a task has not started.
import type { ComponentChildren } from "preact";
import { Card, ErrorNote, Time } from "../components/basic";
import { tasks } from "../data/client";
import { millis } from "../data/convert";
import { usePoll } from "../data/poll";
import { number, shortId } from "../format";
import type { Task } from "../gen/lineshaft/v1/task_pb";
import { type Blocker, EstimateBasis, type ExplainTaskResponse, type QueuePosition } from "../gen/lineshaft/v1/task_service_pb";
import { href, taskHref } from "../route";
import { holdText } from "../words";

const PERIOD = 2_000;

export function Explanation({ task }: { task: Task }) {
  // A change of the task can be one of the reasons.
  const { value, error } = usePoll((signal) => tasks.explainTask({ taskId: task.taskId }, { signal }), () => PERIOD, [task.taskId, task.revision]);
  const found = value.value;
  return (
    <Card title="Why it is not running">
      <ErrorNote text={error.value} />
      <ul class="why">
        {found ? lines(found).map((line, at) => <li key={at}>{line}</li>) : <li class="muted">Reading…</li>}
      </ul>
    </Card>
  );
}

function lines(found: ExplainTaskResponse): ComponentChildren[] {
  const blockers = found.blockers.map(blockerLine);
  if (found.position) blockers.push(positionLine(found.position));
  const start = found.estimatedStart && estimateLine(found.estimateBasis, millis(found.estimatedStart));
  if (start) blockers.push(start);
  return blockers.length ? blockers : ["Nothing holds it any more."];
}

function counted(count: number | bigint, noun: string): string {
  return `${number(Number(count))} ${noun}${Number(count) === 1 ? "" : "s"}`;
}

function blockerLine({ kind }: Blocker): ComponentChildren {
  switch (kind.case) {
    case "delayedUntil": return <>It is delayed: it may start <Time at={millis(kind.value)} />.</>;
    case "retriesAt": return <>Its attempt has failed. The next one may start <Time at={millis(kind.value)} />.</>;
    case "parents": {
      const { count, taskIds } = kind.value;
      const more = count - taskIds.length;
      return (
        <>
          It waits for {counted(count, "parent")}:{" "}
          {taskIds.flatMap((id) => [<a key={id} href={taskHref(id)}>{shortId(id)}</a>, " "])}
          {more > 0 && `and ${number(more)} more`}
        </>
      );
    }
    case "limit": {
      const { hold, before, atLeast } = kind.value;
      const until = hold?.reason.case === "rate" ? millis(hold.reason.value.until) : undefined;
      return (
        <>
          It waits for <a href={href(["limits"])}>{holdText(hold)}</a>{until !== undefined && <>, the next start <Time at={until} /></>};{" "}
          {atLeast && "at least "}{counted(before, "task")} before it.
        </>
      );
    }
    case "pausedPool": return `The pool ${kind.value} is paused.`;
    case "missingPool": return `The pool ${kind.value} is not configured any more.`;
    case "handlerWithoutWorker": return `No connected worker offers the handler ${kind.value}.`;
    case "poolSlots": return `Other tasks have all ${counted(kind.value.slots, "slot")} of the pool.`;
    case "namespaceSlots": return `Its namespace has all ${counted(kind.value.slots, "slot")} of the pool that it may have.`;
    case "lowMemory": return "The memory of the server is low: tasks start again when more of it is unused.";
    case "trial": return "The server runs another task alone, which may have crashed it.";
    case "draining": return "The server is shutting down.";
    default: return "The server names a reason that this page does not know.";
  }
}

function positionLine({ moreUrgent, before, atLeast, otherNamespaces, dispatched }: QueuePosition): string {
  if (dispatched && !before && !moreUrgent) return "It is the next one of its pool.";
  const urgent = moreUrgent ? `, and ${number(Number(moreUrgent))} of higher priority` : "";
  const turns = otherNamespaces ? `; it takes turns with ${counted(otherNamespaces, "other namespace")}` : "";
  const text = `${atLeast ? "at least " : ""}${counted(before, "task")} before it in the queue${urgent}${turns}.`;
  return text[0]!.toUpperCase() + text.slice(1);
}

function estimateLine(basis: EstimateBasis, at: number | undefined): ComponentChildren {
  if (basis === EstimateBasis.FREE_SLOT) return "It starts at once: a slot is free.";
  if (basis === EstimateBasis.DELAY) return <>It starts <Time at={at} />: a slot is free.</>;
  return <>It starts about <Time at={at} />, if tasks run as long as before.</>;
}
