"""The API's composition root: settings in, a Falcon app out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, cast

import falcon.asgi
from prometheus_client import CollectorRegistry

from downloadjobs_api import openapi, problems, reference, resources
from downloadjobs_api.claims import Claims
from downloadjobs_api.downloads import DownloadLimits, Downloads
from downloadjobs_api.identity import Identity
from downloadjobs_api.jobs import JobDetail
from downloadjobs_api.metrics import ApiMetrics
from downloadjobs_api.mock_files import MockFiles
from downloadjobs_api.operation_table import OPERATIONS
from downloadjobs_api.request_context import Request, RequestContext
from downloadjobs_api.settings import ApiSettings
from downloadjobs_core import logs
from downloadjobs_core.claims import ClaimStore
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.objectstore.factory import open_stores
from downloadjobs_core.redis_client import connect_async

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from downloadjobs_api.drain import Drain

FLUSH_SECONDS: Final = 1.0
"""How old what `/metrics` tells of requests may be; scrapes come every 15 s or so."""

CHECK_SECONDS: Final = 15.0
"""How often a server is asked at the start until it answers."""

log = logs.logger(__name__)


class Lifespan:
    """Falcon middleware: looks at the servers at the start, and closes what the process opened."""

    def __init__(
        self,
        redis: Redis,
        threads: ThreadPoolExecutor,
        downloads: Downloads,
        metrics: ApiMetrics,
        *,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._redis = redis
        self._threads = threads
        self._downloads = downloads
        self._metrics = metrics
        self._check_seconds = check_seconds
        self._tasks: list[asyncio.Task[None]] = []

    async def process_startup(self, _scope: dict[str, Any], _event: dict[str, Any]) -> None:
        """Say in the log which server cannot be used, and when it can; requests are taken meanwhile."""
        self._tasks = [asyncio.create_task(self._check()), asyncio.create_task(self._flush())]

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._metrics.flush()

    async def _check(self) -> None:
        """Until each server was reached once. A fault is told once, however long it lasts."""
        checks = {"queue": self._downloads.check_queue, "storage": self._downloads.check_storage}
        told = dict[str, str]()
        while checks:
            for server, check in list(checks.items()):
                try:
                    await check()
                except (DownloadJobsError, TimeoutError) as error:
                    fault = str(error) or "it did not answer in time"
                    if fault != told.get(server):
                        log.warning("not ready", server=server, error=fault)
                    told[server] = fault
                else:
                    del checks[server]
                    if server in told:
                        log.info("ready again", server=server)
            if checks:
                await asyncio.sleep(self._check_seconds)

    async def process_shutdown(self, _scope: dict[str, Any], _event: dict[str, Any]) -> None:
        """Close connections and threads; requests have ended by now."""
        for task in self._tasks:
            task.cancel()
        self._metrics.flush()
        await self._redis.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)


def create_app(settings: ApiSettings, drain: Drain) -> falcon.asgi.App[Any, Any]:
    """Build the app of one worker process. Opens no connection yet."""
    metrics = ApiMetrics(CollectorRegistry())
    redis = connect_async(settings.redis, max_connections=settings.redis_max_connections)
    threads = ThreadPoolExecutor(settings.storage_threads, thread_name_prefix="storage")
    stores = open_stores(settings, connections=settings.storage_threads, public_url=settings.public_url)
    delayed = settings.download_delay_enabled
    downloads = Downloads(
        JobStore(redis, settings.policy),
        stores.files,
        stores.results,
        threads,
        claims=ClaimStore(redis),
        metrics=metrics,
        files_prefix=settings.s3_key_prefix,
        limits=DownloadLimits(
            max_attempts=settings.max_attempts,
            priority_ceilings=settings.priority_ceilings,
            presign_seconds=settings.presign_seconds,
            storage_timeout_seconds=settings.request_timeout_ms / 1000,
            start_delay_ms=(settings.download_delay_min_ms, settings.download_delay_max_ms)
            if delayed
            else (0, 0),
        ),
    )
    identity = Identity(settings.auth_mode)

    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(
        media_type=resources.JSON,
        middleware=cast("Any", [RequestContext(metrics), Lifespan(redis, threads, downloads, metrics)]),
        request_type=Request,
    )
    problems.install(app)
    app.add_route("/", resources.Root(settings.root_message))
    app.add_route("/health", resources.Health(downloads, mock_storage=stores.mock is not None))
    app.add_route("/livez", resources.Livez())
    app.add_route("/readyz", resources.Readyz(downloads, drain))
    app.add_route("/v1/download/initiate", resources.Initiate(downloads, identity))
    app.add_route("/v1/download/status/{job_id}", resources.Status(downloads, identity))
    app.add_route("/v1/download/result/{job_id}", resources.Result(downloads, identity))
    app.add_route("/v1/download/check", resources.Check(downloads))
    app.add_route(
        "/v1/download/start", resources.Start(downloads, identity, anonymous=settings.anonymous_start)
    )
    app.add_route("/v1/claims", Claims(downloads))
    app.add_route("/v1/jobs/{job_id}", JobDetail(downloads, identity))
    reference.add_routes(
        app, openapi.document(OPERATIONS, settings.auth_mode, anonymous_start=settings.anonymous_start)
    )
    if stores.mock is not None:
        log.warning(
            "mock storage: files are generated, results lie in a folder", folder=str(settings.mock_dir)
        )
        app.add_route("/v1/mock/{token}", MockFiles(stores.mock, threads))
    return app
