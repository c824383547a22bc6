"""One allowance for the patches of all jobs: a token bucket."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

BURST_SECONDS: Final = 1.0
"""How much may be saved up, in seconds of the rate."""


class TokenBucket:
    """`rate` tokens a second, and a burst of as many as come in `BURST_SECONDS`."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._most = max(1.0, rate * BURST_SECONDS)
        self._tokens = self._most
        self._at = clock()

    def take(self) -> bool:
        """Take a token, if there is one."""
        self._fill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def owe(self) -> None:
        """Take a token in any case: what cannot wait is paid for by what can."""
        self._fill()
        self._tokens = max(self._tokens - 1, -self._most)

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
