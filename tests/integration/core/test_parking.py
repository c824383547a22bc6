"""Jobs of a user at the limit of running jobs are parked, and always come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.job import NewJob
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import Scripts
from downloadjobs_core.states import JobState


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[LeaseStore]:
    """An empty queue in which a user may run two jobs at once."""
    redis = connect(RedisConfig(valkey.url))
    yield LeaseStore(redis, QueuePolicy(user_max_running=2))
    redis.close()


@pytest.mark.parametrize(
    ("script", "arguments"), [("cancel", ("cancelled", "by its user", 1_000, 0)), ("suspend", ())]
)
def test_a_parked_job_comes_back_though_those_before_it_never_start(
    queue: LeaseStore, script: str, arguments: tuple[str | int, ...]
) -> None:
    """A parked job does not wait for ever when the ready jobs of its user are cancelled or suspended."""
    for number in range(5):
        new = NewJob(job_id=f"job{number}", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3)
        assert queue.submit(new)
    running = [queue.lease("w"), queue.lease("w")]
    assert queue.lease("w") is None  # three are parked
    for job in running:
        assert job is not None
        queue.finish(job, Outcome(JobState.FAILED))  # each end brings one back: the third is parked
    for job_id in ("job2", "job3"):
        assert Scripts(queue.redis).run(script, job_id, *arguments)[0] == 1
    last = queue.lease("w")
    assert last is not None
    assert last.job_id == "job4"
