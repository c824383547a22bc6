"""`GET /v1/stats` and the page, by a real API process on a real Valkey."""

from __future__ import annotations

import math
from collections.abc import Iterator

import httpx
import pytest

from downloadjobs_api.dashboard import POLICY
from downloadjobs_api.security_headers import SECURITY_HEADERS
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.sharing import Answer
from downloadjobs_core.states import JobState
from downloadjobs_core.statistics import FADE_US
from support_processes import System

STATS = "/v1/stats"
DONE = Outcome(JobState.COMPLETED, result_key="results/stats-test.zip", result_bytes=9)


@pytest.fixture
def queue(system: System) -> Iterator[LeaseStore]:
    """The worker's side of an installation whose API runs."""
    system.start_api()
    redis = connect(RedisConfig(system.environment()["REDIS_URL"]))
    yield LeaseStore(redis, QueuePolicy())
    redis.close()


def stats(system: System, user: str = "ada") -> dict[str, object]:
    """The numbers, as a user gets them."""
    with system.client(user) as client:
        answer = client.get(STATS)
    assert answer.status_code == httpx.codes.OK
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, object] = answer.json()
    return found


def end_one(queue: LeaseStore) -> None:
    """Lease a job and end it."""
    job = queue.lease("w")
    assert job is not None
    queue.finish(job, DONE)


def test_an_empty_queue_has_numbers_too(system: System, queue: LeaseStore) -> None:
    """Before the first job nothing waits, runs or has ended, and the mean is the first guess."""
    found = stats(system)
    assert str(found.pop("at")).endswith("Z")
    assert found == {
        "waiting": 0, "running": 0, "slots": 0, "finishedPerMinute": 0.0, "meanServiceSeconds": 10.0,
        "oldestWaitingSeconds": 0.0, "own": {"waiting": 0, "running": 0},
    }  # fmt: skip
    assert queue.ready_count() == 0


def test_numbers_are_of_all_users_and_of_ones_own(system: System, queue: LeaseStore) -> None:
    """Sums count everybody; `own` counts who asks. Of other users there is nothing else."""
    for user in ("ada", "ada", "bob"):
        system.submit([10_003], user)
    assert queue.lease("w") is not None
    assert (stats(system)["waiting"], stats(system)["running"]) == (2, 1)
    owned = [stats(system, user)["own"] for user in ("ada", "bob", "eve")]
    assert owned == [{"waiting": 1, "running": 1}, {"waiting": 1, "running": 0}, {"waiting": 0, "running": 0}]


def test_who_waits_for_anothers_result_waits(system: System, queue: LeaseStore) -> None:
    """A job that joined another which makes the same result is among those that wait, its own user's too."""
    for _ in range(2):
        system.submit([10_003])
    for answer in (Answer.MAKE, Answer.WAIT):
        job = queue.lease("w")
        assert job is not None
        assert queue.board(job, "d" * 64).answer is answer
    found = stats(system)
    assert (found["waiting"], found["running"], found["own"]) == (1, 1, {"waiting": 1, "running": 1})


def test_ends_are_a_rate_that_fades(system: System, queue: LeaseStore) -> None:
    """Each end counts one; after a minute without any, what was there is a third."""
    for _ in range(5):
        system.submit([10_003])
        end_one(queue)
    assert float(str(stats(system)["finishedPerMinute"])) == pytest.approx(5, abs=0.6)
    hash_name = f"{ROOT}:queue"
    since = int(str(queue.redis.hget(hash_name, "finished_us")))
    queue.redis.hset(hash_name, "finished_us", str(since - FADE_US))
    assert float(str(stats(system)["finishedPerMinute"])) == pytest.approx(5 / math.e, abs=0.3)
    system.submit([10_003])
    end_one(queue)
    assert float(str(stats(system)["finishedPerMinute"])) == pytest.approx(1 + 5 / math.e, abs=0.3)


def test_a_clock_that_goes_backwards_adds_nothing(system: System, queue: LeaseStore) -> None:
    """After a failover to a server whose clock is behind, the rate is not blown up."""
    system.submit([10_003])
    end_one(queue)
    hash_name = f"{ROOT}:queue"
    ahead = int(str(queue.redis.hget(hash_name, "finished_us"))) + 60 * FADE_US
    queue.redis.hset(hash_name, "finished_us", str(ahead))
    assert stats(system)["finishedPerMinute"] == 1.0
    system.submit([10_003])
    end_one(queue)
    assert stats(system)["finishedPerMinute"] == pytest.approx(2.0, abs=0.1)


def test_cancelled_jobs_are_no_ends(system: System, queue: LeaseStore) -> None:
    """A job that was cancelled did not end with an outcome, and is not counted."""
    job_id = system.submit([10_003])
    with system.client() as client:
        assert client.delete(f"/v1/jobs/{job_id}").status_code == httpx.codes.OK
    assert stats(system)["finishedPerMinute"] == 0.0
    assert queue.ready_count() == 0


@pytest.mark.usefixtures("queue")
def test_numbers_are_for_users(system: System) -> None:
    """Nobody gets nothing, and only GET is answered."""
    with system.client() as client:
        assert client.post(STATS).status_code == httpx.codes.METHOD_NOT_ALLOWED
        del client.headers["x-user-id"]
        assert client.get(STATS).status_code == httpx.codes.UNAUTHORIZED


@pytest.mark.usefixtures("queue")
def test_the_page_is_for_everybody(system: System) -> None:
    """The page needs no user; it has its own policy once, and each other security header once."""
    with system.client() as client:
        del client.headers["x-user-id"]
        for path in ("/dashboard", "/dashboard/main.js", "/dashboard/config.json"):
            answer = client.get(path)
            assert answer.status_code == httpx.codes.OK
            for name, value in SECURITY_HEADERS:
                own = name == "content-security-policy" and not path.endswith(".json")
                assert answer.headers.get_list(name) == [POLICY if own else value]


def test_the_page_can_be_turned_off(system: System) -> None:
    """With DASHBOARD_ENABLED=false there is no page, and everything else is there."""
    system.settings["DASHBOARD_ENABLED"] = "false"
    system.start_api()
    with system.client() as client:
        for path in ("/dashboard", "/dashboard/main.js", "/dashboard/config.json"):
            assert client.get(path).status_code == httpx.codes.NOT_FOUND
        assert client.get(STATS).status_code == httpx.codes.OK
