"""How fast the API answers, beside a peer on Node and a bare Falcon answer.

    .venv/bin/python bench/api.py [--seconds 5] [--connections 50] [--rounds 3] [--node PROGRAM]

It needs `wrk` (Debian: apt-get install wrk), Node 20 or newer and npm. One API
process; one process of `peer-node/`, which does the same for status and
initiate on Hono and ioredis; and one bare Falcon app under the API's server,
which answers a constant without any header of ours. Each route is loaded in
alternating rounds, and the medians are compared. Valkey and SeaweedFS are real,
on loopback; rate limits are on, and so high that nobody is refused.

At last a worker bundles large files in all its slots while the API is loaded
once more: how long answers take then, with three busy processes on the
machine's cores.
"""

from __future__ import annotations

import os
import sys

# This folder has files named like modules of the standard library; what they share is in `support`.
sys.path[0] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "support")  # noqa: PTH100, PTH118, PTH120 - pathlib may import them

import argparse
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from support_bench import median, result, table

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer, free_ports
from downloadjobs_core.objectstore.s3 import connect

USER: Final = "bench"
FILE_ID: Final = 10_000

BARE: Final = """
import falcon.asgi
from downloadjobs_api.server import serve
from downloadjobs_api.settings import ApiSettings

class Bare:
    async def on_get(self, req, resp):
        resp.data = b'{"status":"ok"}'
        resp.content_type = "application/json"

def create_app(settings, drain):
    app = falcon.asgi.App()
    app.add_route("/", Bare())
    return app

serve(ApiSettings(), create_app)
"""

PEER: Final = Path(__file__).parent / "peer-node"

LIMITS: Final = {"RATE_LIMIT_MAX_REQUESTS": "1000000000", "RATE_LIMIT_WINDOW_MS": "60000"}

BUSY_USER: Final = "busy"
BUSY_FILES: Final = 8
BUSY_BYTES: Final = 16 * 1024 * 1024
BUSY_JOBS: Final = 60
"""Some 8 GB: more than a worker bundles while three routes are loaded. What is left is cancelled."""

REPORT: Final = """
done = function(summary, latency, requests)
  io.write(string.format("JSON{\\"rps\\":%f,\\"p99_ms\\":%f,\\"bad\\":%d}",
    summary.requests / summary.duration * 1e6, latency:percentile(99) / 1000,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk sends to one route."""

    name: str
    url: str
    method: str = "GET"
    body: str = ""
    known: str = ""
    """The ETag that the client has."""

    def script(self) -> str:
        """The Lua that wrk runs."""
        return (
            f"""
            wrk.method = "{self.method}"
            wrk.headers["x-user-id"] = "{USER}"
            wrk.headers["content-type"] = "application/json"
            wrk.headers["if-none-match"] = {json.dumps(self.known) if self.known else "nil"}
            wrk.body = '{self.body}'
        """
            + REPORT
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests a second, and the 99th percentile of their time in milliseconds."""

    rps: float
    p99_ms: float


def measure(load: Load, folder: Path, *, seconds: int, connections: int) -> Measured:
    """Load one route and check that every answer was a good one."""
    script = folder / "load.lua"
    script.write_text(load.script())
    printed = subprocess.run(
        [shutil.which("wrk") or "", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), load.url],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = re.search(r"JSON(\{.*\})", printed)
    assert found, printed
    figures = json.loads(found.group(1))
    assert not figures["bad"], (load, figures)
    return Measured(figures["rps"], figures["p99_ms"])


@contextmanager
def busy_worker(api: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """A worker that bundles in all its slots meanwhile. It must not run out of jobs."""
    with httpx.Client(base_url=api, headers={"x-user-id": BUSY_USER}, trust_env=False, timeout=30) as client:
        body = {"file_ids": list(range(FILE_ID + 1, FILE_ID + 1 + BUSY_FILES))}
        jobs = [
            client.post("/v1/download/initiate", json=body).raise_for_status().json()["jobId"]
            for _ in range(BUSY_JOBS)
        ]

        def state(job: str) -> str:
            return str(client.get(f"/v1/download/status/{job}").raise_for_status().json()["status"])

        with log.open("w") as stderr:
            worker = subprocess.Popen(
                [sys.executable, "-m", "downloadjobs_worker"],
                env={
                    **os.environ,
                    "METRICS_PORT": "0",
                    "LOG_FORMAT": "json",
                    "DRAIN_SECONDS": "0",
                    **environment,
                },
                stderr=stderr,
            )
        try:
            until = time.monotonic() + 60
            while state(jobs[0]) != "completed":
                if time.monotonic() > until:
                    sys.exit("the worker did not finish its first job in time")
                time.sleep(0.1)
            yield
            if state(jobs[-1]) != "queued":
                sys.exit("the worker ran out of jobs, so it was not busy: raise BUSY_JOBS")
            for job in jobs:
                client.delete(f"/v1/jobs/{job}")
        finally:
            worker.terminate()
            worker.wait(30)


@contextmanager
def served(command: list[str], environment: dict[str, str], log: Path) -> Iterator[str]:
    """A server process on a free port; its address.

    Args:
        command: the program and its arguments.
        environment: its settings.
        log: where its standard error goes.
    """
    port = free_ports(1)[0]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            env={
                **os.environ,
                "HOST": "127.0.0.1",
                "PORT": str(port),
                "METRICS_PORT": "0",
                "LOG_FORMAT": "json",
                **environment,
            },
            stderr=stderr,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), trust_env=False) as client:
            client.get(f"{address}/").raise_for_status()
        yield address
    finally:
        process.terminate()
        process.wait(30)


def submitted(address: str, body: str) -> str:
    """Ask for a job; the URL of its status."""
    answer = httpx.post(
        f"{address}/v1/download/initiate",
        content=body,
        headers={"x-user-id": USER, "content-type": "application/json"},
    ).raise_for_status()
    return f"{address}{answer.headers['location']}"


def tag_of(url: str) -> str:
    """The ETag of a job's status."""
    return httpx.get(url, headers={"x-user-id": USER}).raise_for_status().headers["etag"]


def main() -> None:
    """Run all of it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--seconds", type=int, default=5)
    options.add_argument("--connections", type=int, default=50)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--node", default="node", help="the peer's program; a newer one: npm i node@24")
    args = options.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench/api.py needs wrk: apt-get install wrk")
    npm = shutil.which("npm")
    if shutil.which(args.node) is None or npm is None:
        sys.exit("bench/api.py needs Node and npm: apt-get install nodejs npm")
    subprocess.run(
        [npm, "ci", "--silent", "--omit=dev", "--no-audit", "--no-fund"], cwd=PEER, check=True
    )  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="downloadjobs-bench-") as name:
        folder = Path(name)
        with ValkeyServer(folder / "valkey") as valkey, SeaweedServer(folder / "s3") as s3:
            store = connect(s3.config, s3.bucket)
            store.put(f"downloads/{FILE_ID}.zip", b"x" * 1000)
            environment = {
                **LIMITS,
                "REDIS_URL": valkey.url,
                "USER_MAX_QUEUED": "1000000000",
                "RATE_LIMIT_MAX_REQUESTS": "1000000000",  # on, and high enough to refuse nobody
                "S3_ENDPOINT": s3.endpoint, "S3_BUCKET_NAME": s3.bucket,
                "S3_ACCESS_KEY_ID": s3.config.access_key or "",
                "S3_SECRET_ACCESS_KEY": s3.config.secret_key or "",
            }  # fmt: skip
            peer_environment = {**LIMITS, "REDIS_URL": valkey.url, "NODE_ENV": "production"}
            with (
                served([sys.executable, "-m", "downloadjobs_api"], environment, folder / "api.log") as api,
                served([args.node, str(PEER / "server.js")], peer_environment, folder / "peer.log") as peer,
                served([sys.executable, "-c", BARE], {}, folder / "bare.log") as bare,
            ):
                body = json.dumps({"file_ids": list(range(FILE_ID, FILE_ID + 10))})
                status, peer_status = submitted(api, body), submitted(peer, body)
                loads = [
                    Load("bare Falcon", f"{bare}/"),
                    Load("status", status),
                    Load("status of the peer", peer_status),
                    Load("status, 304", status, known=tag_of(status)),
                    Load("status of the peer, 304", peer_status, known=tag_of(peer_status)),
                    Load("initiate", f"{api}/v1/download/initiate", "POST", body),
                    Load("initiate of the peer", f"{peer}/v1/download/initiate", "POST", body),
                    Load("check", f"{api}/v1/download/check", "POST", json.dumps({"file_id": FILE_ID})),
                ]
                rounds = [
                    {
                        load.name: measure(load, folder, seconds=args.seconds, connections=args.connections)
                        for load in loads
                    }
                    for _ in range(args.rounds)
                ]
                for number in range(1, BUSY_FILES + 1):
                    store.put(f"downloads/{FILE_ID + number}.zip", os.urandom(BUSY_BYTES))
                with busy_worker(api, environment, folder / "worker.log"):
                    busy = {
                        load.name: measure(load, folder, seconds=args.seconds, connections=args.connections)
                        for load in loads
                        if load.name in {"status", "initiate", "check"}
                    }

    def ratio(of: str, to: str) -> float:
        return round(median([row[of].rps / row[to].rps for row in rounds]), 2)

    rps = {load.name: median([row[load.name].rps for row in rounds]) for load in loads}
    p99 = {load.name: median([row[load.name].p99_ms for row in rounds]) for load in loads}
    table(
        f"one process each, {args.connections} connections, median of {args.rounds} × {args.seconds} s",
        ["route", "requests/s", "p99 ms", "ratio to bare Falcon"],
        [
            [
                load.name,
                f"{rps[load.name]:.0f}",
                f"{p99[load.name]:.1f}",
                f"{ratio(load.name, 'bare Falcon'):.2f}",
            ]
            for load in loads
        ],
    )
    result(
        status_ratio_to_peer=ratio("status", "status of the peer"),
        initiate_ratio_to_peer=ratio("initiate", "initiate of the peer"),
        not_modified_ratio_to_peer=ratio("status, 304", "status of the peer, 304"),
        status_rps=round(rps["status"]),
        status_p99_ms=round(p99["status"], 1),
        status_ratio_to_bare=ratio("status", "bare Falcon"),
        initiate_rps=round(rps["initiate"]),
        initiate_p99_ms=round(p99["initiate"], 1),
        check_rps=round(rps["check"]),
        check_p99_ms=round(p99["check"], 1),
        busy_status_p99_ms=round(busy["status"].p99_ms, 1),
        busy_initiate_p99_ms=round(busy["initiate"].p99_ms, 1),
        busy_check_p99_ms=round(busy["check"].p99_ms, 1),
    )


if __name__ == "__main__":
    main()
