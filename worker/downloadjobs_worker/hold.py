"""What an attempt and the keeper share about one leased job."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum, auto

from downloadjobs_core.errors import LeaseLostError
from downloadjobs_core.job import Job
from downloadjobs_worker.stages import StageLog
from downloadjobs_worker.storage_watch import StorageWatch


class HandBackRequested(Exception):  # noqa: N818 - no error: the process drains, and the job goes back
    """Raised in an attempt whose process must stop before the job is done."""


class Joined(Exception):  # noqa: N818 - no error: another attempt makes the same result
    """Raised in an attempt whose lease has ended: its job waits for another's result."""


class Stop(Enum):
    """Why an attempt must stop."""

    LEASE_LOST = auto()
    DRAIN = auto()


@dataclass(slots=True)
class Progress:
    """Counters that the attempt advances and the keeper writes down. Bytes are of members, not of the zip."""

    files_done: int = 0
    bytes_done: int = 0
    bytes_total: int = 0

    def snapshot(self) -> tuple[int, int, int]:
        """Files done, bytes done, bytes in all."""
        return self.files_done, self.bytes_done, self.bytes_total


@dataclass(slots=True)
class Hold:
    """One leased job while this process works on it."""

    job: Job
    progress: Progress = field(default_factory=Progress)
    stages: StageLog = field(default_factory=StageLog)
    storage: StorageWatch | None = None
    """Asked whether storage as a whole is away, for then a call waits for it; None: no call waits."""
    _stopped: threading.Event = field(default_factory=threading.Event)
    _stop: Stop | None = None
    _reason: str = ""

    def stop(self, why: Stop, reason: str = "") -> None:
        """Ask the attempt to stop. A lost lease outweighs a drain: there is nothing to hand back."""
        if self._stop is not Stop.LEASE_LOST:
            self._stop, self._reason = why, reason
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether the attempt must stop."""
        return self._stopped.is_set()

    def raise_if_stopped(self) -> None:
        """Raise `LeaseLostError` or `HandBackRequested` if the attempt must stop."""
        if self._stopped.is_set():
            if self._stop is Stop.LEASE_LOST:
                raise LeaseLostError(self.job.job_id, self._reason)
            raise HandBackRequested

    def sleep(self, seconds: float) -> None:
        """Wait, but not past a stop. Raises what `raise_if_stopped` raises."""
        self._stopped.wait(seconds)
        self.raise_if_stopped()
