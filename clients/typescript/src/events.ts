// Events of tasks as an iterator.

import type { Task, TaskEvent as WireEvent } from "./gen/lineshaft/v1/task.js";
import { taskEvent, taskInfo } from "./convert.js";
import { Queue } from "./queue.js";
import type { Channel } from "./rpc/channel.js";
import type { TaskEvent } from "./types.js";
import { Watch, type WatchSettings } from "./watch.js";

/** Yields each event once and in order. After a broken connection the watch continues by itself. */
export async function* events(
  channel: Channel,
  settings: WatchSettings,
  signal?: AbortSignal,
): AsyncGenerator<TaskEvent, void, undefined> {
  signal?.throwIfAborted();
  const queue = new Queue<TaskEvent>();
  const push = (event: TaskEvent) => {
    if (queue.push(event)) watch.pause();
  };
  const watch = new Watch(channel, settings, {
    event: (event: WireEvent) => push(taskEvent(event)),
    entry: (task: Task) => push(entry(task)),
    failed: (error) => queue.end(error),
  });
  const abort = () => queue.end(signal!.reason);
  signal?.addEventListener("abort", abort);
  try {
    yield* queue.read(() => watch.resume());
  } finally {
    watch.close();
    signal?.removeEventListener("abort", abort);
  }
}

/** An existing task, as if it had just come into its state. */
function entry(task: Task): TaskEvent {
  const { state, attempt, handler, pool, batchId, worker, failure, cancel, labels } = taskInfo(task);
  const common = { state, attempt, handler, pool, batchId, worker, failure, cancel, labels };
  return { ...common, taskId: task.taskId, deleted: false, resumeToken: "", isSnapshot: true };
}
