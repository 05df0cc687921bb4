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

/** Runs a function in the trace of a task. */
export function withTrace<T>(
  { traceparent, tracestate }: { traceparent: string; tracestate: string },
  run: () => T,
): T {
  if (!api || !traceparent) return run();
  const context = api.propagation.extract(api.context.active(), { traceparent, tracestate });
  return api.context.with(context, run);
}
