// Submits one task, follows it to the end, and shows its result.
import { fromJson, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { TaskStateSchema } from "./gen/lineshaft/v1/task_pb.js";
import { TaskService } from "./gen/lineshaft/v1/task_service_pb.js";

const baseUrl = new URLSearchParams(location.search).get("server") ?? "http://127.0.0.1:7070";
const tasks = createClient(TaskService, createConnectTransport({ baseUrl }));
const output = document.getElementById("output")!;
const value = fromJson(ValueSchema, { op: "primes", n: 5_000_000 });
const task = {
  handler: "compute",
  payload: { kind: { case: "json" as const, value } },
  requestId: crypto.randomUUID(), // makes a retry safe: it returns the first task
};
for await (const { kind } of tasks.runTask({ task }, { timeoutMs: 60_000 })) {
  if (kind.case === "event") {
    output.append(TaskStateSchema.value[kind.value.state].name, "\n");
  } else if (kind.case === "task" && kind.value.result?.kind.case === "json") {
    output.append(JSON.stringify(toJson(ValueSchema, kind.value.result.kind.value)), "\n");
  }
}
document.title = "done";
