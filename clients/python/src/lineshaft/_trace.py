"""Trace context, if OpenTelemetry is installed."""

from __future__ import annotations

import contextlib
from typing import Any

from lineshaft.v1.worker_service_pb2 import AttemptAssigned

try:
    from opentelemetry import trace as _trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator as _Propagator
except ImportError:  # OpenTelemetry is optional.

    def trace_fields() -> dict[str, Any]:
        """The trace context of the current span for a submission; none without OpenTelemetry."""
        return {}

    def task_span(assigned: AttemptAssigned) -> Any:
        """Makes a span of an attempt the current one; nothing without OpenTelemetry."""
        return contextlib.nullcontext()

else:
    _propagator = _Propagator()

    def trace_fields() -> dict[str, Any]:
        """The trace context of the current span for a submission; none without a span."""
        carrier: dict[str, str] = {}
        if _trace.get_current_span().get_span_context().is_valid:
            _propagator.inject(carrier)
        return carrier

    _tracer = _trace.get_tracer("lineshaft")

    def task_span(assigned: AttemptAssigned) -> Any:
        """Makes a span of an attempt the current one, in the trace of its task."""
        headers = {"traceparent": assigned.traceparent, "tracestate": assigned.tracestate}
        parent = _propagator.extract({name: text for name, text in headers.items() if text})
        return _tracer.start_as_current_span(
            assigned.handler,
            context=parent,
            kind=_trace.SpanKind.CONSUMER,
            attributes={
                "lineshaft.task.id": assigned.task_id,
                "lineshaft.handler": assigned.handler,
                "lineshaft.attempt": assigned.attempt,
            },
        )
