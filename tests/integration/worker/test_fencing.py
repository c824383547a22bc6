"""A stopped attempt that wakes up too late does no harm, wherever it was stopped.

The real runner, bundler and scripts run in this process; the clock that runs out is a shifted deadline.
A gate holds the late attempt at one call while another attempt takes the job and ends it. The late one's
keeper never runs: nothing but the fences stops it, as if its thread woke up before all else in its process.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.errors import ObjectStoreUnavailableError
from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.leases import LeaseStore, QueuePolicy
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from downloadjobs_core.objectstore.protocol import MIN_PART_BYTES, ObjectStore, Part
from downloadjobs_core.objectstore.s3 import connect as connect_store
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT, Scripts
from downloadjobs_core.upkeep import UpkeepStore
from downloadjobs_worker.attempt import AttemptRunner, Delay
from downloadjobs_worker.bundling import Bundler, BundlingLimits
from downloadjobs_worker.keeper import Keeper
from downloadjobs_worker.maintenance import Maintenance
from downloadjobs_worker.metrics import WorkerMetrics
from downloadjobs_worker.retrying import RetryPolicy
from support_worker import PREFIX, members, put_files, read_object

PATIENCE_SECONDS = 60

SMALL, LARGE = 1_000, MIN_PART_BYTES * 2 + 12_345
"""Bytes of the file of a result that is put at once, and of one that is uploaded in three parts."""

Called = Callable[[str], None]


def ignore(_call: str) -> None:
    """Let every call through."""


class Gate:
    """Holds whoever comes first to one call, until it is opened."""

    def __init__(self, call: str) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self, call: str) -> None:
        """Wait here if this is the call, for the first time."""
        with self._lock:
            stops = call == self._call and not self._reached.is_set()
            if stops:
                self._reached.set()
        if stops:
            assert self._opened.wait(PATIENCE_SECONDS), "the gate was never opened"

    @contextmanager
    def holding(self, run: Callable[[], object]) -> Iterator[Callable[[], None]]:
        """Run something until it stands at the gate, and to its end when the block ends.

        What is yielded lets it go on to its end before.
        """
        thread = threading.Thread(target=run)

        def let_go() -> None:
            self._opened.set()
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()

        thread.start()
        try:
            assert self._reached.wait(PATIENCE_SECONDS), f"nobody came to {self._call}"
            yield let_go
        finally:
            let_go()


class Watched:
    """Passes calls on to another object, and tells of each before."""

    def __init__(self, behind: object, before: Called) -> None:
        self._behind = behind
        self._before = before

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the object behind has
        found = getattr(self._behind, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the same
            self._before(name)
            return found(*args, **kwargs)

        return call


@dataclass
class Installation:
    """A queue and a store with one job, and attempts by several workers."""

    leases: LeaseStore
    store: ObjectStore
    job_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """Of results: of this test's alone, since a sweep sees all there are."""
        return f"fencing-{self.job_id}/"

    def submit(self, size: int, *, max_attempts: int = 3) -> Job:
        """A job of one file of so many bytes, and its lease."""
        self.files = put_files(self.store, {40_001: size})
        new = NewJob(
            job_id=self.job_id, user="u", file_ids=(40_001,), total_file_ids=1, max_attempts=max_attempts
        )
        assert self.leases.submit(new)
        return self.lease("late")

    def lease(self, worker: str) -> Job:
        """Lease the job."""
        job = self.leases.lease(worker)
        assert job is not None
        return job

    def keeper(self, before: Called = ignore) -> Keeper:
        """A worker's keeper, which is not started. `before` is told of each of its calls to the queue."""
        return Keeper(cast("LeaseStore", Watched(self.leases, before)), worker="w", slots=1)

    def runner(self, before: Called = ignore, keeper: Keeper | None = None) -> AttemptRunner:
        """What runs attempts in one worker. `before` is told of each call to the queue and for results."""
        leases = cast("LeaseStore", Watched(self.leases, before))
        results = cast("ObjectStore", Watched(self.store, before))
        limits = BundlingLimits(MIN_PART_BYTES, 1, 4 * MIN_PART_BYTES, 2, 1 << 20)
        bundler = Bundler(self.store, results, limits, PREFIX, self.prefix)
        keeper = keeper or self.keeper()
        return AttemptRunner(
            leases, keeper, bundler, RetryPolicy(0.01, 1, 1), Delay(), WorkerMetrics(CollectorRegistry())
        )

    def lose(self, job: Job) -> None:
        """As if the lease's time had passed, and somebody noticed."""
        self.leases.redis.zadd(f"{ROOT}:leased", {job.job_id: 1})
        assert self.leases.reap() == (1, 0)

    def finish_by_another(self, late: Job) -> Job:
        """Another attempt takes the job and ends it well; its lease."""
        self.lose(late)
        other = self.lease("other")
        assert other.token != late.token
        self.runner().run(other)
        return other

    def cancel(self) -> None:
        """The user cancels the job."""
        done, _ = Scripts(self.leases.redis).run("cancel", self.job_id, "cancelled", "by its user", 1_000, 0)
        assert done == 1

    def sweep(self) -> None:
        """The orphan sweep, at a time when everything is old enough for it."""
        keeper = self.keeper()
        task = Job.from_hash({"id": "sweep-orphans", "user": "", "state": "processing", "token": "1"})
        upkeep = UpkeepStore(self.leases.redis)
        Maintenance(upkeep, keeper, self.store, self.prefix, 86_400, 0).sweep_orphans(keeper.hold(task))

    def record(self) -> dict[str, str]:
        """The job's hash."""
        return cast("dict[str, str]", self.leases.redis.hgetall(job_key(self.job_id)))

    def happened(self) -> list[str]:
        """The kinds of the job's events."""
        entries = cast("list[tuple[str, dict[str, str]]]", self.leases.redis.xrange(f"{ROOT}:events"))
        return [entry["kind"] for _, entry in entries]

    def everything(self) -> dict[str, object]:
        """What the queue holds, but for the list of unfinished uploads, which is no state of a job."""
        redis = self.leases.redis
        read: dict[str, Callable[[str], object]] = {
            "hash": redis.hgetall,
            "zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
            "list": lambda key: redis.lrange(key, 0, -1),
            "stream": redis.xrange,
            "string": redis.get,
        }
        keys = cast("list[str]", redis.keys(f"{ROOT}:*"))
        return {key: read[str(redis.type(key))](key) for key in keys if key != f"{ROOT}:uploads"}

    def results(self) -> list[str]:
        """The keys of all results."""
        return [found.key for found in self.store.list(self.prefix)]

    def uploads(self) -> list[str]:
        """The keys of all unfinished uploads, as the store itself knows them."""
        return [upload.key for upload in self.store.pending_uploads(self.prefix)]

    def assert_only_result_is_of(self, attempt: Job) -> None:
        """One result, which is whole, published once, and that of this attempt; nothing else is left."""
        record = self.record()
        key = f"{self.prefix}{self.job_id}/{attempt.token}.zip"
        assert (record["state"], record["result_key"]) == ("completed", key)
        assert self.happened().count("finished") == 1
        assert self.results() == [key]
        assert self.uploads() == []
        found = members(read_object(self.store, key))
        assert {name: found[name] for name in self.files} == self.files

    def assert_a_sweep_comes_in_time(self) -> None:
        """The orphan sweep is due when the grace is over, and not later."""
        due = self.leases.redis.zscore(f"{ROOT}:maintenance", "sweep-orphans")
        assert due is not None
        seconds, _ = self.leases.redis.time()
        assert due / 1_000_000 <= seconds + 1 + self.leases.policy.orphan_grace_seconds

    def assert_nothing_is_left(self) -> None:
        """No result and no upload."""
        assert self.results() == []
        assert self.uploads() == []


@pytest.fixture(params=["memory", "seaweedfs"])
def installation(request: pytest.FixtureRequest, valkey: ValkeyServer) -> Iterator[Installation]:
    """An installation whose store is one in memory, and then a real one."""
    redis = connect(RedisConfig(valkey.url))
    leases = LeaseStore(redis, QueuePolicy(lease_seconds=30, max_deliveries=100))
    if request.param == "memory":
        yield Installation(leases, MemoryObjectStore())
    else:
        server: SeaweedServer = request.getfixturevalue("seaweedfs")
        store = connect_store(server.config, server.bucket)
        yield Installation(leases, store)
        store.close()
    redis.close()


POINTS = [
    pytest.param(LARGE, "note_upload", id="before-its-upload-is-noted"),
    pytest.param(LARGE, "upload_part", id="before-a-part"),
    pytest.param(LARGE, "check", id="before-the-lease-is-checked"),
    pytest.param(LARGE, "complete_upload", id="between-check-and-complete"),
    pytest.param(SMALL, "put", id="between-check-and-put"),
    pytest.param(LARGE, "finish", id="between-complete-and-finish"),
    pytest.param(SMALL, "finish", id="between-put-and-finish"),
]


@pytest.mark.parametrize(("size", "call"), POINTS)
def test_a_late_attempt_changes_nothing(installation: Installation, size: int, call: str) -> None:
    """After another attempt ended the job, the late one changes nothing and removes what it made."""
    late = installation.submit(size)
    gate = Gate(call)
    with gate.holding(lambda: installation.runner(gate).run(late)):
        other = installation.finish_by_another(late)
        before = installation.everything()
    assert installation.everything() == before
    installation.assert_only_result_is_of(other)


@pytest.mark.parametrize(("size", "call"), POINTS)
def test_a_late_attempt_disturbs_no_running_one(installation: Installation, size: int, call: str) -> None:
    """While another attempt is under way, the late one changes nothing; then the other one ends the job."""
    late = installation.submit(size)
    gate, other_gate = Gate(call), Gate("finish")
    with gate.holding(lambda: installation.runner(gate).run(late)) as let_late_one_end:
        installation.lose(late)
        other = installation.lease("other")
        with other_gate.holding(lambda: installation.runner(other_gate).run(other)):
            before = installation.everything()
            let_late_one_end()
            assert installation.everything() == before
    installation.assert_only_result_is_of(other)


@pytest.mark.parametrize(("size", "call"), POINTS)
def test_a_late_attempt_of_a_cancelled_job_publishes_nothing(
    installation: Installation, size: int, call: str
) -> None:
    """After its user cancelled the job it stays cancelled, and nothing of the attempt is left."""
    late = installation.submit(size)
    gate = Gate(call)
    with gate.holding(lambda: installation.runner(gate).run(late)):
        installation.cancel()
        before = installation.everything()
    assert installation.everything() == before
    assert installation.record()["state"] == "cancelled"
    installation.assert_nothing_is_left()


def test_late_progress_is_refused(installation: Installation) -> None:
    """Progress that is written late is not that of the job any more, and stops its attempt."""
    late = installation.submit(SMALL)
    gate = Gate("progress")
    keeper = installation.keeper(gate)
    hold = keeper.hold(late)
    hold.progress.bytes_done = 500
    with gate.holding(keeper._write_progress):
        other = installation.finish_by_another(late)
        before = installation.everything()
    assert installation.everything() == before
    assert hold.stopped
    installation.assert_only_result_is_of(other)


def test_a_late_renewal_is_refused(installation: Installation) -> None:
    """A lease that is renewed late stays the other's, and its attempt is told why."""
    late = installation.submit(SMALL)
    gate = Gate("renew")
    keeper = installation.keeper(gate)
    hold = keeper.hold(late)
    with gate.holding(keeper._renew):
        other = installation.finish_by_another(late)
    assert hold.stopped
    assert hold._reason == "the job is completed and no longer this worker's"
    assert installation.leases.redis.zcard(f"{ROOT}:leased") == 0
    installation.assert_only_result_is_of(other)


@pytest.mark.parametrize(
    ("max_attempts", "call"), [(3, "retry_later"), (1, "finish")], ids=["retried", "failed for good"]
)
def test_a_late_failure_is_refused(installation: Installation, max_attempts: int, call: str) -> None:
    """An attempt that failed, and says so late, neither fails the job nor counts as one of its failures."""
    late = installation.submit(LARGE, max_attempts=max_attempts)
    gate = Gate(call)

    def before_call(name: str) -> None:
        if name == "complete_upload":
            raise RuntimeError("a fault in the middle")
        gate(name)

    with gate.holding(lambda: installation.runner(before_call).run(late)):
        other = installation.finish_by_another(late)
        before = installation.everything()
    assert installation.everything() == before
    assert installation.record()["failures"] == "0"
    installation.assert_only_result_is_of(other)


def test_a_late_hand_back_is_refused(installation: Installation) -> None:
    """A job that is handed back late does not return to the queue."""
    late = installation.submit(LARGE)
    gate = Gate("hand_back")
    keeper = installation.keeper()

    def drain(name: str) -> None:
        if name == "upload_part":
            keeper.stop_all()
        gate(name)

    with gate.holding(lambda: installation.runner(drain, keeper).run(late)):
        other = installation.finish_by_another(late)
        before = installation.everything()
    assert installation.everything() == before
    installation.assert_only_result_is_of(other)


@pytest.mark.parametrize(("size", "call"), POINTS[-2:])
def test_an_attempt_whose_job_was_handed_back_in_its_stead_has_lost_it(
    installation: Installation, size: int, call: str
) -> None:
    """A drain that cannot wait gives a job back for its attempt, which then cannot finish it any more."""
    late = installation.submit(size)
    gate = Gate(call)
    with gate.holding(lambda: installation.runner(gate).run(late)):
        installation.leases.hand_back(late)
        before = installation.everything()
    assert installation.everything() == before
    assert installation.record()["state"] == "queued"
    installation.assert_nothing_is_left()


def test_an_upload_whose_creation_was_not_answered_is_not_left(installation: Installation) -> None:
    """When the answer to the creation of an upload is lost it is created again, and the first one goes."""
    job = installation.submit(LARGE)

    class Lossy(Watched):
        lost = False

        def create_upload(self, key: str, *, content_type: str) -> str:
            upload_id = installation.store.create_upload(key, content_type=content_type)
            if not self.lost:
                self.lost = True
                raise ObjectStoreUnavailableError("the answer is lost")
            return upload_id

    runner = installation.runner()
    bundler = replace(runner.bundler, results=cast("ObjectStore", Lossy(installation.store, ignore)))
    replace(runner, bundler=bundler).run(job)
    installation.assert_only_result_is_of(job)


@pytest.mark.parametrize(
    ("size", "call"),
    [(LARGE, "upload_part"), (LARGE, "complete_upload"), (LARGE, "finish"), (SMALL, "finish")],
    ids=["after-creation", "after-all-parts", "after-completion", "after-put"],
)
def test_what_a_killed_worker_left_is_swept(installation: Installation, size: int, call: str) -> None:
    """The sweep finds what an attempt made that never goes on, wherever it was killed."""
    killed = installation.submit(size)
    gate = Gate(call)
    with gate.holding(lambda: installation.runner(gate).run(killed)):
        other = installation.finish_by_another(killed)
        installation.sweep()
        installation.assert_only_result_is_of(other)
        before = installation.everything()
    # It was not killed after all, but stopped for so long: then the sweep does not make it dangerous.
    assert installation.everything() == before
    installation.assert_only_result_is_of(other)


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_a_result_whose_completion_was_not_answered_is_not_left(
    installation: Installation, size: int
) -> None:
    """When no answer to the completion came the attempt failed, and the object that may be there goes."""
    job = installation.submit(size)

    class Lossy(Watched):
        def put(self, key: str, data: bytes, *, content_type: str) -> str:
            installation.store.put(key, data, content_type=content_type)
            raise RuntimeError("the answer is lost")

        def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> str:
            installation.store.complete_upload(key, upload_id, parts)
            raise RuntimeError("the answer is lost")

    runner = installation.runner()
    bundler = replace(runner.bundler, results=cast("ObjectStore", Lossy(installation.store, ignore)))
    replace(runner, bundler=bundler).run(job)
    assert installation.record()["state"] == "retrying"
    installation.assert_nothing_is_left()


@pytest.mark.parametrize("max_attempts", [3, 1], ids=["retried", "failed for good"])
def test_what_a_failed_attempt_could_not_remove_will_be_swept(
    installation: Installation, max_attempts: int
) -> None:
    """A failed attempt that cannot abort its upload has a sweep ordered, which nobody else might order."""
    job = installation.submit(LARGE, max_attempts=max_attempts)

    def broken(call: str) -> None:
        if call == "complete_upload":
            raise RuntimeError("a fault in the middle")
        if call == "pending_uploads":
            raise ObjectStoreUnavailableError("the store went away")

    installation.runner(broken).run(job)
    assert len(installation.uploads()) == 1
    installation.assert_a_sweep_comes_in_time()


@pytest.mark.parametrize("how", ["lost", "cancelled"])
def test_a_sweep_ordered_for_much_later_does_not_hold_up_one_that_is_needed(
    installation: Installation, how: str
) -> None:
    """What a lost or cancelled attempt left is swept after its grace, also where one is due in two days.

    That is so after the first job of a Redis that may have been wiped.
    """
    job = installation.submit(SMALL)
    installation.leases.redis.zadd(f"{ROOT}:maintenance", {"sweep-orphans": int(job.token) + 172_800_000_000})
    if how == "lost":
        installation.lose(job)
    else:
        installation.cancel()
    installation.assert_a_sweep_comes_in_time()


def test_an_upload_that_the_store_lost_costs_an_attempt_and_not_the_job(installation: Installation) -> None:
    """A fresh attempt makes a fresh upload, so a job outlives the loss of one."""
    job = installation.submit(LARGE)

    def lose_upload(call: str) -> None:
        if call == "complete_upload":
            for upload in installation.store.pending_uploads(installation.prefix):
                installation.store.abort_upload(upload.key, upload.upload_id)

    installation.runner(lose_upload).run(job)
    assert installation.record()["state"] == "retrying"
    installation.assert_nothing_is_left()
