"""The worker's spans: one for each attempt, in the trace of the request that asked for the job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from downloadjobs_core.job import Job
from downloadjobs_core.trace_export import TraceExport
from downloadjobs_core.tracing import (
    JOB_ID,
    MESSAGING,
    QUEUE_NAME,
    REQUEST_ID,
    continuing,
    span_context_of,
)
from downloadjobs_worker.attempt import AttemptEnd

KUBERNETES: Final = "kubernetes"
"""The source of jobs that no request asked for. The operator gave each a trace; nobody decided to keep it."""


@dataclass(frozen=True, slots=True)
class TracedAttempts:
    """Runs each attempt within a consumer span.

    It is a child of the producer's span, so that request and work are one trace, and linked to it as the
    conventions want; the attempts of one job are siblings. What the attempt asks of storage is below it.
    https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/#consumer-spans
    """

    run_attempt: Callable[[Job], AttemptEnd]
    export: TraceExport

    def run(self, job: Job) -> None:
        """Make one attempt. Raises nothing."""
        undecided = job.source == KUBERNETES and job.trace_id
        parent = span_context_of(
            job.traceparent, sampled=self.export.would_keep(job.trace_id) if undecided else None
        )
        attributes: dict[str, str | int] = {
            **MESSAGING,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": job.job_id,
            JOB_ID: job.job_id,
            REQUEST_ID: job.request_id,
            "downloadjobs.job.files": job.files_total,
            "downloadjobs.attempt": job.attempt,
            "downloadjobs.delivery": job.deliveries,
        }
        with self.export.tracer.start_as_current_span(
            f"process {QUEUE_NAME}",
            continuing(parent),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[Link(parent)] if parent.is_valid else [],
        ) as span:
            end = self.run_attempt(job)
            span.set_attribute("downloadjobs.outcome", end.how)
            if end.code:
                span.set_attribute("error.type", end.code)
                span.set_status(Status(StatusCode.ERROR))
