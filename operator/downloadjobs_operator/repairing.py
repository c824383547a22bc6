"""Finds what was missed, and mends it: after a start, a wipe of Redis, or a reader that fell behind.

Changes are pushed, by the watch and by the stream of events. This compares all
that is unfinished with its record, slowly, and at once when something says that
changes may have been missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Final

from downloadjobs_operator.downloadjob import FINALIZER
from downloadjobs_operator.mirroring import StatusMirror
from downloadjobs_operator.tracking import Tracked, Tracking

WAITING_SECONDS: Final = 30.0
"""Between two looks at waiting jobs, whose places in the queue change without any event of their own."""

WAITING_BATCH: Final = 1_000
"""Waiting jobs looked at each time, in turn."""

QUOTA_BATCH: Final = 20
"""Refused submissions tried again when a job of their namespace makes room."""


class Repairs:
    """Decides which objects are looked at although nothing was heard of them.

    Args:
        tracking: the objects.
        mirror: compares statuses with records.
        look_at: gives an object a turn.
        turned_away: the uids of those of a namespace that were refused because too many waited.
        every_seconds: between two comparisons of everything.
    """

    def __init__(
        self,
        tracking: Tracking,
        mirror: StatusMirror,
        *,
        look_at: Callable[[Tracked], None],
        turned_away: Callable[[str], list[str]],
        every_seconds: float,
    ) -> None:
        self._tracking = tracking
        self._mirror = mirror
        self._look_at = look_at
        self._turned_away = turned_away
        self._every_seconds = every_seconds
        self._now = asyncio.Event()
        self._turn: deque[str] = deque()

    def look_at_all(self) -> None:
        """Compare everything now: changes may have been missed."""
        self._now.set()

    def made_room(self, namespace: str) -> None:
        """A job of a namespace began or ended, so one that was refused for its number may be let in."""
        refused = (self._tracking.get(uid) for uid in self._turned_away(namespace))
        waiting = (one for one in refused if one is not None and not one.going)
        for tracked in islice(waiting, QUOTA_BATCH):
            self._look_at(tracked)

    async def run(self) -> None:
        """Compare, in intervals and when asked, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_waiting(), name="places in the queue")
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._every_seconds):
                        await self._now.wait()
                self._now.clear()
                await self._compare()

    async def _compare(self) -> None:
        for tracked in self._tracking:
            # Finished ones as well: a dead letter may have been queued again, a result removed.
            self._mirror.mark(tracked)
            if tracked.going or not tracked.finished or FINALIZER not in tracked.dj.finalizers:
                self._look_at(tracked)

    async def _look_at_waiting(self) -> None:
        while True:
            await asyncio.sleep(WAITING_SECONDS)
            if not self._turn:
                self._turn.extend(one.dj.uid for one in self._tracking)
            looked = 0
            while self._turn and looked < WAITING_BATCH:
                tracked = self._tracking.get(self._turn.popleft())
                if tracked is not None and tracked.status.get("phase") == "Queued":
                    self._mirror.mark(tracked)
                    looked += 1
