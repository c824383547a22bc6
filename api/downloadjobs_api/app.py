"""The API's composition root: settings in, a Falcon app out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, cast

import falcon.asgi
from prometheus_client import CollectorRegistry

from downloadjobs_api import dashboard, problems, resources
from downloadjobs_api.callbacks import Callbacks
from downloadjobs_api.client_address import ClientAddresses
from downloadjobs_api.deadlines import Deadlines, Router
from downloadjobs_api.downloads import DownloadLimits, Downloads
from downloadjobs_api.following import Following
from downloadjobs_api.gate import Gate
from downloadjobs_api.identity import Identity
from downloadjobs_api.key_sets import from_file, from_url
from downloadjobs_api.lifespan import Lifespan
from downloadjobs_api.live import Live
from downloadjobs_api.metrics import ApiMetrics
from downloadjobs_api.mock_files import MockFiles
from downloadjobs_api.rate_limits import RateLimits
from downloadjobs_api.request_context import Request, RequestContext
from downloadjobs_api.routes import Services, add_routes
from downloadjobs_api.settings import ApiSettings, AuthMode
from downloadjobs_api.streams import Streams
from downloadjobs_api.timelines import Timelines
from downloadjobs_api.tracing import TracedJobStore, TracedThreads, Tracing
from downloadjobs_api.waiting import Waiting
from downloadjobs_core import fault_reports, logs, trace_export
from downloadjobs_core.claims import ClaimStore
from downloadjobs_core.event_stream import EventStream
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.objectstore.factory import open_stores
from downloadjobs_core.objectstore.traced import TracedObjectStore
from downloadjobs_core.rate_counts import RateCounts
from downloadjobs_core.redis_client import connect_async
from downloadjobs_core.statistics import StatisticsStore

if TYPE_CHECKING:
    from downloadjobs_api.drain import Drain
    from downloadjobs_api.tokens import Tokens

PROCESS: Final = "downloadjobs-api"

EVENT_CONNECTIONS: Final = 2
"""Of the reader of events: one that waits for them, and one to look beside that."""


log = logs.logger(__name__)


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
    identity = Identity(settings.auth_mode, _tokens(settings))
    gate = Gate(
        identity,
        ClientAddresses(settings.trusted_proxies),
        RateLimits(
            counts, window_ms=settings.rate_limit_window_ms, most=settings.rate_limit, metrics=metrics
        ),
        dashboard.paths() if settings.dashboard_enabled else frozenset(),
    )
    waiting = Waiting(
        downloads,
        live,
        gate.admit,
        longest=settings.long_poll_max_seconds,
        most=settings.sse_max_streams,
        most_of_a_user=settings.sse_max_streams_per_user,
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
    mock_files = MockFiles(stores.mock, threads) if stores.mock is not None else None
    services = Services(
        downloads=downloads,
        identity=identity,
        callbacks=Callbacks(settings.webhook_public_key_file, settings.address_rules),
        waiting=waiting,
        streams=Streams(
            live, most=settings.sse_max_streams, most_of_a_user=settings.sse_max_streams_per_user
        ),
        following=Following(EventStream(redis), jobs),
        timelines=Timelines(jobs, settings.trace_url_template or ""),
        statistics=StatisticsStore(redis, jobs),
        drain=drain,
        mock_files=mock_files,
    )
    add_routes(app, services, settings)
    if mock_files is not None:
        log.warning(
            "mock storage: files are generated, results lie in a folder", folder=str(settings.mock_dir)
        )
    return app
