// Trace context, if the program uses OpenTelemetry.

import { createRequire } from "node:module";
import type * as OpenTelemetry from "@opentelemetry/api";

let api: typeof OpenTelemetry | undefined;
try {
  api = createRequire(import.meta.url)("@opentelemetry/api") as typeof OpenTelemetry;
} catch {
  // It is an optional dependency.
}

export interface ActiveTrace {
  /** W3C trace context of the active span; empty without one. */
  traceparent: string;
  tracestate: string;
  /** What else the propagator passes on, such as baggage. */
  headers: Record<string, string>;
}

/** What makes the active span the parent of a submission. */
export function activeTrace(): ActiveTrace {
  const carrier: Record<string, string> = {};
  if (api && api.trace.getActiveSpan()) api.propagation.inject(api.context.active(), carrier);
  const { traceparent = "", tracestate = "", ...headers } = carrier;
  return { traceparent, tracestate, headers };
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
