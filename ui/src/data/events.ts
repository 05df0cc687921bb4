// The earlier events of a task, from the events that the server keeps.
import type { TaskEvent } from "../gen/lineshaft/v1/task_pb";
import { system, tasks } from "./client";
import { duration } from "./convert";

/** Seconds after which a search in many events ends. */
const SEARCH = 20;

/** All kept events of the task up to now, oldest first. */
export async function readEvents(taskId: string, ended: AbortSignal): Promise<TaskEvent[]> {
  const { oldestResumeToken, revision } = await system.getServerInfo({}, { signal: ended });
  const end = new AbortController();
  const stop = () => end.abort();
  ended.addEventListener("abort", stop);
  const timer = setTimeout(stop, SEARCH * 1000);
  const events: TaskEvent[] = [];
  try {
    const request = { filter: { taskIds: [taskId] }, resumeToken: oldestResumeToken, progressInterval: duration(0.1) };
    for await (const { kind } of tasks.watchTasks(request, { signal: end.signal })) {
      if (kind.case === "event") events.push(kind.value);
      const reached = kind.case === "event" || kind.case === "progress" ? kind.value.revision : 0n;
      if (reached >= revision) break;
    }
  } catch (error) {
    // What was found in that time is shown.
    if (!end.signal.aborted || ended.aborted) throw error;
  } finally {
    clearTimeout(timer);
    ended.removeEventListener("abort", stop);
    end.abort();
  }
  return events;
}
