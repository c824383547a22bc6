"""The API's composition root: settings in, a Falcon app out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, cast

import falcon.asgi
from prometheus_client import CollectorRegistry

from downloadjobs_api import openapi, problems, reference, resources
from downloadjobs_api.callbacks import Callbacks, WebhookKey
from downloadjobs_api.claims import Claims
from downloadjobs_api.client_address import ClientAddresses
from downloadjobs_api.deadlines import Deadlines, Router
from downloadjobs_api.downloads import DownloadLimits, Downloads
from downloadjobs_api.following import Following
from downloadjobs_api.gate import Gate
from downloadjobs_api.identity import Identity
from downloadjobs_api.job_list import JobList
from downloadjobs_api.job_retry import JobRetry
from downloadjobs_api.jobs import JobDetail
from downloadjobs_api.key_sets import from_file, from_url
from downloadjobs_api.live import Live
from downloadjobs_api.metrics import ApiMetrics
from downloadjobs_api.mock_files import MockFiles
from downloadjobs_api.operation_table import OPERATIONS
from downloadjobs_api.rate_limits import RateLimits
from downloadjobs_api.request_context import Request, RequestContext
from downloadjobs_api.settings import ApiSettings, AuthMode
from downloadjobs_api.streams import JobEvents, Streams, UserEvents
from downloadjobs_api.timelines import Timeline, Timelines
from downloadjobs_api.tracing import TracedJobStore, TracedThreads, Tracing
from downloadjobs_api.waiting import Waiting
from downloadjobs_core import fault_reports, logs, trace_export
from downloadjobs_core.claims import ClaimStore
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.event_stream import EventStream
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.objectstore.factory import open_stores
from downloadjobs_core.objectstore.traced import TracedObjectStore
from downloadjobs_core.rate_counts import RateCounts
from downloadjobs_core.redis_client import connect_async

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from downloadjobs_api.drain import Drain
    from downloadjobs_api.tokens import Tokens

PROCESS: Final = "downloadjobs-api"

EVENT_CONNECTIONS: Final = 2
"""Of the reader of events: one that waits for them, and one to look beside that."""

FLUSH_SECONDS: Final = 1.0
"""How old what `/metrics` tells of requests may be; scrapes come every 15 s or so."""

log = logs.logger(__name__)


class Lifespan:
    """Falcon middleware: looks at the servers at the start, and closes what the process opened."""

    def __init__(
        self,
        redis: Sequence[Redis],
        threads: ThreadPoolExecutor,
        *,
        downloads: Downloads,
        metrics: ApiMetrics,
        live: Live,
        deadlines: Deadlines,
        last_calls: Sequence[Callable[[], None]],
    ) -> None:
        self._redis = redis
        self._live = live
        self._threads = threads
        self._downloads = downloads
        self._metrics = metrics
        self._last_calls = last_calls
        self._deadlines = deadlines
        self._tasks: list[asyncio.Task[None]] = []

    async def process_startup(self, _scope: dict[str, Any], _event: dict[str, Any]) -> None:
        """Say in the log which server cannot be used; requests are taken meanwhile."""
        self._tasks = [
            asyncio.create_task(self._check()),
            asyncio.create_task(self._flush()),
            asyncio.create_task(self._deadlines.watch()),
        ]

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._metrics.flush()

    async def _check(self) -> None:
        for server, check in (
            ("queue", self._downloads.check_queue),
            ("storage", self._downloads.check_storage),
        ):
            try:
                await check()
            except (DownloadJobsError, TimeoutError) as error:
                log.warning("not ready", server=server, error=str(error) or "it did not answer in time")

    async def process_shutdown(self, _scope: dict[str, Any], _event: dict[str, Any]) -> None:
        """Close connections and threads; requests have ended by now."""
        for task in self._tasks:
            task.cancel()
        self._live.close()
        self._metrics.flush()
        for client in self._redis:
            await client.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        # Each takes a bounded time, in which the others need not wait.
        await asyncio.gather(*(asyncio.to_thread(call) for call in self._last_calls))


def _tokens(settings: ApiSettings) -> Tokens | None:
    """What verifies tokens, if requests are signed in by them."""
    if settings.auth_mode is not AuthMode.JWT:
        return None
    from downloadjobs_api.signing_keys import SigningKeys  # noqa: PLC0415 - 12 MB, for this mode alone
    from downloadjobs_api.tokens import TokenRules, Tokens  # noqa: PLC0415 - the same

    load = (
        from_file(settings.jwt_jwks_file)
        if settings.jwt_jwks_file
        else from_url(settings.jwt_jwks_url or "", settings.jwt_ca_file)
    )
    rules = TokenRules(
        issuer=settings.jwt_issuer or "",
        audience=settings.jwt_audience or "",
        user_claim=settings.jwt_user_claim,
        algorithms=settings.jwt_algorithms,
        leeway_seconds=settings.jwt_leeway_seconds,
    )
    return Tokens(rules, SigningKeys(load))


def create_app(settings: ApiSettings, drain: Drain) -> falcon.asgi.App[Any, Any]:
    """Build the app of one worker process. Opens no connection yet."""
    traces = trace_export.start(settings, PROCESS)
    last_calls = [fault_reports.start(settings, PROCESS)]
    metrics = ApiMetrics(CollectorRegistry())
    redis = connect_async(settings.redis, max_connections=settings.redis_max_connections)
    pool = ThreadPoolExecutor if traces is None else TracedThreads
    threads = pool(settings.storage_threads, thread_name_prefix="storage")
    stores = open_stores(settings, connections=settings.storage_threads, public_url=settings.public_url)
    delayed = settings.download_delay_enabled
    counts = RateCounts(redis, window_ms=settings.rate_limit_window_ms, most=settings.rate_limit)
    jobs, files, results = JobStore(redis, settings.policy, counts), stores.files, stores.results
    spans: list[Tracing] = []
    if traces is not None:
        jobs = TracedJobStore(redis, settings.policy, counts, traces.tracer)
        one = results is files
        files = TracedObjectStore(files, traces.tracer)
        results = files if one else TracedObjectStore(results, traces.tracer)
        spans = [Tracing(traces.tracer)]
        last_calls.append(traces.close)
    events_redis = connect_async(settings.redis, max_connections=EVENT_CONNECTIONS)
    live = Live(EventStream(events_redis), JobStore(events_redis, settings.policy).epoch, drain, metrics)
    following = Following(EventStream(redis), jobs)
    streams = Streams(live, most=settings.sse_max_streams, most_of_a_user=settings.sse_max_streams_per_user)
    downloads = Downloads(
        jobs,
        files,
        results,
        threads,
        claims=ClaimStore(redis),
        metrics=metrics,
        files_prefix=settings.s3_key_prefix,
        limits=DownloadLimits(
            max_attempts=settings.max_attempts,
            priority_ceilings=settings.priority_ceilings,
            idempotency_seconds=settings.idempotency_ttl_seconds,
            presign_seconds=settings.presign_seconds,
            storage_timeout_seconds=settings.request_timeout_ms / 1000,
            start_delay_ms=(settings.download_delay_min_ms, settings.download_delay_max_ms)
            if delayed
            else (0, 0),
        ),
    )
    callbacks = Callbacks(settings.webhook_public_key_file, settings.address_rules)
    identity = Identity(settings.auth_mode, _tokens(settings))
    gate = Gate(
        identity,
        ClientAddresses(settings.trusted_proxies),
        RateLimits(
            counts, window_ms=settings.rate_limit_window_ms, most=settings.rate_limit, metrics=metrics
        ),
    )
    waiting = Waiting(
        downloads, live, gate.admit, longest=settings.long_poll_max_seconds, most=settings.sse_max_streams
    )
    deadlines = Deadlines(settings.request_timeout_ms / 1000)

    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(
        media_type=resources.JSON,
        middleware=cast(
            "Any",
            [
                RequestContext(metrics),
                *spans,
                gate,
                Lifespan(
                    (redis, events_redis),
                    threads,
                    downloads=downloads,
                    metrics=metrics,
                    live=live,
                    deadlines=deadlines,
                    last_calls=last_calls,
                ),
            ],
        ),
        request_type=Request,
        router=Router(lambda responder, resource: deadlines.limited(gate.guarded(responder, resource))),
    )
    problems.install(app)
    app.add_route("/", resources.Root(settings.root_message))
    app.add_route("/health", resources.Health(downloads, mock_storage=stores.mock is not None))
    app.add_route("/livez", resources.Livez())
    app.add_route("/readyz", resources.Readyz(downloads, drain))
    app.add_route("/v1/download/initiate", resources.Initiate(downloads, callbacks, identity))
    app.add_route("/v1/download/status/{job_id}", resources.Status(downloads, identity, waiting))
    app.add_route("/v1/download/result/{job_id}", resources.Result(downloads, identity))
    app.add_route("/v1/download/check", resources.Check(downloads, identity))
    app.add_route(
        "/v1/download/start", resources.Start(downloads, identity, anonymous=settings.anonymous_start)
    )
    app.add_route("/v1/webhooks/key", WebhookKey(callbacks))
    app.add_route("/v1/claims", Claims(downloads))
    app.add_route("/v1/jobs", JobList(downloads, identity))
    app.add_route("/v1/jobs/{job_id}/retry", JobRetry(downloads, identity))
    app.add_route("/v1/jobs/{job_id}", JobDetail(downloads, identity))
    timelines = Timelines(jobs, settings.trace_url_template or "")
    app.add_route("/v1/jobs/{job_id}/timeline", Timeline(timelines, identity))
    app.add_route("/v1/jobs/{job_id}/events", JobEvents(streams, following, identity))
    app.add_route("/v1/events", UserEvents(streams, following, identity))
    reference.add_routes(
        app, openapi.document(OPERATIONS, settings.auth_mode, anonymous_start=settings.anonymous_start)
    )
    if stores.mock is not None:
        log.warning(
            "mock storage: files are generated, results lie in a folder", folder=str(settings.mock_dir)
        )
        app.add_route("/v1/mock/{token}", MockFiles(stores.mock, threads))
    return app
