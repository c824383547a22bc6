"""Follows the stream of all job events for one process, and says when some may have been missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.event_stream import EventStream, JobEvent

WAIT_MS: Final = 1_000
"""How long one read of Redis waits for an event; also how soon a wipe is noticed."""

LIMIT: Final = 500
"""Events taken at a time."""

RETRY_SECONDS: Final = 1.0

log = logs.logger(__name__)


class EventReader:
    """Reads events and hands each to `on_event`; calls `missed` when it may not have seen some.

    Args:
        stream: read by a connection of its own, which mostly waits.
        epoch: what a wipe of Redis takes away.
        on_event: called for each event, in their order.
        missed: called after which what changes is read as an event, so that records can be compared.
    """

    def __init__(
        self,
        stream: EventStream,
        epoch: Callable[[], Awaitable[str]],
        *,
        on_event: Callable[[JobEvent], None],
        missed: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._epoch_now = epoch
        self._on_event = on_event
        self._missed = missed
        self._after: str | None = None
        self._epoch = ""
        self._looked_at = 0.0
        self._silent = False
        self.reading = asyncio.Event()
        """What changes from now on is read, or `missed` is called."""

    async def run(self, idle: Callable[[], bool]) -> None:
        """Read until nobody needs it. Redis may come and go meanwhile."""
        while not idle():
            try:
                events = await self._read()
            except Exception as error:
                self._after = None
                if not isinstance(error, DownloadJobsError):
                    log.exception("an unexpected fault")
                elif not self._silent:
                    log.warning("events cannot be read; who follows a job waits", error=str(error))
                self._silent = True
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self._silent:
                self._silent = False
                log.info("events are read again")
            for event in events:
                self._after = event.entry
                self._on_event(event)
        self._after, self._epoch = None, ""
        self.reading.clear()

    async def _read(self) -> list[JobEvent]:
        if self._after is None:
            self._after = await self._stream.end()
            if self.reading.is_set():
                self._missed()
            self.reading.set()
        if time.monotonic() - self._looked_at >= WAIT_MS / 1_000:
            before, self._epoch = self._epoch, await self._epoch_now()
            self._looked_at = time.monotonic()
            if before and self._epoch != before:
                log.warning("the queue was wiped: who follows a job is told anew")
                self._after = await self._stream.end()
                self._missed()
        events = await self._stream.read(self._after, wait_ms=WAIT_MS, limit=LIMIT)
        # Only who is far behind can have been overtaken, and then there is more than one read takes.
        if len(events) == LIMIT and await self._stream.trimmed_past(self._after):
            log.warning("events were trimmed before they were read: who follows a job is told anew")
            self._missed()
        return events
