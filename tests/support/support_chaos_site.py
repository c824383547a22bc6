"""The servers and worker processes of a chaos run, and what is done to them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from downloadjobs_cli.children import Child, ended
from downloadjobs_cli.embedded import LOOPBACK, SeaweedServer, ValkeyServer
from downloadjobs_cli.stack import without_addresses
from downloadjobs_core.objectstore.s3 import S3ObjectStore, connect
from support_chaos_plan import LEASE_SECONDS, Fault, PlannedFault
from support_chaos_proxy import Mode, Proxy

GRACE_SECONDS: Final = 12.0
"""ORPHAN_GRACE_SECONDS: longer than a worker is stopped in the middle of a request, which is why there is
a grace at all."""

DRAIN_SECONDS: Final = 30.0
"""For a worker to end after SIGTERM: its own second, ten to hand back, and a busy machine."""

SETTINGS: Final = {
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "ORPHAN_GRACE_SECONDS": str(GRACE_SECONDS),
    # Each fault here costs jobs a delivery or an attempt that they would never lose at this rate in real
    # life, so the limits are far away: a dead letter or a failed job would tell of a bug, not of bad luck.
    "MAX_DELIVERIES": "100",
    "RETRY_BASE_SECONDS": "0.5",
    "RETRY_CAP_SECONDS": "3",
    "DRAIN_SECONDS": "1",
    "WORKER_CONCURRENCY": "2",
    "USER_MAX_RUNNING": "2",
    # The smallest parts, so that a result of 20 MiB has five and faults meet uploads in the middle.
    "PART_BYTES": str(5 * 1024 * 1024),
    # A small job would be over in a moment, and no fault would ever meet it.
    "DOWNLOAD_DELAY_ENABLED": "true",
    "DOWNLOAD_DELAY_MIN_MS": "0",
    "DOWNLOAD_DELAY_MAX_MS": "2500",
    "LOG_LEVEL": "debug",
    "LOG_FORMAT": "json",
}
"""Of the workers."""

BROKEN: Final = {Fault.S3_RESET: Mode.RESET, Fault.S3_CUT: Mode.CUT, Fault.S3_DEAF: Mode.DEAF}
SIGNALLED: Final = {
    Fault.WORKER_KILL: signal.SIGKILL,
    Fault.WORKER_STOP: signal.SIGSTOP,
    Fault.WORKER_DRAIN: signal.SIGTERM,
}


class DurableValkey(ValkeyServer):
    """Valkey that answers a write only when it is on disk.

    With the default, `everysec`, a write waits in memory while an earlier one is being synced, so a kill
    could lose a submission that was answered. Such a loss is Redis' own; here every loss must be ours.
    """

    def _command(self) -> Sequence[str]:
        return [*super()._command(), "--appendfsync", "always"]


class Site:
    """Valkey, an S3 server behind a proxy, and workers. Call everything from the main thread.

    Args:
        folder: where data and logs are.
        workers: the names of the worker processes.
        module: what each of them runs.
        settings: of the workers, beside `SETTINGS`.
    """

    def __init__(
        self, folder: Path, workers: Sequence[str], module: str, settings: Mapping[str, str]
    ) -> None:
        self._settings = {**SETTINGS, **settings}
        logs = folder / "logs"
        logs.mkdir(parents=True)
        self.valkey = DurableValkey(folder / "valkey", append_only=True)
        self.s3 = SeaweedServer(folder / "s3")
        self.workers = {name: Child(name, module, logs) for name in workers}
        self.faults_of_workers: list[str] = []
        """What workers did that nobody asked for, in sentences."""
        self._proxy: Proxy | None = None
        self._down: set[str] = set()
        self._drained_at: dict[str, float] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        self._cleanup.callback(self._kill_all)
        try:
            self.valkey.start()
            self.s3.start()
            self._proxy = self._cleanup.enter_context(Proxy(self.s3.port))
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _kill_all(self) -> None:
        for worker in self.workers.values():
            worker.kill()
        self.s3.kill()
        self.valkey.kill()

    @property
    def proxy(self) -> Proxy:
        """What the workers take for the S3 server."""
        if self._proxy is None:
            raise RuntimeError("the site is not entered")
        return self._proxy

    def store(self) -> S3ObjectStore:
        """The bucket, past the proxy."""
        return connect(self.s3.config, self.s3.bucket)

    def start_workers(self) -> None:
        """Start every worker."""
        for name in self.workers:
            self._start_worker(name)

    def stop_workers(self) -> None:
        """Drain every worker; they have nothing to do any more, so they end soon and well."""
        for worker in self.workers.values():
            worker.ask_to_end()
        for name in self.workers:
            self._expect_end(name, DRAIN_SECONDS)

    def check_workers(self) -> None:
        """Notice a worker that ended by itself, and start it again."""
        for name, worker in self.workers.items():
            code = worker.exit_code
            if name not in self._down and code is not None:
                self.faults_of_workers.append(f"{name} ended by itself ({ended(code)}).")
                self._start_worker(name)

    def begin(self, fault: PlannedFault) -> None:
        """Let a fault befall its victim."""
        kind = fault.kind
        if kind in SIGNALLED:
            if kind is not Fault.WORKER_STOP:
                self._down.add(fault.victim)
            self._drained_at[fault.victim] = time.monotonic()
            self.workers[fault.victim].send(SIGNALLED[kind])
        elif kind in BROKEN:
            self.proxy.set_mode(BROKEN[kind])
        elif kind is Fault.S3_KILL:
            self.s3.kill()
        elif kind is Fault.S3_PAUSE:
            self.s3.pause()
        elif kind is Fault.VALKEY_KILL:
            self.valkey.kill()
        else:
            self.valkey.pause()

    def still_draining(self, fault: PlannedFault) -> bool:
        """Whether a drained worker has yet to end. It is not waited for: others are made good meanwhile."""
        return (
            fault.kind is Fault.WORKER_DRAIN
            and self.workers[fault.victim].exit_code is None
            and time.monotonic() < self._drained_at[fault.victim] + DRAIN_SECONDS
        )

    def end(self, fault: PlannedFault) -> None:
        """Make it good again; servers answer when this returns."""
        kind = fault.kind
        if kind is Fault.WORKER_STOP:
            self.workers[fault.victim].send(signal.SIGCONT)
        elif kind in SIGNALLED:
            if kind is Fault.WORKER_DRAIN:
                self._expect_end(fault.victim, 0)
            self._start_worker(fault.victim)
        elif kind in BROKEN:
            self.proxy.set_mode(Mode.OPEN)
        elif kind is Fault.S3_KILL:
            self.s3.start()
        elif kind is Fault.S3_PAUSE:
            self.s3.resume()
        elif kind is Fault.VALKEY_KILL:
            self.valkey.start()
        else:
            self.valkey.resume()

    def _expect_end(self, name: str, seconds: float) -> None:
        worker = self.workers[name]
        self._down.add(name)
        if not worker.wait(seconds):
            self.faults_of_workers.append(f"{name} did not end within {DRAIN_SECONDS:.0f} s after SIGTERM.")
        elif worker.exit_code not in {0, -signal.SIGTERM}:
            # By the signal itself: it came before the process had its handlers, and so before any job.
            self.faults_of_workers.append(f"{name} ended after SIGTERM with {ended(worker.exit_code or 0)}.")

    def _start_worker(self, name: str) -> None:
        worker = self.workers[name]
        worker.kill()
        worker.start({**self._environment(), "WORKER_NAME": name})
        self._down.discard(name)

    def _environment(self) -> Mapping[str, str]:
        config = self.s3.config
        return {
            **without_addresses(os.environ),
            **self._settings,
            # A stock worker is a module of the tests.
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "REDIS_URL": self.valkey.url,
            "S3_ENDPOINT": f"http://{LOOPBACK}:{self.proxy.port}",
            "S3_ACCESS_KEY_ID": config.access_key or "",
            "S3_SECRET_ACCESS_KEY": config.secret_key or "",
            "S3_BUCKET_NAME": self.s3.bucket,
            "HOST": LOOPBACK,
            "METRICS_PORT": "0",
        }
