"""A clock that is set back by an hour, by NTP or by a failover to another machine: times stand ahead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.job import NewJob, job_key
from downloadjobs_core.leases import SECOND_US, LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState

HOUR_US = 3_600 * SECOND_US


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[LeaseStore]:
    """An empty queue."""
    redis = connect(RedisConfig(valkey.url))
    yield LeaseStore(redis, QueuePolicy())
    redis.close()


def submit(queue: LeaseStore, job_id: str, user: str = "u") -> None:
    """A job of one file."""
    queue.submit(NewJob(job_id=job_id, user=user, file_ids=(1,), total_file_ids=1, max_attempts=1))


def set_back(queue: LeaseStore, job_id: str) -> None:
    """As if the clock had been an hour ahead when the job was submitted and leased."""
    for name in ("created_us", "started_us", "leased_us"):
        queue.redis.hincrby(job_key(job_id), name, HOUR_US)
    queue.redis.zincrby(f"{ROOT}:leased", HOUR_US, job_id)


def test_no_time_is_negative(queue: LeaseStore) -> None:
    """What a job took is nothing, then, not less: estimates and users' turns stay what they are."""
    submit(queue, "a")
    job = queue.lease("w")
    assert job is not None
    set_back(queue, "a")
    queue.finish(job, Outcome(JobState.COMPLETED, result_key="k"))
    assert float(queue.redis.hget(f"{ROOT}:queue", "service_us") or 0) >= 0
    submit(queue, "b", user="v")
    charged, expected = queue.redis.hmget(job_key("b"), "charged_us", "expected_wait_us")
    assert int(charged or -1) >= 0
    assert int(expected or -1) >= 0


def test_a_mean_that_is_negative_is_corrected(queue: LeaseStore) -> None:
    """A negative mean, which a release before may have left, counts as none."""
    queue.redis.hset(f"{ROOT}:queue", "service_us", -HOUR_US)
    submit(queue, "a")
    assert int(queue.redis.hget(job_key("a"), "charged_us") or -1) >= 0
    job = queue.lease("w")
    assert job is not None
    queue.finish(job, Outcome(JobState.COMPLETED, result_key="k"))
    assert float(queue.redis.hget(f"{ROOT}:queue", "service_us") or -1) >= 0


def test_a_lease_ahead_of_the_clock_runs_out(queue: LeaseStore) -> None:
    """The lease of a worker that is gone runs out as if made now; no other one is shortened."""
    submit(queue, "lost")
    submit(queue, "kept")
    for _ in range(2):
        assert queue.lease("w") is not None
    kept = queue.redis.zscore(f"{ROOT}:leased", "kept")
    set_back(queue, "lost")
    assert queue.reap() == (0, 0)
    seconds, micros = queue.redis.time()
    left = (queue.redis.zscore(f"{ROOT}:leased", "lost") or 0) / SECOND_US - seconds - micros / SECOND_US
    assert 29 < left <= 30
    assert queue.redis.zscore(f"{ROOT}:leased", "kept") == kept


def test_slots_of_workers_that_are_gone_do_not_count(queue: LeaseStore) -> None:
    """When the last worker was killed, its slots count as long as its lease, though nobody takes them off."""
    queue.renew([], worker="w", slots=4)
    submit(queue, "first")
    for name, slots in (("second", 4), ("third", 1)):
        estimate = queue.redis.hget(f"{ROOT}:queue", "slots")
        assert estimate == "4"
        if slots == 1:
            queue.redis.hset(f"{ROOT}:queue", "slots_until", 1)
        submit(queue, name)
    waits = [int(queue.redis.hget(job_key(name), "expected_wait_us") or 0) for name in ("second", "third")]
    assert waits == [10 * SECOND_US // 4, 2 * 10 * SECOND_US]
