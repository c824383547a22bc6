"""What time it is by other machines' clocks: times that they wrote count by these, not by this machine's own.

Redis stamps a job's start and end, the API server an object's deletion. Where this
machine's clock is wrong, a deadline by it alone would come early, or never.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.jobstore import JobStore

AGREED_SECONDS: Final = 2.0
"""A smaller difference is none: an HTTP date has whole seconds, and an answer takes its time."""

SKEWED_SECONDS: Final = 30.0
"""A larger one is told: certificates, tokens and presigned URLs suffer from it as well."""

log = logs.logger(__name__)


class ServerClock:
    """A server's clock, as far as its answers told it.

    Args:
        server: its name, for the log.
        here: this machine's clock, in seconds since 1970.
    """

    def __init__(self, server: str, here: Callable[[], float] = time.time) -> None:
        self._server = server
        self._here = here
        self._ahead = 0.0
        self._told = False

    def now(self) -> float:
        """The time there, in seconds since 1970; this machine's own before it was heard."""
        return self._here() + self._ahead

    def heard(self, seconds: float) -> None:
        """Note what time it is there."""
        ahead = seconds - self._here()
        self._ahead = 0.0 if abs(ahead) <= AGREED_SECONDS else ahead
        skewed = abs(ahead) > SKEWED_SECONDS
        if skewed and not self._told:
            log.error(
                "this machine's clock and the server's differ; deadlines go by the server's. Set the clocks"
                " right",
                server=self._server,
                server_ahead_seconds=round(ahead),
            )
        elif self._told and not skewed:
            log.info("the clocks agree again", server=self._server)
        self._told = skewed

    def heard_date(self, date: str | None) -> None:
        """Note what an answer's `Date` header says, if it has one that can be read."""
        if date:
            with suppress(ValueError):
                self.heard(parsedate_to_datetime(date).timestamp())


class QueueClock(ServerClock):
    """Redis' clock, by which jobs begin and end."""

    def __init__(self, jobs: JobStore) -> None:
        super().__init__("redis")
        self._jobs = jobs

    async def measure(self) -> float:
        """Ask Redis what time it is. Raises `QueueUnavailableError`."""
        self.heard(await self._jobs.now())
        return self.now()
