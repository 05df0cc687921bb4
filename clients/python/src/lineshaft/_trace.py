"""Trace context, if OpenTelemetry is installed."""

from __future__ import annotations

try:
    from opentelemetry import trace as _trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator as _Propagator
except ImportError:  # OpenTelemetry is optional.

    def trace_headers() -> tuple[tuple[str, str], ...]:
        """The W3C headers of the current span; none without OpenTelemetry."""
        return ()

else:
    _propagator = _Propagator()

    def trace_headers() -> tuple[tuple[str, str], ...]:
        """The W3C headers of the current span; none without a span."""
        if not _trace.get_current_span().get_span_context().is_valid:
            return ()
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        return tuple(carrier.items())
