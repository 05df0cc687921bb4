import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { after, before, test } from "node:test";
import {
  type Context,
  type ContextManager,
  context,
  propagation,
  ROOT_CONTEXT,
  type TextMapPropagator,
  trace,
  TraceFlags,
} from "@opentelemetry/api";
import { Worker } from "../src/index.js";
import { submitRequest } from "../src/submit.js";
import { activeTrace } from "../src/trace.js";
import { FakeServer } from "./fake-server.js";

// What the SDK of OpenTelemetry sets up, in short.
const storage = new AsyncLocalStorage<Context>();
const manager: ContextManager = {
  active: () => storage.getStore() ?? ROOT_CONTEXT,
  with: (active, call, self, ...args) => storage.run(active, () => call.call(self as never, ...args)),
  bind: (_, target) => target,
  enable: () => manager,
  disable: () => manager,
};
const propagator: TextMapPropagator = {
  inject(active, carrier, setter) {
    const span = trace.getSpanContext(active)!;
    setter.set(carrier, "traceparent", `00-${span.traceId}-${span.spanId}-01`);
    setter.set(carrier, "tracestate", "vendor=1");
    setter.set(carrier, "baggage", "a=1");
  },
  extract(active, carrier, getter) {
    const [, traceId, spanId] = String(getter.get(carrier, "traceparent")).split("-");
    return trace.setSpanContext(active, {
      traceId: traceId!,
      spanId: spanId!,
      traceFlags: TraceFlags.SAMPLED,
      isRemote: true,
    });
  },
  fields: () => ["traceparent"],
};

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const SPAN = "b7ad6b7169203331";

before(() => {
  context.setGlobalContextManager(manager);
  propagation.setGlobalPropagator(propagator);
});

after(() => {
  context.disable();
  propagation.disable();
});

test("the active span is the parent of a submission, which can share a call with those of other spans", () => {
  assert.deepEqual(activeTrace(), { traceparent: "", tracestate: "", headers: {} });
  const span = { traceId: TRACE, spanId: SPAN, traceFlags: TraceFlags.SAMPLED };
  context.with(trace.setSpanContext(ROOT_CONTEXT, span), () => {
    const active = activeTrace();
    const request = submitRequest("h", undefined, {}, "", active);
    assert.deepEqual([request.traceparent, request.tracestate], [`00-${TRACE}-${SPAN}-01`, "vendor=1"]);
    assert.deepEqual(active.headers, { baggage: "a=1" });
  });
});

test("a function of a worker runs in the trace of its task", async () => {
  const server = await new FakeServer().start();
  const worker = new Worker({ address: server.address, log: () => {} });
  worker.handle("look", async () => {
    await Promise.resolve();
    return trace.getSpanContext(context.active())?.traceId;
  });
  const running = worker.run({ signals: false });
  const stream = await server.stream();
  await stream.hello();
  stream.welcome();
  stream.assign("t", "look", undefined, `00-${TRACE}-${SPAN}-01`);
  await stream.expect("accepted");
  const { outcome } = await stream.expect("finished");
  assert(outcome?.$case === "result" && outcome.value.kind?.$case === "data");
  assert.equal(outcome.value.kind.value.toString(), JSON.stringify(TRACE));
  worker.stop({ force: true });
  await running;
  server.end();
});
