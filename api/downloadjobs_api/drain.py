"""The end of a worker process, told to those who wait in it."""

from __future__ import annotations

import asyncio


class Drain:
    """Set once, as soon as the process is told to stop; then open requests have `DRAIN_SECONDS` to end.

    Long polls and event streams wait for it beside what they really wait for, and
    answer at once. All of it belongs to the event loop's thread.
    """

    def __init__(self) -> None:
        self._begun = asyncio.Event()

    @property
    def begun(self) -> bool:
        """Whether the process is stopping."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Wake everybody who waits; a second call changes nothing."""
        self._begun.set()

    async def wait(self) -> None:
        """Return when the process is told to stop, at once if it was."""
        await self._begun.wait()
