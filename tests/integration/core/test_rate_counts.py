"""Counts of requests in Redis: exact, in few calls, and never in the way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import redis.asyncio

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.leases import QueuePolicy
from downloadjobs_core.rate_counts import PATIENCE_SECONDS, RateCounts, Ticket
from downloadjobs_core.redis_client import RedisConfig, connect_async
from support_servers import killed_after

Found = TypeVar("Found")


def with_redis(server: ValkeyServer, look: Callable[[redis.asyncio.Redis], Awaitable[Found]]) -> Found:
    """Run something with a client, and close that."""

    async def run() -> Found:
        client = connect_async(RedisConfig(server.url), max_connections=8)
        try:
            return await look(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


async def used(ticket: Ticket | None) -> int | None:
    """Which number a request got; None if it could not be counted."""
    assert ticket is not None
    await ticket.round.wait()
    uses = ticket.round.uses
    return None if uses is None else uses[ticket.name].used - ticket.round.numbers[ticket.name] + ticket.place


async def calls(client: redis.asyncio.Redis) -> int:
    """How often Redis ran a script, those that it did not know included."""
    stats = await client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_a_full_redis_counts(valkey: ValkeyServer) -> None:
    """Whoever fills Redis is limited still: a count takes next to no memory, and is soon gone."""

    async def look(client: redis.asyncio.Redis) -> None:
        counts = RateCounts(client, window_ms=60_000, most=1000)
        await client.config_set("maxmemory", "1")
        try:
            assert [await used(counts.take("name")) for _ in range(3)] == [1, 2, 3]
        finally:
            await client.config_set("maxmemory", "0")

    with_redis(valkey, look)


def test_requests_of_one_tick_are_one_call(valkey: ValkeyServer) -> None:
    """A hundred requests of four names go to Redis once, and each has a number of its own."""

    async def look(client: redis.asyncio.Redis) -> None:
        counts = RateCounts(client, window_ms=60_000, most=1000)
        await used(counts.take("first"))  # the script is known now
        before = await calls(client)
        numbers = await asyncio.gather(*(used(counts.take(f"n{n % 4}")) for n in range(100)))
        assert await calls(client) == before + 1
        assert sorted(filter(None, numbers)) == sorted(list(range(1, 26)) * 4)

    with_redis(valkey, look)


def test_reads_of_statuses_take_counts_along(valkey: ValkeyServer) -> None:
    """A count that comes with a status is in the same pipeline: the server reads once for both."""

    async def look(client: redis.asyncio.Redis) -> None:
        counts = RateCounts(client, window_ms=60_000, most=1000)
        jobs = JobStore(client, QueuePolicy(), counts)

        async def ask() -> int | None:
            ticket = counts.take("ada")
            assert await jobs.status("none") is None
            return await used(ticket)

        assert await ask() == 1  # the script was not known: it goes again, by itself, and counts once
        assert await asyncio.gather(*(ask() for _ in range(50))) == list(range(2, 52))
        reads = int((await client.info("stats"))["total_reads_processed"])
        assert await asyncio.gather(*(ask() for _ in range(50))) == list(range(52, 102))
        assert int((await client.info("stats"))["total_reads_processed"]) <= reads + 2  # and INFO itself
        assert await used(counts.take("ada")) == 102  # alone again

    with_redis(valkey, look)


def test_a_window_ends(valkey: ValkeyServer) -> None:
    """A name that has spent its window is refused without Redis, and begins anew after it."""

    async def look(client: redis.asyncio.Redis) -> None:
        counts = RateCounts(client, window_ms=1_000, most=2)
        assert [await used(counts.take("ada")) for _ in range(2)] == [1, 2]
        before = await calls(client)
        assert [await used(counts.take("ada")) for _ in range(20)] == [3] * 20
        assert await calls(client) == before
        until = time.monotonic() + 10
        while (number := await used(counts.take("ada"))) != 1:
            assert number == 3
            assert time.monotonic() < until
            await asyncio.sleep(0.05)

    with_redis(valkey, look)


def test_a_counter_without_an_end_gets_one(valkey: ValkeyServer) -> None:
    """A key that would stay for ever, or longer than the window is now, is given the window's end."""

    async def look(client: redis.asyncio.Redis) -> None:
        await client.set("{downloadjobs}:rate:ever", 5)
        await client.set("{downloadjobs}:rate:long", 5, ex=86_400)
        counts = RateCounts(client, window_ms=60_000, most=100)
        for name in ("ever", "long"):
            assert await used(counts.take(name)) == 6
            assert 0 < await client.pttl("{downloadjobs}:rate:" + name) <= 60_000

    with_redis(valkey, look)


def test_a_redis_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """Requests go on after a second at most, at once from then on, and are counted when it is back."""
    with killed_after(ValkeyServer(tmp_path)) as server:
        pid = server.pid

        async def look(client: redis.asyncio.Redis) -> None:
            counts = RateCounts(client, window_ms=60_000, most=100)
            assert await used(counts.take("ada")) == 1
            os.kill(pid, signal.SIGSTOP)
            try:
                started = time.monotonic()
                assert await used(counts.take("ada")) is None
                assert time.monotonic() - started < PATIENCE_SECONDS + 2
                assert counts.take("ada") is None
                assert not counts.available
            finally:
                os.kill(pid, signal.SIGCONT)
            until = time.monotonic() + 20
            while not counts.available:
                assert time.monotonic() < until
                ticket = counts.take("ada")
                if ticket is not None:
                    await ticket.round.wait()
                await asyncio.sleep(0.05)

        with_redis(server, look)
