"""What a job took from the workers: leased time and bytes of all attempts, on a real Valkey."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.errors import LeaseLostError
from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT, Scripts
from downloadjobs_core.states import JobState

SECOND = 1_000_000
LATE = SECOND
"""What a busy machine may add to a time."""


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[LeaseStore]:
    """The worker's side of an empty queue; a job is dead after two deliveries."""
    redis = connect(RedisConfig(valkey.url))
    yield LeaseStore(redis, QueuePolicy(lease_seconds=30, max_deliveries=2))
    redis.close()


def record(queue: LeaseStore) -> Job:
    """The job as Redis has it."""
    return Job.from_hash(queue.redis.hgetall(job_key("a")))  # type: ignore[arg-type]


def worked(queue: LeaseStore, seconds: int, done: int) -> Job:
    """An attempt that began so many seconds ago, and is done with so many bytes."""
    job = queue.lease("w")
    assert job is not None
    queue.progress(job, files_done=0, bytes_done=done, bytes_total=1_000)
    queue.redis.hincrby(job_key("a"), "leased_us", -seconds * SECOND)
    return job


def finish(queue: LeaseStore, job: Job) -> None:
    """The job is done."""
    queue.finish(job, Outcome(JobState.COMPLETED, result_key="k", bytes_done=100, bytes_total=100))


def fail(queue: LeaseStore, job: Job) -> None:
    """The job failed for good."""
    queue.finish(job, Outcome(JobState.FAILED, bytes_done=100))


def retry(queue: LeaseStore, job: Job) -> None:
    """The attempt failed, and another is placed."""
    queue.retry_later(job, delay_seconds=60, code="x", message="x")


def hand_back(queue: LeaseStore, job: Job) -> None:
    """The worker drains."""
    queue.hand_back(job)


def cancel(queue: LeaseStore, job: Job) -> None:
    """The job is cancelled."""
    Scripts(queue.redis).run("cancel", job.job_id, "x", "x", 1_000, 0)


def withdraw(queue: LeaseStore, job: Job) -> None:
    """What asked for the job goes."""
    Scripts(queue.redis).run("withdraw", job.job_id, "x", "x", 1_000, 0, 0)


ENDS = [finish, fail, retry, hand_back, cancel, withdraw]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_every_end_counts(queue: LeaseStore, end: Callable[[LeaseStore, Job], None]) -> None:
    """However an attempt ends, its time and its bytes are in the sum, once; a second call adds nothing."""
    assert queue.submit(NewJob(job_id="a", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    job = worked(queue, 40, 100)
    end(queue, job)
    found = record(queue)
    assert 40 * SECOND <= found.worker_us < 40 * SECOND + LATE
    assert found.worker_bytes == 100
    with suppress(LeaseLostError):
        end(queue, job)
    again = record(queue)
    assert (again.worker_us, again.worker_bytes) == (found.worker_us, found.worker_bytes)
    assert (again.used_us, again.used_bytes) == (found.worker_us, found.worker_bytes)


@pytest.mark.parametrize("dead", [False, True], ids=["queued again", "dead letter"])
def test_a_lost_lease_counts_to_its_end(queue: LeaseStore, *, dead: bool) -> None:
    """A worker that was lost is charged until its lease ran out, however late that is noticed."""
    assert queue.submit(NewJob(job_id="a", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    job = worked(queue, 3_600, 70)
    if dead:
        queue.redis.hset(job_key("a"), "deliveries", 2)
    ran_out = int(queue.redis.hget(job_key("a"), "leased_us") or 0) + 30 * SECOND
    queue.redis.zadd(f"{ROOT}:leased", {"a": ran_out})
    assert queue.reap() == ((0, 1) if dead else (1, 0))
    found = record(queue)
    assert (found.worker_us, found.worker_bytes) == (30 * SECOND, 70)
    assert found.state is (JobState.FAILED if dead else JobState.QUEUED)
    with pytest.raises(LeaseLostError):
        finish(queue, job)
    assert record(queue).worker_us == 30 * SECOND


@pytest.mark.parametrize("end", [cancel, withdraw], ids=lambda end: end.__name__)
def test_a_lease_that_ran_out_is_cancelled_at_its_end(
    queue: LeaseStore, end: Callable[[LeaseStore, Job], None]
) -> None:
    """A cancellation charges no time in which the lease had run out, and nobody had noticed."""
    assert queue.submit(NewJob(job_id="a", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    job = worked(queue, 3_600, 70)
    ran_out = int(queue.redis.hget(job_key("a"), "leased_us") or 0) + 30 * SECOND
    queue.redis.zadd(f"{ROOT}:leased", {"a": ran_out})
    end(queue, job)
    assert (record(queue).worker_us, record(queue).worker_bytes) == (30 * SECOND, 70)


def test_attempts_add_up(queue: LeaseStore) -> None:
    """Three attempts are the sum of three; what waits between them is nobody's time."""
    assert queue.submit(NewJob(job_id="a", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    hand_back(queue, worked(queue, 10, 1))
    retry(queue, worked(queue, 20, 20))
    queue.redis.zadd(f"{ROOT}:delayed", {"a": 1})
    assert queue.promote() == 1
    running = worked(queue, 30, 300)
    found = record(queue)
    assert 30 * SECOND <= found.worker_us < 30 * SECOND + LATE
    assert 60 * SECOND <= found.used_us < 60 * SECOND + LATE
    assert (found.worker_bytes, found.used_bytes) == (21, 321)
    finish(queue, running)
    found = record(queue)
    assert 60 * SECOND <= found.worker_us < 60 * SECOND + LATE
    assert found.worker_bytes == 121


def test_a_cancelled_job_that_never_ran_took_nothing(queue: LeaseStore) -> None:
    """What no worker ever held costs nothing."""
    assert queue.submit(NewJob(job_id="a", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    Scripts(queue.redis).run("cancel", "a", "x", "x", 1_000, 0)
    assert (record(queue).worker_us, record(queue).worker_bytes) == (0, 0)


def test_a_record_of_an_older_release_is_gone_on_with(queue: LeaseStore) -> None:
    """A job that was begun before there was any accounting is charged from its next end on."""
    assert queue.submit(NewJob(job_id="a", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    job = queue.lease("w")
    assert job is not None
    queue.redis.hdel(job_key("a"), "leased_us", "bytes_done")
    cancel(queue, job)
    assert (record(queue).worker_us, record(queue).worker_bytes) == (0, 0)
