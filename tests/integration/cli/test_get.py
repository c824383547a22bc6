"""`downloadjobs get` against servers that break connections, as networks do."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

COMMAND: Final = [sys.executable, "-m", "downloadjobs_cli"]
BREAK_AFTER: Final = 300_000
"""Bytes, after which the server cuts each connection."""


def result_zip() -> bytes:
    """A sound result of one file, 2 MB."""
    data = os.urandom(2_000_000)
    files = [
        {
            "fileId": 10003,
            "name": "10003.zip",
            "status": "ok",
            "size": len(data),
            "crc32": f"{zlib.crc32(data):08x}",
        }
    ]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("10003.zip", data)
        archive.writestr("manifest.json", json.dumps({"jobId": "j1", "files": files}))
    return target.getvalue()


class Server(ThreadingHTTPServer):
    """An API and a store in one, on a free port of loopback."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = result_zip()
        self.ranges: list[str | None] = []
        self.heads = 0
        self.urls = 0
        self.uses_per_url = 1000
        self.uses = 0
        self.pause = 0.0

    @property
    def origin(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers like the API for `j1`, and like an S3 server for its result."""

    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        pass

    def do_HEAD(self) -> None:
        self.server.heads += 1
        self.send_error(403)

    def do_GET(self) -> None:
        if self.path.startswith("/v1/download/status/"):
            self.document({"jobId": "j1", "status": "completed", "progress": {"processed": 1, "total": 1}})
        elif self.path.startswith("/v1/download/result/"):
            self.server.urls += 1
            self.server.uses = 0
            url = f"{self.server.origin}/bucket/r.zip?X-Amz-Signature=secret{self.server.urls}"
            self.document({"jobId": "j1", "status": "completed", "downloadUrl": url, "expiresIn": 600})
        else:
            self.object()

    def document(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def object(self) -> None:
        server = self.server
        server.uses += 1
        if server.uses > server.uses_per_url or not self.path.endswith(f"secret{server.urls}"):
            self.send_error(403, "Request has expired")
            return
        wanted = self.headers["Range"]
        server.ranges.append(wanted)
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = server.content[first:]
        self.send_response(206 if wanted else 200)
        if wanted:
            assert self.headers["If-Match"] == '"e1"'
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(server.content)}")
        self.send_header("ETag", '"e1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:BREAK_AFTER])
        self.wfile.flush()
        time.sleep(server.pause)
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    """A server whose connections break."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@contextmanager
def started(server: Server, folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Start `get j1` in a folder; it is gone afterwards."""
    with subprocess.Popen(
        [*COMMAND, "--api", server.origin, "get", "j1", *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_download_over_breaking_connections_is_whole(server: Server, tmp_path: Path) -> None:
    """Each break is resumed by Range; the result is whole, verified, and HEAD was never tried."""
    with started(server, tmp_path) as get:
        out, err = get.communicate(timeout=60)
    assert get.returncode == 0, err
    assert (tmp_path / "j1.zip").read_bytes() == server.content
    assert "Verified: 1 file" in out
    assert len(server.ranges) == -(-len(server.content) // BREAK_AFTER)
    assert server.ranges[0] is None
    assert all(server.ranges[1:])
    assert server.heads == 0
    assert [path.name for path in tmp_path.iterdir()] == ["j1.zip"]
    assert "secret" not in out + err


def test_urls_that_expire_in_the_middle_are_replaced(server: Server, tmp_path: Path) -> None:
    """Where a URL is good for two connections only, fresh ones are asked for until it is whole."""
    server.uses_per_url = 2
    with started(server, tmp_path) as get:
        _out, err = get.communicate(timeout=60)
    assert get.returncode == 0, err
    assert (tmp_path / "j1.zip").read_bytes() == server.content
    assert server.urls == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_goes_on(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    """After Ctrl-C, or a kill, the same command asks only for the rest; no URL was left on the disk."""
    server.pause = 30.0
    part = tmp_path / "j1.zip.part"
    with started(server, tmp_path) as get:
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > BREAK_AFTER // 2) and time.monotonic() < deadline:
            time.sleep(0.02)
        get.send_signal(number)
        _out, err = get.communicate(timeout=60)
    if number is signal.SIGINT:
        assert get.returncode == 130
        assert "the same command goes on from there" in err
    assert "secret" not in (tmp_path / "j1.zip.part.json").read_text()
    there = part.stat().st_size
    server.pause = 0.0
    with started(server, tmp_path, "--json") as get:
        out, err = get.communicate(timeout=60)
    assert get.returncode == 0, err
    assert json.loads(out)["resumedFrom"] == there
    assert server.ranges[1] == f"bytes={there}-"
    assert (tmp_path / "j1.zip").read_bytes() == server.content
