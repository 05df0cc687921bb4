// The artifacts of a task: list and read them, and leave them.

import { createHash } from "node:crypto";
import { contentOf } from "./content.js";
import { text } from "./check.js";
import { CallError, callError, ChecksumError, Code } from "./errors.js";
import type { ReadArtifactRequest, ReadArtifactResponse } from "./gen/lineshaft/v1/artifact_service.js";
import type { Artifact as WireArtifact } from "./gen/lineshaft/v1/task.js";
import { UploadArtifactRequest, type UploadArtifactResponse } from "./gen/lineshaft/v1/worker_service.js";
import { Queue } from "./queue.js";
import { Backoff } from "./rpc/backoff.js";
import type { Call } from "./rpc/call.js";
import type { Channel } from "./rpc/channel.js";
import { listArtifacts, readArtifact, uploadArtifact } from "./rpc/method.js";
import type { Artifact, ArtifactContent } from "./types.js";

/** The artifacts of a task, by name. */
export async function artifacts(
  channel: Channel,
  taskId: string,
  signal: AbortSignal | undefined,
): Promise<Artifact[]> {
  const found = await channel.unary(listArtifacts, { taskId, linkLifetime: undefined }, { signal });
  return found.artifacts.map(({ sizeBytes, ...artifact }) => ({ ...artifact, size: Number(sizeBytes) }));
}

/** Yields the content of an artifact, and verifies it at the end. After a broken connection it continues where it was. */
export async function* content(
  channel: Channel,
  taskId: string,
  name: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const backoff = new Backoff();
  const checksum = createHash("sha256");
  let [sha256, offset] = ["", 0n];
  for (let failures = 1; ; failures++) {
    try {
      for await (const { artifact, data } of part(channel, { taskId, name, offset, length: 0n }, signal)) {
        sha256 ||= artifact?.sha256 ?? "";
        failures = 0;
        backoff.succeeded();
        if (data.length === 0) continue;
        checksum.update(data);
        offset += BigInt(data.length);
        yield data;
      }
      break;
    } catch (error) {
      if (!(error instanceof CallError) || channel.pauseBeforeRetry(error, failures) === undefined) throw error;
      backoff.failed();
      await backoff.pause(signal);
    }
  }
  const found = checksum.digest("hex");
  if (found === sha256) return;
  const text = `${offset} bytes with SHA-256 ${found}, must have ${sha256}`;
  throw new ChecksumError(`artifact ${name} of task ${taskId}: ${text}`);
}

async function* part(
  channel: Channel,
  request: ReadArtifactRequest,
  signal: AbortSignal | undefined,
): AsyncGenerator<ReadArtifactResponse, void, undefined> {
  const queue = new Queue<ReadArtifactResponse>();
  let call: Call<ReadArtifactRequest, ReadArtifactResponse> | undefined;
  const message = (response: ReadArtifactResponse) => {
    queue.push(response);
    // The next message is read when this one was used.
    call?.pause();
  };
  call = await channel.open(readArtifact, { message, end: (error) => queue.end(error) }, { signal });
  call.finish(request);
  try {
    yield* queue.read(() => call.resume());
  } finally {
    call.cancel();
  }
}

/** What an upload is of. */
export interface UploadTarget {
  taskId: string;
  token: string;
  name: string;
  contentType: string | undefined;
}

/** Uploads an artifact. Begins anew after a broken connection. */
export async function upload(
  channel: Channel,
  { contentType = "", ...target }: UploadTarget,
  content: ArtifactContent,
  signal: AbortSignal,
): Promise<WireArtifact> {
  text(target.name, "the name of the artifact");
  text(contentType, "the content type of the artifact");
  const repeatable = contentOf(content);
  const first = UploadArtifactRequest.fromPartial({ ...target, contentType });
  const backoff = new Backoff();
  try {
    for (let failures = 1; ; failures++) {
      try {
        return await uploadOnce(channel, first, repeatable.parts(), signal);
      } catch (error) {
        if (!repeatable.isRepeatable || !(error instanceof CallError)) throw error;
        if (channel.pauseBeforeRetry(error, failures) === undefined) throw error;
        backoff.failed();
        await backoff.pause(signal);
      }
    }
  } finally {
    await repeatable.close();
  }
}

async function uploadOnce(
  channel: Channel,
  first: UploadArtifactRequest,
  parts: AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<WireArtifact> {
  let artifact: WireArtifact | undefined;
  let [isEnded, wake, settle] = [false, () => {}, (_: CallError | undefined) => {}];
  const ended = new Promise<void>((resolve, reject) => {
    settle = (error) => (error ? reject(error) : resolve());
  });
  // It is awaited when the content was read.
  ended.catch(() => {});
  const message = (response: UploadArtifactResponse) => {
    artifact = response.artifact;
  };
  const end = (error: CallError | undefined) => {
    isEnded = true;
    wake();
    settle(error);
  };
  const call = await channel.open(uploadArtifact, { message, end }, { signal });
  try {
    call.send(first);
    for await (const data of parts) {
      if (!isEnded && !call.send(UploadArtifactRequest.fromPartial({ data }))) {
        await new Promise<void>((resolve) => {
          wake = resolve;
          call.drained(resolve);
        });
      }
      if (isEnded) break;
    }
    call.finish();
    await ended;
  } finally {
    call.cancel();
  }
  if (!artifact) throw callError(Code.INTERNAL, "the response has no artifact");
  return artifact;
}
