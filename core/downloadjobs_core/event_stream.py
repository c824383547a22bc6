"""Reads the stream of job events, which the scripts write with every change. `docs/events.md` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from downloadjobs_core.leases import translated_errors
from downloadjobs_core.scripts import ROOT

if TYPE_CHECKING:
    from redis.asyncio import Redis

BEGINNING: Final = "0-0"
"""Before the first entry."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One change of a job."""

    entry: str
    """The entry's id in the stream, in the order of the changes."""
    job_id: str
    kind: str
    user: str
    """Empty where the entry does not say, as progress does not."""


class EventStream:
    """The stream, from where a reader stands. Methods raise `QueueUnavailableError`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def end(self) -> str:
        """The id of the newest entry, or `BEGINNING`."""
        with translated_errors():
            newest = cast("list[tuple[str, Any]]", await self._redis.xrevrange(f"{ROOT}:events", count=1))
        return newest[0][0] if newest else BEGINNING

    async def trimmed_past(self, position: str) -> bool:
        """Whether entries after a position may have been trimmed away: the entry there is gone.

        Asked after `read` gave some, so that the stream is not empty.
        """
        if position == BEGINNING:
            return False
        with translated_errors():
            oldest = cast("list[tuple[str, Any]]", await self._redis.xrange(f"{ROOT}:events", count=1))
        return bool(oldest) and _order(oldest[0][0]) > _order(position)

    async def read(self, after: str, *, wait_ms: int, limit: int) -> list[JobEvent]:
        """Entries after the one with this id; waits for the first for `wait_ms` at most."""
        with translated_errors():
            reply = await self._redis.xread({f"{ROOT}:events": after}, count=limit, block=wait_ms)
        entries = cast("list[tuple[str, dict[str, str]]]", _entries(reply))
        return [
            JobEvent(
                entry,
                fields.get("job", ""),
                fields.get("kind", ""),
                fields.get("user", ""),
            )
            for entry, fields in entries
        ]


def _order(entry: str) -> tuple[int, int]:
    time_ms, number = entry.split("-")
    return int(time_ms), int(number)


def _entries(reply: Any) -> Any:  # noqa: ANN401 - its shape depends on the protocol's version
    """Out of `[[stream, entries]]` (RESP2) or `{stream: [entries]}` (RESP3)."""
    if not reply:
        return []
    if isinstance(reply, dict):
        return next(iter(reply.values()))[0]
    return reply[0][1]
