"""Results that jobs share: made once by real workers, and removed with their last job by maintenance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from downloadjobs_cli.children import Child
from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.job import Job, job_key
from downloadjobs_core.leases import SECOND_US, LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT, Scripts
from downloadjobs_core.sharing import Answer, Shared, Sharing, shared_result_key
from downloadjobs_core.states import JobState
from downloadjobs_core.upkeep import EVERY_SECONDS, Task, UpkeepStore
from downloadjobs_worker.maintenance import RETRY_SECONDS, UNKNOWN_MARGIN_SECONDS
from support_maintenance import GRACE_SECONDS, PREFIX, RESULT_TTL_SECONDS, MaintainedQueue
from support_processes import System, running
from support_worker import content, eventually, members, put_files

MIB = 1024 * 1024
DIGEST = "d" * 64


class Installation(MaintainedQueue):
    """The queue, with results that jobs share."""

    def made(self, job_id: str, *sharers: str) -> str:
        """A result that a job made and others took; its key."""
        job = self.started(job_id)
        assert self.leases.board(job, DIGEST).answer is Answer.MAKE
        key = shared_result_key(PREFIX, DIGEST, job.token)
        self.store.put(key, b"result")
        self.finish(job, key, Sharing.OFFERED)
        for sharer in sharers:
            self.finish(self.started(sharer), key, Sharing.REUSED)
        return key

    def finish(self, job: Job, key: str, how: Sharing) -> None:
        """End a job with a result."""
        outcome = Outcome(
            JobState.COMPLETED, result_key=key, result_bytes=6, shared=Shared(how, DIGEST, "etag")
        )
        self.leases.finish(job, outcome)

    def left(self, *, seconds_ago: float) -> str:
        """What an attempt made that began so long ago, and that nobody points to; its key."""
        token = self.upkeep.now_us() - int(seconds_ago * SECOND_US)
        key = shared_result_key(PREFIX, DIGEST, str(token))
        self.store.put(key, b"left")
        return key

    def state(self, job_id: str) -> str | None:
        """A job's state."""
        return cast("str | None", self.leases.redis.hget(job_key(job_id), "state"))

    def let_time_be_over(self, key: str, *job_ids: str) -> None:
        """As if the time of some jobs with a shared result were over."""
        self.leases.redis.zadd(f"{ROOT}:sharers:{key}", dict.fromkeys(job_ids, 1))
        self.leases.redis.zadd(f"{ROOT}:shared", {key: 1})

    def seconds_until(self, task: Task) -> float | None:
        """In how many seconds a task is due; None if it is not scheduled."""
        due = self.due(task)
        return None if due is None else (due - self.upkeep.now_us()) / SECOND_US


@pytest.fixture
def here(valkey: ValkeyServer) -> Iterator[Installation]:
    """An empty installation."""
    with Installation.on(valkey) as installation:
        yield installation


def test_a_shared_result_is_removed_with_its_last_job(here: Installation) -> None:
    """The task expires each job at its own time, and removes the object after the last of them."""
    key = here.made("a", "b", "c")
    here.let_time_be_over(key, "a", "c")
    here.maintain(Task.EXPIRE_SHARED)
    assert [here.state(job_id) for job_id in "abc"] == ["expired", "completed", "expired"]
    assert here.store.keys() == [key]
    here.let_time_be_over(key, "b")
    here.maintain(Task.EXPIRE_SHARED)
    assert (here.state("b"), here.store.keys()) == ("expired", [])
    assert here.seconds_until(Task.EXPIRE_SHARED) is None


def test_a_result_that_hundreds_share_expires_in_one_run(here: Installation) -> None:
    """However many jobs share it, one run ends them all, in steps that hold Redis up for a moment each."""
    sharers = [f"b{number}" for number in range(230)]
    key = here.made("a", *sharers)
    here.let_time_be_over(key, "a", *sharers)
    here.maintain(Task.EXPIRE_SHARED)
    assert {here.state(job_id) for job_id in ("a", *sharers)} == {"expired"}
    assert here.store.keys() == []


def test_expiry_of_shared_results_is_due_with_the_first(here: Installation) -> None:
    """It is scheduled by the first result, and comes again at most once an hour while there is one."""
    assert here.seconds_until(Task.EXPIRE_SHARED) is None
    key = here.made("a", "b")
    due = here.seconds_until(Task.EXPIRE_SHARED)
    assert due is not None
    assert RESULT_TTL_SECONDS - 5 < due <= RESULT_TTL_SECONDS
    here.let_time_be_over(key, "a")
    here.maintain(Task.EXPIRE_SHARED)
    again = here.seconds_until(Task.EXPIRE_SHARED)
    assert again is not None
    assert EVERY_SECONDS - 5 < again <= EVERY_SECONDS


def test_a_shared_result_that_cannot_be_removed_is_tried_again(here: Installation) -> None:
    """While storage is away its key is not forgotten, and the task is due again after a minute."""
    key = here.made("a")
    here.let_time_be_over(key, "a")
    here.store.away = True
    here.maintain(Task.EXPIRE_SHARED)
    due = here.seconds_until(Task.EXPIRE_SHARED)
    assert due is not None
    assert RETRY_SECONDS - 5 < due <= RETRY_SECONDS
    here.store.away = False
    here.maintain(Task.EXPIRE_SHARED)
    assert here.store.keys() == []


def test_a_shared_result_that_storage_keeps_holds_up_no_other(here: Installation) -> None:
    """What cannot be removed for good is set aside for an hour, and its jobs have expired all the same."""
    kept = here.made("a")
    other = shared_result_key(PREFIX, "e" * 64, "1700000000000000")
    here.store.put(other, b"result")
    here.leases.redis.zadd(f"{ROOT}:shared", {other: 2})
    here.let_time_be_over(kept, "a")
    here.store.kept = DIGEST
    here.maintain(Task.EXPIRE_SHARED)
    assert (here.state("a"), here.store.keys()) == ("expired", [kept])
    due = here.seconds_until(Task.EXPIRE_SHARED)
    assert due is not None
    assert EVERY_SECONDS - 5 < due <= EVERY_SECONDS
    here.store.kept = "none"
    here.leases.redis.zadd(f"{ROOT}:shared", {kept: 1})
    here.maintain(Task.EXPIRE_SHARED)
    assert here.store.keys() == []


def test_the_other_expiry_removes_no_shared_result(here: Installation) -> None:
    """A job that an older operator put there gives up its share, and the others keep the object."""
    key = here.made("a", "b")
    here.leases.redis.zadd(f"{ROOT}:expiring", {"a": 1})
    here.maintain(Task.EXPIRE_RESULTS)
    assert here.store.keys() == [key]
    here.maintain(Task.EXPIRE_SHARED)
    assert (here.state("a"), here.state("b"), here.store.keys()) == ("expired", "completed", [key])


def test_a_sweep_keeps_a_result_whose_first_job_is_long_gone(here: Installation) -> None:
    """Whoever points to it keeps it: neither its maker's record nor its age counts."""
    key = here.made("a", "b")
    old = here.left(seconds_ago=100 * RESULT_TTL_SECONDS)
    here.leases.redis.zadd(f"{ROOT}:shared", {old: 1e18})
    here.let_time_be_over(key, "a")
    here.maintain(Task.EXPIRE_SHARED)
    here.leases.redis.delete(job_key("a"))
    here.maintain(Task.SWEEP_ORPHANS)
    assert here.store.keys() == sorted([key, old])


def test_a_sweep_keeps_what_the_builder_makes(here: Installation) -> None:
    """An attempt that holds its job and its flight is left alone, however long ago it began."""
    job = here.started("a")
    key = here.left(seconds_ago=10 * GRACE_SECONDS)
    token = key.rpartition("/")[2].removesuffix(".zip")
    here.leases.redis.hset(job_key("a"), "token", token)
    here.leases.redis.hset(f"{ROOT}:flights", DIGEST, f"{token}:{job.job_id}")
    here.store.create_upload(key)
    here.leases.redis.hset(f"{ROOT}:uploads", key, token)
    here.maintain(Task.SWEEP_ORPHANS)
    assert here.store.keys() == [key]
    assert [upload.key for upload in here.store.pending_uploads(PREFIX)] == [key]


def test_a_sweep_removes_what_a_lost_builder_left(here: Installation) -> None:
    """What nobody points to goes after the grace, also while another attempt makes the same."""
    assert here.leases.board(here.started("a"), DIGEST).answer is Answer.MAKE
    key = here.left(seconds_ago=GRACE_SECONDS + 5)
    here.store.create_upload(key)
    here.leases.redis.hset(f"{ROOT}:uploads", key, "token")
    young = here.left(seconds_ago=GRACE_SECONDS - 20)
    here.maintain(Task.SWEEP_ORPHANS)
    assert here.store.keys() == [young]
    assert list(here.store.pending_uploads(PREFIX)) == []
    assert UpkeepStore(here.leases.redis).uploads() == []


def test_after_a_wipe_a_shared_result_stays_while_urls_may_be_good(here: Installation) -> None:
    """What was made before the wipe is kept for as long as a private result is, and then goes."""
    here.leases.redis.hset(f"{ROOT}:queue", "epoch", here.upkeep.now_us())
    longest = RESULT_TTL_SECONDS + UNKNOWN_MARGIN_SECONDS
    young = here.left(seconds_ago=longest - 20)
    here.left(seconds_ago=longest + 5)
    here.maintain(Task.SWEEP_ORPHANS)
    assert here.store.keys() == [young]


def test_after_a_wipe_a_result_is_made_anew(here: Installation) -> None:
    """What Redis does not know any more is given to nobody."""
    here.made("a")
    here.leases.redis.flushall()
    assert here.leases.board(here.started("b"), DIGEST).answer is Answer.MAKE


@pytest.fixture
def sharing(valkey: ValkeyServer, tmp_path: Path) -> Iterator[System]:
    """An installation with an S3 server of its own, whose workers share results."""
    with (
        SeaweedServer(tmp_path / "s3") as s3,
        running(System(valkey, s3, tmp_path, {"DEDUPLICATE_RESULTS": "true"})) as system,
    ):
        yield system


def results(system: System) -> list[str]:
    """The keys of all results."""
    return [found.key for found in system.store.list(PREFIX)]


def detail(system: System, job_id: str, user: str) -> dict[str, Any]:
    """A job as its owner sees it."""
    with system.client(user) as client:
        answer = client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == httpx.codes.OK, answer.text
    return cast("dict[str, Any]", answer.json())


def done(system: System, jobs: dict[str, str]) -> None:
    """Wait until all jobs, given with their users, have completed."""
    for job_id, user in jobs.items():
        eventually(lambda j=job_id, u=user: system.status(j, u)["status"] == "completed", 60, job_id)  # type: ignore[misc]


def test_the_same_files_are_bundled_once_for_everybody(sharing: System) -> None:
    """A second user's job ends with the first's result, under its own name, and learns nothing of it."""
    system = sharing
    stored = put_files(system.store, {41_001: 3 * MIB, 41_002: 5})
    system.start_api()
    system.start_worker()
    first = system.submit([41_001, 41_002], "ada")
    done(system, {first: "ada"})
    second = system.submit([41_001, 41_002], "bob")
    done(system, {second: "bob"})
    assert len(results(system)) == 1
    assert detail(system, first, "ada")["deduplicated"] is False
    ours = detail(system, second, "bob")
    assert ours["deduplicated"] is True
    assert ours["progress"] == {
        "processed": 2, "total": 2, "bytes": 3 * MIB + 5, "bytesTotal": 3 * MIB + 5,
    }  # fmt: skip
    archive = system.fetch(second, "bob")
    assert archive == system.fetch(first, "ada")
    found = members(archive)
    assert json.loads(found.pop("manifest.json"))["jobId"] is None
    assert found == stored
    with system.client("bob") as client:
        url = client.get(f"/v1/download/result/{second}").json()["downloadUrl"]
        assert client.get(f"/v1/jobs/{first}").status_code == httpx.codes.FORBIDDEN
    assert f"download-{second}.zip" in url
    assert first not in url


def test_what_is_missing_in_anothers_result_is_told_and_can_be_retried(sharing: System) -> None:
    """Who takes it is told which files are not in it, and a retry asks for those alone."""
    system = sharing
    put_files(system.store, {41_031: 100})
    system.start_api()
    system.start_worker()
    first = system.submit([41_031, 41_032], "ada")
    done(system, {first: "ada"})
    second = system.submit([41_031, 41_032], "bob")
    done(system, {second: "bob"})
    made, taken = detail(system, first, "ada"), detail(system, second, "bob")
    assert (made["deduplicated"], taken["deduplicated"]) == (False, True)
    assert [failure["fileId"] for failure in taken["failures"]] == [41_032]
    assert taken["failures"] == made["failures"]
    assert (made["workerBytes"], taken["workerBytes"]) == (100, 0)
    with system.client("bob") as client:
        assert client.post(f"/v1/jobs/{second}/retry").json()["totalFileIds"] == 1


def test_a_changed_file_is_another_result(sharing: System) -> None:
    """A job is never answered from a result of what a file was before."""
    system = sharing
    put_files(system.store, {41_011: 100})
    system.start_api()
    system.start_worker()
    done(system, {system.submit([41_011]): "ada"})
    system.store.put("downloads/41011.zip", b"new")
    job_id = system.submit([41_011])
    done(system, {job_id: "ada"})
    assert members(system.fetch(job_id))["41011.zip"] == b"new"
    assert len(results(system)) == 2


def test_a_result_removed_by_hand_is_made_anew(sharing: System) -> None:
    """Nobody is pointed to an object that is not there."""
    system = sharing
    stored = put_files(system.store, {41_021: 100})
    system.start_api()
    system.start_worker()
    done(system, {system.submit([41_021]): "ada"})
    system.store.delete(results(system)[0])
    job_id = system.submit([41_021], "bob")
    done(system, {job_id: "bob"})
    assert detail(system, job_id, "bob")["deduplicated"] is False
    assert members(system.fetch(job_id, "bob"))["41021.zip"] == stored["41021.zip"]


def large_files(system: System) -> list[int]:
    """Files whose bundling takes a while."""
    ids = list(range(42_001, 42_007))
    data = content(1, 16 * MIB)
    for file_id in ids:
        system.store.put(f"downloads/{file_id}.zip", data)
    return ids


SLOW = {"UPLOAD_THREADS": "1", "READ_AHEAD_FILES": "1", "WORKER_CONCURRENCY": "2"}


def test_a_crowd_that_asks_at_once_is_bundled_for_once(sharing: System) -> None:
    """Of many who ask while it is made, one makes it; the others wait without a slot, and all get it."""
    system = sharing
    ids = large_files(system)
    put_files(system.store, {42_101: 10})
    redis = connect(RedisConfig(system.valkey.url))
    system.start_api()
    for _ in range(2):
        system.start_worker(**SLOW)
    users = [f"user{number}" for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        job_ids = list(pool.map(lambda user: system.submit(ids, user), users))
    eventually(lambda: redis.zcard(f"{ROOT}:joined") == len(users) - 1, 30, "all others wait")
    waiting = next(job_id for job_id in job_ids if redis.hget(job_key(job_id), "place") == "joined")
    shown = detail(system, waiting, users[job_ids.index(waiting)])
    assert (shown["state"], shown["queue"]["place"], shown["deliveries"]) == ("queued", "joined", 0)
    # There are four slots, and eleven jobs that wait: another job is not held up by them.
    done(system, {system.submit([42_101], "else"): "else"})
    jobs = dict(zip(job_ids, users, strict=True))
    done(system, jobs)
    shared = [key for key in results(system) if len(redis.zrange(f"{ROOT}:sharers:{key}", 0, -1)) > 1]
    assert len(results(system)) == 2
    assert len(shared) == 1
    assert sorted(detail(system, j, u)["deduplicated"] for j, u in jobs.items()) == [False] + [True] * 11
    assert {detail(system, j, u)["attempt"] for j, u in jobs.items()} == {1}
    redis.close()


def test_a_killed_builder_strands_nobody(sharing: System) -> None:
    """SIGKILL of its worker: another makes the result, all who waited get it, and nothing is left behind."""
    system = sharing
    system.settings |= {"ORPHAN_GRACE_SECONDS": "1"}
    ids = large_files(system)
    redis = connect(RedisConfig(system.valkey.url))
    system.start_api()
    workers = {worker.name: worker for worker in (system.start_worker(**SLOW) for _ in range(2))}
    jobs = {system.submit(ids, user): user for user in ("a", "b", "c", "d", "e")}
    eventually(lambda: redis.zcard(f"{ROOT}:joined") == 4, 30, "the others wait")
    (holder,) = cast("list[str]", redis.hvals(f"{ROOT}:flights"))
    builder = holder[17:]
    killed: Child = workers[str(redis.hget(job_key(builder), "worker"))]
    assert redis.hget(job_key(builder), "state") == "processing"
    killed.kill()
    done(system, jobs)
    shared = {str(redis.hget(job_key(job_id), "result_key")) for job_id in jobs}
    assert len(shared) == 1
    eventually(lambda: not list(system.store.pending_uploads(PREFIX)), 30, "the sweep")
    assert set(results(system)) == shared
    assert not redis.exists(f"{ROOT}:flights", f"{ROOT}:joined", f"{ROOT}:followed", f"{ROOT}:delayed")
    redis.close()


def test_a_cancelled_builder_strands_nobody(sharing: System) -> None:
    """Who waits goes on when the one who makes it is cancelled in the middle."""
    system = sharing
    ids = large_files(system)
    redis = connect(RedisConfig(system.valkey.url))
    system.start_api()
    system.start_worker(**SLOW)
    jobs = {system.submit(ids, user): user for user in ("a", "b", "c")}
    eventually(lambda: redis.zcard(f"{ROOT}:joined") == 2, 30, "the others wait")
    (holder,) = cast("list[str]", redis.hvals(f"{ROOT}:flights"))
    assert Scripts(redis).run("cancel", holder[17:], "cancelled", "x", 1000, 1)[0] == 1
    del jobs[holder[17:]]
    done(system, jobs)
    assert len(results(system)) == 1
    redis.close()


def test_switched_off_again_those_who_wait_go_on_by_themselves(sharing: System) -> None:
    """A worker that shares nothing makes a result of its own for each of them."""
    system = sharing
    ids = large_files(system)[:2]
    redis = connect(RedisConfig(system.valkey.url))
    leases = LeaseStore(redis, QueuePolicy())
    system.start_api()
    first, second = system.submit(ids), system.submit(ids)
    builder, follower = (leases.lease("by-hand") for _ in range(2))
    assert builder is not None
    assert follower is not None
    assert leases.board(builder, DIGEST).answer is Answer.MAKE
    assert leases.board(follower, DIGEST).answer is Answer.WAIT
    leases.hand_back(builder)
    system.start_worker(DEDUPLICATE_RESULTS="false")
    done(system, {first: "ada", second: "ada"})
    assert sorted(results(system)) == sorted(
        str(redis.hget(job_key(j), "result_key")) for j in (first, second)
    )
    assert not [key for key in results(system) if "shared" in key]
    redis.close()
