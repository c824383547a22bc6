"""The API's composition root: settings in, a Falcon app out."""

from __future__ import annotations

from concurrent.futures import Executor
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
from downloadjobs_api.tracing import Spans
from downloadjobs_api.waiting import Waiting
from downloadjobs_core import fault_reports, logs, trace_export
from downloadjobs_core.claims import ClaimStore
from downloadjobs_core.event_stream import EventStream
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.objectstore.factory import Stores, open_stores
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


def _download_limits(settings: ApiSettings) -> DownloadLimits:
    delay = (settings.download_delay_min_ms, settings.download_delay_max_ms)
    return DownloadLimits(
        max_attempts=settings.max_attempts,
        priority_ceilings=settings.priority_ceilings,
        idempotency_seconds=settings.idempotency_ttl_seconds,
        presign_seconds=settings.presign_seconds,
        storage_timeout_seconds=settings.request_timeout_ms / 1000,
        start_delay_ms=delay if settings.download_delay_enabled else (0, 0),
    )


def _gate(settings: ApiSettings, identity: Identity, counts: RateCounts, metrics: ApiMetrics) -> Gate:
    limits = RateLimits(
        counts, window_ms=settings.rate_limit_window_ms, most=settings.rate_limit, metrics=metrics
    )
    files = dashboard.paths() if settings.dashboard_enabled else frozenset[str]()
    return Gate(identity, ClientAddresses(settings.trusted_proxies), limits, files)


def _mock_files(settings: ApiSettings, stores: Stores, threads: Executor) -> MockFiles | None:
    """What serves the results of mock storage, if it stands in."""
    if stores.mock is None:
        return None
    log.warning("mock storage: files are generated, results lie in a folder", folder=str(settings.mock_dir))
    return MockFiles(stores.mock, threads)


def create_app(settings: ApiSettings, drain: Drain) -> falcon.asgi.App[Any, Any]:
    """Build the app of one worker process. Opens no connection yet."""
    traces = trace_export.start(settings, PROCESS)
    last_calls = [fault_reports.start(settings, PROCESS), *([] if traces is None else [traces.close])]
    spans = Spans(None if traces is None else traces.tracer)
    metrics = ApiMetrics(CollectorRegistry())

    redis = connect_async(settings.redis, max_connections=settings.redis_max_connections)
    events_redis = connect_async(settings.redis, max_connections=EVENT_CONNECTIONS)
    counts = RateCounts(redis, window_ms=settings.rate_limit_window_ms, most=settings.rate_limit)
    jobs = spans.jobs(redis, settings.policy, counts)
    live = Live(EventStream(events_redis), JobStore(events_redis, settings.policy).epoch, drain, metrics)

    threads = spans.threads(settings.storage_threads, "storage")
    stores = open_stores(settings, connections=settings.storage_threads, public_url=settings.public_url)
    files, results = spans.stores(stores.files, stores.results)

    downloads = Downloads(
        jobs,
        files,
        results,
        threads,
        claims=ClaimStore(redis),
        metrics=metrics,
        files_prefix=settings.s3_key_prefix,
        limits=_download_limits(settings),
    )
    identity = Identity(settings.auth_mode, _tokens(settings))
    gate = _gate(settings, identity, counts, metrics)
    follower_limits = {
        "most": settings.sse_max_streams,
        "most_of_a_user": settings.sse_max_streams_per_user,
    }
    services = Services(
        downloads=downloads,
        identity=identity,
        callbacks=Callbacks(settings.webhook_public_key_file, settings.address_rules),
        waiting=Waiting(
            downloads, live, gate.admit, longest=settings.long_poll_max_seconds, **follower_limits
        ),
        streams=Streams(live, **follower_limits),
        following=Following(EventStream(redis), jobs),
        timelines=Timelines(jobs, settings.trace_url_template or ""),
        statistics=StatisticsStore(redis, jobs),
        drain=drain,
        mock_files=_mock_files(settings, stores, threads),
    )

    deadlines = Deadlines(settings.request_timeout_ms / 1000)
    lifespan = Lifespan(
        (redis, events_redis),
        threads,
        downloads=downloads,
        metrics=metrics,
        live=live,
        deadlines=deadlines,
        last_calls=last_calls,
    )
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(
        media_type=resources.JSON,
        middleware=cast("Any", [RequestContext(metrics), *spans.middleware(), gate, lifespan]),
        request_type=Request,
        router=Router(lambda responder, resource: deadlines.limited(gate.guarded(responder, resource))),
    )
    problems.install(app)
    add_routes(app, services, settings)
    return app
