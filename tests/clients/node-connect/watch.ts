// A watch that survives its connection: it goes on after the last revision that it saw.
import { setTimeout } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { mayHelpToRepeat } from "./channel.js";
import type { TaskEvent, TaskFilterSchema } from "./gen/lineshaft/v1/task_pb.js";
import type { TaskService } from "./gen/lineshaft/v1/task_service_pb.js";

const PAUSE_MILLISECONDS = 200;

/** Yields each event that matches, in order, each once. */
export async function* watch(
  tasks: Client<typeof TaskService>,
  filter: MessageInitShape<typeof TaskFilterSchema>,
  afterRevision: bigint,
): AsyncGenerator<TaskEvent, never> {
  for (;;) {
    try {
      for await (const { kind } of tasks.watchTasks({ filter, afterRevision })) {
        if (kind.case === "event") {
          afterRevision = kind.value.revision;
          yield kind.value;
        } else if (kind.case === "progress") {
          afterRevision = kind.value.revision;
        }
      }
    } catch (error) {
      // OutOfRange means that the events are gone: begin anew with includeSnapshot.
      if (!mayHelpToRepeat(error)) throw error;
    }
    await setTimeout(PAUSE_MILLISECONDS);
  }
}
