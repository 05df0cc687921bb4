// Submits one task, follows it to the end, and prints its result.
import { randomUUID } from "node:crypto";
import { credentials, Metadata } from "@grpc/grpc-js";
import { RunTaskRequest, TaskServiceClient } from "./gen/lineshaft/v1/task_service.js";
import { taskStateToJSON } from "./gen/lineshaft/v1/task.js";

const address = process.env.LINESHAFT_SERVER ?? "127.0.0.1:7070";
const tasks = new TaskServiceClient(address, credentials.createInsecure());
const data = Buffer.from(JSON.stringify({ op: "primes", n: 5_000_000 }));
const request = RunTaskRequest.fromPartial({
  task: {
    handler: "compute",
    payload: { kind: { $case: "data", value: data }, contentType: "application/json" },
    requestId: randomUUID(), // makes a retry safe: it returns the first task
  },
});
const steps = tasks.runTask(request, new Metadata(), { deadline: Date.now() + 60_000 });
for await (const { kind } of steps) {
  if (kind.$case === "event") {
    console.log(taskStateToJSON(kind.value.state));
  } else if (kind.$case === "task" && kind.value.result?.kind?.$case === "data") {
    console.log(kind.value.result.kind.value.toString());
  }
}
tasks.close();
