"""How the queue does, for people: what waits and runs, and how many jobs end a minute."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.leases import SECOND_US, translated_errors
from downloadjobs_core.scripts import ROOT

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from downloadjobs_core.counts import Counts

FADE_US: Final = 60_000_000
"""As `finish.lua` has it: an end of a job weighs 1/e after so long, so that their sum is a rate a minute."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """A look at the whole queue, and at one user's part of it."""

    waiting: int
    """Jobs that are to start: ready, for a retry, parked because their user runs as many as allowed, or
    joined to another that makes the same result."""
    running: int
    slots: int
    """Slots of all workers that are there."""
    finished_per_minute: float
    """Jobs of all users that ended with an outcome: a sum that fades, with the last minute's weight."""
    mean_service_seconds: float
    """The running mean of what one job takes."""
    oldest_waiting_seconds: float
    own_waiting: int
    own_running: int
    now_us: int
    """By Redis' clock."""


class StatisticsStore:
    """Reads them: two calls, neither of which grows with the number of jobs."""

    def __init__(self, redis: Redis, jobs: JobStore) -> None:
        self._redis = redis
        self._jobs = jobs

    async def read(self, user: str) -> Statistics:
        """How things are now.

        Raises:
            QueueUnavailableError
        """
        counts, (ended, own_waiting, own_running) = await asyncio.gather(
            self._jobs.counts(), self._read_rest(user)
        )
        put_aside = counts.delayed + counts.parked + counts.joined
        return Statistics(
            waiting=counts.ready + put_aside + counts.due + counts.expired,
            running=counts.leased,
            slots=counts.slots,
            finished_per_minute=rate(ended, counts),
            mean_service_seconds=counts.service_us / SECOND_US,
            oldest_waiting_seconds=counts.oldest_waiting_us / SECOND_US,
            own_waiting=int(own_waiting or 0),
            own_running=int(own_running or 0),
            now_us=counts.now_us,
        )

    async def _read_rest(self, user: str) -> tuple[Sequence[str | None], str | None, str | None]:
        with translated_errors():
            pipeline = self._redis.pipeline(transaction=False)
            _ = pipeline.hmget(f"{ROOT}:queue", "finished", "finished_us")
            _ = pipeline.hget(f"{ROOT}:waiting_by_user", user)
            _ = pipeline.hget(f"{ROOT}:running_by_user", user)
            ended, waiting, running = await pipeline.execute()
        return cast("Sequence[str | None]", ended), waiting, running


def rate(ended: Sequence[str | None], counts: Counts) -> float:
    """The sum of ends as it has faded until now.

    Args:
        ended: the fields `finished` and `finished_us` of the queue's hash; None before the first end.
        counts: whose time is now.
    """
    total, since_us = float(ended[0] or 0), int(ended[1] or 0)
    return total * math.exp(min(0, since_us - counts.now_us) / FADE_US)
