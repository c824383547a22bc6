"""Trace contexts between processes, by OpenTelemetry's API alone.

The SDK behind it is set up by `trace_export.py`, and only where traces are asked for: everything that
makes spans is put in place by a composition root then, so that without it nothing is made or asked.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

QUEUE_NAME: Final = "downloadjobs"
"""The queue, as spans name it."""

JOB_ID: Final = "downloadjobs.job.id"
REQUEST_ID: Final = "downloadjobs.request.id"

MESSAGING: Final = {"messaging.system": "downloadjobs", "messaging.destination.name": QUEUE_NAME}
"""https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/"""


def traceparent_of(span: Span) -> str:
    """The W3C trace context by which another process goes on from a span."""
    found = span.get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def span_context_of(traceparent: str, *, sampled: bool | None = None) -> SpanContext:
    """The remote span of a trace context that `trace_context.accept` returned; invalid for an empty one.

    Args:
        traceparent: as a job keeps it.
        sampled: whether the trace is kept, in the stead of what the context says.
    """
    if not traceparent:
        return SpanContext(0, 0, is_remote=True)
    _, trace_id, span_id, flags = traceparent.split("-")
    bits = int(flags, 16)
    if sampled is not None:
        bits = (bits & ~TraceFlags.SAMPLED) | (TraceFlags.SAMPLED if sampled else 0)
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(bits))


def continuing(parent: SpanContext) -> Context:
    """A context whose next span is a child of a remote one, or the first of a trace if that is invalid."""
    return set_span_in_context(NonRecordingSpan(parent), Context()) if parent.is_valid else Context()
