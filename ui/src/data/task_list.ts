// The rows of the task table. At the top it follows the newest tasks; below, it keeps what was loaded, so that rows do not move
// under the pointer, and only refreshes the visible ones.
import { signal } from "@preact/signals";
import { type Failure, FailureReason, type Priority, type Task, type TaskFilter, TaskState } from "../gen/lineshaft/v1/task_pb";
import { holdText, isFinished, reasonName } from "../words";
import { errorText, tasks } from "./client";
import { millis, seconds } from "./convert";

/** What the table shows of a task; much smaller than the message. */
export interface Row {
  id: string;
  name: string;
  handler: string;
  pool: string;
  priority: Priority;
  state: TaskState;
  submittedAt: number;
  eligibleAt: number | undefined;
  /** The limit that a waiting task waits for. */
  hold: string;
  /** Parents, unless an attempt has failed since. How many of them are unfinished is not in lists. */
  parents: number;
  startedAt: number | undefined;
  finishedAt: number | undefined;
  attempt: number;
  progress: number;
  /** Activity of a running task, or why it failed. */
  note: string;
  wait: number | undefined;
  run: number | undefined;
}

/** What failed, in one line: of an error of the handler its own words. */
function failureText(failure: Failure | undefined): string {
  if (!failure || failure.reason === FailureReason.UNSPECIFIED) return "";
  const reason = failure.reason === FailureReason.HANDLER_ERROR ? "" : `${reasonName(failure.reason)}: `;
  const last = failure.detail.trim().split("\n").at(-1);
  return `${last ? `${last} · ` : ""}${reason}${failure.message}`;
}

export function toRow(task: Task): Row {
  const cancelled = task.state === TaskState.CANCELLED ? (task.cancel?.reason ?? "") : "";
  return {
    id: task.taskId,
    name: task.displayName,
    handler: task.handler,
    pool: task.pool,
    priority: task.priority,
    state: task.state,
    submittedAt: millis(task.submittedAt) ?? 0,
    eligibleAt: millis(task.eligibleAt),
    hold: holdText(task.limitHold),
    parents: task.failure ? 0 : (task.dependencies?.parents ?? 0),
    startedAt: millis(task.startedAt),
    finishedAt: millis(task.finishedAt),
    attempt: task.attempt,
    progress: task.progress,
    note: (task.state === TaskState.RUNNING ? task.progressNote : failureText(task.failure) || cancelled).slice(0, 300),
    wait: seconds(task.resourceUsage?.queueTime),
    run: seconds(task.resourceUsage?.runTime),
  };
}

const PAGE = 100;
/** Rows of a page while the user scrolls to older tasks. */
const MORE = 500;
const REFRESHED_MAX = 100;

export class TaskList {
  readonly rows = signal<Row[]>([]);
  readonly error = signal("");
  /** Whether there may be further rows. */
  readonly hasMore = signal(false);
  readonly isLoaded = signal(false);
  private nextPage = "";
  /** That of the pages: it must be the same for all of them. */
  private pageFilter: TaskFilter | undefined;
  private isLoading = false;

  constructor(private filter: () => TaskFilter) {}

  /** Reads the newest tasks. */
  async readNewest(signal: AbortSignal) {
    await this.run(async () => {
      const filter = this.filter();
      let page = await tasks.listTasks({ filter, pageSize: PAGE }, { signal });
      const found = page.tasks;
      // A page can be empty because many tasks had to be examined.
      while (found.length === 0 && page.nextPageToken) {
        page = await tasks.listTasks({ filter, pageSize: PAGE, pageToken: page.nextPageToken }, { signal });
        found.push(...page.tasks);
      }
      this.rows.value = found.map(toRow);
      this.pageFilter = filter;
      this.nextPage = page.nextPageToken;
      this.hasMore.value = this.nextPage !== "";
      this.isLoaded.value = true;
    }, signal);
  }

  /** Reads the next older tasks. */
  async readMore() {
    if (!this.nextPage || this.isLoading) return;
    this.isLoading = true;
    await this.run(async () => {
      const page = await tasks.listTasks({ filter: this.pageFilter, pageSize: MORE, pageToken: this.nextPage });
      this.rows.value = [...this.rows.value, ...page.tasks.map(toRow)];
      this.nextPage = page.nextPageToken;
      this.hasMore.value = this.nextPage !== "";
    });
    this.isLoading = false;
  }

  /** Reads the unfinished ones of these rows again. */
  async refresh(visible: Row[], signal: AbortSignal) {
    const taskIds = visible.filter((row) => !isFinished(row.state)).map((row) => row.id).slice(0, REFRESHED_MAX);
    if (taskIds.length === 0) return;
    await this.run(async () => {
      const page = await tasks.listTasks({ filter: { taskIds }, pageSize: REFRESHED_MAX }, { signal });
      const changed = new Map(page.tasks.map((task) => [task.taskId, toRow(task)]));
      this.rows.value = this.rows.value.map((row) => changed.get(row.id) ?? row);
    }, signal);
  }

  private async run(action: () => Promise<void>, signal?: AbortSignal) {
    try {
      await action();
      this.error.value = "";
    } catch (failure) {
      if (!signal?.aborted) this.error.value = errorText(failure);
    }
  }
}
