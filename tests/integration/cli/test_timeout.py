"""`--timeout` beside servers that accept and never answer, and beside ports where nobody listens."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from downloadjobs_cli.exit_codes import ExitCode

ALLOWED_SECONDS = 2

LATEST_SECONDS = 20
"""Until the end of the process, on a busy machine; without the limit it takes half a minute."""


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a server that takes connections, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    """An address where connections are refused."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def timed_out(*words: str) -> str:
    """Run a command that must end by --timeout, and soon behind it; returns what it says."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "downloadjobs_cli", *words, "--timeout", str(ALLOWED_SECONDS)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == ExitCode.TIMED_OUT, done.stderr
    assert ALLOWED_SECONDS <= time.monotonic() - began < LATEST_SECONDS
    return done.stderr


@pytest.mark.parametrize("words", [("watch", "abc"), ("get", "--wait", "abc")], ids=["watch", "get"])
@pytest.mark.parametrize("patience", ["1", "12"])
def test_a_server_that_never_answers_is_left_in_time(
    mute: str, words: tuple[str, ...], patience: str
) -> None:
    """A request that is under way ends with --timeout, whatever the patience is."""
    text = timed_out(*words, "--api", mute, "--patience", patience)
    assert "No status came within 2.0 s." in text
    assert "(it took too long)" in text


@pytest.mark.parametrize("words", [("watch", "abc"), ("get", "--wait", "abc")], ids=["watch", "get"])
def test_a_refused_port_is_left_in_time(nobody: str, words: tuple[str, ...]) -> None:
    """The clock starts before the first status: patience with it is at an end with --timeout, too."""
    text = timed_out(*words, "--api", nobody, "--patience", "12")
    assert "Connection refused" in text


def test_a_cluster_that_never_answers_is_left_in_time(tmp_path: Path) -> None:
    """The first look at a DownloadJob counts as well."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nexec sleep 60\n")
    kubectl.chmod(0o755)
    text = timed_out("get", "dj/films", "--wait", "--kubectl", str(kubectl))
    assert "The cluster does not answer" in text
