"""Scripts of many callers in one pipeline: fewer trips, and everybody's reply their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.pipelining import PipelinedScripts
from downloadjobs_core.redis_client import RedisConfig, connect_async

Found = TypeVar("Found")

WINDOW_MS = 60_000


def with_redis(url: str, look: Callable[[redis.asyncio.Redis], Awaitable[Found]]) -> Found:
    """Run something with a client, and close that."""

    async def run() -> Found:
        client = connect_async(RedisConfig(url), max_connections=4)
        try:
            return await asyncio.wait_for(look(client), 30)
        finally:
            await client.aclose()

    return asyncio.run(run())


async def messages(client: redis.asyncio.Redis) -> int:
    """How often Redis read from a socket so far; commands of one pipeline come in one piece."""
    return int((await client.info("stats"))["total_reads_processed"])


def test_each_caller_gets_its_own_reply(valkey: ValkeyServer) -> None:
    """Of scripts that go out together, each caller has the reply to its own, also the first time."""

    async def look(client: redis.asyncio.Redis) -> None:
        scripts = PipelinedScripts(client)
        for times in (1, 2):  # at first Redis does not know the script
            replies = await asyncio.gather(
                *(scripts.run("rate", WINDOW_MS, f"name-{number}", number) for number in range(1, 9))
            )
            assert [used for used, _ in replies] == [times * number for number in range(1, 9)]

    with_redis(valkey.url, look)


def test_calls_of_one_moment_are_one_message(valkey: ValkeyServer) -> None:
    """Calls of one tick are one message to Redis, and those that come while it is under way one more."""

    async def look(client: redis.asyncio.Redis) -> None:
        scripts = PipelinedScripts(client)
        await scripts.run("rate", WINDOW_MS, "known", 1)
        before = await messages(client)
        at_once = [asyncio.ensure_future(scripts.run("rate", WINDOW_MS, "a", 1)) for _ in range(45)]
        for _ in range(3):
            await asyncio.sleep(0)
        under_way = [asyncio.ensure_future(scripts.run("rate", WINDOW_MS, "b", 1)) for _ in range(45)]
        await asyncio.gather(*at_once, *under_way)
        # Reading the statistics takes one message too.
        assert await messages(client) - before <= 3

    with_redis(valkey.url, look)


def test_a_refused_call_is_an_error_of_its_own(valkey: ValkeyServer) -> None:
    """A script that fails fails who called it, and neither those beside it nor later ones."""

    async def look(client: redis.asyncio.Redis) -> None:
        scripts = PipelinedScripts(client)
        for _ in range(2):
            replies = await asyncio.gather(
                *(scripts.run("rate", WINDOW_MS, "name", number) for number in (1, "no number", 1)),
                return_exceptions=True,
            )
            assert [isinstance(reply, ResponseError) for reply in replies] == [False, True, False], replies

    with_redis(valkey.url, look)


def test_a_caller_that_gives_up_takes_nobody_along(valkey: ValkeyServer) -> None:
    """A cancelled call leaves the others their replies, and what it had asked for is done."""

    async def look(client: redis.asyncio.Redis) -> None:
        scripts = PipelinedScripts(client)
        first = asyncio.ensure_future(scripts.run("rate", WINDOW_MS, "name", 1))
        second = asyncio.ensure_future(scripts.run("rate", WINDOW_MS, "name", 1))
        await asyncio.sleep(0)
        first.cancel()
        used, _ = await second
        assert used == 2
        with pytest.raises(asyncio.CancelledError):
            await first

    with_redis(valkey.url, look)


def test_without_redis_everybody_is_told() -> None:
    """When Redis cannot be reached each caller gets the error, none hangs, and the next one is told too."""

    async def look(client: redis.asyncio.Redis) -> None:
        scripts = PipelinedScripts(client)
        for _ in range(2):
            results = await asyncio.gather(
                *(scripts.run("rate", WINDOW_MS, "name", 1) for _ in range(3)), return_exceptions=True
            )
            assert all(isinstance(result, RedisConnectionError) for result in results), results

    with_redis("redis://127.0.0.1:1", look)
