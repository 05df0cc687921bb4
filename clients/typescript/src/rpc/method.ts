// The methods that this package calls.

import type { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import * as a from "../gen/lineshaft/v1/artifact_service.js";
import * as t from "../gen/lineshaft/v1/task_service.js";
import * as w from "../gen/lineshaft/v1/worker_service.js";

export interface Codec<T> {
  encode(message: T, writer?: BinaryWriter): BinaryWriter;
  decode(bytes: Uint8Array | BinaryReader, length?: number): T;
}

export interface Method<Request, Response> {
  path: string;
  request: Codec<Request>;
  response: Codec<Response>;
}

function task<Request, Response>(
  name: string,
  request: Codec<Request>,
  response: Codec<Response>,
): Method<Request, Response> {
  return { path: `/lineshaft.v1.TaskService/${name}`, request, response };
}

export const batchSubmitTasks = task("BatchSubmitTasks", t.BatchSubmitTasksRequest, t.BatchSubmitTasksResponse);
export const cancelTask = task("CancelTask", t.CancelTaskRequest, t.CancelTaskResponse);
export const deleteTasks = task("DeleteTasks", t.DeleteTasksRequest, t.DeleteTasksResponse);
export const getTask = task("GetTask", t.GetTaskRequest, t.GetTaskResponse);
export const listTasks = task("ListTasks", t.ListTasksRequest, t.ListTasksResponse);
export const readOutput = task("ReadOutput", t.ReadOutputRequest, t.ReadOutputResponse);
export const submitTask = task("SubmitTask", t.SubmitTaskRequest, t.SubmitTaskResponse);
export const waitTask = task("WaitTask", t.WaitTaskRequest, t.WaitTaskResponse);
export const watchTasks = task("WatchTasks", t.WatchTasksRequest, t.WatchTasksResponse);

export const listArtifacts: Method<a.ListArtifactsRequest, a.ListArtifactsResponse> = {
  path: "/lineshaft.v1.ArtifactService/ListArtifacts",
  request: a.ListArtifactsRequest,
  response: a.ListArtifactsResponse,
};

export const readArtifact: Method<a.ReadArtifactRequest, a.ReadArtifactResponse> = {
  path: "/lineshaft.v1.ArtifactService/ReadArtifact",
  request: a.ReadArtifactRequest,
  response: a.ReadArtifactResponse,
};

export const work: Method<w.WorkRequest, w.WorkResponse> = {
  path: "/lineshaft.v1.WorkerService/Work",
  request: w.WorkRequest,
  response: w.WorkResponse,
};

export const readParentResults: Method<w.ReadParentResultsRequest, w.ReadParentResultsResponse> = {
  path: "/lineshaft.v1.WorkerService/ReadParentResults",
  request: w.ReadParentResultsRequest,
  response: w.ReadParentResultsResponse,
};

export const uploadArtifact: Method<w.UploadArtifactRequest, w.UploadArtifactResponse> = {
  path: "/lineshaft.v1.WorkerService/UploadArtifact",
  request: w.UploadArtifactRequest,
  response: w.UploadArtifactResponse,
};
