"""When a process that ended by itself is started again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

QUICK_SECONDS: Final = 10.0
"""A process that lived shorter is not likely to live longer the next time."""

MAX_QUICK_RESTARTS: Final = 5

LONGEST_PAUSE_SECONDS: Final = 4.0


@dataclass(slots=True)
class Restarts:
    """Counts the quick ends of one process in a row."""

    quick: int = field(default=0)

    def pause_seconds(self, lived: float) -> float | None:
        """How long to wait before the next start; None if it should not be started again.

        Args:
            lived: how long it ran, in seconds.
        """
        self.quick = self.quick + 1 if lived < QUICK_SECONDS else 0
        if self.quick > MAX_QUICK_RESTARTS:
            return None
        return min(0.25 * 2.0**self.quick, LONGEST_PAUSE_SECONDS) if self.quick else 0.0
