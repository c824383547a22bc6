"""When the queue's own tasks are due: with the first that needs them, and soon enough when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.job import NewJob, job_key
from downloadjobs_core.leases import RECORD_MARGIN_SECONDS, SECOND_US, Outcome, QueuePolicy
from downloadjobs_core.scripts import ROOT, Scripts
from downloadjobs_core.sharing import Shared, Sharing
from downloadjobs_core.states import JobState
from downloadjobs_core.upkeep import EVERY_SECONDS, Task
from support_maintenance import PREFIX, MaintainedQueue

WEEK_SECONDS = 604_800


class Installation(MaintainedQueue):
    """The queue, with results of several lives."""

    def published(self, job_id: str, *, ttl_seconds: int, shared: bool = False) -> None:
        """A job that has completed, whose result is kept for so long."""
        new = NewJob(
            job_id=job_id,
            user="u",
            file_ids=(10_000,),
            total_file_ids=1,
            max_attempts=3,
            result_ttl_seconds=ttl_seconds,
        )
        assert self.leases.submit(new)
        job = self.lease()
        assert job.job_id == job_id
        key = f"{PREFIX}{'shared/' if shared else ''}{job_id}/{job.token}.zip"
        self.store.put(key, b"result")
        how = Shared(Sharing.OFFERED, job_id, "etag") if shared else None
        outcome = Outcome(JobState.COMPLETED, result_key=key, result_bytes=6, shared=how)
        self.leases.finish(job, outcome)

    def seconds_until(self, task: Task) -> float:
        """In how many seconds a task is due, which must be scheduled."""
        due = self.due(task)
        assert due is not None
        return (due - self.upkeep.now_us()) / SECOND_US

    def withdraw(self, job_id: str) -> None:
        """Ask for a result's removal."""
        Scripts(self.leases.redis).run(
            "withdraw", job_id, "deleted", "Deleted.", WEEK_SECONDS, 3_600 * SECOND_US, 1
        )


@pytest.fixture
def here(valkey: ValkeyServer) -> Iterator[Installation]:
    """An empty queue."""
    with Installation.on(valkey) as queue:
        yield queue


@pytest.mark.parametrize("task", [Task.EXPIRE_RESULTS, Task.EXPIRE_SHARED])
def test_a_result_that_ends_before_others_is_not_kept_as_long(here: Installation, task: Task) -> None:
    """The task is due with the result that ends first, whichever was made first."""
    shared = task is Task.EXPIRE_SHARED
    here.published("long", ttl_seconds=WEEK_SECONDS, shared=shared)
    assert WEEK_SECONDS - 5 < here.seconds_until(task) <= WEEK_SECONDS
    here.published("short", ttl_seconds=60, shared=shared)
    assert 55 < here.seconds_until(task) <= 60


def test_many_short_lives_wake_workers_once_an_hour(here: Installation) -> None:
    """After a run the next one is an hour later at the earliest, whatever ends in between."""
    here.published("first", ttl_seconds=60)
    here.maintain(Task.EXPIRE_RESULTS)
    here.published("next", ttl_seconds=60)
    assert EVERY_SECONDS - 5 < here.seconds_until(Task.EXPIRE_RESULTS) <= EVERY_SECONDS


def test_what_is_asked_for_while_a_task_runs_is_done_as_soon(here: Installation) -> None:
    """A removal that is asked for while its task runs comes within a minute, not an hour after the task."""
    here.published("a", ttl_seconds=WEEK_SECONDS)
    here.leases.renew([], worker="w", slots=4)
    task = here.make_due(Task.EXPIRE_RESULTS)
    here.withdraw("a")
    here.upkeep.done(task, again_seconds=EVERY_SECONDS, when_first_in="expiring")
    assert 55 < here.seconds_until(Task.EXPIRE_RESULTS) <= 60


def test_a_lost_task_comes_back_no_later_than_it_was_ordered_anew(here: Installation) -> None:
    """A task whose worker died is due at once."""
    here.published("a", ttl_seconds=WEEK_SECONDS)
    here.make_due(Task.EXPIRE_RESULTS)
    here.withdraw("a")
    here.leases.redis.zadd(f"{ROOT}:leased", {Task.EXPIRE_RESULTS: 1})
    here.leases.reap()
    assert here.seconds_until(Task.EXPIRE_RESULTS) <= 0


def kept_for(here: Installation, job_id: str) -> float:
    """For how many seconds a job's record is kept yet."""
    return here.leases.redis.pttl(job_key(job_id)) / 1000


def test_a_record_outlives_its_result(here: Installation) -> None:
    """Whatever the settings, a record is there a day longer than its result, which is removed by it."""
    here.leases.policy = QueuePolicy(record_ttl_seconds=WEEK_SECONDS)
    here.published("usual", ttl_seconds=3_600)
    assert WEEK_SECONDS - 5 < kept_for(here, "usual") <= WEEK_SECONDS
    here.published("long", ttl_seconds=WEEK_SECONDS)
    assert kept_for(here, "long") > WEEK_SECONDS + RECORD_MARGIN_SECONDS - 5
