"""Sends spans to a collector, in the background: OpenTelemetry's SDK as the API and the workers set it up.

The SDK is imported by `start` alone, which composition roots call only where traces are asked for, and
after a fork, because a thread sends the spans. That thread has a bounded queue, from which the oldest
spans are dropped when it is full; whoever ends a span never waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from downloadjobs_core import __version__, logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

    from downloadjobs_core.telemetry_settings import TelemetrySettings

FLUSH_SECONDS: Final = 2.0
"""How long the end of a process waits for its last spans to be sent."""

TELL_AGAIN_SECONDS: Final = 600.0
"""How often it is said, with their number, that spans are being lost."""

_TALKATIVE: Final = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")
"""Loggers that say every failure, and every try, of sending; `ToldExporter` says it once."""

log = logs.logger(__name__)


@dataclass(slots=True)
class ToldExporter:
    """An exporter that says once that nothing arrives, then the number now and then, and when it works again.

    It has the methods of the SDK's `SpanExporter`, and is not derived from it, so as not to import it.
    """

    exporter: SpanExporter
    success: object
    """What the exporter answers when spans have arrived."""
    clock: Callable[[], float] = time.monotonic
    _lost: int = 0
    _told_at: float | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> Any:  # noqa: ANN401 - the SDK's enumeration
        """Send spans; what cannot be sent is lost."""
        result = self.exporter.export(spans)
        if result is self.success:
            if self._told_at is not None:
                log.info("traces arrive again", spans_lost=self._lost)
                self._lost, self._told_at = 0, None
            return result
        self._lost += len(spans)
        now = self.clock()
        if self._told_at is None or now - self._told_at >= TELL_AGAIN_SECONDS:
            self._told_at = now
            log.warning("traces cannot be sent; nothing else depends on it", spans_lost=self._lost)
        return result

    def shutdown(self) -> None:
        """Give up what is being sent."""
        self.exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return self.exporter.force_flush(timeout_millis)


@dataclass(slots=True)
class TraceExport:
    """What a process' spans go through."""

    provider: TracerProvider
    tracer: Tracer = field(init=False)

    def __post_init__(self) -> None:
        self.tracer = self.provider.get_tracer("downloadjobs", __version__)

    def would_keep(self, trace_id: str) -> bool:
        """Whether the sampler keeps a trace that begins with this id (32 hex digits)."""
        decision = self.provider.sampler.should_sample(None, int(trace_id, 16), "").decision
        return bool(decision.is_sampled())  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Send what waits, for `FLUSH_SECONDS` at most."""
        # In a thread, since the SDK's own time-outs do not cover a request under way.
        flush = threading.Thread(target=self.provider.shutdown, name="last-spans", daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)


def start(settings: TelemetrySettings, process: str) -> TraceExport | None:
    """Begin to send spans, or do nothing where no traces are asked for.

    Args:
        settings: say where to; the SDK reads what else it needs from `OTEL_*` itself.
        process: the service's name, unless the settings have one.
    """
    if not settings.traced:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult  # noqa: PLC0415

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    named = {"service.version": __version__, "service.name": settings.otel_service_name or process}
    # The end of the process is ours to order (`close`), not that of a hook without a limit of time.
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    exporter = ToldExporter(OTLPSpanExporter(), SpanExportResult.SUCCESS)
    provider.add_span_processor(BatchSpanProcessor(exporter))  # type: ignore[arg-type]  # it has the methods
    log.info("traces are sent", service=named["service.name"], sampler=settings.otel_traces_sampler)
    return TraceExport(provider)
