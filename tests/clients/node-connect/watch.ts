// A watch that reconnects: it resumes with the last token it received.
import { setTimeout } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { isRetryable } from "./channel.js";
import type { TaskEvent, TaskFilterSchema } from "./gen/lineshaft/v1/task_pb.js";
import type { TaskService } from "./gen/lineshaft/v1/task_service_pb.js";

const PAUSE_MILLISECONDS = 200;

/** Yields each matching event once and in order. */
export async function* watch(
  tasks: Client<typeof TaskService>,
  filter: MessageInitShape<typeof TaskFilterSchema>,
  resumeToken: string,
): AsyncGenerator<TaskEvent, never> {
  for (;;) {
    try {
      for await (const { kind } of tasks.watchTasks({ filter, resumeToken })) {
        if (kind.case === "event") {
          resumeToken = kind.value.resumeToken;
          yield kind.value;
        } else if (kind.case === "progress") {
          resumeToken = kind.value.resumeToken;
        }
      }
    } catch (error) {
      // OutOfRange: the events are no longer stored; start again with includeSnapshot.
      if (!isRetryable(error)) throw error;
    }
    await setTimeout(PAUSE_MILLISECONDS);
  }
}
