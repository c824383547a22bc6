"""What a DownloadJob's status says: a pure function of the object, its job's record, and what it said before.

The status is a level, not a log: written from the record whenever it changed, it
is right again after any number of missed changes. Times in it that are the
operator's own (`startTime`, transitions) are carried over from the status before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from downloadjobs_core.job import Job
from downloadjobs_core.jobstore import Place
from downloadjobs_core.states import FINISHED, WITH_RESULT, JobState
from downloadjobs_operator.conditions import (
    MESSAGE_CHARACTERS,
    Condition,
    Type,
    is_true,
    kept,
    not_so,
    so,
    written,
)
from downloadjobs_operator.downloadjob import DownloadJob, moment_of, seconds_of
from downloadjobs_operator.explaining import (
    EXPIRED,
    SECOND_US,
    conditions_of,
    is_held,
    message_of,
    phase_of,
    unfinished,
)

PENDING: Final = "Pending"
"""The phase of an object that is no job yet, and is tried again by itself. No state of a job is called so."""

WORKER_CHARACTERS: Final = 1024
"""Of a worker's name that are told, as the schema has it."""

LONGEST_GUESS_SECONDS: Final = 365 * 86_400.0
"""A longer one says nothing; far longer ones are no date."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the operator itself found about an object that has no job (any more, or yet).

    Attributes:
        final: nothing will change it: the object is at its end. Else it is tried again.
        state: how it ended, if it did.
        reason: one CamelCase word.
        message: what to do, for people.
    """

    final: bool
    reason: str
    message: str
    state: JobState = JobState.FAILED


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a status tells beside the job's own record.

    Attributes:
        bucket: where results are, if the operator was told.
        place: where a waiting job stands, if that was asked.
        service_seconds: the running mean of what one job takes.
        max_running: how many jobs of one user may run at once, if the operator was told.
    """

    bucket: str | None = None
    place: Place | None = None
    service_seconds: float = 0
    max_running: int | None = None


def is_finished(status: Mapping[str, Any]) -> bool:
    """Whether a status says that the job has ended, however it did."""
    return is_true(status, Type.FINISHED)


def status_of(
    dj: DownloadJob, job: Job, before: Mapping[str, Any], around: Surroundings, *, now: float
) -> dict[str, Any]:
    """The status of a DownloadJob whose job has a record.

    Args:
        dj: the object.
        job: its job's record.
        before: the object's status as it is.
        around: what stands in no record.
        now: seconds since 1970.
    """
    finished = job.state in FINISHED
    held = is_held(job)
    status: dict[str, Any] = {
        "observedGeneration": dj.generation,
        "phase": phase_of(job.state),
        "message": message_of(job, around.place, max_running=around.max_running)[:MESSAGE_CHARACTERS],
        "jobId": job.job_id,
        "attempts": job.attempt,
        # Of attempts that have ended: it changes with the phase, and so costs no patch of its own.
        "workerSeconds": ceil(job.worker_us / SECOND_US),
        "workerBytes": job.worker_bytes,
        "progress": _progress(job),
        "conditions": written(
            conditions_of(job, around.place, max_running=around.max_running),
            before,
            generation=dj.generation,
            now=now,
        ),
    }
    started = _start_time(job, before, held=held, now=now)
    if started:
        status["startTime"] = started
    if finished:
        status["completionTime"] = moment_of((job.finished_us or job.updated_us) / SECOND_US)
    else:
        eta = _eta(job, around, now)
        if eta is not None and eta - now < LONGEST_GUESS_SECONDS and not held:
            status["eta"] = moment_of(eta)
        if around.place is not None and around.place.where == "ready" and not held:
            status["queuePosition"] = around.place.ahead + 1
        if job.worker:
            status["worker"] = job.worker[:WORKER_CHARACTERS]
    if job.result_key and job.state in WITH_RESULT:
        status["result"] = _result(job, around.bucket)
    return status


def status_of_verdict(
    dj: DownloadJob, verdict: Verdict, before: Mapping[str, Any], *, now: float
) -> dict[str, Any]:
    """The status of a DownloadJob that has no job, because of what the operator found."""
    generation = dj.generation
    reason, message = verdict.reason, verdict.message
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "message": message[:MESSAGE_CHARACTERS],
        "progress": {"processed": 0, "total": dj.file_count, "bytes": 0, "percent": "0%"},
    }
    if not verdict.final:
        found = [
            not_so(Type.QUEUED, reason, message),
            not_so(Type.FINISHED, "Unfinished"),
            *unfinished(suspended=dj.suspend),
        ]
        conditions = written(found, before, generation=generation, now=now)
        return status | {"phase": PENDING, "conditions": conditions}
    failed = verdict.state is JobState.FAILED
    found = [
        not_so(Type.QUEUED, "Finished"),
        so(Type.FINISHED, "Failed" if failed else phase_of(verdict.state), message),
        not_so(Type.COMPLETE, reason),
        Condition(Type.FAILED, failed, reason, message),
        not_so(Type.SUSPENDED, "Finished"),
        not_so(Type.RESULT_AVAILABLE, "NoResult"),
        Condition(Type.STALLED, failed, reason, message),
    ]
    return status | {
        "phase": phase_of(verdict.state),
        "completionTime": before.get("completionTime") or moment_of(now),
        "conditions": written(found, before, generation=generation, now=now),
    }


def status_without_record(dj: DownloadJob, before: Mapping[str, Any], *, now: float) -> dict[str, Any] | None:
    """The status of a finished DownloadJob whose job's record is gone; None if it stays as it is.

    It keeps what it says, but for the generation it is about, and for a result whose time is over: nothing
    else would take that away.
    """
    status = {
        **before,
        "observedGeneration": dj.generation,
        "conditions": kept(before, generation=dj.generation),
    }
    result = before.get("result")
    expires = seconds_of(result.get("expiresAt")) if isinstance(result, Mapping) else None
    if expires is None or expires > now:
        return None if status == before else status
    # Only ours: with others, which somebody else wrote, there may be more than the schema takes.
    kinds = set(Type) - {Type.RESULT_AVAILABLE}
    others = [one for one in status["conditions"] if one.get("type") in kinds]
    gone = written(
        [not_so(Type.RESULT_AVAILABLE, "Expired", "The result was removed after its time.")],
        before,
        generation=dj.generation,
        now=now,
    )
    del status["result"]
    return status | {"phase": phase_of(JobState.EXPIRED), "message": EXPIRED, "conditions": others + gone}


def _start_time(job: Job, before: Mapping[str, Any], *, held: bool, now: float) -> str | None:
    """As batch/v1 Job has it: when it was queued, or resumed; absent while it is held."""
    if held:
        return None
    if is_finished(before) and job.state not in FINISHED:
        return moment_of(job.updated_us / SECOND_US)  # a dead letter was queued again: it begins anew
    told = before.get("startTime")
    if isinstance(told, str):
        return told
    return moment_of(now) if is_true(before, Type.SUSPENDED) else moment_of(job.created_us / SECOND_US)


def _eta(job: Job, around: Surroundings, now: float) -> float | None:
    """When the job will probably have ended, in seconds since 1970; None where there is nothing to go by."""
    if job.state is JobState.QUEUED and around.place is not None and around.place.where == "ready":
        return now + around.place.starts_in_seconds + around.service_seconds
    if job.state is JobState.PROCESSING and job.bytes_done and job.leased_us:
        taken = now - job.leased_us / SECOND_US
        return now + max(0.0, taken * (job.bytes_total - job.bytes_done) / job.bytes_done)
    return None


def _progress(job: Job) -> dict[str, Any]:
    if job.state in WITH_RESULT or job.state is JobState.EXPIRED:
        share = 100
    elif job.bytes_total:
        share = min(99, 100 * job.bytes_done // job.bytes_total)
    else:
        share = min(99, 100 * job.files_done // max(1, job.files_total))
    return {
        "processed": job.files_done,
        "total": job.files_total,
        "bytes": job.bytes_done,
        "percent": f"{share}%",
    }


def _result(job: Job, bucket: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "key": job.result_key,
        "bytes": job.result_bytes,
        "files": job.files_done - job.files_failed,
        "failedFiles": job.files_failed,
    }
    if bucket:
        result["bucket"] = bucket
    if job.expires_us:
        result["expiresAt"] = moment_of(job.expires_us / SECOND_US)
    return result
