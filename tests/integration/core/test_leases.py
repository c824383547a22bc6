"""The leased queue, on a real Valkey."""

import asyncio
import time
from collections.abc import Iterator
from typing import cast

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.errors import IllegalTransitionError, LeaseLostError, QueueUnavailableError
from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.jobstore import JobStatus, JobStore
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect, connect_async
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState, Priority

DONE = Outcome(JobState.COMPLETED, result_key="results/x.zip", result_bytes=5, files_done=1, bytes_done=4)


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[LeaseStore]:
    """The worker's side of an empty queue; a job is dead after three deliveries."""
    redis = connect(RedisConfig(valkey.url))
    yield LeaseStore(redis, QueuePolicy(lease_seconds=30, max_deliveries=3, user_max_running=100))
    redis.close()


def new(job_id: str = "a", priority: Priority = Priority.NORMAL) -> NewJob:
    """A job of one file."""
    return NewJob(
        job_id=job_id, user="u", file_ids=(10_000,), total_file_ids=1, max_attempts=3, priority=priority
    )


def record(queue: LeaseStore, job_id: str = "a") -> Job:
    """A job as Redis has it."""
    return Job.from_hash(queue.redis.hgetall(job_key(job_id)))  # type: ignore[arg-type]


def lease(queue: LeaseStore) -> Job:
    """The next job, which must be there."""
    job = queue.lease("w")
    assert job is not None
    return job


def let_lease_expire(queue: LeaseStore, job_id: str = "a") -> None:
    """As if the lease's time had passed: its deadline is shifted, since nobody can shift Redis' clock."""
    queue.redis.zadd(f"{ROOT}:leased", {job_id: 1})


def kinds(queue: LeaseStore) -> list[str]:
    """What happened, by the stream of events."""
    events = cast("list[tuple[str, dict[str, str]]]", queue.redis.xrange(f"{ROOT}:events"))
    return [entry["kind"] for _, entry in events]


def test_a_job_goes_through_the_queue(queue: LeaseStore) -> None:
    """Submitted, leased, finished: each step is in the record and in the stream of events."""
    assert queue.submit(new())
    job = lease(queue)
    assert (job.state, job.attempt, job.deliveries, job.worker) == (JobState.PROCESSING, 1, 1, "w")
    queue.progress(job, files_done=1, bytes_done=2, bytes_total=4)
    assert record(queue).bytes_done == 2
    queue.finish(job, DONE)
    done = record(queue)
    assert (done.state, done.result_key, done.token) == (JobState.COMPLETED, "results/x.zip", "")
    assert done.created_us <= done.started_us <= done.finished_us < done.expires_us
    assert kinds(queue) == ["queued", "started", "progress", "finished"]


def test_an_empty_queue_gives_nothing(queue: LeaseStore) -> None:
    """A pop from an empty queue is None, and a wait for work ends by its time-out."""
    assert queue.lease("w") is None
    started = time.monotonic()
    queue.wait_for_work(0.2)
    assert time.monotonic() - started >= 0.2


def test_a_submission_wakes_an_idle_slot(queue: LeaseStore) -> None:
    """A waiting slot returns at once when a job is accepted."""
    queue.submit(new())
    started = time.monotonic()
    queue.wait_for_work(5)
    assert time.monotonic() - started < 1


def test_the_same_id_twice_is_one_job(queue: LeaseStore) -> None:
    """Submitting is idempotent: the second time changes nothing, even when the job has ended."""
    assert queue.submit(new())
    assert not queue.submit(new())
    job = lease(queue)
    assert queue.lease("w") is None
    queue.finish(job, DONE)
    assert not queue.submit(new())
    assert record(queue).state is JobState.COMPLETED


def test_classes_are_strict(queue: LeaseStore) -> None:
    """A higher class goes first; within one, the earlier job."""
    for job_id, priority in [("l", Priority.LOW), ("n1", Priority.NORMAL), ("n2", Priority.NORMAL),
                             ("h", Priority.HIGH)]:  # fmt: skip
        queue.submit(new(job_id, priority))
    assert [lease(queue).job_id for _ in range(4)] == ["h", "n1", "n2", "l"]


def test_tokens_only_grow(queue: LeaseStore) -> None:
    """Every lease has a token that no lease before it had, and its digits are never an exponent."""
    for number in range(50):
        queue.submit(new(str(number)))
    tokens = [lease(queue).token for _ in range(50)]
    assert all(token.isdigit() and len(token) == 16 for token in tokens)
    assert tokens == sorted(set(tokens))


def test_tokens_grow_past_a_clock_that_goes_back(queue: LeaseStore) -> None:
    """If the clock were behind the last token, the next one is still larger."""
    queue.redis.hset(f"{ROOT}:queue", "token", "8000000000000000")
    queue.submit(new())
    assert lease(queue).token == "8000000000000001"


def test_a_handed_back_job_is_first_again_and_uncounted(queue: LeaseStore) -> None:
    """A drain gives a job back to the front, and the delivery does not count."""
    queue.submit(new("a"))
    queue.submit(new("b"))
    first = lease(queue)
    queue.hand_back(first)
    assert record(queue).state is JobState.QUEUED
    again = lease(queue)
    assert (again.job_id, again.deliveries, again.attempt) == ("a", 1, 1)
    assert again.token != first.token


def test_a_failed_attempt_waits_for_its_retry(queue: LeaseStore) -> None:
    """A retry is ready when its delay is over and not before; the failure is told and counted."""
    queue.submit(new())
    job = lease(queue)
    queue.retry_later(job, delay_seconds=60, code="storage-unavailable", message="S3 was down.")
    waiting = record(queue)
    assert (waiting.state, waiting.failures, waiting.error_code) == (
        JobState.RETRYING, 1, "storage-unavailable",
    )  # fmt: skip
    assert queue.promote() == 0
    assert queue.lease("w") is None
    queue.redis.zadd(f"{ROOT}:delayed", {"a": 1})
    assert queue.promote() == 1
    retried = lease(queue)
    assert (retried.attempt, retried.state) == (2, JobState.PROCESSING)


def test_an_expired_lease_is_taken_back(queue: LeaseStore) -> None:
    """A job whose worker was lost is ready again, and its delivery counts."""
    queue.submit(new())
    lease(queue)
    assert queue.reap() == (0, 0)
    let_lease_expire(queue)
    assert queue.reap() == (1, 0)
    again = lease(queue)
    assert (again.deliveries, again.attempt) == (2, 1)


def test_a_job_that_is_lost_too_often_is_a_dead_letter(queue: LeaseStore) -> None:
    """After three deliveries without an outcome a job is failed, with the reason, and not delivered again."""
    queue.submit(new())
    reaped = []
    for _ in range(3):
        lease(queue)
        let_lease_expire(queue)
        reaped.append(queue.reap())
    assert reaped == [(1, 0), (1, 0), (0, 1)]
    assert queue.lease("w") is None
    assert (record(queue).state, record(queue).error_code) == (JobState.FAILED, "dead-letter")


def test_an_outcome_forgives_earlier_losses(queue: LeaseStore) -> None:
    """Deliveries count in a row: an attempt that ends, even in failure, begins the count anew."""
    queue.submit(new())
    lease(queue)
    let_lease_expire(queue)
    queue.reap()
    queue.retry_later(lease(queue), delay_seconds=0, code="x", message="x")
    queue.promote()
    assert lease(queue).deliveries == 1


def test_renewing_moves_the_deadline(queue: LeaseStore) -> None:
    """One call renews every lease, and tells which are lost and why."""
    for job_id in ("a", "b", "c"):
        queue.submit(new(job_id))
    a, b, c = (lease(queue) for _ in range(3))
    queue.finish(b, DONE)
    queue.redis.delete(job_key("c"))
    before = queue.redis.zscore(f"{ROOT}:leased", "a")
    assert queue.renew((job.job_id, job.token) for job in (a, b, c)) == ["", "completed", "gone"]
    after = queue.redis.zscore(f"{ROOT}:leased", "a")
    assert before is not None
    assert after is not None
    assert after > before
    assert queue.renew([]) == []


def test_a_late_attempt_changes_nothing(queue: LeaseStore) -> None:
    """An attempt that lost its lease is refused at every point, and the next attempt's job is untouched."""
    queue.submit(new())
    late = lease(queue)
    let_lease_expire(queue)
    queue.reap()
    current = lease(queue)
    before = queue.redis.hgetall(job_key("a"))
    with pytest.raises(LeaseLostError):
        queue.progress(late, files_done=1, bytes_done=1, bytes_total=1)
    with pytest.raises(LeaseLostError):
        queue.check(late)
    with pytest.raises(LeaseLostError):
        queue.finish(late, DONE)
    with pytest.raises(LeaseLostError):
        queue.retry_later(late, delay_seconds=1, code="x", message="x")
    with pytest.raises(LeaseLostError):
        queue.hand_back(late)
    assert queue.renew([("a", late.token)]) == ["processing"]
    assert queue.redis.hgetall(job_key("a")) == before
    queue.finish(current, DONE)


@pytest.mark.parametrize("end", ["finish", "retry_later", "hand_back"])
def test_an_end_that_is_sent_twice_counts_once(queue: LeaseStore, end: str) -> None:
    """If the answer was lost and the call comes again, it succeeds, and nothing is done twice."""
    queue.submit(new())
    job = lease(queue)
    for _ in range(2):
        if end == "finish":
            queue.finish(job, DONE)
        elif end == "retry_later":
            queue.retry_later(job, delay_seconds=60, code="x", message="x")
        else:
            queue.hand_back(job)
    after = record(queue)
    assert after.failures == (1 if end == "retry_later" else 0)
    assert after.deliveries == 0
    assert len(kinds(queue)) == 3


def test_a_transition_outside_the_table_is_refused(queue: LeaseStore) -> None:
    """A script changes nothing when the table of transitions does not allow it."""
    queue.submit(new())
    job = lease(queue)
    with pytest.raises(IllegalTransitionError):
        queue.finish(job, Outcome(JobState.EXPIRED))
    assert record(queue).state is JobState.PROCESSING


def test_a_finished_record_goes_after_its_time(queue: LeaseStore) -> None:
    """Records of finished jobs expire, so that Redis does not fill; running ones never do."""
    queue.submit(new())
    job = lease(queue)
    assert queue.redis.ttl(job_key("a")) == -1
    queue.finish(job, DONE)
    assert 604_790 <= int(queue.redis.ttl(job_key("a"))) <= 604_800


def test_no_key_lies_outside_the_hash_tag(queue: LeaseStore) -> None:
    """Every key begins with the one hash tag, so Redis Cluster has them all in one slot."""
    for job_id in ("a", "b", "c"):
        queue.submit(new(job_id))
    queue.finish(lease(queue), DONE)
    queue.retry_later(lease(queue), delay_seconds=9, code="x", message="x")
    assert all(key.startswith(f"{ROOT}:") for key in queue.redis.scan_iter())


def test_a_full_redis_starts_nothing_and_lets_work_end(queue: LeaseStore) -> None:
    """When memory is used up nothing is accepted or leased, but what runs is renewed, told and ended."""
    for job_id in ("a", "b", "c"):
        queue.submit(new(job_id))
    first, second = lease(queue), lease(queue)
    queue.redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(QueueUnavailableError, match="maxmemory"):
            queue.submit(new("d"))
        with pytest.raises(QueueUnavailableError, match="maxmemory"):
            queue.lease("w")
        assert queue.renew([("a", first.token)], worker="w", slots=1) == [""]
        queue.progress(first, files_done=1, bytes_done=1, bytes_total=1)
        queue.finish(first, DONE)
        queue.hand_back(second)
    finally:
        queue.redis.config_set("maxmemory", "0")
    assert [lease(queue).job_id for _ in range(2)] == ["b", "c"]


def test_redis_away_is_an_error_of_the_domain(queue: LeaseStore) -> None:
    """A Redis that cannot be reached is said in one sentence, not in the client's exceptions."""
    away = LeaseStore(connect(RedisConfig("redis://127.0.0.1:1")), queue.policy)
    with pytest.raises(QueueUnavailableError, match="Redis cannot be reached"):
        away.lease("w")


def test_equal_reads_of_one_moment_are_one(valkey: ValkeyServer) -> None:
    """Status reads of one tick go out as one pipeline, equal ids once, and each gets its answer."""

    async def scenario() -> None:
        redis = connect_async(RedisConfig(valkey.url), max_connections=4)
        store = JobStore(redis, QueuePolicy())
        for job_id in ("a", "b"):
            assert (await store.submit(new(job_id))).created
        before = int((await redis.info("commandstats"))["cmdstat_hmget"]["calls"])
        asked = ["a", "b", "a", "a", "missing"]
        answers = await asyncio.gather(*(store.status(job_id) for job_id in asked))
        after = int((await redis.info("commandstats"))["cmdstat_hmget"]["calls"])
        assert [answer.state if answer else None for answer in answers] == [
            JobState.QUEUED, JobState.QUEUED, JobState.QUEUED, JobState.QUEUED, None,
        ]  # fmt: skip
        assert after - before == 3
        await redis.aclose()

    asyncio.run(scenario())


def test_a_failed_read_reaches_everyone_who_asked() -> None:
    """When Redis is away each of the waiting requests gets the error, and none hangs."""

    async def scenario() -> None:
        redis = connect_async(RedisConfig("redis://127.0.0.1:1"), max_connections=4)
        store = JobStore(redis, QueuePolicy())
        results = await asyncio.gather(*(store.status("a") for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [QueueUnavailableError] * 3
        await redis.aclose()

    asyncio.run(scenario())


def test_a_damaged_record_is_an_error_of_its_own(valkey: ValkeyServer) -> None:
    """A record that cannot be read fails its own request, and neither those beside it nor later ones."""

    async def scenario() -> None:
        redis = connect_async(RedisConfig(valkey.url), max_connections=4)
        store = JobStore(redis, QueuePolicy())
        await store.submit(new("good"))
        await redis.hset(job_key("bad"), mapping={"id": "bad", "user": "u", "state": "weird"})
        for _ in range(3):
            bad, good = await asyncio.gather(
                store.status("bad"), store.status("good"), return_exceptions=True
            )
            assert isinstance(bad, ValueError)
            assert isinstance(good, JobStatus)
        assert isinstance(await asyncio.wait_for(store.status("good"), 5), JobStatus)
        await redis.aclose()

    asyncio.run(scenario())


def test_a_request_that_gives_up_does_not_take_the_others_with_it(valkey: ValkeyServer) -> None:
    """Cancelling one of several equal reads leaves the rest their answer."""

    async def scenario() -> None:
        redis = connect_async(RedisConfig(valkey.url), max_connections=4)
        store = JobStore(redis, QueuePolicy())
        await store.submit(new())
        first = asyncio.create_task(store.status("a"))
        second = asyncio.create_task(store.status("a"))
        await asyncio.sleep(0)
        first.cancel()
        answer = await second
        assert answer is not None
        assert answer.state is JobState.QUEUED
        await redis.aclose()

    asyncio.run(scenario())
