"""Many who follow jobs at once, against one API process: `python -m bench.live`. Prints JSON.

Streams and long polls are opened by coroutines of this process over servers that it starts; jobs change
by the worker's own scripts. The lag of an event is from its id, which is Redis' time, to its receipt here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.job import NewJob
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.states import JobState
from support_processes import System, running
from support_servers import killed_after

DEADLINE_SECONDS = 240


def parse() -> argparse.Namespace:
    """What to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--pollers", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--changes", type=int, default=40, help="of each job")
    parser.add_argument(
        "--silent", type=int, default=20, help="streams that are never read, beside the others"
    )
    return parser.parse_args()


class Clients:
    """All clients, and what they saw."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.lags: list[float] = []
        self.events = 0
        self.ended = 0
        self.errors: list[str] = []
        self.ready = 0
        self.polls = 0

    async def request(
        self, path: str, user: str, *headers: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send one."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"GET {path} HTTP/1.1", "host: bench", f"x-user-id: {user}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        return reader, writer

    async def follow(self, number: int, jobs: int) -> None:
        """One stream to its end."""
        job = number % jobs
        reader, writer = await self.request(f"/v1/jobs/j{job}/events", f"u{job}", "accept: text/event-stream")
        entry, seen = 0.0, False
        try:
            while line := await reader.readline():
                if line.startswith(b"HTTP/") and b" 200 " not in line:
                    self.errors.append(line.decode().strip())
                if line.startswith(b"id: "):
                    entry = int(line[4:].split(b"-")[0]) / 1000
                elif line.startswith(b"data: "):
                    if seen:
                        self.events += 1
                        self.lags.append(time.time() - entry)
                    else:
                        seen = True
                        self.ready += 1
                    if b'"completed"' in line:
                        self.ended += 1
                        return
            self.errors.append("a stream ended early")
        finally:
            writer.close()

    async def poll(self, number: int, jobs: int) -> None:
        """Wait for a job's end, again and again."""
        job = number % jobs
        self.ready += 1
        while True:
            path = f"/v1/download/status/j{job}"
            reader, writer = await self.request(path, f"u{job}", "prefer: wait=20", "connection: close")
            answer = await reader.read()
            writer.close()
            self.polls += 1
            if b" 200 " not in answer[:20]:
                self.errors.append(answer[:60].decode())
                return
            if b'"completed"' in answer:
                self.ended += 1
                return


def change(url: str, arguments: argparse.Namespace, begin: threading.Event) -> None:
    """Lease all jobs, let them come further, and end them."""
    redis = connect(RedisConfig(url))
    queue = LeaseStore(redis, QueuePolicy(user_max_running=100, lease_seconds=600))
    held = []
    while job := queue.lease("bench"):
        held.append(job)
    begin.wait()
    for step in range(arguments.changes):
        for job in held:
            queue.progress(job, files_done=0, bytes_done=step, bytes_total=arguments.changes)
        time.sleep(0.1)
    for job in held:
        queue.finish(job, Outcome(JobState.COMPLETED, files_done=1))
    redis.close()


def rss_mib(pid: int) -> float:
    """Memory of a process and its children."""
    pids = {pid}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            pids.add(int(path.parent.name))
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in pids)
    return round(pages * 4096 / 2**20, 1)


async def run(system: System, url: str, arguments: argparse.Namespace, pid: int) -> dict[str, Any]:
    """Open, change, and count."""
    clients = Clients(system.port)
    before = rss_mib(pid)
    begin = threading.Event()
    worker = threading.Thread(target=change, args=(url, arguments, begin))
    worker.start()
    silent = [
        await clients.request(f"/v1/jobs/j{n % arguments.jobs}/events", f"u{n % arguments.jobs}")
        for n in range(arguments.silent)
    ]
    tasks = [asyncio.create_task(clients.follow(n, arguments.jobs)) for n in range(arguments.streams)]
    tasks += [asyncio.create_task(clients.poll(n, arguments.jobs)) for n in range(arguments.pollers)]
    began = time.monotonic()
    while clients.ready < len(tasks) and time.monotonic() - began < DEADLINE_SECONDS:  # noqa: ASYNC110 - a count
        await asyncio.sleep(0.05)
    opened = time.monotonic() - began
    idle = rss_mib(pid)
    begin.set()
    await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE_SECONDS)
    busy = rss_mib(pid)
    worker.join()
    for _, writer in silent:
        writer.close()
    lags = sorted(clients.lags)
    return {
        "streams": arguments.streams,
        "pollers": arguments.pollers,
        "silent_streams": arguments.silent,
        "opened_in_s": round(opened, 2),
        "events_delivered": clients.events,
        "events_expected": arguments.streams * (arguments.changes + 1),
        "ended": clients.ended,
        "polls": clients.polls,
        "errors": len(clients.errors),
        "first_errors": clients.errors[:3],
        "lag_p50_ms": round(lags[len(lags) // 2] * 1000, 1),
        "lag_p99_ms": round(lags[len(lags) * 99 // 100] * 1000, 1),
        "rss_before_mib": before,
        "rss_open_mib": idle,
        "rss_after_mib": busy,
    }


def main() -> None:
    """Start the servers, run, print."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            killed_after(ValkeyServer(folder / "valkey")) as valkey,
            killed_after(SeaweedServer(folder / "seaweed")) as store,
            running(System(valkey, store, folder)) as system,
        ):
            api = system.start_api()
            redis = connect(RedisConfig(valkey.url))
            queue = LeaseStore(redis, QueuePolicy())
            for number in range(arguments.jobs):
                job_id, user = f"j{number}", f"u{number}"
                job = NewJob(job_id=job_id, user=user, file_ids=(10_003,), total_file_ids=1, max_attempts=3)
                queue.submit(job)
            redis.close()
            figures = asyncio.run(run(system, valkey.url, arguments, api.pid))
    print(json.dumps(figures, indent=2))
    sys.exit(0 if not figures["errors"] and figures["ended"] == arguments.streams + arguments.pollers else 1)


if __name__ == "__main__":
    main()
