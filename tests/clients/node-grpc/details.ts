// Reads the details of an error.
import type { ServiceError } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

export function details(error: ServiceError): { info?: ErrorInfo; badRequest?: BadRequest } {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const found: { info?: ErrorInfo; badRequest?: BadRequest } = {};
  if (!Buffer.isBuffer(bytes)) return found;
  for (const { typeUrl, value } of Status.decode(bytes).details) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) found.info = ErrorInfo.decode(value);
    if (typeUrl.endsWith("/google.rpc.BadRequest")) found.badRequest = BadRequest.decode(value);
  }
  return found;
}
