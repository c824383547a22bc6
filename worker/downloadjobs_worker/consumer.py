"""Huey's consumer, made to drain: no job is lost or repeated when the process must stop.

Stock Huey 3.5.4 interrupts on SIGTERM or abandons its threads, and re-executes
itself on SIGHUP. Here SIGTERM and SIGINT both drain: nothing new is leased,
running jobs go on for `drain_seconds`, and what is left is handed back. A second
signal hands back at once. SIGHUP is ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Final

from huey.constants import WORKER_THREAD
from huey.consumer import Consumer
from huey.exceptions import ConfigurationError

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.huey_queue import LeasedHuey
from downloadjobs_core.leases import LeaseStore
from downloadjobs_worker.keeper import Keeper

HAND_BACK_SECONDS: Final = 10.0
"""How long attempts have to stop and hand back once they are told to."""

log = logs.logger(__name__)


class DrainingConsumer(Consumer):  # type: ignore[misc]  # huey has no types
    """A consumer of leased jobs in threads."""

    def __init__(
        self,
        huey: LeasedHuey,
        *,
        leases: LeaseStore,
        keeper: Keeper,
        workers: int,
        drain_seconds: float,
        worker_type: str = WORKER_THREAD,
    ) -> None:
        if worker_type != WORKER_THREAD:
            raise ConfigurationError(
                f"worker type {worker_type!r} is not supported: leases are kept by a thread of the same"
                " process, so only 'thread' is"
            )
        super().__init__(
            huey,
            workers=workers,
            periodic=False,  # with it, every process would enqueue each periodic task
            worker_type=worker_type,
            shutdown_timeout=drain_seconds,
            initial_delay=0.2,
            max_delay=2.0,  # after errors only: an idle slot waits on the wake list instead
        )
        self._leases = leases
        self._keeper = keeper
        self._signals = 0
        self.started = threading.Event()
        """Set when jobs are taken."""
        self._drain_seconds = drain_seconds

    def start(self) -> None:
        """Handle signals before the first job is leased: stock Huey does it after."""
        self._set_signal_handlers()
        super().start()
        self.started.set()

    def stop(self, graceful: bool = False) -> None:  # noqa: FBT001, FBT002 - huey's signature
        """Drain: lease nothing more, let running jobs end, hand back those that do not."""
        self.huey.closing.set()
        self.stop_flag.set()
        self._keeper.retire()
        running = len(self._keeper.held())
        log.info("draining", running=running, seconds=self._drain_seconds)
        if not self._join_workers():
            log.warning("handing back what still runs", running=len(self._keeper.held()))
            self._keeper.stop_all()
            self.shutdown_timeout = HAND_BACK_SECONDS
            if not self._join_workers():
                self._hand_back_held()
        log.info("drained")

    def _hand_back_held(self) -> None:
        """Give back, in their stead, the jobs of attempts that do not stop; their tokens fence them."""
        for hold in self._keeper.held():
            try:
                self._leases.hand_back(hold.job)
                self._leases.order_sweep()  # of what the attempt may leave, which this process' end cuts off
                log.warning("job handed back for a stuck attempt", job_id=hold.job.job_id)
            except DownloadJobsError as error:
                log.warning("a job's lease is left to run out", job_id=hold.job.job_id, error=str(error))

    def _set_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._handle_signal)
        signal.signal(signal.SIGINT, self._handle_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _handle_signal(self, signum: int, frame: FrameType | None) -> Any:  # noqa: ANN401 - huey's signature
        self._signum = signum
        self._restart, self._graceful = False, True
        self._signals += 1
        if self._signals > 1:
            # Not here: a handler may interrupt a thread that holds a lock which Redis' client needs.
            threading.Thread(target=self._stop_at_once, name="stop-at-once").start()

    def _stop_at_once(self) -> None:
        log.warning("second signal: handing back and ending now")
        self._hand_back_held()
        os._exit(0)
