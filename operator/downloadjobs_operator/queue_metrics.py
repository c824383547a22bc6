"""The queue's metrics: how many jobs are where. One process exports them, the operator that leads.

Numbers that are old are worse than none, since an alert cannot tell them from good ones:
while Redis cannot be read, the samples are absent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from downloadjobs_core.counts import Counts
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.leases import SECOND_US
from downloadjobs_core.metrics import PREFIX

STATES: Final = (
    "ready", "delayed", "due", "leased", "expired", "parked", "joined", "suspended", "dead", "maintenance",
)  # fmt: skip
"""Where a job may be; each is a field of `Counts`."""

READ_SECONDS: Final = 5.0
"""Between two looks at the queue; more often than anybody scrapes."""

STALE_SECONDS: Final = 30.0
"""How old a snapshot may be that is exported: a few looks may fail."""


class QueueExporter(Collector):
    """Exports the last snapshot.

    Args:
        read: takes one; may raise `DownloadJobsError`.
        every_seconds: between two of them.
        clock: in seconds; tests give their own.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Counts]],
        *,
        every_seconds: float = READ_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._every_seconds = every_seconds
        self._clock = clock
        self._snapshot: tuple[Counts, float] | None = None

    def update(self, counts: Counts) -> None:
        """Here is a snapshot that was just taken."""
        self._snapshot = counts, self._clock()

    async def run(self) -> None:
        """Take snapshots, until cancelled. Whoever follows the queue says in the log that it is away."""
        while True:
            with suppress(DownloadJobsError):
                self.update(await self._read())
            await asyncio.sleep(self._every_seconds)

    def collect(self) -> Iterable[Metric]:
        """The snapshot; families without samples if there is none that is new enough."""
        jobs = GaugeMetricFamily(
            f"{PREFIX}queue_jobs", "Jobs and due maintenance tasks, by where they are.", labels=("state",)
        )
        ages = GaugeMetricFamily(
            f"{PREFIX}queue_oldest_job_age_seconds",
            "For how long the oldest one has been waiting, or dead, in seconds; 0 if there is none.",
            labels=("state",),
        )
        dead = GaugeMetricFamily(f"{PREFIX}dead_jobs", "Dead letters that nobody has dealt with.")
        if self._snapshot is not None and self._clock() - self._snapshot[1] <= STALE_SECONDS:
            counts = self._snapshot[0]
            for state in STATES:
                jobs.add_metric((state,), getattr(counts, state))
            ages.add_metric(("waiting",), counts.oldest_waiting_us / SECOND_US)
            ages.add_metric(("dead",), counts.oldest_dead_us / SECOND_US)
            dead.add_metric((), counts.dead)
        return jobs, ages, dead
