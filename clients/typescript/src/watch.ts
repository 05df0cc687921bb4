// A watch that continues after a broken connection, without gaps and without repetitions.

import type { Task, TaskFilter as WireFilter } from "./gen/lineshaft/v1/task.js";
import type { TaskEvent as WireEvent } from "./gen/lineshaft/v1/task.js";
import type { WatchTasksRequest, WatchTasksResponse } from "./gen/lineshaft/v1/task_service.js";
import { duration } from "./convert.js";
import { type CallError, Code } from "./errors.js";
import { Backoff } from "./rpc/backoff.js";
import type { Call } from "./rpc/call.js";
import type { Channel } from "./rpc/channel.js";
import { watchTasks } from "./rpc/method.js";

export interface WatchListener {
  event(event: WireEvent): void;
  /** A task that existed before; only with `includeSnapshot`. */
  entry?(task: Task): void;
  /** The watch has failed and does not continue. */
  failed(error: CallError): void;
}

export interface WatchSettings {
  filter: WireFilter;
  /** Empty: events from now on, or with `includeSnapshot` the existing tasks first. */
  resumeToken: string;
  includeSnapshot?: boolean;
  progressInterval?: number;
}

export class Watch {
  readonly #channel: Channel;
  readonly #settings: WatchSettings;
  readonly #listener: WatchListener;
  readonly #backoff = new Backoff();
  readonly #closing = new AbortController();
  #call: Call<WatchTasksRequest, WatchTasksResponse> | undefined;
  #isPaused = false;
  #isUnref = false;
  /** For a watch that continues after the last message. */
  resumeToken: string;

  constructor(channel: Channel, settings: WatchSettings, listener: WatchListener) {
    this.#channel = channel;
    this.#settings = settings;
    this.#listener = listener;
    this.resumeToken = settings.resumeToken;
    void this.#run();
  }

  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  close(): void {
    this.#closing.abort();
  }

  pause(): void {
    this.#isPaused = true;
    this.#call?.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.#call?.resume();
  }

  /** Whether the watch keeps the process alive. */
  setRef(isRef: boolean): void {
    this.#isUnref = !isRef;
    if (isRef) this.#call?.ref();
    else this.#call?.unref();
  }

  async #run(): Promise<void> {
    for (let attempt = 1; !this.isClosed; attempt++) {
      const error = await this.#once();
      if (this.isClosed) return;
      if (error && error.reason === "DRAINING" && error.metadata.resume_token)
        this.resumeToken = error.metadata.resume_token;
      if (error && !this.#isTemporary(error, attempt)) {
        this.close();
        return this.#listener.failed(error);
      }
      this.#backoff.failed();
      await this.#backoff.pause(this.#closing.signal).catch(() => {});
    }
  }

  #isTemporary(error: CallError, attempt: number): boolean {
    return error.code === Code.DEADLINE_EXCEEDED || this.#channel.pauseBeforeRetry(error, attempt) !== undefined;
  }

  /** One call; resolves with its error. */
  async #once(): Promise<CallError | undefined> {
    const { filter, includeSnapshot = false, progressInterval } = this.#settings;
    return new Promise((resolve) => {
      const listener = { message: (message: WatchTasksResponse) => this.#message(message), end: resolve };
      const starting = this.#channel.open(watchTasks, listener, { signal: this.#closing.signal });
      starting.then((call) => {
        this.#call = call;
        if (this.#isPaused) call.pause();
        if (this.#isUnref) call.unref();
        call.finish({
          filter,
          resumeToken: this.resumeToken,
          includeSnapshot: includeSnapshot && this.resumeToken === "",
          progressInterval: duration(progressInterval),
        });
      }, resolve);
    });
  }

  #message({ kind }: WatchTasksResponse): void {
    if (this.isClosed) return;
    this.#backoff.succeeded();
    switch (kind?.$case) {
      case "event":
        // Empty while the snapshot is incomplete: a broken snapshot starts again.
        if (kind.value.resumeToken) this.resumeToken = kind.value.resumeToken;
        return this.#listener.event(kind.value);
      case "snapshotEntry":
        return this.#listener.entry?.(kind.value);
      case "snapshotComplete":
      case "progress":
        this.resumeToken = kind.value.resumeToken;
    }
  }
}
