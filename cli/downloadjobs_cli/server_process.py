"""One local server process: start, wait until it answers, stop, kill, pause, and never leave it behind.

A server ends with the process that started it: by `stop` or leaving the context, at exit,
and on Linux also when that process is killed. Its own session keeps Ctrl-C from reaching
it before its clients are done.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from downloadjobs_core.errors import DownloadJobsError

LOOPBACK: Final = "127.0.0.1"

PORTS: Final = range(20_000, 22_700)
"""Below what Linux (32,768) and macOS (49,152) give to outgoing connections, also with 10,000 added:
a server that restarts finds its port free."""

PORT_OFFSET: Final = 10_000
"""SeaweedFS' own worker looks for the admin's gRPC here, whatever `-admin.port.grpc` says."""

START_SECONDS: Final = 60.0
"""SeaweedFS takes 1.5 s on an idle machine; a busy one must not fail for it."""

START_TRIES: Final = 3
"""Another process may take a port between our look at it and the server's."""

STOP_SECONDS: Final = 5.0
"""SeaweedFS takes 1.3 s to end in order, but sometimes waits for connections of its own. What was
stored by then outlives a kill."""

POLL_SECONDS: Final = 0.02

PROBE_SECONDS: Final = 1.0
"""Whoever else sits on the port may accept a connection and then say nothing."""

LOG_TAIL_LINES: Final = 15

PORT_TAKEN: Final = ("already in use", "is not available on 127.0.0.1")
"""How Valkey and MinIO say that a port is taken, and how SeaweedFS does."""

MIN_FREE_BYTES: Final = 1024**3
"""SeaweedFS takes no writes on a disk that is nearly full, and says so only in its log."""

_DIE_WITH_PARENT: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone already")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedServerError(DownloadJobsError):
    """A local server cannot be found or did not start."""


class EmbeddedServer(ABC):
    """One server process. Use it as a context manager, or call `start` and `stop`.

    Call `start` from the main thread: on Linux the server dies with the thread that started
    it, and so a start from another thread goes without that net.

    Args:
        data_dir: everything it keeps; what is there from an earlier run is used again.
    """

    name: ClassVar[str]
    port_count: ClassVar[int] = 1

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.log_path = self.data_dir / f"{self.name}.log"
        self.ports: tuple[int, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begin = 0

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The program's absolute path and its arguments."""

    @abstractmethod
    def _probe(self) -> None:
        """Ask it for something real. Raises `DownloadJobsError` or `OSError` while it is not ready."""

    def _environment(self) -> Mapping[str, str]:
        return {}

    def _leftovers(self) -> Iterable[Path]:
        """Files outside of its folder that it leaves when it is killed."""
        return ()

    @property
    def port(self) -> int:
        """The port its clients use."""
        return self.ports[0]

    @property
    def pid(self) -> int:
        """Its process id. Raises `EmbeddedServerError` if it does not run."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether the process lives (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and return when it answers. A second start uses the same ports.

        Raises:
            EmbeddedServerError: it ended, or does not answer in `START_SECONDS`.
        """
        if self.running:
            raise EmbeddedServerError(f"{self.name} runs already.")
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(self.data_dir).free < MIN_FREE_BYTES:
            raise EmbeddedServerError(f"The disk of {self.data_dir} has less than 1 GiB free.")
        for left in reversed(range(1 if self.ports else START_TRIES)):
            self.ports = self.ports or free_ports(self.port_count)
            self._spawn()
            try:
                self._wait_until_ready()
            except BaseException as error:
                self.kill()
                if not left or not isinstance(error, EmbeddedServerError) or not self._met_a_taken_port():
                    raise
                self.ports = ()
            else:
                break
        return self

    def stop(self) -> None:
        """End it in order, or by force after `STOP_SECONDS`. Harmless if it does not run."""
        if self._process is not None and self.running:
            self.resume()
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would. Harmless if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        atexit.unregister(self.kill)
        for path in self._leftovers():
            path.unlink(missing_ok=True)

    def restart(self) -> None:
        """Stop it, if it runs, and start it on the same ports and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop it from running (SIGSTOP): connections stay open, and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def log_tail(self) -> str:
        """The last lines of its log since its last start."""
        if not self.log_path.exists():
            return ""
        log = self.log_path.read_bytes()[self._log_begin :]
        return "\n".join(log.decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise EmbeddedServerError(f"{self.name} does not run.")
        return self._process

    def _spawn(self) -> None:
        command = list(self._command())
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        with self.log_path.open("ab") as log:
            self._log_begin = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment()},
                cwd=self.data_dir,
                start_new_session=True,
            )
        atexit.register(self.kill)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            why: Exception | None = None
            try:
                self._probe()
            except (DownloadJobsError, OSError) as error:
                why = error
            if not self.running:
                raise EmbeddedServerError(f"{self.name} ended while it started. Its log:\n{self.log_tail()}")
            if why is None:
                return
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"{self.name} is not ready after {START_SECONDS:.0f} s: {why} Its log:\n{self.log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def _met_a_taken_port(self) -> bool:
        log = self.log_tail().lower()
        return any(phrase in log for phrase in PORT_TAKEN)


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of loopback that nobody listens on now, with those 10,000 above them.

    Raises:
        EmbeddedServerError: there are not so many.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(PORTS, len(PORTS)):
            if len(found) == count:
                break
            try:
                for wanted in (port, port + PORT_OFFSET):
                    listener = held.enter_context(socket.socket())
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listener.bind((LOOPBACK, wanted))
            except OSError:
                continue
            found.append(port)
    if len(found) < count:
        raise EmbeddedServerError(f"There are no {count} free ports from {PORTS.start} to {PORTS.stop}.")
    return tuple(found)
