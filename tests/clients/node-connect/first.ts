// Submits one task, follows it to the end, and prints its result.
import { randomUUID } from "node:crypto";
import { fromJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { TaskStateSchema } from "./gen/lineshaft/v1/task_pb.js";
import { TaskService } from "./gen/lineshaft/v1/task_service_pb.js";

const address = process.env.LINESHAFT_SERVER ?? "127.0.0.1:7070";
const tasks = createClient(TaskService, createGrpcTransport({ baseUrl: `http://${address}` }));
const value = fromJson(ValueSchema, { op: "primes", n: 5_000_000 });
const task = {
  handler: "compute",
  payload: { kind: { case: "json" as const, value } },
  requestId: randomUUID(), // makes a retry safe: it returns the first task
};
for await (const { kind } of tasks.runTask({ task }, { timeoutMs: 60_000 })) {
  if (kind.case === "event") {
    console.log(TaskStateSchema.value[kind.value.state].name);
  } else if (kind.case === "task" && kind.value.result?.kind.case === "data") {
    console.log(new TextDecoder().decode(kind.value.result.kind.value));
  }
}
