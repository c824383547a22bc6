"""`Prefer: wait=N`: a status that is answered when it is news, and not later than the client wants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.job import NewJob
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.states import JobState
from support_api_process import Wire
from support_metrics import scrape
from support_processes import System, running
from support_worker import eventually

DATABASE = 12
LONGEST = 20
COMPLETED = Outcome(JobState.COMPLETED, files_done=1)


@pytest.fixture(scope="module")
def shared(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """The module's API process."""
    settings = {
        "REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/{DATABASE}",
        "LONG_POLL_MAX_SECONDS": str(LONGEST),
    }
    folder = tmp_path_factory.mktemp("shared")
    with running(System(valkey_server, seaweedfs, folder, settings=settings)) as system:
        system.start_api()
        yield system


@pytest.fixture
def queue(shared: System) -> Iterator[LeaseStore]:
    """The queue with one job, `j`, that is leased as `job`."""
    redis = connect(RedisConfig(shared.environment()["REDIS_URL"]))
    redis.flushdb()
    queue = LeaseStore(redis, QueuePolicy())
    queue.submit(NewJob(job_id="j", user="ada", file_ids=(10_003,), total_file_ids=1, max_attempts=3))
    yield queue
    redis.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for requests that wait."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def ask(system: System, job_id: str = "j", user: str = "ada", **headers: str) -> httpx.Response:
    """A status."""
    with system.client(user) as client:
        return client.get(f"/v1/download/status/{job_id}", headers=headers)


@pytest.mark.contract("wait")
def test_without_a_tag_it_waits_for_the_end(
    shared: System, queue: LeaseStore, pool: ThreadPoolExecutor
) -> None:
    """Progress does not answer it; the job's end does, at once."""
    waits = pool.submit(ask, shared, prefer="wait=15")
    job = queue.lease("w")
    assert job is not None
    queue.progress(job, files_done=0, bytes_done=1, bytes_total=2)
    with pytest.raises(TimeoutError):
        waits.result(timeout=1)
    began = time.monotonic()
    queue.finish(job, COMPLETED)
    answer = waits.result()
    assert time.monotonic() - began < 3
    assert answer.json()["status"] == "completed"
    assert answer.headers["preference-applied"] == "wait=15"


@pytest.mark.contract("wait")
def test_with_a_tag_it_waits_for_a_change(
    shared: System, queue: LeaseStore, pool: ThreadPoolExecutor
) -> None:
    """Each change answers a client whose If-None-Match names what it was, and so does the next."""
    tag = ask(shared).headers["etag"]
    waits = pool.submit(ask, shared, prefer="wait=15", **{"if-none-match": tag})
    with pytest.raises(TimeoutError):
        waits.result(timeout=1)
    job = queue.lease("w")
    assert job is not None
    answer = waits.result()
    assert answer.json()["status"] == "processing"
    waits = pool.submit(ask, shared, prefer="wait=15", **{"if-none-match": answer.headers["etag"]})
    queue.progress(job, files_done=0, bytes_done=1, bytes_total=2)
    assert waits.result().json()["progress"]["bytes"] == 1
    began = time.monotonic()
    assert ask(shared, prefer="wait=15", **{"if-none-match": tag}).status_code == 200
    assert time.monotonic() - began < 3


def test_no_news_is_answered_in_time(shared: System, queue: LeaseStore) -> None:
    """When the time is over there is the status as it is: 304 for who has it, 200 without a tag."""
    tag = ask(shared).headers["etag"]
    began = time.monotonic()
    answer = ask(shared, prefer="wait=1", **{"if-none-match": tag})
    assert 0.9 < time.monotonic() - began < 5
    assert (answer.status_code, answer.headers["preference-applied"]) == (304, "wait=1")
    answer = ask(shared, prefer='respond-async, Wait="1"; x=y, wait=9')
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    assert answer.headers["preference-applied"] == "wait=1"
    assert queue.lease("w") is not None


def test_a_wait_is_no_slowness(system: System) -> None:
    """What a client asked to wait is no part of what its request took, in the metric and in the log."""
    api = system.start_api()
    job_id = system.submit([10_003])
    assert ask(system, job_id, prefer="wait=2").headers["preference-applied"] == "wait=2"
    taken = {"method": "GET", "route": "/v1/download/status/{job_id}", "status_class": "2xx"}
    metric = "http_request_duration_seconds"
    eventually(lambda: scrape(api).value(f"{metric}_count", **taken) == 1, 10, "the request's time")
    assert 0 < (scrape(api).value(f"{metric}_sum", **taken) or 0) < 1.5
    assert job_id not in api.log_path.read_text(encoding="utf-8")  # slow requests are logged


@pytest.mark.parametrize(
    "prefer", ["wait=-1", "wait", "wait=x", "respond-async", "", "wait=1.5", ",,;=", "awaiting=9"]
)
def test_a_preference_that_is_none_changes_nothing(shared: System, queue: LeaseStore, prefer: str) -> None:
    """What is no number of seconds is left alone, as RFC 7240 asks."""
    began = time.monotonic()
    answer = ask(shared, prefer=prefer)
    assert answer.status_code == 200
    assert "preference-applied" not in answer.headers
    assert time.monotonic() - began < 3
    assert queue.ready_count() == 1


def test_a_wait_is_never_longer_than_the_setting(shared: System, queue: LeaseStore) -> None:
    """A longer wish is cut, and the answer says so; an ended job is answered at once."""
    job = queue.lease("w")
    assert job is not None
    queue.finish(job, COMPLETED)
    answer = ask(shared, prefer="wait=999999999")
    assert answer.headers["preference-applied"] == f"wait={LONGEST}"
    assert ask(shared, prefer="wait=0").headers["preference-applied"] == "wait=0"


def test_a_user_has_a_share_of_what_is_held(system: System, pool: ThreadPoolExecutor) -> None:
    """One user's waits are bounded: one more is answered at once and unheld, and others wait as before."""
    system.settings |= {"SSE_MAX_STREAMS_PER_USER": "2"}
    system.start_api()
    jobs = {}
    for user in ("ada", "bob"):
        with system.client(user) as client:
            made = client.post("/v1/download/initiate", json={"file_ids": [10_003]}).json()
            jobs[user] = made["jobId"]
    held = [pool.submit(ask, system, jobs["ada"], prefer="wait=4") for _ in range(2)]
    with pytest.raises(TimeoutError):
        held[1].result(timeout=1)
    began = time.monotonic()
    more = ask(system, jobs["ada"], prefer="wait=4")
    assert time.monotonic() - began < 2
    assert (more.status_code, more.headers.get("preference-applied")) == (200, None)
    assert int(more.headers["retry-after"]) > 0
    assert ask(system, jobs["bob"], "bob", prefer="wait=1").headers["preference-applied"] == "wait=1"
    assert [wait.result().headers["preference-applied"] for wait in held] == ["wait=4"] * 2
    assert ask(system, jobs["ada"], prefer="wait=1").headers["preference-applied"] == "wait=1"


def test_a_client_that_leaves_within_its_body_waits_for_nothing(system: System) -> None:
    """A wait ends with its connection also where part of the request's body never came."""
    system.settings |= {"SSE_MAX_STREAMS_PER_USER": "2"}
    system.start_api()
    job_id = system.submit([10_003])
    lines = ("Host: a", "X-User-Id: ada", f"Prefer: wait={LONGEST}", "Content-Length: 10")
    head = "\r\n".join((f"GET /v1/download/status/{job_id} HTTP/1.1", *lines))
    for _ in range(2):
        with Wire(system.port) as wire:
            wire.send(f"{head}\r\n\r\nab")
            time.sleep(0.5)  # it begins to wait

    def held() -> bool:
        return "preference-applied" in ask(system, job_id, prefer="wait=1").headers

    eventually(held, LONGEST / 2, "room for one more to wait")


def test_only_who_may_see_a_job_waits_for_it(shared: System, queue: LeaseStore) -> None:
    """Whoever may not is told at once."""
    assert ask(shared, user="bob", prefer="wait=15").status_code == 403
    assert ask(shared, job_id="none", prefer="wait=15").status_code == 404
    assert queue.ready_count() == 1


def test_a_wipe_answers_who_waits(shared: System, queue: LeaseStore, pool: ThreadPoolExecutor) -> None:
    """The job of a wait has gone: 404, within seconds."""
    waits = pool.submit(ask, shared, prefer="wait=15")
    with pytest.raises(TimeoutError):
        waits.result(timeout=2)
    queue.redis.flushdb()
    assert waits.result(timeout=8).status_code == 404


@pytest.mark.contract("wait")
def test_a_drain_answers_who_waits(system: System, pool: ThreadPoolExecutor) -> None:
    """A process that stops answers at once with what there is, and ends in order."""
    api = system.start_api()
    with system.client() as client:
        job_id = client.post("/v1/download/initiate", json={"file_ids": [10_003]}).json()["jobId"]
    waits = pool.submit(ask, system, job_id, prefer="wait=15")
    with pytest.raises(TimeoutError):
        waits.result(timeout=1)
    began = time.monotonic()
    api.ask_to_end()
    assert waits.result().json()["status"] == "queued"
    assert api.wait(10)
    assert time.monotonic() - began < 5
    assert api.exit_code == 0
