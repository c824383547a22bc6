"""Goes on through faults that pass, for a while: an API that restarts, a store that is busy."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from downloadjobs_cli.deadlines import Deadline
from downloadjobs_cli.errors import TransientError
from downloadjobs_cli.output import duration

FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 10.0
LONGEST_ASKED_SECONDS: Final = 60.0
"""A Retry-After beyond is cut: a server's mistake must not make a command look dead."""

NEVER: Final = Deadline(None)

Answer = TypeVar("Answer")


def backoff_seconds(failures: int, retry_after: float | None = None, fraction: float = 0.0) -> float:
    """How long to wait after the given number of faults in a row, from 1.

    Args:
        failures: faults in a row, this one included.
        retry_after: what the server asked for; never waited less.
        fraction: 0 to 1, stretches the wait by up to a quarter, so that clients do not come back together.
    """
    own = min(FIRST_WAIT_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_WAIT_SECONDS) * (1 + fraction / 4)
    return max(own, min(retry_after or 0.0, LONGEST_ASKED_SECONDS))


class Patience:
    """Tries again while what fails may pass, until it failed for too long without a success between.

    Args:
        seconds: how long faults may go on.
        note: told once when waiting begins, and once when it was worth it.
        clock: monotonic seconds.
        sleep: waits.
    """

    def __init__(
        self,
        seconds: float,
        note: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds = seconds
        self._note = note
        self._clock = clock
        self._sleep = sleep

    def call(self, ask: Callable[[], Answer], deadline: Deadline = NEVER) -> Answer:
        """Ask until there is an answer.

        Args:
            ask: raises `TransientError` for what may pass. It must know itself how long an answer may take.
            deadline: after which no new try begins.

        Raises:
            TransientError: the fault lasted; it is the last one.
        """
        began: float | None = None
        failures = 0
        while True:
            try:
                answer = ask()
            except TransientError as error:
                now = self._clock()
                if began is None:
                    began = now
                failures += 1
                wait = backoff_seconds(failures, error.retry_after, random.random())  # noqa: S311 - jitter
                left = began + self._seconds - now
                if left <= 0 or deadline.over:
                    raise
                left = left if deadline.left is None else min(left, deadline.left)
                if failures == 1:
                    self._note(f"{error.message}\nTrying again for {duration(left)}.")
                self._sleep(min(wait, left))
                if deadline.over:
                    raise
            else:
                if began is not None:
                    self._note(f"It answers again, after {duration(self._clock() - began)}.")
                return answer
