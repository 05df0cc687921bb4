import assert from "node:assert/strict";
import { test } from "node:test";
import { GetTaskRequest } from "../src/gen/lineshaft/v1/task_service.js";
import { FrameReader, frame } from "../src/rpc/frames.js";

test("messages are read however they are cut", () => {
  const ids = ["", "a", "b".repeat(300)];
  const bytes = Buffer.concat(ids.map((taskId) => frame(GetTaskRequest, { taskId, includePayload: false, includeOutput: false })));
  for (let size = 1; size <= bytes.length; size++) {
    const reader = new FrameReader();
    const read: string[] = [];
    for (let at = 0; at < bytes.length; at += size) {
      reader.read(bytes.subarray(at, at + size), (message) => read.push(GetTaskRequest.decode(message).taskId));
    }
    assert.deepEqual(read, ids, `${size} bytes at a time`);
  }
});

test("a compressed message is refused", () => {
  assert.throws(() => new FrameReader().read(Buffer.from([1, 0, 0, 0, 0]), () => {}), /compressed/);
});
