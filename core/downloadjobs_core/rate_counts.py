"""Counts requests in Redis, for all processes together, on an event loop.

Requests of one tick of the event loop, and those that come while a call is under
way, go to Redis in one call, and equal names are added up. Windows begin and end by
Redis' clock. Nobody waits for Redis long: what cannot be counted is let through.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import NoScriptError

from downloadjobs_core import logs
from downloadjobs_core.scripts import ROOT, AsyncScripts

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

PATIENCE_SECONDS: Final = 1.0
"""How long a count may take, from its first request. Redis answers within a millisecond, or is away."""

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
        """Tell everybody who waits; only the first time counts."""
        if self.ended:
            return
        self.uses = uses
        self.ended = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


@dataclass(slots=True)
class Ticket:
    """One request's place in its round.

    Of what its name had used when the round was counted (`round.uses[name].used`), the requests that
    came after this one are no part: `round.numbers[name] - place`.
    """

    name: str
    round: Round
    place: int


class RateCounts:
    """The counts of one worker process.

    Reads of others can take a round along in their own pipeline (`board`), which costs a fraction of a
    call. A name that has spent its window is refused from memory until the window ends: whoever
    goes on asking costs Redis nothing.

    Attributes:
        available: whether Redis counted the last time.
    """

    def __init__(self, redis: Redis, *, window_ms: int, most: int) -> None:
        self._scripts = AsyncScripts(redis)
        self._window_ms = window_ms
        self._most = most
        self._round: Round | None = None
        self._counting: asyncio.Task[None] | None = None
        self._carried = False
        self._spent: dict[str, float] = {}
        self._away_until = 0.0
        self.available = True

    def take(self, name: str) -> Ticket | None:
        """Count a request; its round tells how it went. None if Redis is left alone now."""
        spent = self._spent.get(name)
        if spent is not None:
            left = spent - time.monotonic()
            if left > 0:
                return self._refused(name, left)
            del self._spent[name]
        waiting = self._round
        if waiting is None:
            under_way = self._carried or self._counting is not None
            if not self.available and (under_way or time.monotonic() < self._away_until):
                return None
            waiting = self._round = Round()
            asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._give_up, waiting)
            if not under_way:
                self._start()
        numbers = waiting.numbers
        place = numbers[name] = numbers.get(name, 0) + 1
        return Ticket(name, waiting, place)

    def _refused(self, name: str, left: float) -> Ticket:
        told = Round()
        told.numbers[name] = 1
        told.end({name: Use(self._most + 1, round(left * 1000))})
        return Ticket(name, told, 1)

    def board(self, pipeline: Pipeline) -> Round | None:
        """Have a pipeline take the waiting round along, if there is one, as its last command.

        Until `alight`, which must follow, what comes waits for the next `board`.
        """
        self._carried = True
        taken = self._leave()
        if taken is not None:
            arguments = self._arguments(taken)
            _ = pipeline.evalsha(self._scripts.digest("rate"), 1, ROOT, *arguments)
        return taken

    def landed(self, taken: Round, reply: Any) -> None:  # noqa: ANN401 - Redis' reply, or an error
        """Tell a round what its pipeline brought."""
        if isinstance(reply, NoScriptError):
            self._start(again=taken)
        else:
            self._settle(taken, reply)

    def alight(self) -> None:
        """No pipeline comes after this one: what waits goes by itself."""
        self._carried = False
        if self._round is not None and self._counting is None:
            self._start()

    def _leave(self) -> Round | None:
        taken, self._round = self._round, None
        return taken

    def _start(self, again: Round | None = None) -> None:
        self._counting = asyncio.get_running_loop().create_task(self._count_all(again))

    async def _count_all(self, taken: Round | None) -> None:
        """Count until nobody waits: what comes meanwhile goes out together after that."""
        try:
            if taken is None:
                await asyncio.sleep(
                    0
                )  # everybody comes who comes in this tick, and a read may take them along
                taken = None if self._carried else self._leave()
            while taken is not None:
                self._settle(taken, await self._call(taken))
                taken = None if self._carried else self._leave()
        finally:
            # Whatever happened, nobody is left waiting, and the next who comes starts a new one.
            self._counting = None
            if taken is not None:
                taken.end(None)

    def _arguments(self, taken: Round) -> list[str | int]:
        arguments: list[str | int] = [self._window_ms]
        for pair in taken.numbers.items():
            arguments += pair
        return arguments

    async def _call(self, taken: Round) -> Any:  # noqa: ANN401 - Redis' reply, or an error
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._scripts.run("rate", *self._arguments(taken))
        except Exception as error:  # noqa: BLE001 - whatever it is, requests go on
            return error

    def _give_up(self, waiting: Round) -> None:
        """End a round that was not counted in time, whether or not it has left."""
        if waiting.ended:
            return
        if self._round is waiting:
            self._round = None
        self._settle(waiting, TimeoutError("it took too long"))

    def _settle(self, taken: Round, reply: Any) -> None:  # noqa: ANN401 - Redis' reply, or an error
        if isinstance(reply, BaseException):
            self._away_until = time.monotonic() + PAUSE_SECONDS
            if self.available:
                self.available = False
                log.warning("requests are not limited: redis does not count", error=str(reply))
            taken.end(None)
            return
        if not self.available:
            self.available = True
            log.info("requests are limited again")
        uses = {
            name: Use(used, left)
            for name, used, left in zip(taken.numbers, reply[::2], reply[1::2], strict=True)
        }
        self._remember(uses)
        taken.end(uses)

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
