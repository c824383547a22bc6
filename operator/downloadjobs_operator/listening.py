"""Follows the stream of job events, and notices when Redis was wiped.

The stream tells which jobs changed, not to what: their records are read when
their turn comes. So an event read twice, or late, does no harm.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.event_stream import BEGINNING, EventStream, JobEvent
from downloadjobs_core.jobstore import JobStore
from downloadjobs_operator.clocks import QueueClock

MEASURE_SECONDS: Final = 10.0
"""Between two looks at Redis' clock."""

WAIT_MS: Final = 1_000
"""How long one read waits for an event: also how soon a wipe of Redis is noticed."""

LIMIT: Final = 500
"""Events taken at a time."""

RETRY_SECONDS: Final = 1.0

log = logs.logger(__name__)


class Listener:
    """Reads events and hands each to `on_event`; calls `missed` when it may not have seen some."""

    def __init__(
        self,
        stream: EventStream,
        jobs: JobStore,
        *,
        on_event: Callable[[JobEvent], Awaitable[None]],
        missed: Callable[[], None],
        clock: QueueClock,
    ) -> None:
        self._stream = stream
        self._jobs = jobs
        self._on_event = on_event
        self._missed = missed
        self._clock = clock
        self._measured_at = -math.inf
        self._epoch: str | None = None
        self.heard_at = 0.0
        """When Redis last answered, by `time.monotonic`."""

    async def run(self) -> None:
        """Read, until cancelled. Redis may come and go meanwhile."""
        after: str | None = None
        silent = False
        while True:
            try:
                await self._measure()
                if after is None:
                    # Before everything is compared: what changes from now on is read as an event.
                    after = await self._stream.end()
                    self._missed()
                after = await self._check_epoch(after)
                events = await self._stream.read(after, wait_ms=WAIT_MS, limit=LIMIT)
                if events and await self._stream.trimmed_past(after):
                    log.warning("the stream of events was trimmed before it was read; everything is compared")
                    self._missed()
                self.heard_at = time.monotonic()
            except DownloadJobsError as error:
                if not silent:
                    log.warning("the queue cannot be read; statuses stay as they are", error=str(error))
                silent = True
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if silent:
                silent = False
                log.info("the queue is read again")
                self._missed()
            for event in events:
                after = event.entry
                await self._on_event(event)

    async def _measure(self) -> None:
        if time.monotonic() - self._measured_at >= MEASURE_SECONDS:
            await self._clock.measure()
            self._measured_at = time.monotonic()

    async def _check_epoch(self, after: str) -> str:
        """Where to read on: from the beginning, if the stream is a new one."""
        epoch = await self._jobs.epoch()
        if self._epoch is None or epoch == self._epoch:
            self._epoch = epoch
            return after
        if self._epoch:
            log.warning(
                "the queue was wiped: unfinished jobs are submitted again", epoch=epoch, before=self._epoch
            )
        self._epoch = epoch
        self._missed()
        return BEGINNING
