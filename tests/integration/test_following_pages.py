"""The code of docs/following-jobs.md and docs/events.md, run against an API, and against one that fails."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_cli.stack import without_addresses
from support_pages import code
from support_processes import System, running
from support_tools import require_tool
from support_worker import put_files

Answer = tuple[int, dict[str, str], bytes]

END = b'id: 3-0\nevent: finished\ndata: {"state":"completed"}\n\n'


@pytest.fixture(scope="module")
def served(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """An API and a worker, and one file."""
    settings = {
        "REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/14",
        "DOWNLOAD_DELAY_ENABLED": "true",
        "DOWNLOAD_DELAY_MIN_MS": "500",
        "DOWNLOAD_DELAY_MAX_MS": "500",
    }
    with running(System(valkey_server, seaweedfs, tmp_path_factory.mktemp("following"), settings)) as system:
        put_files(system.store, {10_003: 10})
        system.start_api()
        system.start_worker()
        yield system


@contextmanager
def answering(answers: list[Answer]) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """A server that gives these answers one after the other: its port, and the headers that it was sent."""
    asked: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name.lower(): value for name, value in self.headers.items()})
            status, headers, body = answers.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wait_for(system: System, port: int, job: str) -> subprocess.CompletedProcess[str]:
    """Run the loop of following-jobs.md; sleeps are told on standard error, and last no time."""
    require_tool("curl")
    (text,) = code("following-jobs.md", "Waiting", "sh")
    quick = 'sleep() { echo "slept $1" >&2; }\n' + text.replace("localhost:3000", f"127.0.0.1:{port}")
    environment = {
        name: value
        for name, value in without_addresses(system.environment()).items()
        if not name.lower().endswith("_proxy")
    }
    return subprocess.run(
        ["sh", "-c", quick], env={**environment, "JOB": job}, capture_output=True, check=False, text=True,
        timeout=60,
    )  # fmt: skip


def test_the_loop_waits_for_the_end(served: System) -> None:
    """It prints the last status of a job, and 0."""
    ran = wait_for(served, served.port, served.submit([10_003]))
    assert (ran.returncode, json.loads(ran.stdout)["status"], ran.stderr) == (0, "completed", "")


def test_the_loop_ends_on_an_error(served: System) -> None:
    """What does not pass is shown: no such job, somebody else's."""
    for job, told in (("nowhere", "job-not-found"), (served.submit([10_003], "bob"), "forbidden")):
        ran = wait_for(served, served.port, job)
        assert (ran.returncode, ran.stdout, told in ran.stderr) == (1, "", True), ran.stderr
        assert "slept" not in ran.stderr


def test_the_loop_goes_on_after_what_passes(served: System) -> None:
    """It comes back after Retry-After, or a second."""
    answers: list[Answer] = [
        (429, {"Retry-After": "42"}, b"slow down"),
        (503, {"Retry-After": "5"}, b""),
        (500, {}, b""),
        (200, {"Retry-After": "1"}, b'{"status":"processing"}'),
        (200, {}, b'{"status":"failed"}'),
    ]
    with answering(answers) as (port, asked):
        ran = wait_for(served, port, "j")
    assert (ran.returncode, ran.stdout) == (0, '{"status":"failed"}\n')
    assert [line for line in ran.stderr.splitlines() if line.startswith("slept")] == [
        "slept 42", "slept 5", "slept 1", "slept 1",
    ]  # fmt: skip
    assert {headers["prefer"] for headers in asked} == {"wait=50"}


@pytest.fixture
def follow() -> tuple[Callable[..., Iterator[tuple[str, Any]]], list[float]]:
    """`follow` of events.md, and the seconds that it has waited: none really."""
    (text,) = code("events.md", "In Python", "python")
    names: dict[str, Any] = {}
    exec(compile(text, "events.md", "exec"), names)  # noqa: S102 - our own page
    waited: list[float] = []

    class Time:
        sleep = waited.append

    names["time"] = Time
    return names["follow"], waited


def test_follow_tells_a_jobs_life(
    served: System, follow: tuple[Callable[..., Iterator[tuple[str, Any]]], list[float]]
) -> None:
    """It ends with the job, without coming back; and at once for a job that has ended. 404 is raised."""
    run, waited = follow
    job = served.submit([10_003])
    with served.client() as client:
        events = list(run(client, job))
        assert (events[0][0], events[-1][0], events[-1][1]["state"]) == ("snapshot", "finished", "completed")
        assert [kind for kind, _ in run(client, job)] == ["snapshot"]
        with pytest.raises(httpx.HTTPStatusError):
            list(run(client, "nowhere"))
    assert waited == []


def test_follow_comes_back(follow: tuple[Callable[..., Iterator[tuple[str, Any]]], list[float]]) -> None:
    """It waits as long as it is told by Retry-After and by `retry`, and goes on after the last event."""
    run, waited = follow
    begun = b'retry: 1500\n\nid: 1-0\nevent: snapshot\ndata: {"state":"queued"}\n\n:\n\n'
    answers: list[Answer] = [
        (503, {"Retry-After": "5"}, b""),
        (429, {"Retry-After": "7"}, b""),
        (200, {}, begun),
        (200, {"Content-Length": "1000"}, b"retry: 1200\n\n"),  # breaks
        (200, {}, END),
    ]
    with (
        answering(answers) as (port, asked),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client,
    ):
        events = list(run(client, "j"))
    assert [kind for kind, _ in events] == ["snapshot", "finished"]
    assert waited == [5, 7, 1.5, 1.2]
    assert [headers.get("last-event-id") for headers in asked] == [None, None, None, "1-0", "1-0"]
