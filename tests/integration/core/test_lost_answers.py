"""A pop whose answer is lost: the job is leased, and who leased it does not know."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_core.huey_queue import LeasedHuey
from downloadjobs_core.job import NewJob, job_key
from downloadjobs_core.leases import LeaseStore, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT


class Unheard(LeaseStore):
    """A queue whose answers to the next pops are lost."""

    lost = 0

    def pop(self, worker: str, *, holder: str = "", call: str = "") -> dict[str, str] | None:
        """Lease, and perhaps not tell."""
        found = super().pop(worker, holder=holder, call=call)
        if self.lost:
            self.lost -= 1
            raise QueueUnavailableError("the answer was lost")
        return found


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[Unheard]:
    """An empty queue."""
    redis = connect(RedisConfig(valkey.url))
    yield Unheard(redis, QueuePolicy())
    redis.close()


def submit(queue: LeaseStore, *job_ids: str) -> None:
    """Jobs of one user."""
    for job_id in job_ids:
        queue.submit(NewJob(job_id=job_id, user="u", file_ids=(1,), total_file_ids=1, max_attempts=1))


def test_a_call_that_comes_again_gets_the_same_lease(queue: Unheard) -> None:
    """The same call is one delivery, whose lease lasts from the last answer; another takes the next job."""
    submit(queue, "a", "b")
    first = queue.pop("w", call="one")
    assert first is not None
    queue.redis.zadd(f"{ROOT}:leased", {"a": 1})
    assert queue.pop("w", call="one") == first
    assert queue.reap() == (0, 0)
    assert queue.redis.hget(job_key("a"), "deliveries") == "1"
    other = queue.pop("w", call="two")
    assert other is not None
    assert other["id"] == "b"


def test_a_lease_that_was_taken_away_is_not_given_again(queue: Unheard) -> None:
    """A call that comes again after its lease ran out takes what is ready, under a new token."""
    submit(queue, "a")
    first = queue.pop("w", call="one")
    queue.redis.zadd(f"{ROOT}:leased", {"a": 1})
    assert queue.reap() == (1, 0)
    again = queue.pop("w", call="one")
    assert first is not None
    assert again is not None
    assert (again["id"], again["deliveries"]) == ("a", "2")
    assert again["token"] != first["token"]


def test_a_slot_asks_again_for_what_it_was_not_told(queue: Unheard) -> None:
    """A slot whose pop was not answered gets that job at its next one: no lease runs out unseen."""
    submit(queue, "a", "b")
    slot = LeasedHuey(queue, worker="w")
    queue.lost = 2
    heard = [slot.storage.lease() for _ in range(4)]
    assert [job and job["id"] for job in heard] == [None, None, "a", "b"]
    assert queue.redis.hget(job_key("a"), "deliveries") == "1"


def test_what_was_answered_is_soon_forgotten(queue: Unheard) -> None:
    """What is kept of a call goes with the lease that it got."""
    submit(queue, "a")
    assert queue.pop("w", call="one") is not None
    assert 0 < queue.redis.pttl(f"{ROOT}:popped:one") <= 30_000
