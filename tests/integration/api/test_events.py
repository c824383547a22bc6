"""Event streams to clients: nothing lost, nothing twice, in order, and ended when they should be."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import httpx
import pytest

from downloadjobs_api.settings import ApiSettings
from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import Scripts
from downloadjobs_core.states import JobState
from support_api_process import Wire
from support_events import Parser, Sent, Stream
from support_processes import System, running
from support_servers import killed_after
from support_worker import eventually

COMPLETED = Outcome(JobState.COMPLETED, files_done=2, bytes_done=20, bytes_total=20)
CANCELLED_KEPT = 3_600
DATABASE = 11


@pytest.fixture(scope="module")
def shared(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """The module's API process, in a database of its own."""
    folder = tmp_path_factory.mktemp("shared")
    settings = {"REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/{DATABASE}"}
    with running(System(valkey_server, seaweedfs, folder, settings=settings)) as system:
        system.start_api()
        yield system


@pytest.fixture
def live(shared: System) -> System:
    """The module's installation, without jobs.

    The queue's epoch stays: without it the process would see a wipe, up to a second later, and tell whoever
    follows a job anew.
    """
    with queue_of(shared) as queue:
        epoch = cast("str | None", queue.redis.hget("{downloadjobs}:queue", "epoch"))
        queue.redis.flushdb()
        if epoch:
            queue.redis.hset("{downloadjobs}:queue", "epoch", epoch)
    return shared


@contextmanager
def queue_of(system: System) -> Iterator[LeaseStore]:
    """The worker's side of a system's queue."""
    redis = connect(RedisConfig(system.environment()["REDIS_URL"]))
    try:
        yield LeaseStore(redis, QueuePolicy(user_max_running=1_000))
    finally:
        redis.close()


@pytest.fixture
def queue(live: System) -> Iterator[LeaseStore]:
    """The worker's side of the module's queue."""
    with queue_of(live) as queue:
        yield queue


def submitted(queue: LeaseStore, job_id: str, user: str = "ada", reader: str = "") -> str:
    """A job of two files."""
    queue.submit(
        NewJob(
            job_id=job_id,
            user=user,
            file_ids=(10_003, 10_010),
            total_file_ids=2,
            max_attempts=3,
            reader=reader,
        )
    )
    return job_id


def leased(queue: LeaseStore) -> Job:
    """The next job."""
    job = queue.lease("w")
    assert job is not None
    return job


def stream(system: System, path: str, user: str = "ada", last: str | None = None) -> Stream:
    """Open one."""
    return Stream(f"http://127.0.0.1:{system.port}", path, user, last)


def of_job(system: System, job_id: str, user: str = "ada", last: str | None = None) -> Stream:
    """Open a job's."""
    return stream(system, f"/v1/jobs/{job_id}/events", user, last)


def get(system: System, path: str, user: str | None = "ada", **headers: str) -> httpx.Response:
    """An answer that is no stream."""
    given = {"accept": "text/event-stream"} | ({"x-user-id": user} if user else {})
    with httpx.Client(base_url=f"http://127.0.0.1:{system.port}", trust_env=False, timeout=10) as client:
        return client.get(path, headers=given | headers)


def entries(queue: LeaseStore, job_id: str = "") -> list[tuple[str, str]]:
    """Id and kind of the events that Redis has, of all jobs or one."""
    found = cast("list[tuple[str, dict[str, str]]]", queue.redis.xrange("{downloadjobs}:events"))
    return [(entry, fields["kind"]) for entry, fields in found if job_id in {"", fields["job"]}]


def told(events: list[Sent]) -> list[tuple[str, str]]:
    """Id and kind of events that were received."""
    return [(event.id, event.event) for event in events]


@pytest.mark.contract("events")
def test_a_stream_is_a_snapshot_and_then_each_change(live: System, queue: LeaseStore) -> None:
    """First comes the detail; then one event a change, as Redis has it; the end closes the stream."""
    submitted(queue, "j")
    with of_job(live, "j") as following:
        snapshot = following.wait_for("snapshot")
        assert snapshot.data == get(live, "/v1/jobs/j", accept="application/json").json()
        job = leased(queue)
        queue.progress(job, files_done=1, bytes_done=10, bytes_total=20)
        queue.retry_later(job, delay_seconds=0, code="storage-unavailable", message="It was away.")
        queue.promote()
        queue.finish(leased(queue), COMPLETED)
        events = following.to_end()
    assert following.response.headers["content-type"] == "text/event-stream"
    assert following.response.headers["cache-control"] == "no-store, no-transform"
    assert following.response.headers["x-accel-buffering"] == "no"
    assert following.parser.retries[0] > 0
    assert told(events)[1:] == entries(queue, "j")[1:]
    assert snapshot.id == entries(queue, "j")[0][0]
    started, progress, retrying, _, finished = events[1:]
    assert (started.data["attempt"], started.data["worker"]) == (1, "w")
    assert progress.data["progress"] == {"processed": 1, "total": 2, "bytes": 10, "bytesTotal": 20}
    assert progress.data["state"] == "processing"
    assert retrying.data["errorCode"] == "storage-unavailable"
    assert retrying.data["retryAt"] >= retrying.data["updatedAt"]
    assert (finished.data["state"], finished.data["failedFiles"]) == ("completed", 0)
    assert {event.data["jobId"] for event in events} == {"j"}


@pytest.mark.contract("events")
def test_a_client_that_comes_back_gets_what_it_missed(live: System, queue: LeaseStore) -> None:
    """From its Last-Event-ID on each change of state comes, and the newest progress; never a snapshot."""
    submitted(queue, "j")
    with of_job(live, "j") as following:
        snapshot = following.wait_for("snapshot")
    job = leased(queue)
    for done in (1, 2, 3):
        queue.progress(job, files_done=1, bytes_done=done, bytes_total=20)
    with of_job(live, "j", last=snapshot.id) as following:
        following.wait_for("progress")
        assert following.kinds == ["started", "progress"]
        assert following.events[-1].data["progress"]["bytes"] == 3
        assert told(following.events) == [entries(queue, "j")[1], entries(queue, "j")[-1]]
        queue.progress(job, files_done=1, bytes_done=4, bytes_total=20)
        following.wait_for("progress", 2)
        seen = following.events[-1].id
    with of_job(live, "j", last=seen) as following:
        queue.finish(job, COMPLETED)
        assert told(following.to_end()) == [entries(queue, "j")[-1]]


def test_who_has_heard_the_end_is_told_to_stop(live: System, queue: LeaseStore) -> None:
    """A client that comes back with the last event's id gets 204; one that missed it gets it, and the end."""
    submitted(queue, "j")
    job = leased(queue)
    with of_job(live, "j") as following:
        before = following.wait_for("snapshot").id
        queue.finish(job, COMPLETED)
        last = following.to_end()[-1]
    assert get(live, "/v1/jobs/j/events", **{"last-event-id": last.id}).status_code == 204
    with of_job(live, "j", last=before) as following:
        assert [event.event for event in following.to_end()] == ["finished"]
    with of_job(live, "j") as following:
        (snapshot,) = following.to_end()
    assert (snapshot.event, snapshot.data["state"]) == ("snapshot", "completed")
    assert get(live, "/v1/jobs/j/events", **{"last-event-id": snapshot.id}).status_code == 204


@pytest.mark.parametrize(
    "last",
    ["nonsense", "-", "1-1", "99999999999999-0", "1-1-1", "1", "9" * 400 + "-1", "$", "+", "(0-0"],
)
def test_an_unknown_last_event_id_is_none(live: System, queue: LeaseStore, last: str) -> None:
    """What is no id of this job's events is as none: a snapshot comes."""
    submitted(queue, "j")
    for path in ("/v1/jobs/j/events", "/v1/events"):
        with stream(live, path, last=last) as following:
            following.wait_for("snapshot")


def test_events_past_the_cap_mean_a_snapshot(live: System, queue: LeaseStore) -> None:
    """Of a job that changed more than a hundred times, a client far behind gets the state as it is now."""
    submitted(queue, "j")
    with of_job(live, "j") as following:
        first = following.wait_for("snapshot").id
    scripts = Scripts(queue.redis)
    for _ in range(60):
        scripts.run("suspend", "j")
        scripts.run("resume", "j")
    assert queue.redis.llen("{downloadjobs}:history:j") == 100
    with of_job(live, "j", last=first) as following:
        assert following.wait_for("snapshot").id == entries(queue, "j")[-1][0]


def test_events_go_with_the_record(live: System, queue: LeaseStore) -> None:
    """A job's own events live as long as its record does, and are dropped with it."""
    for name in ("ended", "cancelled", "dead"):
        submitted(queue, name)
    queue.finish(leased(queue), COMPLETED)
    scripts = Scripts(queue.redis)
    scripts.run("cancel", "cancelled", "cancelled", "", CANCELLED_KEPT, 1_000_000)
    for name in ("ended", "cancelled"):
        ttl = queue.redis.ttl(job_key(name))
        assert ttl - 2 <= queue.redis.ttl(f"{{downloadjobs}}:history:{name}") <= ttl
    queue.redis.hset(job_key("dead"), "deliveries", "9")
    leased(queue)
    queue.redis.zadd("{downloadjobs}:leased", {"dead": 1})
    assert queue.reap() == (0, 1)
    with of_job(live, "dead") as following:
        assert following.to_end()[0].data["state"] == "failed"
    scripts.run("dead_drop", "dead")
    assert not queue.redis.exists("{downloadjobs}:history:dead", job_key("dead"))
    assert get(live, "/v1/jobs/dead/events").status_code == 404


def test_a_user_follows_all_their_jobs(live: System, queue: LeaseStore) -> None:
    """The stream of a user has their jobs and those they may read, and nobody else's, however they begin."""
    submitted(queue, "old")
    queue.finish(leased(queue), COMPLETED)
    submitted(queue, "mine")
    submitted(queue, "shared", user="k8s:ns", reader="ada")
    submitted(queue, "theirs", user="bob")
    with stream(live, "/v1/events") as following:
        snapshot = following.wait_for("snapshot")
        items = {item["jobId"]: item for item in snapshot.data["items"]}
        assert list(items) == ["shared", "mine", "old"]
        assert items["mine"]["queue"]["place"] == "ready"
        assert items["old"]["state"] == "completed"
        detail = get(live, "/v1/jobs/old", accept="application/json").json()
        assert set(items["old"]) <= set(detail)
        submitted(queue, "new")
        for _ in range(3):
            job = leased(queue)
            queue.progress(job, files_done=1, bytes_done=1, bytes_total=20)
            queue.finish(job, COMPLETED)
        following.wait(lambda es: sum(e.event == "finished" for e in es) == 2 or len(es) > 7)
        last = snapshot.id
    mine = [e for e in entries(queue) if e[0] > last]
    others = {id_ for id_, _ in entries(queue, "theirs")}
    assert told(following.events)[1:] == [e for e in mine if e[0] not in others]
    with stream(live, "/v1/events", last=last) as again:
        again.wait(lambda es: len(es) >= len(following.events) - 1)
        assert told(again.events) == told(following.events)[1:]
    with stream(live, "/v1/events", user="eve") as following:
        assert following.wait_for("snapshot").data == {"items": []}


def test_only_who_may_see_a_job_follows_it(live: System, queue: LeaseStore) -> None:
    """401 without a user, 403 for another's job, 404 for none; its reader may."""
    submitted(queue, "j", user="k8s:ns", reader="ada")
    assert get(live, "/v1/jobs/j/events", user=None).status_code == 401
    assert get(live, "/v1/events", user=None).status_code == 401
    assert get(live, "/v1/jobs/j/events", user="bob").status_code == 403
    assert get(live, "/v1/jobs/none/events").status_code == 404
    with of_job(live, "j") as following:
        following.wait_for("snapshot")


def test_only_a_get_that_takes_events_is_answered(live: System, queue: LeaseStore) -> None:
    """406 where Accept excludes the type, 405 for other methods."""
    submitted(queue, "j")
    answer = get(live, "/v1/jobs/j/events", accept="application/json")
    assert (answer.status_code, answer.json()["error"]) == (406, "not-acceptable")
    with live.client() as client:
        for method in ("HEAD", "POST", "PUT", "DELETE"):
            for path in ("/v1/jobs/j/events", "/v1/events"):
                answer = client.request(method, path)
                assert answer.status_code == 405
                assert "GET" in answer.headers["allow"]


def test_streams_are_limited(system: System) -> None:
    """Past the process' limit there is 503, past a user's 429, with Retry-After; ended ones do not count."""
    system.settings |= {"SSE_MAX_STREAMS": "3", "SSE_MAX_STREAMS_PER_USER": "2"}
    system.start_api()
    with stream(system, "/v1/events"), stream(system, "/v1/events") as second:
        answer = get(system, "/v1/events")
        assert (answer.status_code, answer.json()["error"]) == (429, "too-many-streams")
        assert int(answer.headers["retry-after"]) > 0
        with stream(system, "/v1/events", user="bob"):
            answer = get(system, "/v1/events", user="eve")
            assert (answer.status_code, answer.json()["error"]) == (503, "streams-full")
            assert int(answer.headers["retry-after"]) > 0
        second.close()
        eventually(lambda: opens(system), what="a stream in the place of one that ended")


def opens(system: System) -> bool:
    """Whether a stream may be opened."""
    try:
        with stream(system, "/v1/events"):
            return True
    except AssertionError:
        return False


def test_a_client_of_http_1_0_gets_no_chunks(live: System, queue: LeaseStore) -> None:
    """It knows no transfer codings (RFC 9112, 6.1): the end of the connection is that of the stream."""
    submitted(queue, "j")
    job = leased(queue)
    with Wire(live.port) as wire:
        wire.send("GET /v1/jobs/j/events HTTP/1.0\r\nX-User-Id: ada\r\n\r\n")
        answer = wire.answer()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert not {"transfer-encoding", "content-length"} & set(answer.headers)
        lines = map(bytes.decode, wire.reader)
        events = Parser().read(line.rstrip("\r\n") for line in lines)
        assert next(events).event == "snapshot"
        queue.finish(job, COMPLETED)
        assert [event.event for event in events] == ["finished"]


def test_a_client_that_leaves_within_its_body_is_let_go(system: System) -> None:
    """A stream ends with its connection also where part of the request's body never came."""
    system.settings |= {"SSE_MAX_STREAMS_PER_USER": "2"}
    system.start_api()
    for _ in range(2):
        with Wire(system.port) as wire:
            wire.send("GET /v1/events HTTP/1.1\r\nHost: a\r\nX-User-Id: ada\r\nContent-Length: 10\r\n\r\nab")
            assert wire.reader.readline().split()[1] == b"200"
    eventually(lambda: opens(system), 10, "a stream in the place of one whose client left")


@pytest.mark.contract("events")
def test_a_drain_ends_streams_at_once(system: System) -> None:
    """A process that stops ends its streams whole, with a time to come back after; elsewhere they go on."""
    system.start_api()
    with queue_of(system) as queue:
        submitted(queue, "j")
        with of_job(system, "j") as following, stream(system, "/v1/events") as all_jobs:
            last = following.wait_for("snapshot").id
            all_jobs.wait_for("snapshot")
            began = time.monotonic()
            (api,) = system.children
            api.ask_to_end()
            following.to_end()
            all_jobs.to_end()
            assert time.monotonic() - began < 3
        assert api.wait(10)
        assert api.exit_code == 0
        queue.finish(leased(queue), COMPLETED)
        system.start_api()
        with of_job(system, "j", last=last) as following:
            assert [event.event for event in following.to_end()] == ["started", "finished"]


def test_a_wipe_ends_the_streams_of_jobs_that_went_with_it(live: System, queue: LeaseStore) -> None:
    """A record that goes away ends its stream; a user's stream begins anew, and goes on."""
    submitted(queue, "j")
    with of_job(live, "j") as following, stream(live, "/v1/events") as all_jobs:
        following.wait_for("snapshot")
        all_jobs.wait_for("snapshot")
        time.sleep(1.1)  # the reader looks at the epoch once a second, and must have seen that of before
        queue.redis.flushdb()
        following.to_end()
        assert all_jobs.wait_for("snapshot", 2).data == {"items": []}
        submitted(queue, "new")
        assert all_jobs.wait_for("queued").data["jobId"] == "new"
    assert get(live, "/v1/jobs/j/events").status_code == 404


def test_streams_outlive_a_restart_of_redis(seaweedfs: SeaweedServer, tmp_path: Path) -> None:
    """While Redis is away a stream stays open; then it goes on, with nothing lost and nothing twice."""
    with (
        killed_after(ValkeyServer(tmp_path / "valkey", append_only=True)) as valkey,
        running(System(valkey, seaweedfs, tmp_path)) as system,
    ):
        system.start_api()
        with queue_of(system) as queue:
            submitted(queue, "j")
            job = leased(queue)
            with of_job(system, "j") as following, stream(system, "/v1/events") as all_jobs:
                first = following.wait_for("snapshot")
                all_jobs.wait_for("snapshot")
                valkey.kill()
                time.sleep(1.5)  # some tries to read fail
                assert not following.ended.is_set()
                valkey.start()
                queue.progress(job, files_done=1, bytes_done=10, bytes_total=20)
                queue.finish(job, COMPLETED)
                following.to_end()
                all_jobs.wait_for("finished")
            expected = [entry for entry in entries(queue, "j") if entry[0] > first.id]
            received = told(following.events)[1:]
            assert received[-1] == expected[-1]
            assert set(received) <= set(expected)
            assert len(set(received)) == len(received)
            assert get(system, "/v1/jobs/j/events", **{"last-event-id": received[-1][0]}).status_code == 204


def keep_changing(system: System, jobs: int, enough: threading.Event) -> None:
    """Change all jobs over and over, then end them."""
    with queue_of(system) as queue:
        scripts = Scripts(queue.redis)
        held = [leased(queue) for _ in range(jobs)]
        step = 0
        while not enough.is_set():
            step += 1
            for job in held:
                queue.progress(job, files_done=1, bytes_done=step, bytes_total=0)
                if random.random() < 0.2:
                    scripts.run("suspend", job.job_id)
                    scripts.run("resume", job.job_id)
            time.sleep(0.01)
        for job in held:
            queue.finish(job, COMPLETED)


def test_nothing_is_lost_or_twice_while_clients_come_and_go(live: System, queue: LeaseStore) -> None:
    """Whenever a client comes, it gets exactly the events after its snapshot, in their order, to the end."""
    jobs = 12
    for number in range(jobs):
        submitted(queue, f"j{number}")
    enough = threading.Event()
    worker = threading.Thread(target=keep_changing, args=(live, jobs, enough))
    worker.start()
    streams: list[tuple[str, Stream]] = []
    with ExitStack() as opened_streams:
        try:
            for opened in range(1, 41):
                job_id = "" if opened % 3 == 0 else f"j{random.randrange(jobs)}"
                following = of_job(live, job_id) if job_id else stream(live, "/v1/events")
                streams.append((job_id, opened_streams.enter_context(following)))
                if opened % 5 == 0:
                    streams.pop(random.randrange(len(streams)))[1].close()
        finally:
            enough.set()
            worker.join()
        newest = entries(queue)[-1][0]
        for job_id, following in streams:
            if job_id:
                following.to_end()
            else:
                following.wait(lambda es: es[-1:] != [] and es[-1].id == newest)
            snapshot = following.events[0]
            assert snapshot.event == "snapshot"
            later = [e for e in entries(queue, job_id) if order(e[0]) > snapshot.order]
            assert told(following.events)[1:] == later


def order(entry: str) -> tuple[int, int]:
    """An id, as it is ordered."""
    return Sent(entry).order


def test_a_client_that_does_not_read_holds_nobody_up(live: System, queue: LeaseStore) -> None:
    """Thousands of events go to one who reads, while another of the same job takes none."""
    submitted(queue, "j")
    job = leased(queue)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{live.port}", headers={"x-user-id": "ada"}, trust_env=False
    ) as lazy:
        request = lazy.build_request("GET", "/v1/jobs/j/events", headers={"accept": "text/event-stream"})
        silent = lazy.send(request, stream=True)
        with of_job(live, "j") as following:
            following.wait_for("snapshot")
            for step in range(4_000):
                queue.progress(job, files_done=1, bytes_done=step, bytes_total=4_000)
            queue.finish(job, COMPLETED)
            events = following.to_end()
        silent.close()
    received = [event.order for event in events]
    assert received == sorted(set(received))
    assert events[-1].event == "finished"


def test_the_limits_are_settings() -> None:
    """The defaults of the limits are those of the docs."""
    fields = ApiSettings.model_fields
    assert (fields["sse_max_streams"].default, fields["sse_max_streams_per_user"].default) == (1_000, 50)
