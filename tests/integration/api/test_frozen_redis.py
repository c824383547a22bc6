"""A Redis that is there and does not answer: stopped, starved, or behind a network that drops everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.redis_client import CALL_SECONDS
from support_processes import System, running
from support_servers import killed_after

PATIENCE = CALL_SECONDS + 8
"""One call, the count of requests before it, and time for a busy machine."""


@contextmanager
def frozen(valkey: ValkeyServer) -> Iterator[None]:
    """Stop a server without ending it."""
    valkey.pause()
    try:
        yield
    finally:
        valkey.resume()


def test_every_route_says_that_the_queue_does_not_answer(seaweedfs: SeaweedServer, tmp_path: Path) -> None:
    """Each request is answered with 503 well before a client gives up, and all is as before afterwards."""
    with (
        killed_after(ValkeyServer(tmp_path / "valkey")) as valkey,
        running(System(valkey, seaweedfs, tmp_path)) as system,
    ):
        system.start_api()
        job = system.submit([10_003])
        asked = {
            "status": ("GET", f"/v1/download/status/{job}"),
            "detail": ("GET", f"/v1/jobs/{job}"),
            "list": ("GET", "/v1/jobs"),
            "events": ("GET", f"/v1/jobs/{job}/events"),
            "cancel": ("DELETE", f"/v1/jobs/{job}"),
            "initiate": ("POST", "/v1/download/initiate"),
            "ready": ("GET", "/readyz"),
        }

        def ask(name: str) -> tuple[str, int, str, float]:
            method, path = asked[name]
            began = time.monotonic()
            body = {"file_ids": [10_010]} if method == "POST" else None
            with system.client() as client:
                answer = client.request(method, path, json=body)
            return name, answer.status_code, answer.json().get("error", ""), time.monotonic() - began

        with frozen(valkey), ThreadPoolExecutor(len(asked)) as threads:
            answers = threads.map(ask, asked)
            with system.client() as client:
                assert client.get("/livez").status_code == httpx.codes.OK
            for name, code, error, seconds in answers:
                assert (name, code, error) == (name, 503, "queue-unavailable")
                assert seconds < PATIENCE, (name, seconds)
        assert system.status(job)["status"] == "queued"
