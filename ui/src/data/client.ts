// Calls of the server that has served this page.
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { ArtifactService } from "../gen/lineshaft/v1/artifact_service_pb";
import { BatchService } from "../gen/lineshaft/v1/batch_service_pb";
import { HandlerService } from "../gen/lineshaft/v1/handler_service_pb";
import { PoolService } from "../gen/lineshaft/v1/pool_service_pb";
import { ScheduleService } from "../gen/lineshaft/v1/schedule_service_pb";
import { SystemService } from "../gen/lineshaft/v1/system_service_pb";
import { TaskService } from "../gen/lineshaft/v1/task_service_pb";
import { deniesMethod } from "./denial";
import { deny } from "./permissions";
import { loginRequired, token } from "./session";

/** Keeps what a refused call says about the user. */
function noteRefusal(method: string, sent: string, error: unknown) {
  // Another user has logged in meanwhile.
  if (sent !== token.value) return;
  const refused = ConnectError.from(error);
  if (refused.code === Code.Unauthenticated) loginRequired.value = sent ? refused.rawMessage : "it requires a token";
  if (deniesMethod(refused)) deny(method);
}

const authenticate: Interceptor = (next) => async (request) => {
  const sent = token.value;
  if (sent && !request.header.has("authorization")) request.header.set("authorization", `Bearer ${sent}`);
  const { name } = request.method;
  // A stream reports errors while it is read.
  async function* noting<T>(messages: AsyncIterable<T>) {
    try {
      yield* messages;
    } catch (error) {
      noteRefusal(name, sent, error);
      throw error;
    }
  }
  try {
    const response = await next(request);
    return response.stream ? { ...response, message: noting(response.message) } : response;
  } catch (error) {
    noteRefusal(name, sent, error);
    throw error;
  }
};

/** The server's address: a proxy may serve it below a path. */
export const serverUrl = new URL("../", document.baseURI).href.replace(/\/$/, "");

const transport = createConnectTransport({ baseUrl: serverUrl, useBinaryFormat: true, interceptors: [authenticate] });

export const tasks = createClient(TaskService, transport);
export const artifacts = createClient(ArtifactService, transport);
export const batches = createClient(BatchService, transport);
export const pools = createClient(PoolService, transport);
export const handlers = createClient(HandlerService, transport);
export const schedules = createClient(ScheduleService, transport);
export const system = createClient(SystemService, transport);

/** One line that explains an error to a person. */
export function errorText(error: unknown): string {
  const { code, rawMessage } = ConnectError.from(error);
  if (code === Code.Unknown || code === Code.Unavailable) return rawMessage || "the server cannot be reached";
  return rawMessage;
}

export function hasCode(error: unknown, code: Code): boolean {
  return ConnectError.from(error).code === code;
}
