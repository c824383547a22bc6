"""How fast a worker bundles, and how much memory it needs for it.

    .venv/bin/python bench/bundling.py [--files 8] [--rounds 3] [--stores seaweedfs,minio]

Throughput is told as a ratio: the time of plain get and put of the same bytes
(each file read whole, then put, one after another, in one thread), over the
time of bundling them, in alternating rounds against the same server; above 1,
bundling is faster. Memory is the peak of a real worker process with one slot
that makes one job of 16 files of 128 MiB, as the kernel accounts it (VmHWM).
"""

from __future__ import annotations

import os
import sys

# This folder has files named like modules of the standard library; what they share is in `support`.
sys.path[0] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "support")  # noqa: PTH100, PTH118, PTH120 - pathlib may import them

import argparse
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from support_bench import median, result, table

from downloadjobs_cli.embedded import MinioServer, S3Server, SeaweedServer, ValkeyServer
from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.leases import LeaseStore, QueuePolicy
from downloadjobs_core.objectstore.protocol import ObjectStore
from downloadjobs_core.objectstore.s3 import connect as connect_store
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.states import FINISHED, JobState
from downloadjobs_worker.bundling import Bundler, BundlingLimits
from downloadjobs_worker.hold import Hold
from downloadjobs_worker.settings import WorkerSettings

MIB: Final = 1024 * 1024
SERVERS: Final[dict[str, type[S3Server]]] = {"seaweedfs": SeaweedServer, "minio": MinioServer}
BUCKET: Final = "bench"
PREFIX: Final = "downloads/"
RATE_FILE_BYTES: Final = 64 * MIB
MEMORY_FILES: Final = 16
MEMORY_FILE_BYTES: Final = 128 * MIB
DEADLINE_SECONDS: Final = 300


def seed(store: ObjectStore, count: int, size: int, first_id: int) -> list[int]:
    """Store files of random bytes; their ids."""
    ids = list(range(first_id, first_id + count))
    block = random.Random(first_id).randbytes(size)  # noqa: S311 - incompressible filler
    for file_id in ids:
        store.put(f"{PREFIX}{file_id}.zip", block)
    return ids


def plain(store: ObjectStore, ids: list[int]) -> None:
    """Read each file whole and put it again: what a bundler without bundling would do."""
    for file_id in ids:
        with store.open(f"{PREFIX}{file_id}.zip") as reader:
            pieces = []
            while piece := reader.read(MIB):
                pieces.append(piece)
        key = f"plain/{file_id}.zip"
        store.put(key, b"".join(pieces))
        store.delete(key)


def bundled(store: ObjectStore, ids: list[int], limits: BundlingLimits, attempt: int) -> None:
    """Bundle the same files as the worker does."""
    job = Job(
        job_id="bench", user="bench", state=JobState.PROCESSING, file_ids=tuple(ids), token=str(attempt),
        total_file_ids=len(ids), files_total=len(ids), created_us=1_700_000_000_000_000,
    )  # fmt: skip
    outcome = Bundler(store, store, limits, PREFIX, "results/").bundle(Hold(job), lambda: None, NoLedger())
    assert outcome.state is JobState.COMPLETED
    store.delete(outcome.result_key)


class NoLedger:
    """Remembers no uploads: nothing here is killed."""

    def begun(self, key: str) -> None:
        """Forget it."""

    def ended(self, key: str) -> None:
        """Forget it."""

    def left(self, key: str) -> None:
        """Forget it."""


def timed(call: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def rates(name: str, store: ObjectStore, files: int, rounds: int) -> float:
    """Alternate the two on one server and print both; the median ratio."""
    limits_of = WorkerSettings.model_validate({})
    limits = BundlingLimits(
        limits_of.part_bytes,
        limits_of.upload_threads,
        limits_of.upload_memory,
        limits_of.read_ahead_files,
        limits_of.read_ahead_bytes,
    )
    ids = seed(store, files, RATE_FILE_BYTES, 10_000)
    plain(store, ids[:2])
    bundled(store, ids[:2], limits, 0)
    pairs = [
        (timed(lambda: plain(store, ids)), timed(lambda attempt=n: bundled(store, ids, limits, attempt)))  # type: ignore[misc]
        for n in range(1, rounds + 1)
    ]
    total = files * RATE_FILE_BYTES / MIB
    table(
        f"{name}: {files} files of {RATE_FILE_BYTES // MIB} MiB",
        ["round", "get+put MiB/s", "bundled MiB/s", "ratio"],
        [
            [str(n), f"{total / a:.0f}", f"{total / b:.0f}", f"{a / b:.2f}"]
            for n, (a, b) in enumerate(pairs, 1)
        ],
    )
    for file_id in ids:
        store.delete(f"{PREFIX}{file_id}.zip")
    return median([a / b for a, b in pairs])


def peak_memory(server: S3Server, store: ObjectStore, valkey: ValkeyServer, log: Path) -> float:
    """Peak memory in MiB of a worker with one slot that makes one large job."""
    ids = seed(store, MEMORY_FILES, MEMORY_FILE_BYTES, 20_000)
    leases = LeaseStore(connect(RedisConfig(valkey.url)), QueuePolicy())
    job_id = f"memory-{server.port}"
    with log.open("w") as stderr:
        worker = subprocess.Popen(
            [sys.executable, "-m", "downloadjobs_worker"],
            env=os.environ | {
                "REDIS_URL": valkey.url, "S3_ENDPOINT": server.endpoint, "S3_BUCKET_NAME": BUCKET,
                "S3_ACCESS_KEY_ID": server.config.access_key or "",
                "S3_SECRET_ACCESS_KEY": server.config.secret_key or "",
                "WORKER_CONCURRENCY": "1", "HOST": "127.0.0.1", "METRICS_PORT": "0",
            },
            stderr=stderr,
        )  # fmt: skip
    try:
        leases.submit(
            NewJob(job_id=job_id, user="b", file_ids=tuple(ids), total_file_ids=len(ids), max_attempts=1)
        )
        until = time.monotonic() + DEADLINE_SECONDS
        while True:
            job = Job.from_hash(leases.redis.hgetall(job_key(job_id)))  # type: ignore[arg-type]
            if job.state in FINISHED:
                break
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        assert job.state is JobState.COMPLETED, job
        status = Path(f"/proc/{worker.pid}/status").read_text()
    finally:
        worker.terminate()
        worker.wait(30)
    store.delete(job.result_key)
    for file_id in ids:
        store.delete(f"{PREFIX}{file_id}.zip")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return float(kib) / 1024


def main() -> None:
    """Run all of it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--files", type=int, default=8)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--stores", default="seaweedfs,minio")
    args = options.parse_args()

    ratios: dict[str, float] = {}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="downloadjobs-bench-") as folder:
        root = Path(folder)
        with ValkeyServer(root / "valkey") as valkey:
            for name in args.stores.split(","):
                with SERVERS[name](root / name) as server:
                    server.make_bucket(BUCKET)
                    store = connect_store(server.config, BUCKET)
                    ratios[name] = rates(name, store, args.files, args.rounds)
                    peaks[name] = peak_memory(server, store, valkey, root / f"{name}-worker.log")
    table(
        f"one worker, one slot, one job of {MEMORY_FILES} files of {MEMORY_FILE_BYTES // MIB} MiB",
        ["store", "peak MiB"],
        [[name, f"{peak:.0f}"] for name, peak in peaks.items()],
    )
    result(
        streaming_ratio={name: round(ratio, 2) for name, ratio in ratios.items()},
        peak_memory_mib=round(max(peaks.values())),
    )


if __name__ == "__main__":
    main()
