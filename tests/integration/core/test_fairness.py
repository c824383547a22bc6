"""Whose turn it is: fairness between users, classes, parking, and what a waiting job is told of its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.counts import Counts
from downloadjobs_core.job import Job, NewJob
from downloadjobs_core.jobstore import JobStore, Place
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect, connect_async
from downloadjobs_core.states import JobState, Priority

FEW = 3
"""Pops within which the first job of a user who has used nothing must come."""

PARKED_BY_ONE_POP = 64

Answer = TypeVar("Answer")


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[LeaseStore]:
    """An empty queue in which a user may run as many jobs as there are."""
    redis = connect(RedisConfig(valkey.url))
    yield LeaseStore(redis, QueuePolicy(user_max_running=100_000, user_max_queued=20_000))
    redis.close()


@pytest.fixture
def narrow(valkey: ValkeyServer) -> Iterator[LeaseStore]:
    """An empty queue in which a user may run two jobs at once."""
    redis = connect(RedisConfig(valkey.url))
    yield LeaseStore(redis, QueuePolicy(user_max_running=2))
    redis.close()


def ask(valkey: ValkeyServer, call: Callable[[JobStore], Awaitable[Answer]]) -> Answer:
    """Ask the API's side of the queue."""

    async def scenario() -> Answer:
        redis = connect_async(RedisConfig(valkey.url), max_connections=2)
        try:
            return await call(JobStore(redis, QueuePolicy()))
        finally:
            await redis.aclose()

    return asyncio.run(scenario())


def place(valkey: ValkeyServer, job_id: str) -> Place:
    """Where a job stands, which must wait."""
    found = ask(valkey, lambda store: store.place(job_id))
    assert found is not None
    return found


def counts(valkey: ValkeyServer) -> Counts:
    """How many jobs are where."""
    return ask(valkey, lambda store: store.counts())


def submit(
    queue: LeaseStore,
    user: str,
    count: int,
    priority: Priority = Priority.NORMAL,
    *,
    files: int = 1,
    first: int = 0,
) -> list[str]:
    """Jobs of a user; their ids, which begin with the user's and the class' names."""
    ids = [f"{user}-{priority}-{number}" for number in range(first, first + count)]
    for job_id in ids:
        new = NewJob(
            job_id=job_id, user=user, file_ids=tuple(range(files)), total_file_ids=files, max_attempts=3,
            priority=priority,
        )  # fmt: skip
        assert queue.submit(new)
    return ids


def pop(queue: LeaseStore) -> Job:
    """The next job, which must be there."""
    job = queue.lease("w")
    assert job is not None
    return job


def pop_all(queue: LeaseStore) -> list[str]:
    """The ids of all jobs, in the order of their turns."""
    found = []
    while (job := queue.lease("w")) is not None:
        found.append(job.job_id)
    return found


def pops_until(queue: LeaseStore, user: str, limit: int = 20) -> int:
    """How many pops it takes to get a job of a user."""
    for number in range(1, limit + 1):
        job = queue.lease("w")
        if job is not None and job.user == user:
            return number
    raise AssertionError(f"no job of {user} within {limit} pops")


def test_ten_thousand_jobs_of_one_user_do_not_hold_up_another(queue: LeaseStore) -> None:
    """After 10,000 jobs of A, the first job of B is among the next few, and B's further ones take turns."""
    submit(queue, "A", 10_000)
    for _ in range(5):
        pop(queue)
    submit(queue, "B", 10)
    assert pops_until(queue, "B") <= FEW
    users = [pop(queue).user for _ in range(18)]
    assert 8 <= users.count("B") <= 9


def test_each_new_user_comes_among_the_next(queue: LeaseStore) -> None:
    """However long A's queue has been worked on, whoever is new comes among the next few."""
    submit(queue, "A", 300)
    for user in ("B", "C", "D"):
        for _ in range(50):
            pop(queue)
        submit(queue, user, 1)
        assert pops_until(queue, user) <= FEW


def test_users_take_turns(queue: LeaseStore) -> None:
    """Users whose jobs are alike get alike: in any stretch none is ahead of another by more than a job."""
    for user in ("A", "B", "C"):
        submit(queue, user, 20)
    served = dict.fromkeys("ABC", 0)
    for _ in range(60):
        served[pop(queue).user] += 1
        assert max(served.values()) - min(served.values()) <= 1


def test_large_jobs_cost_more_turns(queue: LeaseStore) -> None:
    """The cost of a job is by its files: who asks for ten times as many gets a tenth of the turns."""
    (first,) = submit(queue, "warm", 1)
    queue.finish(pop(queue), Outcome(JobState.COMPLETED))  # now there is a mean number of files: one
    assert first == "warm-normal-0"
    submit(queue, "large", 10, files=10)
    submit(queue, "small", 100)
    users = [pop(queue).user for _ in range(55)]
    assert 4 <= users.count("large") <= 6


def test_who_has_used_nothing_for_a_while_gains_nothing(queue: LeaseStore) -> None:
    """A user who comes late begins at the class' time and takes turns, and does not catch up."""
    submit(queue, "B", 1)
    pop(queue)
    submit(queue, "A", 50)
    for _ in range(30):
        pop(queue)
    submit(queue, "B", 20, first=1)
    users = [pop(queue).user for _ in range(10)]
    assert 4 <= users.count("B") <= 6


def test_classes_are_strict_whatever_fairness_says(queue: LeaseStore) -> None:
    """While a higher class has a job ready no lower one begins, though its user has used far more."""
    low = submit(queue, "B", 1, Priority.LOW)
    normal = submit(queue, "B", 1, Priority.NORMAL)
    high = submit(queue, "A", 50, Priority.HIGH)
    assert pop_all(queue) == high + normal + low


def test_a_class_that_comes_later_goes_first(queue: LeaseStore) -> None:
    """A job of a higher class that comes in the middle is the very next."""
    submit(queue, "A", 5)
    pop(queue)
    (urgent,) = submit(queue, "A", 1, Priority.HIGH)
    assert pop(queue).job_id == urgent
    assert pop(queue).priority is Priority.NORMAL


def test_a_user_at_the_limit_is_parked_and_holds_up_nobody(valkey: ValkeyServer, narrow: LeaseStore) -> None:
    """What a user may not run now is moved aside, and jobs behind it start, of a lower class too."""
    ids = submit(narrow, "A", 5, Priority.HIGH)
    submit(narrow, "B", 1)
    assert [pop(narrow).user for _ in range(3)] == ["A", "A", "B"]
    assert narrow.lease("w") is None
    found = place(valkey, ids[2])
    assert (found.where, found.ahead, found.starts_in_seconds) == ("parked", 0, 0)
    now = counts(valkey)
    assert (now.parked, now.ready, now.leased) == (3, 0, 3)


def test_parked_jobs_return_in_their_turn(valkey: ValkeyServer, narrow: LeaseStore) -> None:
    """Each job of a user that ends brings one back, the oldest first, and the limit holds all the time."""
    ids = submit(narrow, "A", 6)
    running = [pop(narrow), pop(narrow)]
    assert narrow.lease("w") is None
    order = [job.job_id for job in running]
    while running:
        narrow.finish(running.pop(0), Outcome(JobState.FAILED))
        job = narrow.lease("w")
        if job is not None:
            running.append(job)
            order.append(job.job_id)
        assert narrow.lease("w") is None
    assert order == ids
    assert counts(valkey).parked == 0


def test_many_jobs_of_a_user_at_the_limit_cost_few_pops(narrow: LeaseStore) -> None:
    """A pop that has moved as many jobs aside as it may wakes a slot for the rest, and others' jobs come."""
    submit(narrow, "A", 202, Priority.HIGH)
    submit(narrow, "B", 1)
    pop(narrow)
    pop(narrow)
    narrow.redis.delete("{downloadjobs}:wake")
    assert narrow.lease("w") is None
    assert narrow.redis.llen("{downloadjobs}:wake") == 1
    assert pops_until(narrow, "B") <= 200 // PARKED_BY_ONE_POP


def test_the_error_of_estimates_is_told(valkey: ValkeyServer, queue: LeaseStore) -> None:
    """It is 0 at first, rises when a job starts far sooner than was said, and falls when estimates hold."""
    first, _, last = submit(queue, "A", 3)
    assert place(valkey, last).estimate_error == 0
    assert pop(queue).job_id == first  # it was told to start at once, and did
    assert place(valkey, last).estimate_error == pytest.approx(0, abs=0.05)
    pop(queue)  # it was told ten seconds
    risen = place(valkey, last).estimate_error
    assert risen > 0.5
    for number in range(10):
        submit(queue, f"user{number}", 1, Priority.HIGH)
        pop(queue)
    assert place(valkey, last).estimate_error < risen / 2


def test_a_place_is_the_number_of_pops_before_it(valkey: ValkeyServer, queue: LeaseStore) -> None:
    """In one class, with users who took turns already, it says exactly when a job is popped."""
    for user, count in (("A", 12), ("B", 5), ("C", 1)):
        submit(queue, user, count)
    for _ in range(4):
        pop(queue)
    submit(queue, "D", 3)
    waiting = [f"{user}-normal-{number}" for user, count in (("A", 12), ("B", 5), ("C", 1), ("D", 3))
               for number in range(count)]  # fmt: skip
    told = {}
    for job_id in waiting:
        found = ask(valkey, lambda store, job_id=job_id: store.place(job_id))  # type: ignore[misc]
        if found is not None:
            told[job_id] = found.ahead
    order = pop_all(queue)
    assert told == {job_id: number for number, job_id in enumerate(order)}


def test_a_place_counts_the_classes_above(valkey: ValkeyServer, queue: LeaseStore) -> None:
    """All jobs of higher classes are ahead, those of lower ones are not, however early they came."""
    ids = [
        job_id
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH)
        for user in ("A", "B")
        for job_id in submit(queue, user, 3, priority)
    ]
    told = {job_id: place(valkey, job_id).ahead for job_id in ids}
    order = pop_all(queue)
    assert told == {job_id: number for number, job_id in enumerate(order)}


def test_a_submission_is_told_its_place(valkey: ValkeyServer, queue: LeaseStore) -> None:
    """What the answer to a submission says is ahead is the job's place at that moment."""
    submit(queue, "A", 4)
    submit(queue, "B", 2, Priority.HIGH)
    new = NewJob(job_id="late", user="C", file_ids=(1,), total_file_ids=1, max_attempts=3)
    accepted = ask(valkey, lambda store: store.submit(new))
    assert accepted.created
    assert accepted.ahead == place(valkey, "late").ahead == 3  # both of B, and A's first


def test_a_job_that_does_not_wait_has_no_place(valkey: ValkeyServer, queue: LeaseStore) -> None:
    """A job that runs, one that has ended, and one that never was, stand nowhere."""
    (job_id,) = submit(queue, "A", 1)
    job = pop(queue)
    assert ask(valkey, lambda store: store.place(job_id)) is None
    queue.finish(job, Outcome(JobState.FAILED))
    assert ask(valkey, lambda store: store.place(job_id)) is None
    assert ask(valkey, lambda store: store.place("unknown")) is None


def test_the_estimate_is_shared_by_the_slots(valkey: ValkeyServer, queue: LeaseStore) -> None:
    """Twice the slots halve it; those of a worker that left, or is no longer heard of, do not count."""
    last = submit(queue, "A", 9)[-1]

    def starts() -> float:
        return place(valkey, last).starts_in_seconds

    assert (place(valkey, last).ahead, starts()) == (8, 80)  # no worker yet: one will come
    queue.renew([], worker="one", slots=4)
    assert starts() == 20
    queue.renew([], worker="two", slots=4)
    assert (starts(), counts(valkey).slots) == (10, 8)
    queue.leave("one")
    assert starts() == 20
    queue.redis.zadd("{downloadjobs}:workers", {"two": 1})
    queue.renew([], worker="three", slots=1)
    assert (starts(), counts(valkey).slots) == (80, 1)


def test_the_estimate_follows_what_jobs_take(valkey: ValkeyServer, queue: LeaseStore) -> None:
    """When jobs turn out to be quick, those that wait are told an earlier start."""
    last = submit(queue, "A", 10)[-1]
    assert place(valkey, last).starts_in_seconds == 90
    for _ in range(5):
        queue.finish(pop(queue), Outcome(JobState.COMPLETED))
    found = place(valkey, last)
    assert found.ahead == 4
    assert found.starts_in_seconds < 4
