"""`GET /v1/stats`: how the queue does. `docs/dashboard.md` shows an answer."""

from __future__ import annotations

from typing import Any

import falcon.asgi

from downloadjobs_api.identity import Identity
from downloadjobs_api.request_context import Request
from downloadjobs_api.resources import send_json
from downloadjobs_core.job import rfc3339
from downloadjobs_core.statistics import Statistics, StatisticsStore


def stats_document(found: Statistics) -> dict[str, Any]:
    """The answer. Times are in seconds; of other users it tells nothing but sums."""
    return {
        "at": rfc3339(found.now_us),
        "waiting": found.waiting,
        "running": found.running,
        "slots": found.slots,
        "finishedPerMinute": round(found.finished_per_minute, 1),
        "meanServiceSeconds": round(found.mean_service_seconds, 1),
        "oldestWaitingSeconds": round(found.oldest_waiting_seconds, 1),
        "own": {"waiting": found.own_waiting, "running": found.own_running},
    }


class Stats:
    """`GET /v1/stats`, for whoever is signed in."""

    def __init__(self, statistics: StatisticsStore, identity: Identity) -> None:
        self._statistics = statistics
        self._identity = identity

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Look at the queue as it is now."""
        user = self._identity.user(req)
        resp.cache_control = ("no-store",)
        send_json(resp, stats_document(await self._statistics.read(user)))
