"""`downloadjobs demo` as a stranger runs it: real servers, real processes, and nothing left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

COMMAND: Final = [sys.executable, "-m", "downloadjobs_cli"]

LEFTOVER_SECONDS: Final = 10.0
"""After SIGKILL of the command line: gunicorn ends its own worker when the kernel tells it to end."""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="needs /proc to find processes"
)


class Marked:
    """Processes that carry a mark in their environment: a command and whatever it started.

    Args:
        folder: for temporary files, which must be gone at the end.
        environment: added to this process' own.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._mark = f"DOWNLOADJOBS_TEST_MARK={uuid.uuid4()}"
        name, value = self._mark.split("=")
        self.folder = folder
        self.environment = {**os.environ, "TMPDIR": str(folder), **(environment or {}), name: value}

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command line in a session of its own, as a terminal has it; it is gone afterwards."""
        with subprocess.Popen(
            [*COMMAND, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                self.kill()

    def alive(self) -> list[str]:
        """The command lines of those that live."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it has ended, or is somebody else's
        return found

    def kill(self) -> None:
        """End what a failed test left."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                continue


def until(process: subprocess.Popen[str], text: str) -> None:
    """Read a command's output up to a line that begins so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(text):
            return
    pytest.fail(f"{text!r} was never printed")


def test_demo_runs_a_job_to_its_verified_zip(tmp_path: Path) -> None:
    """In a pipe: exit 0, each step is told, the zip is verified, no process and no file is left.

    A user's settings for other servers, and a proxy, do not disturb it.
    """
    foreign = {
        "REDIS_URL": "redis://192.0.2.1:1",
        "S3_ENDPOINT": "http://192.0.2.1",
        "NODE_ENV": "production",
        "HTTP_PROXY": "http://192.0.2.1:1",
        "http_proxy": "http://192.0.2.1:1",
    }
    processes = Marked(tmp_path, foreign)
    with processes.started("demo", "--files", "12") as demo:
        out, err = demo.communicate(timeout=100)
        assert demo.returncode == 0, err
        assert processes.alive() == []
    for step in ("1. Servers", "2. Files", "3. Processes", "4. Job", "5. Download", "6. Verified"):
        assert f"\n{step}" in out
    assert "12 files" in out
    assert "the CRC-32 of each is right, and manifest.json agrees" in out
    assert "X-Amz-Signature" not in out
    assert list(tmp_path.iterdir()) == []


def test_demo_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    """--data keeps the zip, logs and data; --json prints one document."""
    processes = Marked(tmp_path)
    with processes.started("demo", "--files", "3", "--json", "--data", str(tmp_path / "kept")) as demo:
        out, err = demo.communicate(timeout=100)
        assert (demo.returncode, err) == (0, "")
        assert processes.alive() == []
    document = json.loads(out)
    assert document["verified"] is True
    assert document["files"] == 3
    with zipfile.ZipFile(document["path"]) as archive:
        assert archive.namelist() == ["10000.zip", "10001.zip", "10002.zip", "manifest.json"]
    assert {path.name for path in (tmp_path / "kept" / "logs").iterdir()} == {
        "api.log",
        "worker-1.log",
        "worker-2.log",
    }


@pytest.mark.parametrize("after", ["One download job", "1. Servers", "   POST"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, after: str) -> None:
    """Ctrl-C at any step, to the whole group as from a terminal: exit 130, no process, no file is left."""
    processes = Marked(tmp_path)
    with processes.started("demo", "--files", "12") as demo:
        until(demo, after)
        os.killpg(demo.pid, signal.SIGINT)
        _out, err = demo.communicate(timeout=60)
        assert demo.returncode == 130
        assert processes.alive() == []
    assert "Everything the demo started is stopped" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_leave_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """A supervisor's SIGTERM and a closed terminal's SIGHUP are as good as Ctrl-C."""
    processes = Marked(tmp_path)
    with processes.started("demo", "--files", "12") as demo:
        until(demo, "1. Servers")
        demo.send_signal(number)
        demo.communicate(timeout=60)
        assert demo.returncode == 130
        assert processes.alive() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs the parent's death signal of Linux")
def test_sigkill_leaves_no_process(tmp_path: Path) -> None:
    """Even when the command line itself is killed, the kernel ends what it started."""
    processes = Marked(tmp_path)
    with processes.started("demo", "--files", "12") as demo:
        until(demo, "3. Processes")
        demo.kill()
        demo.communicate(timeout=60)
        deadline = time.monotonic() + LEFTOVER_SECONDS
        while processes.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert processes.alive() == []


def test_a_demo_that_fails_shows_why(tmp_path: Path) -> None:
    """If a process does not start: exit 1, its log's end, the folder that is kept, no process left."""
    faults = {"LOG_LEVEL": "nonsense", "RATE_LIMIT_MAX_REQUESTS": "no", "UPLOAD_THREADS": "none"}
    processes = Marked(tmp_path, faults)
    with processes.started("demo") as demo:
        _out, err = demo.communicate(timeout=100)
        assert demo.returncode == 1
        assert processes.alive() == []
    for setting in faults:  # the API's and the workers'
        assert setting in err
    assert "api (exit code 2), worker-1 (exit code 2)" in err
    assert "Traceback" not in err
    kept = [path for path in tmp_path.iterdir() if path.name.startswith("downloadjobs-")]
    assert len(kept) == 1
    assert f"Logs and data are kept in {kept[0]}" in err
