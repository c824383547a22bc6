"""Finds what was missed, and mends it: after a start, a wipe of Redis, or a reader that fell behind.

Changes are pushed, by the watch and by the stream of events. This compares all
that is unfinished with its record, slowly, and at once when something says that
changes may have been missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError, QueueUnavailableError
from downloadjobs_operator.kube_client import KubernetesError
from downloadjobs_operator.mirroring import StatusMirror
from downloadjobs_operator.reconciling import Reconciler
from downloadjobs_operator.tracking import Tracked, Tracking

AT_ONCE: Final = 16
"""Objects reconciled at the same time."""

RETRY_SECONDS: Final = 5.0

WAITING_SECONDS: Final = 30.0
"""Between two looks at waiting jobs, whose places in the queue change without any event of their own."""

WAITING_BATCH: Final = 1_000
"""Waiting jobs looked at each time, in turn."""

QUOTA_BATCH: Final = 20
"""Refused submissions tried again when a job of their namespace makes room."""

log = logs.logger(__name__)


class Repairs:
    """Reconciles objects in the background, and decides which need it."""

    def __init__(
        self,
        tracking: Tracking,
        reconciler: Reconciler,
        mirror: StatusMirror,
        *,
        every_seconds: float,
    ) -> None:
        self._tracking = tracking
        self._reconciler = reconciler
        self._mirror = mirror
        self._every_seconds = every_seconds
        self._asked: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._now = asyncio.Event()
        self._turn: deque[str] = deque()

    def ask(self, tracked: Tracked) -> None:
        """Have an object reconciled soon."""
        if tracked.dj.uid not in self._queued:
            self._queued.add(tracked.dj.uid)
            self._asked.put_nowait(tracked.dj.uid)

    def look_at_all(self) -> None:
        """Compare everything now: changes may have been missed."""
        self._now.set()

    def made_room(self, namespace: str) -> None:
        """A job of a namespace began or ended, so one that was refused for its number may be let in."""
        refused = (self._tracking.get(uid) for uid in self._reconciler.turned_away(namespace))
        waiting = (one for one in refused if one is not None and not one.going)
        for tracked in islice(waiting, QUOTA_BATCH):
            self.ask(tracked)

    async def run(self) -> None:
        """Compare, in intervals and when asked, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._reconcile_asked(), name="repair")
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
            if not tracked.finished:
                self.ask(tracked)

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

    async def _reconcile_asked(self) -> None:
        # redis-py may swallow a cancellation (asyncio.wait_for of Python 3.11); it still counts.
        while not _cancelled():
            uid = await self._asked.get()
            self._queued.discard(uid)
            tracked = self._tracking.get(uid)
            if tracked is None:
                continue
            try:
                await self._reconciler.reconcile(tracked)
            except (DownloadJobsError, KubernetesError) as error:
                level = log.debug if isinstance(error, QueueUnavailableError) else log.warning
                level(
                    "an object could not be reconciled; it is tried again",
                    name=tracked.dj.name,
                    error=str(error),
                )
                await asyncio.sleep(RETRY_SECONDS)
                self.ask(tracked)
            except Exception:
                log.exception("an object could not be reconciled", name=tracked.dj.name)


def _cancelled() -> bool:
    """Whether this task was told to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
