// The parents of a task, for the function that runs it.

import { stateName } from "./convert.js";
import { CallError } from "./errors.js";
import type {
  ParentResult,
  ReadParentResultsRequest,
  ReadParentResultsResponse,
} from "./gen/lineshaft/v1/worker_service.js";
import { decode } from "./payload.js";
import { Queue } from "./queue.js";
import { Backoff } from "./rpc/backoff.js";
import type { Call } from "./rpc/call.js";
import type { Channel } from "./rpc/channel.js";
import { readParentResults } from "./rpc/method.js";
import type { Parent } from "./types.js";

/** Yields the parents of the task of an attempt. After a broken connection it continues where it was. */
export async function* parents(
  channel: Channel,
  taskId: string,
  token: string,
  signal: AbortSignal,
): AsyncGenerator<Parent, void, undefined> {
  const backoff = new Backoff();
  let skip = 0;
  for (let failures = 1; ; failures++) {
    try {
      for await (const parent of part(channel, { taskId, token, skip }, signal)) {
        skip++;
        failures = 0;
        backoff.succeeded();
        yield parent;
      }
      return;
    } catch (error) {
      if (!(error instanceof CallError) || channel.pauseBeforeRetry(error, failures) === undefined) throw error;
      backoff.failed();
      await backoff.pause(signal);
    }
  }
}

async function* part(
  channel: Channel,
  request: ReadParentResultsRequest,
  signal: AbortSignal,
): AsyncGenerator<Parent, void, undefined> {
  const queue = new Queue<ParentResult>();
  let call: Call<ReadParentResultsRequest, ReadParentResultsResponse> | undefined;
  const message = ({ results }: ReadParentResultsResponse) => {
    for (const result of results) queue.push(result);
    // The next message is read when these results were used.
    call?.pause();
  };
  call = await channel.open(readParentResults, { message, end: (error) => queue.end(error) }, { signal });
  call.finish(request);
  let [first, parts]: [ParentResult | undefined, Buffer[]] = [undefined, []];
  try {
    for await (const result of queue.read(() => call.resume())) {
      first ??= result;
      if (result.result?.kind?.$case === "data") parts.push(result.result.kind.value);
      if (result.hasMore) continue;
      const { taskId, state, result: payload } = first;
      const kind = { $case: "data" as const, value: parts.length === 1 ? parts[0]! : Buffer.concat(parts) };
      yield { taskId, state: stateName(state), result: decode(payload && { ...payload, kind }) };
      [first, parts] = [undefined, []];
    }
  } finally {
    call.cancel();
  }
}
