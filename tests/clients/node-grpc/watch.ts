// A watch that reconnects: it resumes with the last token it received.
import { setTimeout } from "node:timers/promises";
import { type ServiceError, status } from "@grpc/grpc-js";
import type { TaskEvent, TaskFilter } from "./gen/lineshaft/v1/task.js";
import { type TaskServiceClient, WatchTasksRequest } from "./gen/lineshaft/v1/task_service.js";

const PAUSE_MILLISECONDS = 200;

/** Yields each matching event once and in order. */
export async function* watch(
  tasks: TaskServiceClient,
  filter: Partial<TaskFilter>,
  resumeToken: string,
): AsyncGenerator<TaskEvent, never> {
  for (;;) {
    const steps = tasks.watchTasks(WatchTasksRequest.fromPartial({ filter, resumeToken }));
    try {
      for await (const { kind } of steps) {
        if (kind.$case === "event") {
          resumeToken = kind.value.resumeToken;
          yield kind.value;
        } else if (kind.$case === "progress") {
          resumeToken = kind.value.resumeToken;
        }
      }
    } catch (error) {
      // OUT_OF_RANGE: the events are no longer stored; start again with includeSnapshot.
      if ((error as ServiceError).code !== status.UNAVAILABLE) throw error;
    } finally {
      steps.cancel();
    }
    await setTimeout(PAUSE_MILLISECONDS);
  }
}
