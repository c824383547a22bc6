"""Whether and when an attempt that failed is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

JITTER: Final = 0.1
"""A retry waits up to a tenth longer, so that jobs that failed together do not come back together."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff. Durations are in seconds."""

    base_seconds: float = 5
    factor: float = 2
    cap_seconds: float = 300

    def delay_seconds(self, failures: int, random_fraction: float | None = None) -> float:
        """How long to wait after the given number of failed attempts, from 1.

        Args:
            failures: attempts that have failed, this one included.
            random_fraction: 0 to 1, drawn when not given.
        """
        fraction = random.random() if random_fraction is None else random_fraction  # noqa: S311 - jitter
        # The exponent is bounded first: a float overflows near 2**1024.
        waited = self.base_seconds * self.factor ** min(failures - 1, 64)
        return min(waited, self.cap_seconds) * (1 + JITTER * fraction)
