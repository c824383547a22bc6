"""What a job's record means for people: one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from downloadjobs_core.job import Job
from downloadjobs_core.jobstore import Place
from downloadjobs_core.states import JobState
from downloadjobs_operator.conditions import Type
from downloadjobs_operator.downloadjob import moment_of
from downloadjobs_operator.explaining import camel_case, conditions_of, message_of, phase_of
from support_operator import NOW, SECOND


def a(state: JobState, **given: Any) -> Job:  # noqa: ANN401 - a record's fields
    """A record in this state."""
    return Job(**{"job_id": "j", "user": "u", "state": state, "files_total": 4, "max_attempts": 3, **given})


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        (JobState.QUEUED, "Queued"),
        (JobState.COMPLETED_WITH_ERRORS, "CompletedWithErrors"),
        (JobState.EXPIRED, "Expired"),
    ],
)
def test_a_phase_is_the_state(state: JobState, phase: str) -> None:
    """Phases are the job's states, capitalised."""
    assert phase_of(state) == phase


@pytest.mark.parametrize(("code", "reason"), [("dead-letter", "DeadLetter"), ("x", "X"), ("", "Failed")])
def test_a_reason_is_the_code(code: str, reason: str) -> None:
    """An error's code in kebab case is a reason in CamelCase; without a code it failed."""
    assert camel_case(code) == reason


@pytest.mark.parametrize(
    ("job", "place", "part"),
    [
        (a(JobState.QUEUED), None, "Waiting for a worker"),
        (a(JobState.QUEUED), Place("ready"), "Waiting for a worker"),
        (a(JobState.QUEUED), Place("parked"), "as many jobs of this namespace run as may"),
        (a(JobState.QUEUED), Place("joined"), "the same result, which another job makes"),
        (a(JobState.QUEUED, suspended=True), Place("parked"), "spec.suspend; set it to false"),
        (a(JobState.PROCESSING, attempt=2), None, "Attempt 2 of 3 is under way."),
        (a(JobState.PROCESSING, suspended=True), None, "It is held if it comes back"),
        (a(JobState.COMPLETED), None, "All 4 files are"),
        (a(JobState.COMPLETED, files_total=1), None, "The file is in the result."),
        (a(JobState.COMPLETED_WITH_ERRORS, files_failed=2), None, "2 of 4 files are not in the result"),
        (a(JobState.COMPLETED_WITH_ERRORS, files_failed=1), None, "1 of 4 files is not in the result"),
        (a(JobState.EXPIRED), None, "removed after its time"),
        (a(JobState.FAILED, error_message="No disk."), None, "No disk."),
        (a(JobState.CANCELLED, error_message="Somebody did."), None, "Somebody did."),
    ],
)
def test_messages(job: Job, place: Place | None, part: str) -> None:
    """Each state says what there is to know, and what to do where something is."""
    assert part in message_of(job, place)


def test_a_limit_is_told() -> None:
    """A job that its user's limit holds up names the limit and its setting, where the operator knows it."""
    job, place = a(JobState.QUEUED), Place("parked")
    text = "Waiting: as many jobs of this namespace run as may at once: 10 (USER_MAX_RUNNING)."
    assert message_of(job, place, max_running=10) == text
    (queued,) = (one for one in conditions_of(job, place, max_running=10) if one.reason == "LimitReached")
    assert queued.message == text
    assert message_of(job, place) == "Waiting: as many jobs of this namespace run as may at once."


def test_a_retry_says_when_and_why() -> None:
    """A job that is tried again says which attempt failed, when the next begins, and what the fault was."""
    job = a(JobState.RETRYING, attempt=1, due_us=int(NOW * SECOND), error_message="S3 is down.")
    assert message_of(job, None) == f"Attempt 1 of 3 failed, the next begins at {moment_of(NOW)}. S3 is down."
    assert message_of(a(JobState.RETRYING, attempt=1), None) == "Attempt 1 of 3 failed."


@pytest.mark.parametrize(
    ("job", "place", "true", "reason"),
    [
        (a(JobState.QUEUED), None, True, "Waiting"),
        (a(JobState.QUEUED), Place("parked"), True, "LimitReached"),
        (a(JobState.QUEUED), Place("joined"), True, "Joined"),
        (a(JobState.QUEUED, suspended=True), None, False, "Suspended"),
        (a(JobState.RETRYING), None, True, "Retrying"),
        (a(JobState.RETRYING, suspended=True), None, False, "Suspended"),
        (a(JobState.PROCESSING), None, False, "Started"),
        (a(JobState.COMPLETED), None, False, "Finished"),
    ],
)
def test_queued(job: Job, place: Place | None, reason: str, *, true: bool) -> None:
    """`Queued` is true while nothing but its turn is missing, and says what else is."""
    (found,) = (one for one in conditions_of(job, place) if one.type is Type.QUEUED)
    assert (found.true, found.reason) == (true, reason)


@pytest.mark.parametrize("state", sorted(JobState))
@pytest.mark.parametrize("suspended", [False, True])
def test_every_condition_is_decided(state: JobState, *, suspended: bool) -> None:
    """Of each condition it is said whether it is so, in every state: none is forgotten as true."""
    found = conditions_of(a(state, suspended=suspended), None)
    assert sorted(one.type for one in found) == sorted(Type)
