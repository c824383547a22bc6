"""The autoscaler's side of the queue: who works, and fences around those that shall go.

A pod is removed only while it is fenced, and it is fenced only while it holds no
lease; the pop asks for the fence in its own script. So no job can begin in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from downloadjobs_core.counts import Counts
from downloadjobs_core.leases import SECOND_US, translated_errors
from downloadjobs_core.scripts import ROOT, AsyncScripts

if TYPE_CHECKING:
    from redis.asyncio import Redis


class FenceStore:
    """Fences, leases by holder, and counts. Methods raise `QueueUnavailableError`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts = AsyncScripts(redis)

    async def counts(self) -> Counts:
        """How many jobs are where."""
        with translated_errors():
            return Counts.from_reply(await self._scripts.run("counts"))

    async def holders(self) -> dict[str, int]:
        """How many live leases each process holds, by its holder id."""
        with translated_errors():
            reply = await self._scripts.run("holders")
        return {str(name): int(number) for name, number in zip(reply[::2], reply[1::2], strict=True)}

    async def fence(self, holders: Sequence[str], *, seconds: float) -> list[str]:
        """Fence those that hold no lease, or renew their fences; the ones that are fenced now."""
        if not holders:
            return []
        with translated_errors():
            reply = await self._scripts.run("fence", int(seconds * SECOND_US), *holders)
        return [holder for holder, fenced in zip(holders, reply, strict=True) if int(fenced)]

    async def unfence(self, holders: Sequence[str]) -> None:
        """Let them lease again."""
        if holders:
            with translated_errors():
                await self._redis.zrem(f"{ROOT}:fenced", *holders)

    async def fenced(self) -> list[str]:
        """All that are fenced, those whose fence has run out included."""
        with translated_errors():
            return [str(holder) for holder in await self._redis.zrange(f"{ROOT}:fenced", 0, -1)]
