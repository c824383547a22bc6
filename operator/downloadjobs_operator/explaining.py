"""What a job's record means for people and programs: the message, and the conditions with their reasons."""

from __future__ import annotations

import re
from typing import Final

from downloadjobs_core.job import Job
from downloadjobs_core.jobstore import Place
from downloadjobs_core.states import FINISHED, WITH_RESULT, JobState
from downloadjobs_operator.conditions import Condition, Type, not_so, so
from downloadjobs_operator.downloadjob import moment_of

DEADLINE_EXCEEDED: Final = "deadline-exceeded"
"""The error code of a job that was cancelled because its deadline passed."""

EXPIRED: Final = "The result was removed after its time. Create another DownloadJob for a new one."

LONGEST_MESSAGE: Final = 1_000
"""Characters. A condition may have 32,768, and an Event 1,024."""

SECOND_US: Final = 1_000_000


def phase_of(state: JobState) -> str:
    """A job's state as a phase: `completed_with_errors` is `CompletedWithErrors`."""
    return "".join(word.capitalize() for word in state.value.split("_"))


def camel_case(code: str) -> str:
    """An error code as a reason, which is one word: `storage-unavailable` is `StorageUnavailable`."""
    word = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", code))
    return word if word[:1].isalpha() else f"Failed{word}"


def is_held(job: Job) -> bool:
    """Whether it is kept from a worker now; one that runs goes on until it comes back to the queue."""
    return job.suspended and job.state in {JobState.QUEUED, JobState.RETRYING}


def message_of(job: Job, place: Place | None, *, max_running: int | None = None) -> str:
    """What there is to know about a job, in one sentence for people.

    Args:
        job: its record.
        place: where it stands, if it waits and that was asked.
        max_running: how many jobs of one user may run at once, if that is known.
    """
    attempt = f"{job.attempt} of {job.max_attempts}"
    match job.state:
        case JobState.QUEUED if job.suspended:
            text = "Held by spec.suspend; set it to false to let the job go on."
        case JobState.QUEUED if place is not None and place.where == "parked":
            text = _at_limit(max_running)
        case JobState.QUEUED if place is not None and place.where == "joined":
            text = "Waiting for the same result, which another job makes now."
        case JobState.QUEUED:
            text = "Waiting for a worker."
        case JobState.PROCESSING:
            held = " It is held if it comes back to the queue." if job.suspended else ""
            text = f"Attempt {attempt} is under way.{held}"
        case JobState.RETRYING:
            due = f", the next begins at {moment_of(job.due_us / SECOND_US)}" if job.due_us else ""
            text = f"Attempt {attempt} failed{due}. {job.error_message}".strip()
        case JobState.COMPLETED:
            text = _files(job.files_total)
        case JobState.COMPLETED_WITH_ERRORS:
            text = (
                f"{job.files_failed} of {job.files_total} files {_are(job.files_failed)} not in the result;"
                " its manifest.json says which, and why."
            )
        case JobState.EXPIRED:
            text = EXPIRED
        case _:
            text = job.error_message
    return text[:LONGEST_MESSAGE]


def _at_limit(max_running: int | None) -> str:
    number = "" if max_running is None else f": {max_running:,} (USER_MAX_RUNNING)"
    return f"Waiting: as many jobs of this namespace run as may at once{number}."


def _files(count: int) -> str:
    return "The file is in the result." if count == 1 else f"All {count} files are in the result."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def conditions_of(job: Job, place: Place | None, *, max_running: int | None = None) -> list[Condition]:
    """Which conditions a job's record makes true, and why. The arguments are those of `message_of`."""
    if job.state not in FINISHED:
        return [
            _queued(job, place, max_running),
            not_so(Type.FINISHED, "Unfinished"),
            *unfinished(suspended=is_held(job)),
        ]
    message = message_of(job, place)
    succeeded = job.state in WITH_RESULT or job.state is JobState.EXPIRED
    late = job.error_code == DEADLINE_EXCEEDED and job.state is JobState.CANCELLED
    if succeeded:
        outcome = "CompletedWithErrors" if job.files_failed else "Succeeded"
    else:
        outcome = "DeadlineExceeded" if late else phase_of(job.state)
    failed = job.state is JobState.FAILED
    why = camel_case(job.error_code) if failed and job.error_code else outcome
    available = job.state in WITH_RESULT and bool(job.result_key)
    return [
        not_so(Type.QUEUED, "Finished"),
        so(Type.FINISHED, outcome, message),
        Condition(Type.COMPLETE, succeeded, outcome, message if succeeded else ""),
        Condition(Type.FAILED, failed or late, why, message if failed or late else ""),
        not_so(Type.SUSPENDED, "Finished"),
        Condition(
            Type.RESULT_AVAILABLE,
            available,
            "Available" if available else "Expired" if job.state is JobState.EXPIRED else "NoResult",
        ),
        Condition(Type.STALLED, failed, why, message if failed else ""),
    ]


def _queued(job: Job, place: Place | None, max_running: int | None) -> Condition:
    if job.state is JobState.PROCESSING:
        return not_so(Type.QUEUED, "Started")
    if job.suspended:
        return not_so(Type.QUEUED, "Suspended", "Held by spec.suspend.")
    if job.state is JobState.RETRYING:
        return so(Type.QUEUED, "Retrying", job.error_message[:LONGEST_MESSAGE])
    where = place.where if place is not None else ""
    if where == "parked":
        return so(Type.QUEUED, "LimitReached", _at_limit(max_running))
    return so(Type.QUEUED, "Joined" if where == "joined" else "Waiting")


def unfinished(*, suspended: bool) -> list[Condition]:
    """The conditions of a job that has not ended, which are all false but for one."""
    return [
        not_so(Type.COMPLETE, "Unfinished"),
        not_so(Type.FAILED, "Unfinished"),
        Condition(Type.SUSPENDED, suspended, "Suspended" if suspended else "Resumed"),
        not_so(Type.RESULT_AVAILABLE, "Unfinished"),
        not_so(Type.STALLED, "Unfinished"),
    ]
