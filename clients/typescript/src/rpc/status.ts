// The status of a call: from the trailers of gRPC, or from what HTTP/2 reports.

import { constants, type IncomingHttpHeaders } from "node:http2";
import { Duration } from "../gen/google/protobuf/duration.js";
import { BadRequest, ErrorInfo, RetryInfo } from "../gen/google/rpc/error_details.js";
import { Status } from "../gen/google/rpc/status.js";
import { milliseconds } from "../convert.js";
import { type CallError, type CallErrorDetails, callError, Code } from "../errors.js";

/** The error in these trailers; `undefined` if the call succeeded. */
export function fromTrailers(trailers: IncomingHttpHeaders): CallError | undefined {
  const code = Number(trailers["grpc-status"]) as Code;
  if (code === Code.OK) return undefined;
  const message = percentDecoded(String(trailers["grpc-message"] ?? ""));
  return callError(code in Code ? code : Code.UNKNOWN, message, details(trailers["grpc-status-details-bin"]));
}

function percentDecoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function details(header: string | string[] | undefined): CallErrorDetails {
  const found: CallErrorDetails = {};
  if (typeof header !== "string") return found;
  for (const { typeUrl, value } of Status.decode(Buffer.from(header, "base64")).details) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) {
      const info = ErrorInfo.decode(value);
      found.reason = info.reason;
      found.metadata = info.metadata;
    } else if (typeUrl.endsWith("/google.rpc.BadRequest")) {
      found.violations = BadRequest.decode(value).fieldViolations.map(({ field, description }) => ({
        field,
        description,
      }));
    } else if (typeUrl.endsWith("/google.rpc.RetryInfo")) {
      found.retryAfter = milliseconds(RetryInfo.decode(value).retryDelay ?? Duration.create());
    }
  }
  return found;
}

/** The error of a response that is not gRPC's, as a proxy sends it. */
export function fromHttp(status: number): CallError {
  const codes: Record<number, Code> = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
  };
  return callError(codes[status] ?? Code.UNKNOWN, `the response has HTTP status ${status} and no gRPC status`);
}

/** The error of a stream that ended without trailers. */
export function fromReset(reset: number, cause: Error | undefined): CallError {
  const code = cause === undefined ? codeOfReset(reset) : codeOfCause(cause);
  return callError(code, cause?.message ?? `the stream was reset (HTTP/2 error ${reset})`, { cause });
}

function codeOfReset(reset: number): Code {
  switch (reset) {
    case constants.NGHTTP2_NO_ERROR: // the connection ended
    case constants.NGHTTP2_REFUSED_STREAM:
      return Code.UNAVAILABLE;
    case constants.NGHTTP2_CANCEL:
      return Code.CANCELLED;
    case constants.NGHTTP2_ENHANCE_YOUR_CALM:
      return Code.RESOURCE_EXHAUSTED;
    default:
      return Code.INTERNAL;
  }
}

function codeOfCause(cause: Error): Code {
  const { code, errno } = cause as NodeJS.ErrnoException;
  // Node reports a reset of a stream as such an error; everything else is an error of the connection.
  if (code === "ERR_HTTP2_STREAM_ERROR")
    return /REFUSED|NO_ERROR/.test(cause.message) ? Code.UNAVAILABLE : Code.INTERNAL;
  return errno !== undefined || code !== undefined ? Code.UNAVAILABLE : Code.INTERNAL;
}
