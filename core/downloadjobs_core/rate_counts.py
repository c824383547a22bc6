"""Counts requests in Redis, for all processes together, on an event loop.

Requests of one tick of the event loop, and those that come while a call is under
way, go to Redis in one call, and equal names are added up. Windows begin and end by
Redis' clock. Nobody waits for Redis long: what cannot be counted is let through.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from downloadjobs_core import logs
from downloadjobs_core.scripts import AsyncScripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

PATIENCE_SECONDS: Final = 1.0
"""How long a count may take. Redis answers within a millisecond, or is away."""

PAUSE_SECONDS: Final = 1.0
"""After a failure Redis is left alone for so long, so that not every request waits for it."""

MOST_SPENT: Final = 10_000
"""Names that are known to have spent their window. Past that they are asked about again."""

log = logs.logger(__name__)


class Use(NamedTuple):
    """What one name has used of its window."""

    used: int
    """Requests, this one included."""
    resets_ms: int
    """When the window ends, from now."""


class Round:
    """The requests that one call counts together."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.uses: dict[str, Use] | None = None
        self.ended = False
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return once the round was counted, or could not be."""
        if not self.ended:
            # A future for each who waits: one that gives up must not cancel the others'.
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def end(self, uses: dict[str, Use] | None) -> None:
        """Tell everybody who waits."""
        self.uses = uses
        self.ended = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


@dataclass(slots=True)
class Ticket:
    """One request's place in its round."""

    name: str
    round: Round
    place: int

    @property
    def ended(self) -> bool:
        """Whether `use` can be asked."""
        return self.round.ended

    async def wait(self) -> None:
        """Return once `use` can be asked."""
        await self.round.wait()

    def use(self) -> Use | None:
        """What the name had used when this request was counted; None if it could not be counted."""
        uses = self.round.uses
        if uses is None:
            return None
        used, resets_ms = uses[self.name]
        return Use(used - self.round.numbers[self.name] + self.place, resets_ms)


class RateCounts:
    """The counts of one worker process.

    A name that has spent its window is refused from memory until the window ends: whoever goes on
    asking costs Redis nothing.

    Attributes:
        available: whether Redis counted the last time.
    """

    def __init__(self, redis: Redis, *, window_ms: int, most: int) -> None:
        self._scripts = AsyncScripts(redis)
        self._window_ms = window_ms
        self._most = most
        self._round: Round | None = None
        self._counting: asyncio.Task[None] | None = None
        self._spent: dict[str, float] = {}
        self._away_until = 0.0
        self.available = True

    def take(self, name: str) -> Ticket | None:
        """Count a request; the ticket tells how it went. None if Redis is left alone now."""
        spent = self._spent.get(name)
        if spent is not None:
            left = spent - time.monotonic()
            if left > 0:
                return self._refused(name, left)
            del self._spent[name]
        waiting = self._round
        if waiting is None:
            if not self.available and time.monotonic() < self._away_until:
                return None
            waiting = self._round = Round()
            if self._counting is None:
                # It begins at the next tick, when everybody who comes in this one has come.
                self._counting = asyncio.get_running_loop().create_task(self._count_all())
        numbers = waiting.numbers
        place = numbers[name] = numbers.get(name, 0) + 1
        return Ticket(name, waiting, place)

    def _refused(self, name: str, left: float) -> Ticket:
        told = Round()
        told.numbers[name] = 1
        told.end({name: Use(self._most + 1, round(left * 1000))})
        return Ticket(name, told, 1)

    async def _count_all(self) -> None:
        """Count until nobody waits: what comes meanwhile goes out together after that."""
        taken: Round | None = None
        try:
            while self._round is not None:
                taken, self._round = self._round, None
                taken.end(await self._count(taken.numbers))
        finally:
            # Whatever happened, nobody is left waiting, and the next who comes starts a new one.
            self._counting = None
            for left in (taken, self._round):
                if left is not None and not left.ended:
                    left.end(None)
            self._round = None

    async def _count(self, numbers: dict[str, int]) -> dict[str, Use] | None:
        if not self.available and time.monotonic() < self._away_until:
            return None
        arguments = [text for pair in numbers.items() for text in pair]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reply: list[int] = await self._scripts.run("rate", self._window_ms, *arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, requests go on
            self._away_until = time.monotonic() + PAUSE_SECONDS
            if self.available:
                self.available = False
                log.warning("requests are not limited: redis does not count", error=str(error) or "too slow")
            return None
        if not self.available:
            self.available = True
            log.info("requests are limited again")
        uses = {
            name: Use(used, left) for name, used, left in zip(numbers, reply[::2], reply[1::2], strict=True)
        }
        self._remember(uses)
        return uses

    def _remember(self, uses: dict[str, Use]) -> None:
        most = self._most
        for name, (used, left_ms) in uses.items():
            if used >= most:
                self._spent[name] = time.monotonic() + left_ms / 1000
        if len(self._spent) > MOST_SPENT:
            now = time.monotonic()
            self._spent = {name: until for name, until in self._spent.items() if until > now}
            if len(self._spent) > MOST_SPENT:
                self._spent.clear()
