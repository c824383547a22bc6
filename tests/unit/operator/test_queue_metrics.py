"""The exporter of the queue: numbers that are new, or none."""

from __future__ import annotations

import asyncio
from dataclasses import fields

import pytest

from downloadjobs_core.counts import Counts
from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_operator.queue_metrics import STALE_SECONDS, STATES, QueueExporter
from support_metrics import metrics_of

COUNTS = Counts(**{field.name: number for number, field in enumerate(fields(Counts), 1)})


async def never() -> Counts:
    """Redis is away."""
    raise QueueUnavailableError


def test_a_snapshot_is_told_whole() -> None:
    """Each state's number, the ages in seconds, and the dead letters."""
    exporter = QueueExporter(never)
    exporter.update(COUNTS)
    told = metrics_of(exporter)
    for state in STATES:
        assert told.value("queue_jobs", state=state) == getattr(COUNTS, state)
    ages = {"waiting": COUNTS.oldest_waiting_us, "dead": COUNTS.oldest_dead_us}
    for state, micros in ages.items():
        assert told.value("queue_oldest_job_age_seconds", state=state) == pytest.approx(micros / 1e6)
    assert told.value("dead_jobs") == COUNTS.dead


def test_nothing_is_told_before_the_first_snapshot() -> None:
    """An operator that stands by has no numbers, and tells none; the metrics' types it does."""
    told = metrics_of(QueueExporter(never))
    assert len(told.families) == 3
    assert not any(family.samples for family in told.families.values())


def test_old_numbers_are_absent() -> None:
    """A snapshot that is too old is told no more, and a new one is."""
    now = [0.0]
    exporter = QueueExporter(never, clock=lambda: now[0])
    exporter.update(COUNTS)
    now[0] = STALE_SECONDS
    assert metrics_of(exporter).value("dead_jobs") == COUNTS.dead
    now[0] = STALE_SECONDS + 0.1
    assert metrics_of(exporter).value("dead_jobs") is None
    exporter.update(COUNTS)
    assert metrics_of(exporter).value("dead_jobs") == COUNTS.dead


def test_it_goes_on_when_redis_is_away() -> None:
    """A look that fails is followed by the next."""
    looks = 0
    third = asyncio.Event()

    async def read() -> Counts:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise QueueUnavailableError
        if looks > 2:
            third.set()
        return COUNTS

    async def main() -> None:
        exporter = QueueExporter(read, every_seconds=0)
        running = asyncio.create_task(exporter.run())
        await third.wait()
        running.cancel()
        await asyncio.wait([running])
        assert metrics_of(exporter).value("dead_jobs") == COUNTS.dead

    asyncio.run(main())
