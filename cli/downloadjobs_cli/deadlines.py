"""The time that a user allows (`--timeout`), and the end of a command when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from downloadjobs_cli.errors import TimedOutError, TransientError
from downloadjobs_cli.output import duration

LEAST_SECONDS: Final = 0.5
"""For a request, however little time is left: who is asked at the end can still answer."""


class Deadline:
    """A span of time that begins now.

    Args:
        seconds: how long it is; None if it never ends.
        clock: monotonic seconds.
    """

    def __init__(self, seconds: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self.seconds = seconds

    @property
    def left(self) -> float | None:
        """Seconds until its end, 0 behind it; None if it never ends."""
        return None if self.seconds is None else max(self._began + self.seconds - self._clock(), 0.0)

    @property
    def request_seconds(self) -> float | None:
        """Seconds that a request which begins now may take; None if that is not limited."""
        return None if self.left is None else max(self.left, LEAST_SECONDS)

    @property
    def over(self) -> bool:
        """Whether its end has come."""
        return self.left == 0

    @property
    def span(self) -> str:
        """How long it is, for people."""
        return duration(self.seconds or 0)


@contextmanager
def in_time(deadline: Deadline) -> Iterator[None]:
    """Tell what fails because no answer came before the deadline from what fails before it.

    Raises:
        TimedOutError: the deadline has come, in place of a `TransientError`.
    """
    try:
        yield
    except TransientError as error:
        if not deadline.over:
            raise
        raise TimedOutError(f"No status came within {deadline.span}. {error.message}") from error
