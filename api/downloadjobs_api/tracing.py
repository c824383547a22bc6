"""The API's spans: one for each request, and one for each job that is put into the queue.

`Spans` puts them in place, where traces are asked for.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import falcon.asgi
from opentelemetry import context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context

from downloadjobs_api.request_context import FAULT_STATUS, Request
from downloadjobs_core import trace_context
from downloadjobs_core.job import NewJob, Once
from downloadjobs_core.jobstore import Accepted, JobStore
from downloadjobs_core.leases import QueuePolicy
from downloadjobs_core.objectstore.protocol import ObjectStore
from downloadjobs_core.objectstore.traced import TracedObjectStore
from downloadjobs_core.rate_counts import RateCounts
from downloadjobs_core.tracing import (
    JOB_ID,
    MESSAGING,
    QUEUE_NAME,
    REQUEST_ID,
    continuing,
    span_context_of,
    traceparent_of,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

UNTRACED: Final = frozenset({"/livez", "/readyz"})
"""Probes: they come every few seconds, and belong to nobody's trace."""

KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Tracing:
    """Falcon middleware: a server span for each request, named by its route, in the client's trace.

    No path, query, header or address becomes an attribute: paths may be secrets (`Request.shown_path`), and
    the rest tells of users. https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def process_request(self, req: Request, _resp: falcon.asgi.Response) -> None:
        """Begin the span, and make it the parent of what happens in this request."""
        if req.path in UNTRACED:
            return
        header = req.get_header("traceparent")
        accepted = trace_context.accept(header)
        ours = header is None or trace_context.trace_id(accepted) not in header
        parent = context.Context() if ours else continuing(span_context_of(accepted))
        method = req.method if req.method in KNOWN_METHODS else "_OTHER"
        span = self._tracer.start_span(
            "HTTP" if method == "_OTHER" else method,
            parent,
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "url.scheme": req.scheme,
                REQUEST_ID: req.request_id,
            },
        )
        req.traceparent = traceparent_of(span)
        req.context.span = span
        req.context.token = context.attach(set_span_in_context(span))

    async def process_response(
        self,
        req: Request,
        resp: falcon.asgi.Response,
        _resource: object,
        _req_succeeded: bool,  # noqa: FBT001 - Falcon's signature
    ) -> None:
        """End it, with the route and the answer's status."""
        span = req.context.get("span")
        if span is None:
            return
        if span.is_recording():
            if req.uri_template:
                span.update_name(f"{req.method} {req.uri_template}")
                span.set_attribute("http.route", req.uri_template)
            status = resp.status_code
            span.set_attribute("http.response.status_code", status)
            if status >= FAULT_STATUS:
                span.set_attribute("error.type", str(status))
                span.set_status(Status(StatusCode.ERROR))
        span.end()
        context.detach(req.context.token)


class TracedJobStore(JobStore):
    """Submits within a producer span, which the job carries to its worker."""

    def __init__(self, redis: Redis, policy: QueuePolicy, counts: RateCounts, tracer: Tracer) -> None:
        super().__init__(redis, policy, counts)
        self._tracer = tracer

    async def submit(self, job: NewJob, once: Once | None = None) -> Accepted:
        """See `JobStore`."""
        attributes: dict[str, str | int] = {
            **MESSAGING,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.message.id": job.job_id,
            JOB_ID: job.job_id,
            "downloadjobs.job.files": len(job.file_ids),
        }
        with self._tracer.start_as_current_span(
            f"send {QUEUE_NAME}", kind=SpanKind.PRODUCER, attributes=attributes, record_exception=False
        ) as span:
            return await super().submit(replace(job, traceparent=traceparent_of(span)), once)


class TracedThreads(ThreadPoolExecutor):
    """Threads whose calls belong to the trace of who submitted them."""

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """See `Executor`."""
        bound: Callable[..., Any] = contextvars.copy_context().run
        return super().submit(bound, fn, *args, **kwargs)


class Spans:
    """Makes what the app consists of: with spans around it where traces are asked for, and plain elsewhere.

    Args:
        tracer: makes the spans; None where nobody asks for traces.
    """

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    def threads(self, count: int, name: str) -> ThreadPoolExecutor:
        """So many threads of this name."""
        pool = ThreadPoolExecutor if self._tracer is None else TracedThreads
        return pool(count, thread_name_prefix=name)

    def jobs(self, redis: Redis, policy: QueuePolicy, counts: RateCounts) -> JobStore:
        """See `JobStore`."""
        if self._tracer is None:
            return JobStore(redis, policy, counts)
        return TracedJobStore(redis, policy, counts, self._tracer)

    def stores(self, files: ObjectStore, results: ObjectStore) -> tuple[ObjectStore, ObjectStore]:
        """The store of files and that of results; one stays one."""
        if self._tracer is None:
            return files, results
        traced = TracedObjectStore(files, self._tracer)
        return traced, traced if results is files else TracedObjectStore(results, self._tracer)

    def middleware(self) -> list[Tracing]:
        """What makes a span of each request."""
        return [] if self._tracer is None else [Tracing(self._tracer)]
