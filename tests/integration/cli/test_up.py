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

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command line of the user `ann`; it is gone afterwards."""
        with subprocess.Popen(
            [*COMMAND, *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def call(self, *words: str) -> tuple[int, str, str]:
        """Run one: its exit code, standard output and standard error."""
        with self.started(*words) as process:
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
def up(folder: Path, *words: str, **environment: str) -> Iterator[Up]:
    """Start it on a free port, with temporary files in a folder, and wait until it says where it is."""
    with subprocess.Popen(
        [*COMMAND, "up", "--json", "--port", "0", *words],
        env={**os.environ, "TMPDIR": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                pytest.fail(f"up did not start: {process.communicate(timeout=10)[1]}")
            yield Up(process, json.loads(line))
        finally:
            process.terminate()


def test_a_job_by_the_command_line_and_again_after_a_restart(tmp_path: Path) -> None:
    """Submit, watch, get and check work against `up`; with --data its jobs are there the next time."""
    data = tmp_path / "data"
    with up(tmp_path, "--data", str(data)) as first:
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
    with up(tmp_path, "--data", str(data)) as second:
        code, out, err = second.call("get", job, "-o", str(tmp_path / "b.zip"))
        assert code == 0, err
        assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack in which each job takes two seconds, and a killed worker's lease soon runs out."""
    with up(
        tmp_path_factory.mktemp("up"),
        "--workers",
        "1",
        DOWNLOAD_DELAY_ENABLED="true",
        DOWNLOAD_DELAY_MIN_MS="2000",
        DOWNLOAD_DELAY_MAX_MS="2000",
        LEASE_SECONDS="3",
    ) as stack:
        yield stack


def test_a_job_in_part(slow: Up, tmp_path: Path) -> None:
    """A missing file makes exit 1 of submit and get, and is named."""
    code, out, err = slow.call("submit", "10003", "10999", "--wait")
    assert code == 1
    assert "1 of 2 files is missing" in err
    code, out, err = slow.call("get", out.strip(), "-o", f"{tmp_path}/x.zip")
    assert code == 1
    assert "10999  not-found" in out


def test_a_job_without_any_file(slow: Up) -> None:
    """If all files are missing, the reason is told."""
    code, _out, err = slow.call("submit", "10999", "--wait")
    assert code == 1
    assert "does not exist" in err


def test_another_users_job(slow: Up) -> None:
    """Somebody else's job is refused with 4, in the API's words."""
    job = slow.call("submit", "10003")[1].strip()
    code, _out, err = slow.call("--user", "bob", "status", job)
    assert code == 4
    assert "belongs to another user" in err


def test_watching_lives_through_an_api_that_is_killed(slow: Up) -> None:
    """`up` starts a killed API and worker again, and `watch` goes on to the job's good end."""
    job = slow.call("submit", "10003")[1].strip()
    with slow.started("watch", job) as watching:
        assert watching.stdout is not None
        assert "files" in watching.stdout.readline()
        children = slow.children()
        os.kill(children["downloadjobs_api"], signal.SIGKILL)
        os.kill(children["downloadjobs_worker"], signal.SIGKILL)
        out, err = watching.communicate(timeout=60)
        assert watching.returncode == 0, err
    assert "Completed: 1 file." in out
    assert "Trying again" in err
    assert "answers again" in err
    again = slow.children()
    assert again["downloadjobs_api"] != children["downloadjobs_api"]
    assert again["downloadjobs_worker"] != children["downloadjobs_worker"]


def test_a_server_that_ends_ends_it_all(tmp_path: Path) -> None:
    """Without its queue the stack cannot go on: it stops the rest, keeps the logs, and exits with 1."""
    with up(tmp_path) as stack:
        children = stack.children()
        os.kill(next(pid for name, pid in children.items() if "valkey" in name), signal.SIGKILL)
        _out, err = stack.process.communicate(timeout=60)
        assert stack.process.returncode == 1
        message = json.loads(err)["message"]
        assert "valkey ended by itself" in message
        assert f"kept in {tmp_path}" in message
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
