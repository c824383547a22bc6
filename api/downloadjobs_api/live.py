"""Hands each job event that Redis has to everybody in this process who follows that job, or its user's.

One reader, with a connection of its own, follows the stream of all events while there is anybody to hand them
to. Who subscribes and then reads a record misses nothing: events that the record shows already are known by
their position. When the reader may have missed some, since Redis went away, was wiped, or trimmed them first,
every subscription falls behind, as does one whose client is slow: it has to read the record again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from downloadjobs_api.drain import Drain
from downloadjobs_api.event_documents import event_chunk
from downloadjobs_api.event_reader import EventReader
from downloadjobs_api.metrics import ApiMetrics, Follower
from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_core.event_stream import EventStream, JobEvent

PENDING: Final = 256
"""Events that wait for one client, some 60 KiB. One that is further behind gets the newest state instead."""

LINGER_SECONDS: Final = 5.0
"""How long the reader goes on without anybody: a client that polls long comes back at once."""

START_SECONDS: Final = 5.0


class Heard(NamedTuple):
    """An event, and how a stream sends it."""

    event: JobEvent
    chunk: bytes


class Subscription:
    """What one client has still to be told. It belongs to the event loop's thread."""

    __slots__ = ("_pending", "_woken", "behind", "closed", "job_id", "kind", "user")

    def __init__(self, kind: Follower, job_id: str, user: str) -> None:
        self.kind = kind
        self.job_id = job_id
        """Whose events it wants; empty for all of its user's."""
        self.user = user
        self.behind = False
        """Events are missing: what the client knows must be compared with the record."""
        self.closed = False
        """The process ends, or the client has gone: nothing more comes."""
        self._pending: deque[Heard] = deque()
        self._woken = asyncio.Event()

    def push(self, heard: Heard) -> bool:
        """Add an event. False if it falls behind by that: too many wait already."""
        if self.behind:
            return True
        if len(self._pending) >= PENDING:
            self.fall_behind()
            return False
        self._pending.append(heard)
        self._woken.set()
        return True

    def fall_behind(self) -> None:
        """Forget what waits, and have the record read."""
        self._pending.clear()
        self.behind = True
        self._woken.set()

    def close(self) -> None:
        """End it."""
        self.closed = True
        self._woken.set()

    async def close_after(self, gone: Awaitable[None]) -> None:
        """End it once its client has gone, or once nobody can tell any more whether it has."""
        try:
            await gone
        finally:
            self.close()

    async def wait(self, seconds: float) -> bool:
        """Wait until there is something to take or to know; False if there was nothing for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> list[Heard]:
        """The events that wait; none if it was behind: then read the record, after this."""
        heard = list(self._pending)
        self._pending.clear()
        self.behind = False
        if not self.closed:
            self._woken.clear()
        return heard


class Live:
    """The subscriptions of one process, and the reader that serves them."""

    def __init__(
        self, stream: EventStream, epoch: Callable[[], Awaitable[str]], drain: Drain, metrics: ApiMetrics
    ) -> None:
        self._reader = EventReader(stream, epoch, on_event=self._hand_out, missed=self._all_behind)
        self._drain = drain
        self._metrics = metrics
        self._by_job: dict[str, set[Subscription]] = {}
        self._by_user: dict[str, set[Subscription]] = {}
        self._counts: Counter[Follower] = Counter()
        self._of_users: Counter[tuple[str, bool]] = Counter()
        self._reading: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._needed_at = 0.0

    @property
    def counts(self) -> Counter[Follower]:
        """How many follow, by how."""
        return self._counts

    def streams_of(self, user: str) -> int:
        """How many streams a user has open."""
        return self._of_users[user, False]

    def waits_of(self, user: str) -> int:
        """How many of a user's requests wait for news."""
        return self._of_users[user, True]

    async def subscribe(self, kind: Follower, user: str, job_id: str = "") -> Subscription:
        """Begin to collect events. Whoever reads the record after this, misses none. End it with `leave`.

        Raises:
            QueueUnavailableError: Redis does not answer.
        """
        subscription = Subscription(kind, job_id, user)
        group, name = self._group(subscription)
        group.setdefault(name, set()).add(subscription)
        self._count(subscription, 1)
        if self._drain.begun:
            subscription.close()
            return subscription
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._draining = asyncio.create_task(self._end_at_drain())
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._reader.reading.wait()
        except TimeoutError:
            self.leave(subscription)
            raise QueueUnavailableError("its events cannot be read") from None
        except asyncio.CancelledError:
            self.leave(subscription)
            raise
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """End a subscription; a second call changes nothing."""
        group, name = self._group(subscription)
        members = group.get(name, set())
        if subscription not in members:
            return
        members.discard(subscription)
        if not members:
            del group[name]
        self._count(subscription, -1)
        self._needed_at = time.monotonic()

    def _count(self, subscription: Subscription, by: int) -> None:
        kind = subscription.kind
        self._counts[kind] += by
        self._metrics.following(kind, self._counts[kind])
        user = (subscription.user, kind is Follower.WAIT)
        self._of_users[user] += by
        if not self._of_users[user]:
            del self._of_users[user]

    def _group(self, subscription: Subscription) -> tuple[dict[str, set[Subscription]], str]:
        if subscription.job_id:
            return self._by_job, subscription.job_id
        return self._by_user, subscription.user

    def close(self) -> None:
        """End the reader, with the process."""
        for task in (self._reading, self._draining):
            if task is not None:
                task.cancel()

    async def _end_at_drain(self) -> None:
        await self._drain.wait()
        for subscription in self._all():
            subscription.close()

    def _all(self) -> list[Subscription]:
        return [
            one for group in (self._by_job, self._by_user) for members in group.values() for one in members
        ]

    async def _read(self) -> None:
        await self._reader.run(self._idle)
        ended, self._draining = self._draining, None
        self._reading = None
        if ended is not None:
            ended.cancel()

    def _idle(self) -> bool:
        if self._by_job or self._by_user:
            return False
        return time.monotonic() - self._needed_at >= LINGER_SECONDS

    def _all_behind(self) -> None:
        for subscription in self._all():
            self._metrics.fell_behind(subscription.kind)
            subscription.fall_behind()

    def _hand_out(self, event: JobEvent) -> None:
        users = {event.user, event.fields.get("reader", "")}
        wanted = [*self._by_job.get(event.job_id, ()), *(s for u in users for s in self._by_user.get(u, ()))]
        if not wanted:
            return
        if not event.whole:  # an older release's script wrote it, which does not say how far the job is
            for subscription in wanted:
                subscription.fall_behind()
            return
        heard = Heard(event, event_chunk(event))
        for subscription in wanted:
            if not subscription.push(heard):
                self._metrics.fell_behind(subscription.kind)
