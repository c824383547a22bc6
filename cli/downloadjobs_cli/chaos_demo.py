"""`demo --chaos`: a large job whose worker is killed in the middle, and which another one finishes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, cast

from downloadjobs_cli.answers import Status
from downloadjobs_cli.client import ApiClient
from downloadjobs_cli.demo import FIRST_ID, INDENT, SETTINGS, Demo, perform
from downloadjobs_cli.display import describe
from downloadjobs_cli.errors import CliError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.output import Output, amount, counted, duration
from downloadjobs_cli.sample_files import SampleFile, sample_files
from downloadjobs_core.job import Job, job_key
from downloadjobs_core.leases import SECOND_US, translated_errors
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT

if TYPE_CHECKING:
    from redis import Redis

MIB: Final = 1024 * 1024
FILES: Final = 16

LEASE_SECONDS: Final = 10
"""A third of the default, so that nobody waits half a minute to see it run out."""

TAKEOVER_SECONDS: Final = 5
"""Beyond the lease: for the other worker to notice that it ran out, and to take the job."""

JOB_SECONDS: Final = 900.0
"""For each half of the job; a gibibyte takes some ten seconds, and many more on a busy machine."""

POLL_SECONDS: Final = 0.01

LARGE_BYTES: Final = 512 * MIB
"""A job of this size takes so long that a third of it can be waited for; its progress is written twice a
second. A smaller one is caught as soon as its upload has begun."""


def run(output: Output, *, mib: int, folder: Path | None, keep: bool) -> ExitCode:
    """Run it with a job of so many MiB; see `demo.perform`."""
    size = mib * MIB // FILES
    return perform(output, ChaosDemo, sample_files(FILES, FIRST_ID, size, size), folder=folder, keep=keep)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds the job: the worker, its token, and since when by Redis' clock, in microseconds."""

    worker: str
    token: str
    since_us: int
    bytes_done: int
    delivery: int


class ChaosDemo(Demo):
    """The demo's steps, with a `kill -9` among them."""

    opening: ClassVar[str] = "One large download job on two workers; the one that holds it is killed."
    settings: ClassVar[Mapping[str, str]] = {**SETTINGS, "LEASE_SECONDS": str(LEASE_SECONDS)}
    job_seconds: ClassVar[float] = JOB_SECONDS

    def _job(self, client: ApiClient, files: list[SampleFile]) -> Status:
        total = sum(file.size for file in files)
        with closing(connect(RedisConfig(self._stack.valkey.url))) as redis:
            with self._steps.step("Job") as step:
                job_id = self._submit(client, files)
                first = self._wait(redis, job_id, lambda lease: _in_the_middle(redis, job_id, lease, total))
                step.text = f"{counted(len(files), 'file')} of {amount(total)}, held by {first.worker}"
            with self._steps.step("Kill") as step:
                killed_us = _now_us(redis)
                self._kill(first.worker)
                done = amount(first.bytes_done) if first.bytes_done else "some parts"
                step.text = f"kill -9 of {first.worker} in the middle, after {done}"
            with self._steps.step("Lease") as step:
                self._output.say(f"{INDENT}Nobody renews the lease of {LEASE_SECONDS} s any more …")
                second = self._wait(redis, job_id, lambda lease: lease.token != first.token)
                seconds = (second.since_us - killed_us) / SECOND_US
                step.text = (
                    f"{second.worker} leased the job {duration(seconds)} after the kill,"
                    f" by a new token, as delivery {second.delivery}"
                )
        limit = LEASE_SECONDS + TAKEOVER_SECONDS
        if second.worker == first.worker or seconds > limit:
            raise CliError(f"The other worker should have leased the job within {limit} s of the kill.")
        with self._steps.step("Finish") as step:
            status = self._watch(client, job_id)
            step.text = f"bundled from the start by {second.worker}: {describe(status, None)}"
        self._facts |= {
            "killedWorker": first.worker,
            "bytesDoneAtKill": first.bytes_done,
            "worker": second.worker,
            "leaseSeconds": LEASE_SECONDS,
            "leasedAfterSeconds": round(seconds, 3),
        }
        return status

    def _kill(self, name: str) -> None:
        for worker in self._stack.workers:
            if worker.name == name:
                worker.kill()

    def _wait(self, redis: Redis, job_id: str, enough: Callable[[Lease], bool]) -> Lease:
        """Wait until somebody holds the job, and the lease is the one that is waited for."""
        deadline = time.monotonic() + self.job_seconds
        while time.monotonic() < deadline:
            with translated_errors():
                record = cast("dict[str, str]", redis.hgetall(job_key(job_id)))
            job = Job.from_hash(record)
            if job.finished_us:
                raise CliError(f"The job is {job.state} already: ask for a larger one by --chaos-mib.")
            if job.token:
                lease = Lease(job.worker, job.token, int(record["leased_us"]), job.bytes_done, job.deliveries)
                if enough(lease):
                    return lease
            time.sleep(POLL_SECONDS)
        raise CliError(f"The job did not come so far within {duration(self.job_seconds)}.")


def _in_the_middle(redis: Redis, job_id: str, lease: Lease, total: int) -> bool:
    """Whether the upload has begun, and a third of a large job is done."""
    if total >= LARGE_BYTES and lease.bytes_done < total // 3:
        return False
    with translated_errors():
        uploads = cast("list[str]", redis.hkeys(f"{ROOT}:uploads"))
    return any(f"{job_id}/{lease.token}" in key for key in uploads)


def _now_us(redis: Redis) -> int:
    with translated_errors():
        seconds, micros = redis.time()
    return seconds * SECOND_US + micros
