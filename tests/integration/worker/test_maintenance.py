"""The queue's own tasks: when they are due, what they remove and what they keep; and cancelling what runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar, cast

import pytest

from downloadjobs_cli.children import Child
from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.errors import JobNotFoundError, LeaseLostError, ObjectStoreError
from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.leases import SECOND_US, Outcome, QueuePolicy
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from downloadjobs_core.redis_client import RedisConfig, connect_async
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState
from downloadjobs_core.upkeep import EVERY_SECONDS, Task
from downloadjobs_worker.maintenance import BATCH, RETRY_SECONDS, UNKNOWN_MARGIN_SECONDS
from support_maintenance import GRACE_SECONDS, PREFIX, RESULT_TTL_SECONDS, MaintainedQueue
from support_processes import System, running
from support_worker import content, eventually

MIB = 1024 * 1024

CANCEL_SECONDS = 2
"""How soon a running attempt must learn that its job was cancelled."""

Answer = TypeVar("Answer")


class Installation(MaintainedQueue):
    """The queue, with results and what lost attempts left."""

    def published(self, job_id: str) -> str:
        """A job that has completed; the key of its result, which is there."""
        job = self.started(job_id)
        key = f"{PREFIX}{job_id}/{job.token}.zip"
        self.store.put(key, b"result")
        self.leases.finish(job, Outcome(JobState.COMPLETED, result_key=key, result_bytes=6))
        return key

    def record(self, job_id: str) -> dict[str, str]:
        """A job's hash."""
        return cast("dict[str, str]", self.leases.redis.hgetall(job_key(job_id)))

    def seconds_until(self, task: Task) -> float:
        """In how many seconds a task is due, which must be scheduled."""
        due = self.due(task)
        assert due is not None
        return (due - self.upkeep.now_us()) / SECOND_US

    def let_result_expire(self, job_id: str) -> None:
        """As if a result's time were over."""
        self.leases.redis.zadd(f"{ROOT}:expiring", {job_id: 1})

    def left(self, job_id: str, *, seconds_ago: float) -> str:
        """What an attempt made that began so long ago: an object; its key."""
        token = self.upkeep.now_us() - int(seconds_ago * SECOND_US)
        key = f"{PREFIX}{job_id}/{token}.zip"
        self.store.put(key, b"left")
        return key

    def left_upload(self, job_id: str, *, seconds_ago: float) -> str:
        """The same, but an upload that was neither completed nor aborted, as the queue knows of it."""
        key = self.left(job_id, seconds_ago=seconds_ago)
        MemoryObjectStore.delete(self.store, key)
        self.store.create_upload(key)
        self.leases.redis.hset(f"{ROOT}:uploads", key, "token")
        return key

    def uploads(self) -> list[str]:
        """The keys of unfinished uploads, as the store knows them."""
        return [upload.key for upload in self.store.pending_uploads("")]

    def sweep(self) -> None:
        """One run of the orphan sweep."""
        self.maintain(Task.SWEEP_ORPHANS)


@pytest.fixture
def here(valkey: ValkeyServer) -> Iterator[Installation]:
    """An empty installation."""
    with Installation.on(valkey) as installation:
        yield installation


def ask(valkey: ValkeyServer, call: Callable[[JobStore], Awaitable[Answer]]) -> Answer:
    """Ask the API's side of the queue."""

    async def scenario() -> Answer:
        redis = connect_async(RedisConfig(valkey.url), max_connections=2)
        try:
            return await call(JobStore(redis, QueuePolicy()))
        finally:
            await redis.aclose()

    return asyncio.run(scenario())


def test_a_result_past_its_time_is_removed_and_then_marked(here: Installation) -> None:
    """The object goes first, so that none is forgotten; then the job is expired and points nowhere."""
    old, young = here.published("old"), here.published("young")
    here.let_result_expire("old")
    states = []
    here.store.before_delete = lambda _key: states.append(here.record("old")["state"])
    here.maintenance().run(here.make_due(Task.EXPIRE_RESULTS))
    assert states == ["completed"]
    assert here.store.keys() == [young]
    assert old not in here.record("old").values()
    assert "result_key" not in here.record("old")
    assert (here.record("old")["state"], here.record("young")["state"]) == ("expired", "completed")


def test_many_results_expire_in_one_run(here: Installation) -> None:
    """However many results are past their time, one run removes them all."""
    for number in range(230):
        here.published(str(number))
        here.let_result_expire(str(number))
    here.maintenance().run(here.make_due(Task.EXPIRE_RESULTS))
    assert here.store.keys() == []
    assert {here.record(str(number))["state"] for number in range(230)} == {"expired"}


def test_a_result_whose_record_is_gone_is_forgotten(here: Installation) -> None:
    """A record that went before its result stops no task: its entry goes, and a sweep finds the object."""
    here.published("old")
    here.let_result_expire("old")
    here.leases.redis.delete(job_key("old"))
    here.maintenance().run(here.make_due(Task.EXPIRE_RESULTS))
    assert here.leases.redis.zcard(f"{ROOT}:expiring") == 0
    assert GRACE_SECONDS - 5 < here.seconds_until(Task.SWEEP_ORPHANS) <= GRACE_SECONDS


def test_a_result_that_cannot_be_removed_is_tried_again(here: Installation) -> None:
    """While storage is away no job is marked, and the task is due again after a minute."""
    here.published("old")
    here.let_result_expire("old")
    here.store.away = True
    here.maintenance().run(here.make_due(Task.EXPIRE_RESULTS))
    assert here.record("old")["state"] == "completed"
    assert RETRY_SECONDS - 5 < here.seconds_until(Task.EXPIRE_RESULTS) <= RETRY_SECONDS
    here.store.away = False
    here.maintenance().run(here.make_due(Task.EXPIRE_RESULTS))
    assert (here.record("old")["state"], here.store.keys()) == ("expired", [])


def test_a_result_that_storage_keeps_holds_up_no_other(here: Installation) -> None:
    """What cannot be removed for good is set aside for an hour, unmarked, and the rest of the run goes on."""
    kept = here.published("kept")
    jobs = [str(number) for number in range(BATCH + 10)]
    for job_id in jobs:
        here.published(job_id)
        here.let_result_expire(job_id)
    here.leases.redis.zadd(f"{ROOT}:expiring", {"kept": 0})  # before all others
    here.maintain(Task.EXPIRE_RESULTS)
    assert here.store.keys() == [kept]
    assert {here.record(job_id)["state"] for job_id in jobs} == {"expired"}
    assert here.record("kept")["state"] == "completed"
    assert EVERY_SECONDS - 5 < here.seconds_until(Task.EXPIRE_RESULTS) <= EVERY_SECONDS
    here.store.kept = "none"
    here.let_result_expire("kept")
    here.maintain(Task.EXPIRE_RESULTS)
    assert (here.store.keys(), here.record("kept")["state"]) == ([], "expired")


def test_expiry_is_due_with_the_first_result(here: Installation) -> None:
    """The task is scheduled by the first result for its end, not by later ones, and does not come before."""
    assert here.due(Task.EXPIRE_RESULTS) is None
    here.published("first")
    here.published("second")
    assert here.due(Task.EXPIRE_RESULTS) == float(here.record("first")["expires_us"])
    assert here.leases.lease("w") is None


def test_a_job_without_a_result_schedules_no_expiry(here: Installation) -> None:
    """A job that failed leaves nothing that could expire."""
    here.leases.finish(here.started("a"), Outcome(JobState.FAILED))
    assert here.due(Task.EXPIRE_RESULTS) is None


def test_expiry_comes_again_only_while_something_expires(here: Installation) -> None:
    """After a run the task is due in an hour, or later with the next result; with none, not at all."""
    here.published("old")
    here.published("next")
    here.let_result_expire("old")
    here.maintenance().run(here.make_due(Task.EXPIRE_RESULTS))
    assert EVERY_SECONDS - 5 < here.seconds_until(Task.EXPIRE_RESULTS) <= EVERY_SECONDS
    far = float(here.upkeep.now_us() + 10 * EVERY_SECONDS * SECOND_US)
    here.leases.redis.zadd(f"{ROOT}:expiring", {"next": far})
    here.maintenance().run(here.make_due(Task.EXPIRE_RESULTS))
    assert here.due(Task.EXPIRE_RESULTS) == far
    here.let_result_expire("next")
    here.maintenance().run(here.make_due(Task.EXPIRE_RESULTS))
    assert here.due(Task.EXPIRE_RESULTS) is None
    assert here.record(Task.EXPIRE_RESULTS) == {}


def test_a_lost_attempt_orders_a_sweep(here: Installation) -> None:
    """A lease that ran out has storage swept once the grace is over, and no second loss puts that off."""
    here.started("a")
    assert here.due(Task.SWEEP_ORPHANS) is None
    for _ in range(2):
        here.leases.redis.zadd(f"{ROOT}:leased", {"a": 1})
        assert here.leases.reap() == (1, 0)
        here.lease()
    first = here.due(Task.SWEEP_ORPHANS)
    assert first is not None
    assert GRACE_SECONDS - 5 < here.seconds_until(Task.SWEEP_ORPHANS) <= GRACE_SECONDS


def test_a_sweep_removes_what_a_lost_attempt_left(here: Installation) -> None:
    """An object and an upload of attempts that are not current go, and the queue forgets the upload."""
    here.started("a")
    here.left("a", seconds_ago=GRACE_SECONDS + 5)
    here.left_upload("a", seconds_ago=GRACE_SECONDS + 5)
    here.sweep()
    assert (here.store.keys(), here.uploads()) == ([], [])
    assert here.upkeep.uploads() == []
    assert here.due(Task.SWEEP_ORPHANS) is None


def test_a_sweep_waits_for_the_grace(here: Installation) -> None:
    """What a lost attempt left lately stays, since a request may be under way; the sweep comes again."""
    here.started("a")
    objects = here.left("a", seconds_ago=GRACE_SECONDS - 20)
    upload = here.left_upload("a", seconds_ago=GRACE_SECONDS - 20)
    here.sweep()
    assert (here.store.keys(), here.uploads()) == ([objects], [upload])
    assert here.upkeep.uploads() == [upload]
    assert EVERY_SECONDS - 5 < here.seconds_until(Task.SWEEP_ORPHANS) <= EVERY_SECONDS


def test_a_sweep_keeps_published_results(here: Installation) -> None:
    """The result that a job points to stays however old it is, and so when its upload was not forgotten."""
    job = here.started("a")
    key = here.left("a", seconds_ago=10 * RESULT_TTL_SECONDS)
    here.leases.redis.hset(f"{ROOT}:uploads", key, "token")
    here.leases.finish(job, Outcome(JobState.COMPLETED, result_key=key, result_bytes=4))
    here.sweep()
    assert here.store.keys() == [key]
    assert here.upkeep.uploads() == []


def test_a_sweep_keeps_what_the_current_attempt_makes(here: Installation) -> None:
    """An attempt that holds its job is left alone, however long ago it began."""
    here.started("a")
    objects = here.left("a", seconds_ago=10 * GRACE_SECONDS)
    token = objects.rpartition("/")[2].removesuffix(".zip")
    here.store.create_upload(objects)
    here.leases.redis.hset(f"{ROOT}:uploads", objects, token)
    here.leases.redis.hset(job_key("a"), "token", token)
    here.sweep()
    assert (here.store.keys(), here.uploads()) == ([objects], [objects])
    assert here.upkeep.uploads() == [objects]


def test_a_sweep_leaves_foreign_objects_alone(here: Installation) -> None:
    """Whatever does not have the name of an attempt's result is somebody else's, below the prefix too."""
    foreign = [
        "downloads/a/1.zip",
        "results/1.zip",
        "results//1.zip",
        "results/a/1.txt",
        "results/a/1",
        "results/a/b/1.zip",
        "results/a/notes.zip",
        "results/a/.zip",
        "results/a/-1.zip",
    ]
    for key in foreign:
        here.store.put(key, b"mine")
        here.store.create_upload(key)
    here.sweep()
    assert here.store.keys() == sorted(foreign)
    assert sorted(here.uploads()) == sorted(foreign)
    assert here.due(Task.SWEEP_ORPHANS) is None


@pytest.mark.parametrize(
    "key", ["results/2024/12.zip", "results/files/10003.zip", "results/a/\uff11\uff12.zip"]
)
def test_a_sweep_leaves_numbered_foreign_objects_alone(here: Installation, key: str) -> None:
    """A number that is no token makes no result of a file, such as one of those that jobs bundle."""
    here.store.put(key, b"mine")
    here.sweep()
    assert here.store.keys() == [key]


def test_the_result_of_an_unknown_job_is_kept_for_a_day_longer(here: Installation) -> None:
    """After a wipe of Redis somebody may hold a URL of it: it stays while any may be good, and a day."""
    longest = RESULT_TTL_SECONDS + UNKNOWN_MARGIN_SECONDS
    assert UNKNOWN_MARGIN_SECONDS == 24 * 3_600
    here.left("gone", seconds_ago=longest + 5)
    young = here.left("gone", seconds_ago=longest - 20)
    here.sweep()
    assert here.store.keys() == [young]
    assert here.due(Task.SWEEP_ORPHANS) is not None


def test_the_upload_of_an_unknown_job_is_not_kept_so_long(here: Installation) -> None:
    """Nobody can hold a URL of what was never completed: the grace is enough."""
    here.left_upload("gone", seconds_ago=GRACE_SECONDS + 5)
    here.sweep()
    assert here.uploads() == []


def test_an_upload_that_redis_forgot_goes_with_the_sweep(here: Installation) -> None:
    """After a wipe with its worker an upload is found in the store, and goes a day after results would."""
    longest = RESULT_TTL_SECONDS + UNKNOWN_MARGIN_SECONDS
    here.left_upload("gone", seconds_ago=longest + 5)
    young = here.left_upload("gone", seconds_ago=longest - 20)
    here.leases.redis.delete(f"{ROOT}:uploads")
    here.sweep()
    assert here.uploads() == [young]
    assert EVERY_SECONDS - 5 < here.seconds_until(Task.SWEEP_ORPHANS) <= EVERY_SECONDS


def test_an_upload_of_a_known_job_that_redis_forgot_has_the_grace_alone(here: Installation) -> None:
    """Where a failover lost only the note of an upload, its job says that nobody works on it."""
    here.started("a")
    here.left_upload("a", seconds_ago=GRACE_SECONDS + 5)
    young = here.left_upload("a", seconds_ago=GRACE_SECONDS - 20)
    here.leases.redis.delete(f"{ROOT}:uploads")
    here.sweep()
    assert here.uploads() == [young]


@pytest.mark.parametrize("away", [True, False])
def test_a_store_that_lists_no_uploads_is_swept_by_what_redis_knows(
    here: Installation, monkeypatch: pytest.MonkeyPatch, *, away: bool
) -> None:
    """A store that lists uploads only by their whole key does not stop the sweep; one that is away does."""
    here.left_upload("gone", seconds_ago=GRACE_SECONDS + 5)
    listed = here.store.pending_uploads

    def by_key(prefix: str) -> object:
        if prefix == PREFIX:
            raise ObjectStoreError("not implemented")
        return listed(prefix)

    monkeypatch.setattr(here.store, "pending_uploads", by_key)
    here.store.away = away
    here.sweep()
    assert len(list(listed(""))) == away


def test_a_sweep_that_cannot_reach_storage_is_tried_again(here: Installation) -> None:
    """While storage is away nothing is lost: the task is due again after a minute."""
    here.started("a")
    here.left("a", seconds_ago=GRACE_SECONDS + 5)
    here.store.away = True
    here.sweep()
    assert RETRY_SECONDS - 5 < here.seconds_until(Task.SWEEP_ORPHANS) <= RETRY_SECONDS


def test_a_sweep_goes_on_after_what_storage_keeps(here: Installation) -> None:
    """An object and an upload that cannot be removed hold up no other, and the sweep comes again for them."""
    for job_id in ("kept", "z"):
        here.left(job_id, seconds_ago=10 * UNKNOWN_MARGIN_SECONDS)
        here.left_upload(job_id, seconds_ago=10 * UNKNOWN_MARGIN_SECONDS)
    here.sweep()
    assert [key.split("/")[1] for key in (*here.store.keys(), *here.uploads())] == ["kept", "kept"]
    assert here.upkeep.uploads() == here.uploads()
    assert EVERY_SECONDS - 5 < here.seconds_until(Task.SWEEP_ORPHANS) <= EVERY_SECONDS


def test_a_task_goes_before_all_jobs(here: Installation) -> None:
    """Maintenance that is due is leased before any job that waits."""
    here.leases.submit(NewJob(job_id="a", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    here.make_due(Task.SWEEP_ORPHANS)
    assert here.lease().job_id == "a"


@pytest.mark.parametrize("task", Task)
def test_two_workers_never_lease_one_task_at_once(here: Installation, task: Task) -> None:
    """A task that one worker has leased is not there for another."""
    here.make_due(task)
    assert here.leases.lease("other") is None


def test_a_sweep_that_is_ordered_during_one_waits_for_its_end(here: Installation) -> None:
    """A loss in the middle of a long sweep does not have another worker take it away and begin anew."""
    here.make_due(Task.SWEEP_ORPHANS)
    here.leases.order_sweep()
    here.leases.redis.zadd(f"{ROOT}:maintenance", {Task.SWEEP_ORPHANS: 1}, xx=True)  # the grace is over
    assert here.leases.lease("other") is None


@pytest.mark.parametrize("task", Task)
def test_a_task_whose_worker_dies_is_run_again(here: Installation, task: Task) -> None:
    """When its lease has run out another worker leases the task at once, and the first can end it no more."""
    first = here.make_due(task)
    here.leases.redis.zadd(f"{ROOT}:leased", {task: 1})
    assert here.leases.reap() == (0, 0)  # it is no job
    second = here.lease("other")
    assert (second.job_id, second.is_maintenance, second.worker) == (task, True, "other")
    assert second.token != first.token
    with pytest.raises(LeaseLostError):
        here.upkeep.done(first, again_seconds=None)
    here.maintenance().run(second)
    assert here.record(task) == {}
    assert here.leases.redis.zcard(f"{ROOT}:leased") == 0


def test_a_drain_hands_a_task_back(here: Installation) -> None:
    """A task that a drain stops is due again at once, and counts as nobody's."""
    here.published("old")
    here.let_result_expire("old")
    maintenance = here.maintenance()
    here.store.before_delete = lambda _key: None
    task = here.make_due(Task.EXPIRE_RESULTS)
    original = maintenance.keeper.hold

    def stopped(job: Job) -> object:
        hold = original(job)
        maintenance.keeper.stop_all()
        return hold

    maintenance.keeper.hold = stopped  # type: ignore[method-assign, assignment]
    maintenance.run(task)
    assert here.record("old")["state"] == "completed"
    assert here.lease("other").job_id == Task.EXPIRE_RESULTS


def test_a_task_of_another_release_is_left_to_it(here: Installation) -> None:
    """A task that this release does not know is put off by a minute, not forgotten."""
    here.leases.redis.zadd(f"{ROOT}:maintenance", {"of-tomorrow": 1})
    here.maintenance().run(here.lease())
    due = here.leases.redis.zscore(f"{ROOT}:maintenance", "of-tomorrow")
    assert due is not None
    assert due > here.upkeep.now_us()


def test_a_held_job_does_not_start(valkey: ValkeyServer, here: Installation) -> None:
    """A suspended job is leased by nobody, says where it waits, and still counts as waiting."""
    here.leases.submit(NewJob(job_id="a", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    for _ in range(2):  # a call that comes twice does no harm
        changed = ask(valkey, lambda store: store.suspend("a"))
        assert (changed.done, changed.state) == (True, JobState.QUEUED)
    assert here.leases.lease("w") is None
    place = ask(valkey, lambda store: store.place("a"))
    assert place is not None
    assert place.where == "suspended"
    counts = ask(valkey, lambda store: store.counts())
    assert (counts.suspended, counts.ready) == (1, 0)


def test_a_resumed_job_takes_its_old_turn(valkey: ValkeyServer, here: Installation) -> None:
    """A job that is let go stands where its submission put it, before those that came later."""
    for job_id in ("a", "b", "c"):
        here.leases.submit(NewJob(job_id=job_id, user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    ask(valkey, lambda store: store.suspend("b"))
    for _ in range(2):
        changed = ask(valkey, lambda store: store.resume("b"))
        assert (changed.done, changed.state) == (True, JobState.QUEUED)
    assert [here.lease().job_id for _ in range(3)] == ["a", "b", "c"]


def test_a_running_job_is_held_when_it_comes_back(valkey: ValkeyServer, here: Installation) -> None:
    """Suspending a job that runs lets it run, and holds it once it is handed back."""
    job = here.started("a")
    assert ask(valkey, lambda store: store.suspend("a")).state is JobState.PROCESSING
    here.leases.check(job)
    here.leases.hand_back(job)
    assert here.leases.lease("w") is None
    ask(valkey, lambda store: store.resume("a"))
    assert here.lease().job_id == "a"


def test_a_held_job_can_be_cancelled(valkey: ValkeyServer, here: Installation) -> None:
    """Cancelling a suspended job ends it; letting it go does not bring it back."""
    here.leases.submit(NewJob(job_id="a", user="u", file_ids=(1,), total_file_ids=1, max_attempts=3))
    ask(valkey, lambda store: store.suspend("a"))
    assert ask(valkey, lambda store: store.cancel("a", code="cancelled", message="x")).done
    assert not ask(valkey, lambda store: store.resume("a")).done
    assert here.leases.lease("w") is None
    assert ask(valkey, lambda store: store.counts()).suspended == 0


@pytest.mark.parametrize("change", ["suspend", "resume"])
def test_holding_an_unknown_job_is_refused(valkey: ValkeyServer, change: str) -> None:
    """A job that is not there can be neither held nor let go."""
    with pytest.raises(JobNotFoundError):
        ask(valkey, lambda store: cast("Awaitable[object]", getattr(store, change)("unknown")))


@pytest.fixture
def own_storage(valkey: ValkeyServer, tmp_path: Path) -> Iterator[System]:
    """An installation whose storage holds nothing of other tests."""
    with SeaweedServer(tmp_path / "s3") as s3, running(System(valkey, s3, tmp_path)) as system:
        yield system


def logged(child: Child, event: str) -> list[dict[str, str]]:
    """The lines of a process' log that tell of an event."""
    lines = child.log_path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
    return [line for line in whole if line["event"] == event]


def test_a_cancel_reaches_a_running_job(own_storage: System) -> None:
    """A worker in the middle of large files stops within two seconds, and leaves no object and no upload."""
    system = own_storage
    file_ids = range(62_001, 62_025)
    data = content(1, 16 * MIB)
    for file_id in file_ids:
        system.store.put(f"downloads/{file_id}.zip", data)
    system.start_api()
    worker = system.start_worker(UPLOAD_THREADS="1", READ_AHEAD_FILES="1")  # so that it takes a while
    job_id = system.submit(file_ids)
    eventually(lambda: bool(list(system.store.pending_uploads(PREFIX))), what="the job's upload")
    with system.client() as client:
        assert client.delete(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
        assert system.status(job_id)["status"] == "cancelled"
        finished = datetime.fromisoformat(client.get(f"/v1/jobs/{job_id}").json()["finishedAt"])
    eventually(lambda: bool(logged(worker, "attempt stopped")), 20, "the end of the attempt")
    (line,) = logged(worker, "attempt stopped")
    stopped = datetime.fromisoformat(line["timestamp"])
    assert (stopped - finished).total_seconds() < CANCEL_SECONDS
    assert list(system.store.list(PREFIX)) == []
    assert list(system.store.pending_uploads(PREFIX)) == []
    assert logged(worker, "job finished") == []
    assert system.status(job_id)["status"] == "cancelled"
