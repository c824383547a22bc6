"""The command as a process whose standard streams are closed, full, or read by nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

COMMAND: Final = [sys.executable, "-m", "downloadjobs_cli"]

COMMANDS: Final = {
    "submit": ["submit", "10003"],
    "submit-wait": ["submit", "10003", "--wait"],
    "status": ["status", "j1"],
    "status-json": ["status", "j1", "--json"],
    "watch": ["watch", "j1"],
    "check": ["check", "10003"],
    "url": ["get", "j1", "--url"],
    "help": ["--help"],
    "get-help": ["get", "--help"],
    "version": ["--version"],
}


class Handler(BaseHTTPRequestHandler):
    """Answers like the API for the finished job `j1`."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        pass

    def do_GET(self) -> None:
        self.document({"jobId": "j1", "status": "completed", "progress": {"processed": 1, "total": 1},
                       "downloadUrl": "http://s3.test/", "totalFileIds": 1,
                       "file_id": 10003, "available": True, "size": 5, "s3Key": "k"})  # fmt: skip

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def document(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The environment of a command that speaks with an API of one job."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {**os.environ, "DOWNLOADJOBS_API": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()
        thread.join()


words = pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)


@words
@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
def test_a_closed_standard_output_is_no_error(
    environment: dict[str, str], words: list[str], closed: str
) -> None:
    """Who closes standard output wants none of it: the command works, and its exit code tells how."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *words],
        env=environment, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("words", [["status", "j1"], ["nonsense"]], ids=["done", "usage"])
def test_a_closed_standard_error_changes_no_exit_code(environment: dict[str, str], words: list[str]) -> None:
    """Without standard error the exit code is the same."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, *words],
        env=environment, stdout=subprocess.PIPE, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == (2 if words == ["nonsense"] else 0)


@words
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_standard_output_that_cannot_be_written_ends_with_1(
    environment: dict[str, str], tmp_path: Path, words: list[str], unbuffered: str
) -> None:
    """A write that fails, as on a full disk, is said in a sentence, with 1, which names a submitted job.

    Here the file is open for reading only.
    """
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as unwritable:
        done = subprocess.run(
            [*COMMAND, *words], env={**environment, "PYTHONUNBUFFERED": unbuffered},
            stdout=unwritable, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    if words[0] == "submit":
        assert "The job is submitted, as j1." in done.stderr
    message = json.loads(done.stderr)["message"] if "--json" in words else done.stderr.splitlines()[-1]
    assert "Standard output cannot be written: Bad file descriptor." in message
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_standard_error_that_cannot_be_written_ends_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Lines for people that cannot be written are left out; the job's id comes, and the exit code stays."""
    (tmp_path / "file").touch()
    for words, code in ((["submit", "10003", "--wait"], 0), (["nonsense"], 2)):
        with (tmp_path / "file").open("rb") as unwritable:
            done = subprocess.run(
                [*COMMAND, *words],
                env=environment, stdout=subprocess.PIPE, stderr=unwritable,
                text=True, timeout=60, check=False,
            )  # fmt: skip
        assert (done.returncode, done.stdout) == (code, "" if code else "j1\n")


@words
def test_a_reader_that_is_gone_is_141(environment: dict[str, str], words: list[str]) -> None:
    """In a pipe whose reader went away, every command ends with 141 and says nothing, --help as well."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, *words],
            env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
