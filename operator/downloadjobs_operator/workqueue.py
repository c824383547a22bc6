"""A queue of keys whose objects are to be looked at: what was asked for twice is done once.

A key that is added while it is under way has another turn afterwards, so that nothing is
missed and no key is worked at by two at a time. One that fails comes back by itself, later and later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from downloadjobs_core import logs

FIRST_BACKOFF_SECONDS: Final = 0.5
"""After the first failure of a key: an outage of a moment is over by then. Each further one doubles it."""

LONGEST_BACKOFF_SECONDS: Final = 10.0
"""What has failed for long is back this soon after its cause is gone."""

LONGEST_REFUSED_SECONDS: Final = 300.0
"""The same for what the API server refuses: rights may be gone for good, with their namespace, and thousands
of its objects would then ask for nothing every few seconds. Waits double, so rights that were away for a
while are noticed within as long again."""

HELD_SECONDS: Final = 0.2
"""Between two looks whether work may go on."""

log = logs.logger(__name__)


class RetryError(Exception):
    """Raised by a turn whose fault is known and told: the key has another turn later.

    Attributes:
        refused: the API server refuses it, so that the key may wait for up to `LONGEST_REFUSED_SECONDS`.
    """

    def __init__(self, told: str = "", *, refused: bool = False) -> None:
        super().__init__(told)
        self.refused = refused


class WorkQueue:
    """Gives each added key a turn, `at_once` of them at a time.

    Args:
        turn: does what is due about a key. An error of it gives the key another turn later.
        at_once: turns under way, each of another key.
        may: whether turns may begin; they wait while they may not.
    """

    def __init__(
        self,
        turn: Callable[[str], Awaitable[None]],
        *,
        at_once: int,
        may: Callable[[], bool] = lambda: True,
        first_backoff_seconds: float = FIRST_BACKOFF_SECONDS,
        longest_backoff_seconds: float = LONGEST_BACKOFF_SECONDS,
    ) -> None:
        self._turn = turn
        self._at_once = at_once
        self._may = may
        self._first = first_backoff_seconds
        self._longest = longest_backoff_seconds
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._under_way: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._queued) + len(self._under_way)

    def add(self, key: str) -> None:
        """Give a key a turn soon, also one that waits after a failure."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._under_way:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def forget(self, key: str) -> None:
        """Its object is gone: it has no more turns, but for one that is under way or asked for later."""
        self._failures.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def backoff_seconds(self, failures: int, *, refused: bool = False) -> float:
        """How long to wait after this many failures of a key in a row, from 1."""
        longest = LONGEST_REFUSED_SECONDS if refused else self._longest
        return min(self._first * 2.0 ** min(failures - 1, 16), longest)

    async def run(self) -> None:
        """Give turns, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._at_once):
                    group.create_task(self._work(), name=f"reconciling {number}")
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    async def _work(self) -> None:
        # redis-py may swallow a cancellation (asyncio.wait_for of Python 3.11); it still counts.
        while not _cancelled():
            key = await self._ready.get()
            while not self._may():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(HELD_SECONDS)
            self._queued.discard(key)
            self._under_way.add(key)
            try:
                await self._turn(key)
            except RetryError as error:
                self._failed(key, refused=error.refused)
            except Exception:
                log.exception("an object could not be reconciled; it is tried again", job_id=key)
                self._failed(key)
            else:
                self._failures.pop(key, None)
            finally:
                self._under_way.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _failed(self, key: str, *, refused: bool = False) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(self.backoff_seconds(failures, refused=refused), self.add, key)


def _cancelled() -> bool:
    """Whether this task was told to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
