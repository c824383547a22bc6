"""`downloadjobs up`: the stack kept running, and a client that lives through its faults."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

COMMAND: Final = [sys.executable, "-m", "downloadjobs_cli"]

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find processes")


class Up:
    """A running `up --json`, and the command line beside it."""

    def __init__(self, process: subprocess.Popen[str], document: dict[str, Any]) -> None:
        self.process = process
        self.document = document
        self._environment = {
            **os.environ,
            "DOWNLOADJOBS_API": document["api"],
            "DOWNLOADJOBS_USER": "ann",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command line of the user `ann`."""
        return subprocess.Popen(
            [*COMMAND, *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: str) -> tuple[int, str, str]:
        """Run one: its exit code, standard output and standard error."""
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def children(self) -> dict[str, int]:
        """Module or program and process id of what `up` itself started."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = path.joinpath("stat").read_text().rpartition(")")[2].split()[1]
                words = path.joinpath("cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if int(parent) == self.process.pid:
                name = words[words.index(b"-m") + 1] if b"-m" in words else words[0]
                found[name.decode()] = int(path.name)
        return found

    def stop(self) -> str:
        """Ctrl-C; returns what it said."""
        self.process.send_signal(signal.SIGINT)
        _out, err = self.process.communicate(timeout=60)
        return err


@contextmanager
def up(*words: str, **environment: str) -> Iterator[Up]:
    """Start it on a free port, and wait until it says where it is."""
    process = subprocess.Popen(
        [*COMMAND, "up", "--json", "--port", "0", *words],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"up did not start: {process.communicate(timeout=10)[1]}")
        yield Up(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def test_a_job_by_the_command_line_and_again_after_a_restart(tmp_path: Path) -> None:
    """Submit, watch, get and check work against `up`; with --data its jobs are there the next time."""
    data = tmp_path / "data"
    with up("--data", str(data)) as first:
        code, out, _err = first.call("submit", "10003", "10010", "10003", "--wait")
        job = out.strip()
        assert (code, out.count("\n")) == (0, 1)
        code, out, _err = first.call("get", job, "-o", str(tmp_path / "a.zip"))
        assert code == 0
        assert "Verified: 2 files" in out
        code, out, _err = first.call("check", "10003", "10999", "--json")
        assert code == 1
        assert [answer["available"] for answer in json.loads(out)] == [True, False]
        credentials = Path(first.document["credentials"])
        assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
        assert "Everything is stopped" not in first.stop()  # --json: nothing for people
        assert first.process.returncode == 130
    with up("--data", str(data)) as second:
        code, out, err = second.call("get", job, "-o", str(tmp_path / "b.zip"))
        assert (code, err) == (0, "")
        assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_job_in_part_and_one_without_any_file() -> None:
    """A missing file makes exit 1, and is named; if all are missing, the reason is told."""
    with up() as stack:
        code, out, err = stack.call("submit", "10003", "10999", "--wait")
        assert code == 1
        assert "1 of 2 files is missing" in err
        code, out, err = stack.call("get", out.strip(), "-o", f"{stack.document['data']}/x.zip")
        assert code == 1
        assert "10999  not-found" in out
        code, _out, err = stack.call("submit", "10999", "--wait")
        assert code == 1
        assert "does not exist" in err
        code, _out, err = stack.call("--user", "bob", "status", "00000000-0000-4000-8000-000000000000")
        assert code == 4
        assert "no such job" in err


def test_watching_lives_through_an_api_that_is_killed() -> None:
    """`up` starts a killed API and worker again, and `watch` goes on to the job's good end.

    The delay keeps the job running meanwhile; the worker's lease has to run out, so a short one is set.
    """
    settings = {
        "DOWNLOAD_DELAY_ENABLED": "true",
        "DOWNLOAD_DELAY_MIN_MS": "2500",
        "DOWNLOAD_DELAY_MAX_MS": "2500",
        "LEASE_SECONDS": "3",
    }
    with up("--workers", "1", **settings) as stack:
        job = stack.call("submit", "10003")[1].strip()
        watching = stack.start("watch", job)
        assert watching.stdout is not None
        assert "files" in watching.stdout.readline()
        children = stack.children()
        os.kill(children["downloadjobs_api"], signal.SIGKILL)
        os.kill(children["downloadjobs_worker"], signal.SIGKILL)
        out, err = watching.communicate(timeout=60)
        assert watching.returncode == 0, err
        assert "Completed: 1 file." in out
        assert "Trying again" in err
        assert "answers again" in err
        again = stack.children()
        assert again["downloadjobs_api"] != children["downloadjobs_api"]
        assert again["downloadjobs_worker"] != children["downloadjobs_worker"]


def test_a_server_that_ends_ends_it_all() -> None:
    """Without its queue the stack cannot go on: it stops the rest, keeps the logs, and exits with 1."""
    with up() as stack:
        children = stack.children()
        os.kill(next(pid for name, pid in children.items() if "valkey" in name), signal.SIGKILL)
        _out, err = stack.process.communicate(timeout=60)
        assert stack.process.returncode == 1
        assert "valkey ended by itself" in json.loads(err)["message"]
        time.sleep(0.1)
        assert stack.children() == {}


def test_a_port_that_is_taken_is_a_setting() -> None:
    """A taken --port is said before anything is started, with exit code 2."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "up", "--port", str(port)], capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 2
    assert f"Port {port} cannot be used" in done.stderr
