// Trace context, if the program uses OpenTelemetry.

import { createRequire } from "node:module";
import type * as OpenTelemetry from "@opentelemetry/api";

let api: typeof OpenTelemetry | undefined;
try {
  api = createRequire(import.meta.url)("@opentelemetry/api") as typeof OpenTelemetry;
} catch {
  // It is an optional dependency.
}

/** Headers that make the active span the parent of a call. */
export function traceHeaders(): Record<string, string> {
  const headers: Record<string, string> = {};
  if (api && api.trace.getActiveSpan()) api.propagation.inject(api.context.active(), headers);
  return headers;
}
