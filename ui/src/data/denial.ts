// What an error says about the permissions of the user.
import { Code, type ConnectError } from "@connectrpc/connect";

interface Info {
  reason?: string;
  metadata?: Record<string, string>;
}

/** The ErrorInfo of an error, as the server writes it for people. */
function infoOf(error: ConnectError): Info | undefined {
  for (const detail of error.details) {
    if ("debug" in detail && "type" in detail && detail.type === "google.rpc.ErrorInfo") return detail.debug as Info;
  }
  return undefined;
}

/** Whether the user may not call the method at all: not only for one namespace, one priority, or from this address. */
export function deniesMethod(error: ConnectError): boolean {
  if (error.code !== Code.PermissionDenied) return false;
  const info = infoOf(error);
  return info?.reason === "PERMISSION_DENIED" && (info.metadata?.namespace ?? "*") === "*";
}
