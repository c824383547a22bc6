"""Turns of keys: one at a time for each, again when asked for meanwhile, later and later after failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from downloadjobs_operator.workqueue import RetryError, WorkQueue
from support_operator import at_work, until

Turn = Callable[[str], Awaitable[None]]


def queue(turn: Turn, *, at_once: int = 4, may: Callable[[], bool] = lambda: True) -> WorkQueue:
    """A queue whose backoff is short."""
    return WorkQueue(turn, at_once=at_once, may=may, first_backoff_seconds=0.02, longest_backoff_seconds=0.05)


def test_what_is_asked_for_twice_has_one_turn() -> None:
    """A key that waits for its turn is not added again."""

    async def test() -> None:
        turns: list[str] = []

        async def turn(key: str) -> None:
            turns.append(key)

        found = queue(turn)
        for key in ("a", "b", "a", "a"):
            found.add(key)
        async with at_work(found.run):
            assert await until(lambda: not len(found))
        assert turns == ["a", "b"]

    asyncio.run(test())


def test_a_key_has_one_turn_at_a_time() -> None:
    """A key that is added during its turn has another one after it; other keys need not wait."""

    async def test() -> None:
        under_way: list[str] = []
        turns: list[str] = []
        go = asyncio.Event()

        async def turn(key: str) -> None:
            assert key not in under_way
            under_way.append(key)
            await go.wait()
            under_way.remove(key)
            turns.append(key)

        found = queue(turn)
        async with at_work(found.run):
            found.add("a")
            assert await until(lambda: under_way == ["a"])
            found.add("a")
            found.add("a")
            found.add("b")
            assert await until(lambda: under_way == ["a", "b"])
            go.set()
            assert await until(lambda: not len(found))
        assert sorted(turns) == ["a", "a", "b"]

    asyncio.run(test())


def test_only_so_many_turns_are_under_way() -> None:
    """However many keys wait, `at_once` of them have their turn."""

    async def test() -> None:
        most = now = 0

        async def turn(_: str) -> None:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1

        found = queue(turn, at_once=3)
        for number in range(20):
            found.add(str(number))
        async with at_work(found.run):
            assert await until(lambda: not len(found))
        assert most == 3

    asyncio.run(test())


@pytest.mark.parametrize("fault", [RetryError("known"), ValueError("unknown")], ids=repr)
def test_what_fails_comes_back(fault: Exception) -> None:
    """A key whose turn fails has another by itself, until one succeeds, and the others have theirs."""

    async def test() -> None:
        turns: list[str] = []

        async def turn(key: str) -> None:
            turns.append(key)
            if key == "bad" and turns.count("bad") < 4:
                raise fault

        found = queue(turn, at_once=1)
        async with at_work(found.run):
            found.add("bad")
            found.add("good")
            assert await until(lambda: turns.count("bad") == 4)
            await asyncio.sleep(0.2)
        assert turns == ["bad", "good", "bad", "bad", "bad"]
        assert found._failures == found._timers == {}

    asyncio.run(test())


def test_backoff_doubles_up_to_a_limit() -> None:
    """Each further failure waits twice as long, but never longer than the limit."""
    found = WorkQueue(lambda _: asyncio.sleep(0), at_once=1)
    assert [found.backoff_seconds(failures) for failures in (1, 2, 3, 7, 1_000)] == [0.5, 1, 2, 10, 10]


def test_what_is_refused_waits_for_longer() -> None:
    """The waits of a key that the API server refuses double up to five minutes, those of others do not."""

    async def test() -> None:
        async def turn(key: str) -> None:
            raise RetryError(refused=key == "refused")

        found = WorkQueue(turn, at_once=1)
        found._failures.update(refused=20, other=20)
        async with at_work(found.run):
            found.add("refused")
            found.add("other")
            assert await until(lambda: len(found._timers) == 2)
            now = asyncio.get_running_loop().time()
            waits = {key: round(timer.when() - now) for key, timer in found._timers.items()}
        assert waits == {"refused": 300, "other": 10}

    asyncio.run(test())


def test_news_of_a_key_end_its_waiting() -> None:
    """A key that waits after a failure has its turn at once when it is added."""

    async def test() -> None:
        turns: list[str] = []

        async def turn(key: str) -> None:
            turns.append(key)
            if len(turns) == 1:
                raise RetryError

        found = WorkQueue(turn, at_once=1, first_backoff_seconds=60)
        async with at_work(found.run):
            found.add("a")
            assert await until(lambda: len(turns) == 1 and bool(found._timers))
            found.add("a")
            assert await until(lambda: len(turns) == 2)

    asyncio.run(test())


def test_what_is_forgotten_does_not_come_back() -> None:
    """A key that is forgotten while it waits after a failure has no further turn."""

    async def test() -> None:
        turns: list[str] = []

        async def turn(key: str) -> None:
            turns.append(key)
            raise RetryError

        found = WorkQueue(turn, at_once=1, first_backoff_seconds=0.5)
        async with at_work(found.run):
            found.add("a")
            assert await until(lambda: bool(found._timers))
            found.forget("a")
            await asyncio.sleep(0.7)
        assert turns == ["a"]

    asyncio.run(test())


def test_turns_wait_until_they_may_begin() -> None:
    """While work may not go on no turn begins, and none is lost."""

    async def test() -> None:
        turns: list[str] = []
        allowed = False

        async def turn(key: str) -> None:
            turns.append(key)

        found = queue(turn, may=lambda: allowed)
        async with at_work(found.run):
            found.add("a")
            await asyncio.sleep(0.3)
            assert turns == []
            allowed = True
            assert await until(lambda: turns == ["a"])

    asyncio.run(test())
