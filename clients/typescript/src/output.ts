// The output of a task as an iterator.

import type { OutputStream as WireStream } from "./gen/lineshaft/v1/task.js";
import type { ReadOutputRequest, ReadOutputResponse } from "./gen/lineshaft/v1/task_service.js";
import { fields, flag, signal, text, whole } from "./check.js";
import { outputChunk, outputStream } from "./convert.js";
import { CallError } from "./errors.js";
import { Queue } from "./queue.js";
import { Backoff } from "./rpc/backoff.js";
import type { Call } from "./rpc/call.js";
import type { Channel } from "./rpc/channel.js";
import { getTask, readOutput } from "./rpc/method.js";
import type { OutputChunk, OutputStream } from "./types.js";

export interface OutputOptions {
  /** Default: stdout. */
  stream?: OutputStream;
  /** Continue with new output until the task is finished. */
  follow?: boolean;
  /** Attempt number. Default: the current or last attempt, and with `follow` also later ones. */
  attempt?: number;
  signal?: AbortSignal;
}

const checkOutput = fields<OutputOptions>({ stream: text, follow: flag, attempt: whole, signal });

/** Yields the output. After a broken connection it continues where it was. */
export async function* output(
  channel: Channel,
  taskId: string,
  options: OutputOptions,
): AsyncGenerator<OutputChunk, void, undefined> {
  checkOutput(options, "");
  const { stream, follow = false, attempt = 0, signal } = options;
  const from = { taskId, stream: outputStream(stream), follow };
  const backoff = new Backoff();
  let [reached, offset] = [attempt, 0];
  for (let failures = 1; ; failures++) {
    try {
      // Attempts that have ended while the connection was broken.
      const last = attempt !== 0 || reached === 0 ? reached : await currentAttempt(channel, taskId, signal);
      for (; reached < last; reached++, offset = 0)
        yield* part(channel, { ...from, follow: false, attempt: reached, offset: BigInt(offset) }, signal);
      for await (const chunk of part(channel, { ...from, attempt, offset: BigInt(offset) }, signal)) {
        yield chunk;
        reached = chunk.attempt;
        offset = chunk.offset + chunk.data.length;
        failures = 0;
        backoff.succeeded();
      }
      return;
    } catch (error) {
      if (!(error instanceof CallError) || channel.pauseBeforeRetry(error, failures) === undefined) throw error;
      backoff.failed();
      await backoff.pause(signal);
    }
  }
}

async function currentAttempt(channel: Channel, taskId: string, signal: AbortSignal | undefined): Promise<number> {
  const { task } = await channel.unary(getTask, { taskId, includePayload: false, includeOutput: false }, { signal });
  return task?.attempt ?? 0;
}

interface Part {
  taskId: string;
  stream: WireStream;
  follow: boolean;
  attempt: number;
  offset: bigint;
}

async function* part(channel: Channel, request: Part, signal: AbortSignal | undefined): AsyncGenerator<OutputChunk> {
  const queue = new Queue<OutputChunk>();
  let call: Call<ReadOutputRequest, ReadOutputResponse> | undefined;
  const message = (response: ReadOutputResponse) => {
    if (queue.push(outputChunk(response))) call?.pause();
  };
  call = await channel.open(readOutput, { message, end: (error) => queue.end(error) }, { signal });
  call.finish(request);
  try {
    yield* queue.read(() => call.resume());
  } finally {
    call.cancel();
  }
}
