"""How fast the queue is, beside stock Huey's, and what a pop costs as it grows.

    .venv/bin/python bench/queue.py [--jobs 2000] [--rounds 5] [--sizes 1000,100000,1000000]

Throughput: one process takes jobs through submit, pop and finish, each through
Huey's own `dequeue` and `execute`, in alternating rounds against stock Huey's
priority storage on the same Valkey. Ours writes a record, a lease, fencing
tokens and events besides. Cost of a pop: the time of `pop` and `finish` calls
at several lengths of the queue, by 1,000 users, the median of each.
"""

from __future__ import annotations

import os
import sys

# This folder has files named like modules of the standard library; what they share is in `support`.
sys.path[0] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "support")  # noqa: PTH100, PTH118, PTH120 - pathlib may import them

import argparse
import logging
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

import redis
from huey import PriorityRedisHuey
from support_bench import median, result, table

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.huey_queue import LeasedHuey
from downloadjobs_core.job import Job, NewJob
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT, source
from downloadjobs_core.states import JobState
from downloadjobs_core.tasks import bind_bundle

USERS: Final = 1_000
POPS: Final = 300
UNLIMITED: Final = 10**9
DONE: Final = Outcome(JobState.COMPLETED, result_key="results/job/token.zip", result_bytes=1)


def new_job(number: int) -> NewJob:
    """A job of ten files of one of many users."""
    return NewJob(
        job_id=str(uuid.uuid4()),
        user=f"user{number % USERS}",
        file_ids=tuple(range(10_000, 10_010)),
        total_file_ids=10,
        max_attempts=3,
    )


def ours(leases: LeaseStore, jobs: int) -> float:
    """Jobs a second through submit, pop and finish."""
    huey = LeasedHuey(leases, worker="bench")
    finished = 0

    def run(job: Job) -> None:
        nonlocal finished
        leases.finish(job, DONE)
        finished += 1

    bind_bundle(huey, run)
    started = time.perf_counter()
    for number in range(jobs):
        leases.submit(new_job(number))
    for _ in range(jobs):
        huey.execute(huey.dequeue())
    seconds = time.perf_counter() - started
    assert finished == jobs
    return jobs / seconds


def stock(url: str, jobs: int) -> float:
    """Jobs a second through stock Huey's enqueue, dequeue and execute, which stores a result."""
    huey = PriorityRedisHuey("stock", url=url)
    finished = 0

    @huey.task()  # type: ignore[untyped-decorator]
    def run(job_id: str, user: str, file_ids: list[int]) -> str:
        nonlocal finished
        finished += 1
        return f"{job_id} {user} {len(file_ids)}"

    started = time.perf_counter()
    for number in range(jobs):
        job = new_job(number)
        run(job.job_id, job.user, list(job.file_ids))
    for _ in range(jobs):
        huey.execute(huey.dequeue())
    seconds = time.perf_counter() - started
    assert finished == jobs
    return jobs / seconds


def pop_micros(leases: LeaseStore) -> float:
    """The median time of one pop, in microseconds."""
    times = []
    for _ in range(POPS):
        started = time.perf_counter()
        job = leases.lease("bench")
        times.append((time.perf_counter() - started) * 1e6)
        assert job is not None
        leases.finish(job, DONE)
    return median(times)


def fill(leases: LeaseStore, present: int, target: int) -> None:
    """Submit until the queue has `target` jobs, several in one pipeline."""
    submit = leases.redis.register_script(source("submit"))
    for begin in range(present, target, 1_000):
        pipeline = leases.redis.pipeline(transaction=False)
        for number in range(begin, min(begin + 1_000, target)):
            arguments = new_job(number).submission(max_queued=UNLIMITED, record_seconds=3_600)
            submit(keys=[ROOT], args=arguments, client=pipeline)
        pipeline.execute()


def main() -> None:
    """Run all of it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--jobs", type=int, default=2_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--sizes", default="1000,100000,1000000")
    args = options.parse_args()
    logging.getLogger("huey").setLevel(logging.ERROR)
    policy = QueuePolicy(user_max_running=UNLIMITED, user_max_queued=UNLIMITED)

    with (
        tempfile.TemporaryDirectory(prefix="downloadjobs-bench-") as folder,
        ValkeyServer(Path(folder)) as valkey,
    ):
        leases = LeaseStore(connect(RedisConfig(valkey.url)), policy)
        ours(leases, 200)
        stock(valkey.url, 200)
        pairs = [(ours(leases, args.jobs), stock(valkey.url, args.jobs)) for _ in range(args.rounds)]
        table(
            f"{args.jobs} jobs through submit, pop, finish; one process",
            ["round", "ours/s", "stock Huey/s", "ratio"],
            [[str(n), f"{a:.0f}", f"{b:.0f}", f"{a / b:.2f}"] for n, (a, b) in enumerate(pairs, 1)],
        )

        leases.redis.flushall()
        costs: dict[int, tuple[float, float]] = {}
        present = 0
        for size in sorted(int(size) for size in args.sizes.split(",")):
            fill(leases, present, size)
            pop_micros(leases)
            used = redis.Redis.from_url(valkey.url).info("memory")["used_memory"]
            costs[size] = (pop_micros(leases), used / 1e6)
            present = size - 2 * POPS
        table(
            "one pop, by jobs queued",
            ["queued", "pop us", "memory MB"],
            [[f"{size:,}", f"{micros:.0f}", f"{mb:.0f}"] for size, (micros, mb) in costs.items()],
        )

    sizes = sorted(costs)
    result(
        ratio_to_huey=round(median([a / b for a, b in pairs]), 2),
        pop_growth=round(costs[sizes[-1]][0] / costs[sizes[0]][0], 2),
        jobs_per_second=round(median([a for a, _ in pairs])),
    )


if __name__ == "__main__":
    main()
