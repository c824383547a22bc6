"""How many jobs are where: what the autoscaler, the metrics and people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FIRST_SERVICE_SECONDS: Final = 10.0
"""What a job is taken to last before one has ended, as `FIRST_SERVICE_US` in the scripts has it."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A snapshot of the queue, by Redis' clock. Times are in microseconds."""

    ready: int
    delayed: int
    """Retries whose time has not come."""
    due: int
    """Retries whose time has come, and that nobody has made ready yet; and results that jobs wait for, which
    nobody has looked after for a minute."""
    leased: int
    expired: int
    """Leases that ran out, and that nobody has taken back yet."""
    parked: int
    """Jobs of users who run as many as allowed: no demand until one of those ends."""
    joined: int
    """Jobs that wait for a result which another job makes: no demand until that one ends."""
    suspended: int
    dead: int
    maintenance: int
    """Maintenance tasks that are due; calls to callback URLs that are due count as one, however many."""
    oldest_waiting_us: int
    """How long the oldest waiting job waits, since its submission."""
    oldest_dead_us: int
    service_us: int
    """The running mean of what one job takes."""
    slots: int
    """Slots of all workers that are there."""
    next_due_us: int
    """When the next retry is due; 0 without one."""
    now_us: int
    epoch: int
    """When this Redis took its first job; another after a wipe."""

    @classmethod
    def from_reply(cls, reply: Sequence[str | int]) -> Counts:
        """Read the reply of `counts.lua`."""
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return cls(**{str(name): int(number) for name, number in pairs})
