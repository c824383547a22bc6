"""Results that several jobs share, on a real Valkey: who makes one, who waits, and how long it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.counts import Counts
from downloadjobs_core.errors import LeaseLostError, ResultGoneError
from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT, Scripts
from downloadjobs_core.sharing import Answer, Boarding, Shared, Sharing, shared_result_key
from downloadjobs_core.states import JobState
from downloadjobs_core.timeline import timeline, timeline_key
from downloadjobs_core.upkeep import Task, UpkeepStore
from downloadjobs_core.webhook_addresses import AddressRules, callback_of

DIGEST = "d" * 64
MANY = 40


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[LeaseStore]:
    """The worker's side of an empty queue."""
    redis = connect(RedisConfig(valkey.url))
    yield LeaseStore(redis, QueuePolicy(lease_seconds=30, max_deliveries=2, user_max_running=100))
    redis.close()


def run(queue: LeaseStore, script: str, *args: str | float) -> object:
    """Run a script."""
    return Scripts(queue.redis).run(script, *args)


def submit(queue: LeaseStore, *job_ids: str, user: str = "u") -> None:
    """Accept jobs."""
    for job_id in job_ids:
        new = NewJob(job_id=job_id, user=user, file_ids=(10_000,), total_file_ids=1, max_attempts=3)
        assert queue.submit(new)


def lease(queue: LeaseStore) -> Job:
    """The next job, which must be there."""
    job = queue.lease("w")
    assert job is not None
    return job


def building(queue: LeaseStore, job_id: str = "a") -> Job:
    """A job that makes the result of the digest."""
    submit(queue, job_id)
    job = lease(queue)
    assert job.job_id == job_id
    assert queue.board(job, DIGEST) == Boarding(Answer.MAKE)
    return job


def joined(queue: LeaseStore, job_id: str, user: str = "u") -> Job:
    """A job that waits for it, as its attempt had it."""
    submit(queue, job_id, user=user)
    job = lease(queue)
    assert job.job_id == job_id
    assert queue.board(job, DIGEST) == Boarding(Answer.WAIT)
    return job


def key_of(job: Job) -> str:
    """Where an attempt makes its shared result."""
    return shared_result_key("results/", DIGEST, job.token)


def make(queue: LeaseStore, job: Job, how: Sharing = Sharing.OFFERED) -> str:
    """End a job with the result it made; its key."""
    shared = Shared(how, DIGEST, "etag")
    outcome = Outcome(JobState.COMPLETED, result_key=key_of(job), result_bytes=5, shared=shared)
    queue.finish(job, outcome)
    return key_of(job)


def reuse(queue: LeaseStore, job: Job, key: str) -> None:
    """End a job with a result that is there."""
    shared = Shared(Sharing.REUSED, DIGEST, "etag")
    queue.finish(job, Outcome(JobState.COMPLETED, result_key=key, result_bytes=5, shared=shared))


def made(queue: LeaseStore, job_id: str = "a") -> str:
    """A result that is there, with one job that points to it; its key."""
    return make(queue, building(queue, job_id))


def record(queue: LeaseStore, job_id: str) -> Job:
    """A job as Redis has it."""
    return Job.from_hash(cast("dict[str, str]", queue.redis.hgetall(job_key(job_id))))


def place(queue: LeaseStore, job_id: str) -> str:
    """Where a job waits."""
    return cast("str | None", queue.redis.hget(job_key(job_id), "place")) or ""


def let_time_be_over(queue: LeaseStore, key: str, *job_ids: str) -> None:
    """As if the time of some jobs with a shared result were over."""
    queue.redis.zadd(f"{ROOT}:sharers:{key}", dict.fromkeys(job_ids, 1))
    queue.redis.zadd(f"{ROOT}:shared", {key: 1})


def expire(queue: LeaseStore) -> list[str]:
    """What the task does with what is due, but for storage: the keys of objects to be removed."""
    upkeep = UpkeepStore(queue.redis)
    removable = []
    for key in upkeep.expired_shared(100):
        if upkeep.expire_shared(key, 100)[1]:
            removable.append(key)
            upkeep.forget_shared(key)
    return removable


def counts(queue: LeaseStore) -> Counts:
    """How many jobs are where."""
    return Counts.from_reply(cast("list[str | int]", run(queue, "counts")))


def nothing_is_left(queue: LeaseStore) -> None:
    """No set still tells of a flight, of those who waited, or of a shared result."""
    left = [name for name in cast("list[str]", queue.redis.keys(f"{ROOT}:*")) if "job:" not in name]
    names = ("flights", "joined", "followed", "delayed", "shared", "sharers:")
    assert not [name for name in left if name.removeprefix(f"{ROOT}:").startswith(names)], left


def test_one_attempt_makes_a_result_and_others_wait(queue: LeaseStore) -> None:
    """The first who asks makes it; who asks meanwhile waits, with no delivery or failure counted."""
    building(queue)
    waiting = joined(queue, "b")
    job = record(queue, "b")
    assert (job.state, place(queue, "b"), job.deliveries, job.failures) == (JobState.QUEUED, "joined", 0, 0)
    assert queue.renew([("b", waiting.token)]) == ["queued"]
    assert queue.redis.hgetall(f"{ROOT}:running_by_user") == {"u": "1"}
    assert queue.lease("w") is None


def test_who_waits_goes_on_with_the_result(queue: LeaseStore) -> None:
    """When the result is there, each who waits takes it, and it has as many sharers as jobs point to it."""
    first = building(queue)
    joined(queue, "b")
    joined(queue, "c", user="v")
    key = make(queue, first)
    for job_id in ("b", "c"):
        job = lease(queue)
        assert (job.job_id, job.attempt, job.deliveries) == (job_id, 1, 1)
        assert queue.board(job, DIGEST) == Boarding(Answer.THERE, key, 5, "etag")
        reuse(queue, job, key)
    assert {record(queue, job_id).result_key for job_id in "abc"} == {key}
    assert [record(queue, job_id).deduplicated for job_id in "abc"] == [False, True, True]
    assert set(queue.redis.zrange(f"{ROOT}:sharers:{key}", 0, -1)) == {"a", "b", "c"}


def test_a_late_request_is_answered_at_once(queue: LeaseStore) -> None:
    """A result that is there is told to who asks for the same; another digest is another result."""
    key = made(queue)
    submit(queue, "b", "c")
    assert queue.board(lease(queue), DIGEST).key == key
    assert queue.board(lease(queue), "e" * 64) == Boarding(Answer.MAKE)


Ending = Callable[[LeaseStore, Job], object]


def crash(queue: LeaseStore, job: Job) -> object:
    """The builder's process is gone: its lease runs out."""
    queue.redis.zadd(f"{ROOT}:leased", {job.job_id: 1})
    return queue.reap()


ENDINGS: dict[str, Ending] = {
    "fails for good": lambda queue, job: queue.finish(job, Outcome(JobState.FAILED, error_code="x")),
    "is to be retried": lambda queue, job: queue.retry_later(job, delay_seconds=9, code="x", message="x"),
    "is handed back": lambda queue, job: queue.hand_back(job),
    "is cancelled": lambda queue, job: run(queue, "cancel", job.job_id, "x", "x", 1000, 0),
    "is lost": crash,
    "makes another result": lambda queue, job: make(queue, job, Sharing.KEPT),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_end_of_the_builder_strands_who_waits(queue: LeaseStore, ending: str) -> None:
    """However the builder ends without a result to share, the next who waits goes on at once and makes it."""
    builder = building(queue)
    joined(queue, "b")
    joined(queue, "c")
    ENDINGS[ending](queue, builder)
    assert (place(queue, "b"), place(queue, "c")) == ("ready", "joined")
    queue.redis.delete(f"{ROOT}:maintenance")
    front = lease(queue)  # the builder itself, if it is back in the queue
    assert queue.board(front, DIGEST) == Boarding(Answer.MAKE)
    key = make(queue, front)
    while (job := queue.lease("w")) is not None:
        assert queue.board(job, DIGEST).key == key
        reuse(queue, job, key)
    assert {record(queue, "b").result_key, record(queue, "c").result_key} == {key}


def test_a_lost_wakeup_is_mended_within_a_minute(queue: LeaseStore) -> None:
    """If the next one was woken and then cancelled, those behind it go on when they are looked after."""
    builder = building(queue)
    joined(queue, "b")
    joined(queue, "c")
    queue.hand_back(builder)
    run(queue, "cancel", "b", "x", "x", 1000, 0)
    run(queue, "suspend", "a")
    assert queue.lease("w") is None
    assert queue.promote() == 0
    assert queue.lease("w") is None
    due = queue.redis.zscore(f"{ROOT}:followed", DIGEST)
    assert due is not None
    assert due - UpkeepStore(queue.redis).now_us() <= 60_000_000
    queue.redis.zadd(f"{ROOT}:followed", {DIGEST: 1})
    assert counts(queue).due == 1
    queue.promote()
    assert lease(queue).job_id == "c"


def test_who_waits_is_left_alone_while_the_result_is_made(queue: LeaseStore) -> None:
    """The net below lost wakeups wakes nobody whose result is being made."""
    building(queue)
    joined(queue, "b")
    queue.redis.zadd(f"{ROOT}:followed", {DIGEST: 1})
    queue.promote()
    assert place(queue, "b") == "joined"
    assert counts(queue).due == 0


def test_a_release_that_knows_no_joining_loses_nobody(queue: LeaseStore) -> None:
    """Who waits stands among the delayed, too, whose time comes within an hour in every release."""
    building(queue)
    joined(queue, "b")
    due = queue.redis.zscore(f"{ROOT}:delayed", "b")
    assert due is not None
    assert due - UpkeepStore(queue.redis).now_us() <= 3_600_000_000
    queue.redis.zadd(f"{ROOT}:delayed", {"b": 1})
    assert queue.promote() == 1
    assert place(queue, "b") == "ready"
    assert queue.redis.zcard(f"{ROOT}:joined") == 0
    assert lease(queue).job_id == "b"


def test_a_crowd_goes_on_a_few_at_a_time(queue: LeaseStore) -> None:
    """However many wait, few are ready at once, and each who takes the result wakes the next."""
    first = building(queue)
    for number in range(MANY):
        joined(queue, f"b{number}")
    key = make(queue, first)
    assert counts(queue).ready == 16
    ended = 0
    while (job := queue.lease("w")) is not None:
        reuse(queue, job, key)
        ended += 1
        assert counts(queue).ready <= 16
    assert ended == MANY
    assert queue.redis.zcard(f"{ROOT}:sharers:{key}") == MANY + 1


def test_who_waits_is_no_demand_for_workers(queue: LeaseStore) -> None:
    """Jobs that wait for another's result are counted by themselves, as neither ready, due nor delayed."""
    building(queue)
    joined(queue, "b")
    now = counts(queue)
    assert (now.joined, now.ready, now.due, now.delayed, now.leased) == (1, 0, 0, 0, 1)


def test_who_waits_can_be_cancelled_and_suspended(queue: LeaseStore) -> None:
    """Both take it out of those who wait for the result; resumed, it asks for the result anew."""
    first = building(queue)
    joined(queue, "b")
    joined(queue, "c")
    run(queue, "cancel", "b", "x", "x", 1000, 0)
    run(queue, "suspend", "c")
    assert (record(queue, "b").state, place(queue, "c")) == (JobState.CANCELLED, "suspended")
    assert (counts(queue).joined, queue.redis.exists(f"{ROOT}:delayed", f"{ROOT}:followed")) == (0, 0)
    key = make(queue, first)
    assert queue.lease("w") is None
    run(queue, "resume", "c")
    assert queue.board(lease(queue), DIGEST).key == key


def test_one_that_runs_suspended_does_not_join(queue: LeaseStore) -> None:
    """A job that was to be held when it comes back to the queue is held, not woken by the result."""
    first = building(queue)
    submit(queue, "b")
    job = lease(queue)
    run(queue, "suspend", "b")
    assert queue.board(job, DIGEST).answer is Answer.WAIT
    assert place(queue, "b") == "suspended"
    make(queue, first)
    assert queue.lease("w") is None


def test_a_call_that_comes_twice_is_answered_the_same(queue: LeaseStore) -> None:
    """An answer can be lost: who makes it is told so again, and who waits as well."""
    builder = building(queue)
    assert queue.board(builder, DIGEST) == Boarding(Answer.MAKE)
    waiting = joined(queue, "b")
    assert queue.board(waiting, DIGEST) == Boarding(Answer.WAIT)
    assert counts(queue).joined == 1


def test_a_lost_attempt_boards_nothing(queue: LeaseStore) -> None:
    """A token that is no longer current is refused, and takes no flight."""
    submit(queue, "a")
    job = lease(queue)
    crash(queue, job)
    with pytest.raises(LeaseLostError):
        queue.board(job, DIGEST)
    assert queue.redis.hlen(f"{ROOT}:flights") == 0


def test_a_builder_that_an_older_release_took_back_holds_up_nobody(queue: LeaseStore) -> None:
    """Its flight counts only while it holds its job, also if nobody who knows of flights ended its lease."""
    builder = building(queue)
    joined(queue, "b")
    queue.redis.hdel(job_key(builder.job_id), "token")
    queue.redis.zadd(f"{ROOT}:followed", {DIGEST: 1})
    queue.promote()
    assert queue.board(lease(queue), DIGEST) == Boarding(Answer.MAKE)


def test_a_stopped_builder_cannot_publish(queue: LeaseStore) -> None:
    """One that wakes up after its lease is refused, and another's flight and result stay."""
    slow = building(queue)
    crash(queue, slow)
    again = lease(queue)
    assert queue.board(again, DIGEST) == Boarding(Answer.MAKE)
    with pytest.raises(LeaseLostError):
        make(queue, slow)
    assert queue.redis.hlen(f"{ROOT}:flights") == 1
    key = make(queue, again)
    assert queue.redis.zrange(f"{ROOT}:shared", 0, -1) == [key]


def test_a_result_is_kept_for_its_last_sharer(queue: LeaseStore) -> None:
    """The object goes when the time of the last job is over, also if the first's record is gone."""
    key = made(queue)
    submit(queue, "b")
    reuse(queue, lease(queue), key)
    let_time_be_over(queue, key, "a")
    queue.redis.delete(job_key("a"))
    assert expire(queue) == []
    assert record(queue, "b").result_key == key
    let_time_be_over(queue, key, "b")
    assert expire(queue) == [key]
    assert (record(queue, "b").state, record(queue, "b").result_key) == (JobState.EXPIRED, "")
    nothing_is_left(queue)


def test_each_job_has_its_own_time(queue: LeaseStore) -> None:
    """A job that asks for a longer time keeps the result longer; one that asks for less shortens nothing."""
    key = made(queue)
    new = NewJob(job_id="b", user="v", file_ids=(1,), total_file_ids=1, max_attempts=1, result_ttl_seconds=60)
    queue.submit(new)
    reuse(queue, lease(queue), key)
    sharers = queue.redis.zrange(f"{ROOT}:sharers:{key}", 0, -1, withscores=True)
    scores = dict(cast("list[tuple[str, float]]", sharers))
    assert scores == {job_id: float(record(queue, job_id).expires_us) for job_id in "ab"}
    assert queue.redis.zscore(f"{ROOT}:shared", key) == scores["b"]


def test_what_is_being_removed_is_given_to_nobody(queue: LeaseStore) -> None:
    """After its last sharer's time a result is not offered, and who was told of it before is refused."""
    key = made(queue)
    submit(queue, "b")
    job = lease(queue)
    assert queue.board(job, DIGEST).key == key
    let_time_be_over(queue, key, "a")
    assert UpkeepStore(queue.redis).expire_shared(key, 100) == (1, True)
    with pytest.raises(ResultGoneError):
        reuse(queue, job, key)
    assert record(queue, "b").state is JobState.PROCESSING
    assert queue.board(job, DIGEST) == Boarding(Answer.MAKE)


def test_a_removal_that_was_cut_off_is_gone_on_with(queue: LeaseStore) -> None:
    """A process that ends between the last sharer's end and the object's leaves a key that is found again."""
    key = made(queue)
    let_time_be_over(queue, key, "a")
    upkeep = UpkeepStore(queue.redis)
    assert upkeep.expire_shared(key, 100) == (1, True)
    assert upkeep.expired_shared(100) == [key]
    assert upkeep.expire_shared(key, 100) == (0, True)


def test_withdrawing_one_job_leaves_the_others_their_result(queue: LeaseStore) -> None:
    """A DownloadJob that is deleted ends its own share only, whether it made the result or not."""
    key = made(queue)
    submit(queue, "b")
    reuse(queue, lease(queue), key)
    assert run(queue, "withdraw", "a", "x", "x", 1000, 0, 1) == [1, "completed"]
    assert queue.redis.zscore(f"{ROOT}:maintenance", Task.EXPIRE_SHARED) is not None
    assert queue.redis.zcard(f"{ROOT}:expiring") == 0
    assert expire(queue) == []
    assert (record(queue, "a").state, record(queue, "b").state) == (JobState.EXPIRED, JobState.COMPLETED)
    run(queue, "withdraw", "b", "x", "x", 1000, 0, 1)
    assert expire(queue) == [key]


def test_a_removal_asked_for_by_an_older_release_is_a_share_given_up(queue: LeaseStore) -> None:
    """An operator of a release that shares none wants the object removed: its job loses its share only."""
    key = made(queue)
    submit(queue, "b")
    reuse(queue, lease(queue), key)
    queue.redis.zadd(f"{ROOT}:expiring", {"a": 1})
    upkeep = UpkeepStore(queue.redis)
    assert upkeep.expired_results(10) == [("a", key)]
    assert upkeep.leave_result("a")
    assert upkeep.expired_results(10) == []
    assert expire(queue) == []
    assert record(queue, "b").result_key == key


def test_whose_time_with_a_shared_result_ends_is_told(queue: LeaseStore) -> None:
    """A webhook tells each of the jobs that asked for one, as it does where a result is one job's alone."""
    url = callback_of("https://a.example/hook", AddressRules())
    key = made(queue)
    for job_id in ("b", "c"):
        asked = NewJob(job_id=job_id, user="u", file_ids=(1,), total_file_ids=1, max_attempts=1, callback=url)
        assert queue.submit(asked)
        reuse(queue, lease(queue), key)
    let_time_be_over(queue, key, "a", "b")
    assert expire(queue) == []
    told = [record(queue, job_id).callback_event for job_id in "abc"]
    assert told == ["", "expired", "completed"]
    assert queue.redis.zcard(f"{ROOT}:webhooks") == 3
    assert events_of(queue, "b") == ["queued", "started", "finished", "expired"]


def events_of(queue: LeaseStore, job_id: str) -> list[str]:
    """The kinds of a job's events."""
    stream = cast("list[tuple[str, dict[str, str]]]", queue.redis.xrange(f"{ROOT}:events"))
    return [fields["kind"] for _, fields in stream if fields["job"] == job_id]


def test_what_an_attempt_took_that_joined_is_counted(queue: LeaseStore) -> None:
    """Its worker's time and bytes count for its job; its timeline has it, its plan, and the wait after it."""
    building(queue)
    submit(queue, "b")
    job = lease(queue)
    queue.progress(job, files_done=1, bytes_done=3, bytes_total=5)
    assert queue.board(job, DIGEST, stages="planning 0 41 1") == Boarding(Answer.WAIT)
    assert queue.board(job, DIGEST, stages="planning 0 41 1") == Boarding(Answer.WAIT)
    now = record(queue, "b")
    assert now.worker_us == now.updated_us - job.leased_us
    assert (now.worker_us > 0, now.worker_bytes, now.bytes_done, now.files_done) == (True, 3, 0, 0)
    items, _ = timeline(now, cast("list[str]", queue.redis.lrange(timeline_key("b"), 0, -1)))
    assert [(item.name, item.status) for item in items] == [
        ("queued", "ok"), ("attempt", "joined"), ("planning", "ok"), ("queued", "waiting"),
    ]  # fmt: skip
    assert events_of(queue, "b") == ["queued", "started", "progress", "joined"]


def test_a_result_of_another_costs_no_bytes(queue: LeaseStore) -> None:
    """Who takes it is shown all of its bytes as done, but no worker read them for it."""
    key = made(queue)
    submit(queue, "b")
    job = lease(queue)
    shared = Shared(Sharing.REUSED, DIGEST, "etag")
    outcome = Outcome(
        JobState.COMPLETED_WITH_ERRORS, result_key=key, result_bytes=5, files_done=2, files_failed=1,
        bytes_done=700, bytes_total=700, failed=[(99, "not-found")], shared=shared,
    )  # fmt: skip
    queue.finish(job, outcome, "planning 0 41 2")
    ended = record(queue, "b")
    assert (ended.bytes_done, ended.worker_bytes, ended.worker_us > 0) == (700, 0, True)
    assert ended.failed_files == {"not-found": [99]}
    notes = cast("list[str]", queue.redis.lrange(timeline_key("b"), 0, -1))
    assert notes[0] == f"stages {job.token}\nplanning 0 41 2"
    assert notes[1].split(" ")[5] == "completed_with_errors"


def test_a_result_that_is_gone_from_storage_is_made_again(queue: LeaseStore) -> None:
    """Who finds it missing forgets it and makes it; who asks meanwhile waits for that."""
    key = made(queue)
    submit(queue, "b")
    job = lease(queue)
    assert queue.board(job, DIGEST, gone=key) == Boarding(Answer.MAKE)
    joined(queue, "c")
    new = make(queue, job)
    assert new != key
    assert queue.board(lease(queue), DIGEST).key == new


def test_a_result_that_is_not_what_was_promised_is_given_to_nobody(queue: LeaseStore) -> None:
    """It is its job's own, and goes when that job's time is over."""
    key = make(queue, building(queue), Sharing.KEPT)
    submit(queue, "b")
    assert queue.board(lease(queue), DIGEST) == Boarding(Answer.MAKE)
    let_time_be_over(queue, key, "a")
    assert expire(queue) == [key]


def test_a_finish_that_comes_twice_shares_once(queue: LeaseStore) -> None:
    """Also if the job's time was over in between: the attempt must not remove the object as refused."""
    first = building(queue)
    key = make(queue, first)
    assert make(queue, first) == key
    submit(queue, "b")
    job = lease(queue)
    reuse(queue, job, key)
    reuse(queue, job, key)
    let_time_be_over(queue, key, "a")
    expire(queue)
    assert make(queue, first) == key
    assert set(queue.redis.zrange(f"{ROOT}:sharers:{key}", 0, -1)) == {"b"}


def test_a_popular_result_is_not_kept_for_ever(queue: LeaseStore) -> None:
    """It is offered for as long as results are kept, and then made anew, however often it was asked for."""
    key = made(queue)
    ttl = queue.redis.ttl(f"{ROOT}:result:{DIGEST}")
    assert 0 < ttl <= queue.policy.result_ttl_seconds
    submit(queue, "b")
    reuse(queue, lease(queue), key)
    assert queue.redis.ttl(f"{ROOT}:result:{DIGEST}") <= ttl


def test_jobs_that_share_nothing_know_of_no_flights(queue: LeaseStore) -> None:
    """Without the setting no key of its own is written."""
    submit(queue, "a", "b")
    queue.finish(lease(queue), replace(Outcome(JobState.COMPLETED, result_key="results/a/1.zip")))
    crash(queue, lease(queue))
    nothing_is_left(queue)
    assert not {"digest", "builds", "deduplicated"} & set(queue.redis.hkeys(job_key("a")))
