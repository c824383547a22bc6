"""One thread per process that keeps all its leases alive and writes their progress.

It does no other work, so busy bundling cannot starve it, and one call renews
every lease however many slots there are. By the same call it learns which
leases are lost, cancelled jobs among them.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import LeaseLostError, QueueUnavailableError
from downloadjobs_core.job import Job
from downloadjobs_core.leases import LeaseStore
from downloadjobs_worker.hold import Hold, Stop

RENEW_SECONDS: Final = 1.0
PROGRESS_SECONDS: Final = 0.5
"""How often progress is written if it changed: often enough for a live bar."""

log = logs.logger(__name__)


class Keeper:
    """Renews leases every second until it is closed."""

    def __init__(self, leases: LeaseStore, *, worker: str, slots: int) -> None:
        self.leases = leases
        self._worker = worker
        self._slots = slots
        self._holds: dict[str, Hold] = {}
        self._written: dict[str, tuple[int, int, int]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reachable = True
        self._went_round_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def close(self) -> None:
        """Stop renewing; leases that are still held run out by themselves."""
        self._closed.set()
        self._thread.join(timeout=2 * RENEW_SECONDS)
        try:
            self.leases.leave(self._worker)
        except QueueUnavailableError as error:
            log.debug("the slots of this worker are left to run out", error=str(error))

    @property
    def slots(self) -> int:
        """Jobs that this process takes at once; 0 once it takes no more."""
        return self._slots

    @property
    def silent_seconds(self) -> float:
        """Since when the thread has not gone round; Redis may be away meanwhile."""
        return time.monotonic() - self._went_round_at

    def retire(self) -> None:
        """Count this process' slots no longer: it takes no more jobs."""
        self._slots = 0

    def hold(self, job: Job) -> Hold:
        """Keep a leased job until `release`."""
        hold = Hold(job)
        with self._lock:
            self._holds[job.token] = hold
        return hold

    def release(self, hold: Hold) -> None:
        """Keep it no longer: its attempt has ended."""
        with self._lock:
            self._holds.pop(hold.job.token, None)
            self._written.pop(hold.job.token, None)

    def held(self) -> list[Hold]:
        """The jobs this process works on now."""
        with self._lock:
            return list(self._holds.values())

    def stop_all(self) -> None:
        """Ask every attempt to hand its job back."""
        for hold in self.held():
            hold.stop(Stop.DRAIN)

    def _run(self) -> None:
        renew_at = 0.0
        while not self._closed.wait(PROGRESS_SECONDS):
            self._went_round_at = time.monotonic()
            try:
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + RENEW_SECONDS - PROGRESS_SECONDS / 2
                    self._renew()
                    if not self._reachable:
                        self._reachable = True
                        log.info("redis is back", leases=len(self.held()))
                self._write_progress()
            except QueueUnavailableError as error:
                if self._reachable:
                    self._reachable = False
                    log.warning("leases cannot be renewed", error=str(error), leases=len(self.held()))
            except Exception:
                log.exception("the keeper met a fault and goes on")

    def _renew(self) -> None:
        holds = self.held()
        lost = self.leases.renew(
            ((hold.job.job_id, hold.job.token) for hold in holds), worker=self._worker, slots=self._slots
        )
        for hold, reason in zip(holds, lost, strict=True):
            if reason and not hold.stopped:
                # The attempt may have ended this very moment; then nobody looks at the stop.
                hold.stop(Stop.LEASE_LOST, f"the job is {reason} and no longer this worker's")

    def _write_progress(self) -> None:
        for hold in self.held():
            now = hold.progress.snapshot()
            stages = hold.stages.unwritten()
            if hold.stopped or (not stages.text and now == self._written.get(hold.job.token, (0, 0, 0))):
                continue
            files_done, bytes_done, bytes_total = now
            try:
                self.leases.progress(
                    hold.job,
                    files_done=files_done,
                    bytes_done=bytes_done,
                    bytes_total=bytes_total,
                    stages=stages.text,
                )
            except LeaseLostError as error:
                hold.stop(Stop.LEASE_LOST, error.reason)
            else:
                hold.stages.written(stages)
                with self._lock:
                    if hold.job.token in self._holds:
                        self._written[hold.job.token] = now
