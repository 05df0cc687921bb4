// The same tasks one after the other, and all at once.
import { TaskState } from "../gen/lineshaft/v1/task_pb";
import type { SubmitTaskRequest } from "../gen/lineshaft/v1/task_service_pb";
import { isFinished } from "../words";
import { tasks } from "./client";

export interface Run {
  /** Seconds after the start at which each task was seen to be finished. */
  ends: number[];
  failed: number;
}

export const LABEL = "benchmark";

/** Submits each task after the one before has finished. */
export async function sequential(request: SubmitTaskRequest, count: number, ended: AbortSignal, onEnd: (run: Run) => void) {
  const start = performance.now();
  const run: Run = { ends: [], failed: 0 };
  for (let at = 0; at < count; at++) {
    for await (const { kind } of tasks.runTask({ task: request }, { signal: ended })) {
      if (kind.case === "task" && kind.value.state !== TaskState.COMPLETED) run.failed++;
    }
    run.ends.push((performance.now() - start) / 1000);
    onEnd({ ...run, ends: [...run.ends] });
  }
}

/** Submits all tasks in one batch and watches their ends. */
export async function parallel(request: SubmitTaskRequest, count: number, ended: AbortSignal, onEnd: (run: Run) => void) {
  const start = performance.now();
  const run: Run = { ends: [], failed: 0 };
  const { batchId, resumeToken } = await tasks.batchSubmitTasks({ tasks: Array.from({ length: count }, () => request) }, { signal: ended });
  for await (const { kind } of tasks.watchTasks({ filter: { batchId }, resumeToken }, { signal: ended })) {
    if (kind.case !== "event" || kind.value.deleted || !isFinished(kind.value.state)) continue;
    run.ends.push((performance.now() - start) / 1000);
    if (kind.value.state !== TaskState.COMPLETED) run.failed++;
    onEnd({ ...run, ends: [...run.ends] });
    if (run.ends.length >= count) break;
  }
}
