"""The operator's health and metrics, and what its autoscaler decided, on a port of their own.

`/livez`: the process does its work. A leader whose watch is silent although the API
server answers is stuck, and is not alive; one without an API server is not helped by a restart.
`/readyz`: it works, or stands by for the one that does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from prometheus_client.registry import Collector

from downloadjobs_core import logs
from downloadjobs_core.metrics import metrics_page
from downloadjobs_operator.connection import WatchClock
from downloadjobs_operator.kube import KubernetesDownloadJobs
from downloadjobs_operator.leadership import Leadership

WATCH_SILENT_SECONDS: Final = 180.0
"""A watch that brings nothing is begun anew well within this time, which counts as heard."""

ANSWER_SECONDS: Final = 2.0
"""After which an API server counts as out of reach. The chart's probe waits 5 s for the whole page."""

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """What is looked at.

    Attributes:
        leadership: None where no Lease is asked for.
        queue_silent_seconds: for how long Redis has not answered the leader; None before its first answer.
        objects: how many DownloadJobs are known.
        silent_seconds: how long the watch may be silent.
        answer_seconds: how long the API server may take to answer.
    """

    clock: WatchClock
    cluster: KubernetesDownloadJobs
    leadership: Leadership | None
    queue_silent_seconds: Callable[[], float | None]
    objects: Callable[[], int]
    silent_seconds: float = WATCH_SILENT_SECONDS
    answer_seconds: float = ANSWER_SECONDS

    @property
    def leading(self) -> bool:
        """Whether this process does the work."""
        return self.leadership is None or self.leadership.held

    async def alive(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process does its work, and what was seen."""
        silent = self.clock.silent_seconds
        found: dict[str, Any] = {
            "leading": self.leading,
            "watchSilentSeconds": round(silent, 1) if self.clock.heard_at else None,
        }
        if not self.leading or silent <= self.silent_seconds:
            return True, {"status": "ok"} | found
        if not await self._answers():
            return True, {"status": "ok", "message": "The API server cannot be reached."} | found
        message = "The watch of DownloadJobs is silent although the API server answers."
        return False, {"status": "stuck", "message": message} | found

    async def _answers(self) -> bool:
        """Whether the API server answers in time; one that hangs is not helped by a restart either."""
        try:
            async with asyncio.timeout(self.answer_seconds):
                return await self.cluster.reachable()
        except TimeoutError:
            return False

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether it works or stands by, and what was seen."""
        silent = self.queue_silent_seconds()
        found: dict[str, Any] = {
            "leading": self.leading,
            "watching": self.clock.open > 0,
            "queueSilentSeconds": None if silent is None else round(silent, 1),
            "downloadJobs": self.objects(),
            "refused": dict(self.clock.refused),
        }
        good = not self.leading or self.clock.open > 0
        return good, {"status": "ok" if good else "starting"} | found


def create_app(
    health: Health, metrics: Collector, decisions: Callable[[], dict[str, Any]] | None = None
) -> web.Application:
    """The health pages, the metrics, and the autoscaler's last decisions, where it is at work."""

    async def livez(_: web.Request) -> web.Response:
        good, found = await health.alive()
        if not good:
            log.error("not alive", error=found["message"])
        return web.json_response(found, status=200 if good else 503)

    async def readyz(_: web.Request) -> web.Response:
        good, found = health.ready()
        return web.json_response(found, status=200 if good else 503)

    async def serve_metrics(request: web.Request) -> web.Response:
        page = metrics_page(metrics, request.headers.get("Accept", ""))
        return web.Response(body=page.body, headers={"Content-Type": page.content_type})

    async def autoscaler(_: web.Request) -> web.Response:
        if decisions is None:
            return web.json_response({"message": "WORKER_DEPLOYMENT is not set."}, status=404)
        if not health.leading:
            return web.json_response({"message": "Another operator leads, and decides."}, status=503)
        return web.json_response(decisions())

    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/healthz", livez),
            web.get("/metrics", serve_metrics),
            web.get("/autoscaler", autoscaler),
        ]
    )
    return app
