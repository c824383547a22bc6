"""Processes of this project, started on this machine by the command line.

Each has a session of its own, so that Ctrl-C reaches the command line alone, which then ends them in
order. On Linux the kernel ends them when the command line is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

LOG_TAIL_LINES: Final = 20

_DIE_WITH_PARENT: Final = """
import ctypes, os, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(sys.argv[2]))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone already")
os.execv(sys.argv[3], sys.argv[3:])
"""


def dying_with_parent(command: Sequence[str], death_signal: signal.Signals) -> list[str]:
    """A command line whose process the kernel ends when this one is gone; elsewhere than on Linux, as it is.

    Start it from the main thread: the signal comes when the thread that started it ends.
    """
    if sys.platform != "linux":
        return list(command)
    parent, number = str(os.getpid()), str(int(death_signal))
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, parent, number, *command]


class Child:
    """One Python module run as a process.

    Start it from the main thread: the kernel's signal comes when the thread that started it ends.

    Args:
        name: for people, and for its log's file.
        module: what `python -m` runs.
        log_folder: where its log is.
        death_signal: what the kernel sends it when the command line is killed.
    """

    def __init__(
        self, name: str, module: str, log_folder: Path, *, death_signal: signal.Signals = signal.SIGKILL
    ) -> None:
        self.name = name
        self.log_path = log_folder / f"{name}.log"
        self._module = module
        self._death_signal = death_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it, or start it again."""
        # -P: a redis.py in the folder where the command is run must not stand in for the package.
        command = [sys.executable, "-P", "-m", self._module]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                dying_with_parent(command, self._death_signal),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        self._started_at = time.monotonic()

    @property
    def pid(self) -> int:
        """Its process id. Raises `ValueError` before it is started."""
        if self._process is None:
            raise ValueError(f"{self.name} is not started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs or is not started; negative for the signal that ended it."""
        return None if self._process is None else self._process.poll()

    @property
    def age(self) -> float:
        """Seconds since it was started last."""
        return time.monotonic() - self._started_at

    def send(self, signum: signal.Signals) -> None:
        """Send a signal; harmless if it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)

    def ask_to_end(self) -> None:
        """Send SIGTERM; harmless if it does not run."""
        self.send(signal.SIGTERM)

    def wait(self, seconds: float) -> bool:
        """Wait for its end. False if it still runs after so long."""
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it at once, with whatever it started itself; harmless if it does not run."""
        if self._process is not None:
            self.send_kill()
            self._process.wait()
            self._process = None

    def send_kill(self) -> None:
        """Send SIGKILL to it and whatever it started; does not wait, so a signal's handler may call it."""
        if self._process is not None:
            # Where nothing is left to kill, macOS answers EPERM instead of ESRCH.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def log_tail(self) -> str:
        """The last lines of its log."""
        if not self.log_path.exists():
            return ""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


def ended(exit_code: int) -> str:
    """How a process ended, for people."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"
