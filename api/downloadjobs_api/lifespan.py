"""What the process does from its start to its end, beside answering."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from downloadjobs_api.deadlines import Deadlines
from downloadjobs_api.downloads import Downloads
from downloadjobs_api.live import Live
from downloadjobs_api.metrics import ApiMetrics
from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError

if TYPE_CHECKING:
    from redis.asyncio import Redis

FLUSH_SECONDS: Final = 1.0
"""How old what `/metrics` tells of requests may be; scrapes come every 15 s or so."""

GC_THRESHOLDS: Final = (5_000, 20, 20)
"""Of the collector's generations: objects, and collections of the one before; Python has 700, 10, 10."""

CHECK_SECONDS: Final = 15.0
"""How often a server is asked at the start until it answers."""

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
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._redis = redis
        self._live = live
        self._threads = threads
        self._downloads = downloads
        self._metrics = metrics
        self._last_calls = last_calls
        self._deadlines = deadlines
        self._check_seconds = check_seconds
        self._tasks: list[asyncio.Task[None]] = []

    async def process_startup(self, _scope: dict[str, Any], _event: dict[str, Any]) -> None:
        """Say in the log which server cannot be used, and when it can; requests are taken meanwhile."""
        # Some 100,000 objects of modules and schemas stay: walking them at each full collection would
        # hold all requests up for 40 ms, several times a second. What requests make goes without it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
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
        self._live.close()
        self._metrics.flush()
        for client in self._redis:
            await client.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        # Each takes a bounded time, in which the others need not wait.
        await asyncio.gather(*(asyncio.to_thread(call) for call in self._last_calls))
