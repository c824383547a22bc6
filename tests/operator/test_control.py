"""What people change about a DownloadJob, and what time does to it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from downloadjobs_cli.dead_commands import connect
from downloadjobs_core.job import Job
from downloadjobs_core.leases import Outcome
from downloadjobs_core.states import JobState
from support_operator_process import Site, condition_of
from support_worker import eventually

pytestmark = pytest.mark.cluster

DONE = Outcome(
    JobState.COMPLETED,
    result_key="results/x/1.zip",
    result_bytes=10,
    files_done=3,
    bytes_done=1,
    bytes_total=1,
)


def leased(site: Site, uid: str) -> Job:
    """Take the next job as a worker does; it must be this one."""
    found: list[Job] = []

    def taken() -> bool:
        job = site.leases.lease("by hand")
        if job is not None:
            found.append(job)
        return bool(found)

    eventually(taken, 10, "a job to lease")
    assert found[0].job_id == uid
    return found[0]


def test_held_from_the_start(waiting: Site) -> None:
    """`suspend: true` queues a job that no worker gets; it has no startTime, and Suspended is true."""
    waiting.create("films", suspend=True)
    status = waiting.until_condition("films", "Suspended", "True", "Suspended")
    assert status["phase"] == "Queued"
    assert status["message"] == "Held by spec.suspend; set it to false to let the job go on."
    assert condition_of(status, "Queued") == ("False", "Suspended")
    assert "startTime" not in status
    assert waiting.leases.lease("by hand") is None


def test_resumed(waiting: Site) -> None:
    """`suspend: false` lets it go on: it starts to wait then, and a worker gets it."""
    uid = waiting.create("films", suspend=True)
    waiting.until_condition("films", "Suspended", "True", "Suspended")
    waiting.change("films", suspend=False)
    status = waiting.until_condition("films", "Suspended", "False", "Resumed")
    assert condition_of(status, "Queued") == ("True", "Waiting")
    assert status["observedGeneration"] == 2
    began = datetime.fromisoformat(status["startTime"])
    assert (datetime.now(UTC) - began).total_seconds() < 15
    leased(waiting, uid)
    waiting.until_phase("films", "Processing")


def test_suspend_toggles_while_it_waits(waiting: Site) -> None:
    """A waiting job is held and let go as often as one likes, and the field may be removed as well."""
    uid = waiting.create("films")
    waiting.until_condition("films", "Queued", "True", "Waiting")
    for suspend in (True, False, True, None):
        waiting.change("films", suspend=suspend)
        waiting.until_condition(
            "films", "Suspended", *(("True", "Suspended") if suspend else ("False", "Resumed"))
        )
        assert waiting.record(uid).get("place") == ("suspended" if suspend else "ready")
    waiting.until_told("films", "Queued")
    leased(waiting, uid)


def test_suspend_of_a_running_job(waiting: Site) -> None:
    """An attempt that is under way goes on; its job is held if it comes back to the queue."""
    uid = waiting.create("films")
    job = leased(waiting, uid)
    waiting.until_phase("films", "Processing")
    waiting.change("films", suspend=True)
    waiting.until("films", lambda status: "It is held if" in status["message"], "told that it will be held")
    assert waiting.status("films")["phase"] == "Processing"
    waiting.leases.hand_back(job)
    waiting.until_condition("films", "Suspended", "True", "Suspended")
    assert waiting.status("films")["phase"] == "Queued"
    assert waiting.leases.lease("by hand") is None


def test_cancelled_while_it_waits(waiting: Site) -> None:
    """`cancel` ends a waiting job: Cancelled is no failure, and nothing is stalled."""
    uid = waiting.create("films")
    waiting.until_phase("films", "Queued")
    waiting.change("films", cancel=True)
    status = waiting.until_phase("films", "Cancelled")
    assert condition_of(status, "Finished") == ("True", "Cancelled")
    assert condition_of(status, "Failed") in (None, ("False", "Cancelled"))
    assert condition_of(status, "Stalled") is None
    assert status["message"] == "It was cancelled by spec.cancel."
    assert waiting.record(uid)["state"] == "cancelled"
    waiting.until_told("films", "Queued", "Cancelled")


def test_cancelled_while_it_runs(waiting: Site) -> None:
    """`cancel` takes a running job from its worker."""
    uid = waiting.create("films")
    job = leased(waiting, uid)
    waiting.until_phase("films", "Processing")
    waiting.change("films", cancel=True)
    status = waiting.until_phase("films", "Cancelled")
    assert waiting.leases.renew([(uid, job.token)]) == ["cancelled"]
    assert "worker" not in status
    waiting.until_told("films", "Queued", "Started", "Cancelled")


def test_cancelled_while_it_is_held(waiting: Site) -> None:
    """A job that is suspended and cancelled is cancelled, and Suspended is no longer true."""
    waiting.create("films", suspend=True)
    waiting.until_condition("films", "Suspended", "True", "Suspended")
    waiting.change("films", cancel=True)
    status = waiting.until_phase("films", "Cancelled")
    assert condition_of(status, "Suspended") == ("False", "Finished")


def test_cancelled_from_the_start(waiting: Site) -> None:
    """What is created cancelled never becomes a job."""
    uid = waiting.create("films", cancel=True)
    status = waiting.until_phase("films", "Cancelled")
    assert condition_of(status, "Finished") == ("True", "Cancelled")
    assert "jobId" not in status
    assert waiting.record(uid) == {}
    waiting.until_told("films", "Cancelled")


def test_a_finished_status_is_of_the_newest_generation(waiting: Site) -> None:
    """A change of the spec after the end is observed at once: kstatus waits for the generation."""
    uid = waiting.create("films")
    waiting.leases.finish(leased(waiting, uid), DONE)
    waiting.until_phase("films", "Completed")
    waiting.change("films", suspend=True)
    waiting.until("films", lambda status: status["observedGeneration"] == 2, "of the generation 2", 3)


def test_cancel_does_nothing_to_a_finished_job(waiting: Site) -> None:
    """A job that has ended stays as it ended."""
    uid = waiting.create("films")
    waiting.leases.finish(leased(waiting, uid), DONE)
    waiting.until_phase("films", "Completed")
    waiting.change("films", cancel=True)
    other = waiting.create("other")
    leased(waiting, other)  # a later change was dealt with: so was the first
    waiting.until_phase("other", "Processing")
    assert waiting.status("films")["phase"] == "Completed"
    assert waiting.record(uid)["state"] == "completed"


def test_deleted_while_it_waits(waiting: Site) -> None:
    """Deleting a DownloadJob whose job waits cancels that, and the object is gone at once."""
    uid = waiting.create("films")
    waiting.until_phase("films", "Queued")
    waiting.delete("films")
    waiting.until_gone("films", 10)
    assert waiting.record(uid)["state"] == "cancelled"
    assert waiting.leases.lease("by hand") is None


def test_deleted_while_it_runs(waiting: Site) -> None:
    """Deleting a DownloadJob whose job runs takes it from its worker, and the object is gone at once."""
    uid = waiting.create("films")
    job = leased(waiting, uid)
    waiting.until_phase("films", "Processing")
    waiting.delete("films")
    waiting.until_gone("films", 10)
    assert waiting.leases.renew([(uid, job.token)]) == ["cancelled"]


def test_deleted_and_created_again(waiting: Site) -> None:
    """A second DownloadJob of the same name is another job."""
    first = waiting.create("films")
    waiting.until_phase("films", "Queued")
    waiting.delete("films")
    waiting.until_gone("films", 10)
    second = waiting.create("films")
    assert waiting.until_phase("films", "Queued")["jobId"] == second
    assert waiting.record(first)["state"] == "cancelled"
    assert waiting.record(second)["state"] == "queued"


def test_deleted_at_its_time(waiting: Site) -> None:
    """`ttlSecondsAfterFinished` after its end, not before, the object is deleted by itself."""
    uid = waiting.create("films", ttlSecondsAfterFinished=2)
    waiting.leases.finish(leased(waiting, uid), DONE)
    ended = datetime.fromisoformat(waiting.until_phase("films", "Completed")["completionTime"])
    waiting.until_gone("films", 15)
    assert (datetime.now(UTC) - ended).total_seconds() >= 2


def test_deleted_at_once(waiting: Site) -> None:
    """`ttlSecondsAfterFinished: 0` deletes it as soon as it has ended."""
    uid = waiting.create("films", ttlSecondsAfterFinished=0)
    waiting.leases.finish(leased(waiting, uid), DONE)
    waiting.until_gone("films", 10)


def test_a_time_to_live_set_later_counts(waiting: Site) -> None:
    """`ttlSecondsAfterFinished` may be set on one that has ended already."""
    uid = waiting.create("films")
    waiting.leases.finish(leased(waiting, uid), DONE)
    waiting.until_phase("films", "Completed")
    waiting.change("films", ttlSecondsAfterFinished=0)
    waiting.until_gone("films", 10)


def test_deadline_of_a_waiting_job(waiting: Site) -> None:
    """`activeDeadlineSeconds` after its start a job is cancelled, and the reason is DeadlineExceeded."""
    uid = waiting.create("films", activeDeadlineSeconds=1)
    status = waiting.until_phase("films", "Cancelled")
    assert condition_of(status, "Finished") == ("True", "DeadlineExceeded")
    assert condition_of(status, "Failed") == ("True", "DeadlineExceeded")
    assert condition_of(status, "Stalled") is None
    assert waiting.record(uid)["error_code"] == "deadline-exceeded"
    waiting.until_told("films", "Queued", "Failed")


def test_deadline_of_a_running_job(waiting: Site) -> None:
    """The deadline takes a running job from its worker."""
    uid = waiting.create("films", activeDeadlineSeconds=3)
    job = leased(waiting, uid)
    status = waiting.until_condition("films", "Failed", "True", "DeadlineExceeded")
    assert status["phase"] == "Cancelled"
    assert waiting.leases.renew([(uid, job.token)]) == ["cancelled"]


def test_a_held_job_has_no_deadline(waiting: Site) -> None:
    """Time that a job is held does not count: its deadline begins when it is resumed."""
    waiting.create("films", suspend=True, activeDeadlineSeconds=1)
    waiting.create("other", activeDeadlineSeconds=2)
    waiting.until_phase("other", "Cancelled")  # more than the deadline of the first has passed
    assert waiting.status("films")["phase"] == "Queued"
    waiting.change("films", suspend=False)
    waiting.until_condition("films", "Finished", "True", "DeadlineExceeded")


def test_a_deadline_can_be_moved(waiting: Site) -> None:
    """The deadline may be changed while the job lasts, and the new one counts."""
    waiting.create("films", activeDeadlineSeconds=3600)
    waiting.until_phase("films", "Queued")
    waiting.change("films", activeDeadlineSeconds=1)
    waiting.until_condition("films", "Finished", "True", "DeadlineExceeded", 10)


def test_backoff_limit(waiting: Site) -> None:
    """A failed attempt is tried again while `backoffLimit` allows; Retrying is a warning, and no stall."""
    uid = waiting.create("films", backoffLimit=1)
    job = leased(waiting, uid)
    assert job.max_attempts == 2
    waiting.leases.retry_later(job, delay_seconds=0, code="storage-unavailable", message="Storage failed.")
    status = waiting.until_phase("films", "Retrying")
    assert condition_of(status, "Queued") == ("True", "Retrying")
    assert condition_of(status, "Finished") == ("False", "Unfinished")
    assert condition_of(status, "Stalled") is None
    assert "Attempt 1 of 2 failed" in status["message"]
    waiting.leases.promote()
    job = leased(waiting, uid)
    failed = Outcome(JobState.FAILED, error_code="storage-unavailable", error_message="Storage failed.")
    waiting.leases.finish(job, failed)
    status = waiting.until_phase("films", "Failed")
    assert condition_of(status, "Failed") == ("True", "StorageUnavailable")
    assert condition_of(status, "Stalled") == ("True", "StorageUnavailable")
    assert status["attempts"] == 2
    waiting.until_told("films", "Queued", "Started", "Retrying", "Started", "Failed")


def test_without_a_backoff_limit_it_is_two(waiting: Site) -> None:
    """By default there are three attempts; 0 makes one."""
    first = waiting.create("films")
    assert leased(waiting, first).max_attempts == 3
    second = waiting.create("once", backoffLimit=0)
    assert leased(waiting, second).max_attempts == 1


def test_the_worker_is_shown_while_it_works(waiting: Site) -> None:
    """`status.worker` names who holds the job, and is gone when nobody does."""
    uid = waiting.create("films")
    job = leased(waiting, uid)
    assert waiting.until_phase("films", "Processing")["worker"] == "by hand"
    waiting.leases.finish(job, DONE)
    assert "worker" not in waiting.until_phase("films", "Completed")


def test_progress_is_shown(waiting: Site) -> None:
    """Five per cent more are told soon, with files and bytes."""
    uid = waiting.create("films")
    job = leased(waiting, uid)
    waiting.until_phase("films", "Processing")
    waiting.leases.progress(job, files_done=1, bytes_done=50, bytes_total=100)
    wanted = {"processed": 1, "total": 3, "bytes": 50, "percent": "50%"}
    waiting.until("films", lambda status: status["progress"] == wanted, "half done")


def test_dead_letter_and_its_retry(waiting: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose workers were lost is Failed for DeadLetter; `dead retry` queues it, and it ends anew."""
    uid = waiting.create("films")
    leased(waiting, uid)
    waiting.until_phase("films", "Processing")
    waiting.redis.zadd("{downloadjobs}:leased", {uid: 1})  # its lease has run out
    assert waiting.leases.reap() in {(0, 1), (1, 0)}
    while waiting.record(uid)["state"] != "failed":
        leased(waiting, uid)
        waiting.redis.zadd("{downloadjobs}:leased", {uid: 1})
        waiting.leases.reap()
    status = waiting.until_phase("films", "Failed")
    assert condition_of(status, "Stalled") == ("True", "DeadLetter")
    monkeypatch.setenv("REDIS_URL", waiting.system.valkey.url)
    letters = connect()
    assert letters.retry(uid)
    status = waiting.until_phase("films", "Queued")
    assert condition_of(status, "Finished") == ("False", "Unfinished")
    assert condition_of(status, "Stalled") == ("False", "Unfinished")
    waiting.leases.finish(leased(waiting, uid), DONE)
    status = waiting.until_phase("films", "Completed")
    assert condition_of(status, "Finished") == ("True", "Succeeded")
    assert condition_of(status, "Failed") == ("False", "Succeeded")


def test_a_retried_dead_letter_can_be_cancelled(waiting: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that `dead retry` queued again heeds its DownloadJob as before."""
    uid = waiting.create("films")
    while waiting.record(uid).get("state") != "failed":
        leased(waiting, uid)
        waiting.redis.zadd("{downloadjobs}:leased", {uid: 1})
        waiting.leases.reap()
    waiting.until_phase("films", "Failed")
    monkeypatch.setenv("REDIS_URL", waiting.system.valkey.url)
    assert connect().retry(uid)
    waiting.until_phase("films", "Queued")
    waiting.change("films", cancel=True)
    waiting.until_phase("films", "Cancelled")
