"""A status is a level: what the object, its job's record and the status before make of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.job import Job
from downloadjobs_core.jobstore import Place
from downloadjobs_core.states import FINISHED, WITH_RESULT, JobState
from downloadjobs_operator.conditions import Type, is_true, reason_of
from downloadjobs_operator.downloadjob import moment_of
from downloadjobs_operator.patching import Urgency, urgency
from downloadjobs_operator.status import (
    Surroundings,
    Verdict,
    is_finished,
    status_of,
    status_of_verdict,
    status_without_record,
)
from support_operator import ERROR_CODES, NOW, SECOND, dj, faults_of, jobs

UNFINISHED = sorted(set(JobState) - FINISHED)

PLACES = st.none() | st.builds(
    Place,
    st.sampled_from(["ready", "parked", "delayed", "joined", "suspended"]),
    st.integers(0, 10_000),
    st.floats(0, 10_000),
)
AROUND = st.builds(Surroundings, st.sampled_from([None, "results"]), PLACES, st.floats(0, 1_000))
VERDICTS = st.builds(
    Verdict,
    st.booleans(),
    st.sampled_from(["InvalidFileIds", "QuotaExceeded", "NotAMirror"]),
    st.text(max_size=20),
    st.sampled_from([JobState.FAILED, JobState.CANCELLED]),
)

NOWHERE = Surroundings()
QUEUED = Job(
    job_id="uid-of-one", user="k8s:team", state=JobState.QUEUED, files_total=2, created_us=int(NOW * SECOND)
)


def a(state: JobState, **given: Any) -> Job:  # noqa: ANN401 - a record's fields
    """A record in this state."""
    fields: dict[str, Any] = {
        "job_id": "uid-of-one", "user": "k8s:team", "files_total": 4, "max_attempts": 3,
        "created_us": int(NOW * SECOND),
    } | given  # fmt: skip
    return Job(state=state, **fields)


def told(
    job: Job, before: dict[str, Any] | None = None, *, now: float = NOW, around: Surroundings = NOWHERE
) -> Any:  # noqa: ANN401 - a status
    """The status of the one object."""
    return status_of(dj(), job, before or {}, around, now=now)


@given(jobs(), AROUND, jobs(), AROUND)
def test_every_status_obeys_the_schema(
    job: Job, around: Surroundings, next_job: Job, later: Surroundings
) -> None:
    """Whatever a job's record says, and whatever it said before, the API server takes the status."""
    first = status_of(dj(), job, {}, around, now=NOW)
    second = status_of(dj(generation=2), next_job, first, later, now=NOW + 5)
    assert faults_of(first) == []
    assert faults_of(second) == []


@given(VERDICTS, jobs(), VERDICTS)
def test_every_verdict_obeys_the_schema(verdict: Verdict, job: Job, later: Verdict) -> None:
    """Whatever the operator finds about an object without a job, the API server takes the status."""
    first = status_of_verdict(dj(), verdict, {}, now=NOW)
    assert faults_of(first) == []
    assert faults_of(status_of_verdict(dj(), later, first, now=NOW)) == []
    assert faults_of(status_of_verdict(dj(), later, told(job), now=NOW)) == []


@given(jobs(), AROUND, st.floats(0, 10_000))
def test_a_status_is_a_level(job: Job, around: Surroundings, later: float) -> None:
    """Computed again from the same record, whenever, a status gives nothing to write."""
    first = told(job, around=around)
    second = told(job, first, now=NOW + later, around=around)
    assert urgency(first, second, seconds_since_patch=1e9) is Urgency.NOT_YET


@given(VERDICTS, jobs())
def test_a_verdict_is_a_level(verdict: Verdict, job: Job) -> None:
    """Found again, a verdict gives nothing to write, and an end keeps its time."""
    first = status_of_verdict(dj(), verdict, told(job), now=NOW)
    assert status_of_verdict(dj(), verdict, first, now=NOW + 60) == first


@given(jobs(), jobs())
def test_transitions_have_their_time(job: Job, next_job: Job) -> None:
    """From one record to any other, a condition's time changes only with its status."""
    first = told(job)
    second = told(next_job, first, now=NOW + 60)
    was = {one["type"]: one for one in first["conditions"]}
    for one in second["conditions"]:
        same = one["type"] in was and was[one["type"]]["status"] == one["status"]
        assert one["lastTransitionTime"] == moment_of(NOW if same else NOW + 60)


@given(jobs(), jobs())
def test_an_end_has_one_outcome(job: Job, next_job: Job) -> None:
    """A finished job is complete, failed, or cancelled: one of them, whatever it was; another is none."""
    status = told(next_job, told(job))
    outcomes = [
        is_true(status, Type.COMPLETE),
        is_true(status, Type.FAILED),
        reason_of(status, Type.FINISHED) == "Cancelled",
    ]
    assert is_finished(status) == (next_job.state in FINISHED)
    assert outcomes.count(True) == (1 if next_job.state in FINISHED else 0)
    assert not (is_finished(status) and (is_true(status, Type.QUEUED) or is_true(status, Type.SUSPENDED)))
    assert ("completionTime" in status) == is_finished(status)


@given(jobs(), jobs())
def test_only_a_failure_is_stalled(job: Job, next_job: Job) -> None:
    """`Stalled`, which kstatus takes for a failure that needs somebody, is true for failed jobs alone."""
    assert is_true(told(next_job, told(job)), Type.STALLED) == (next_job.state is JobState.FAILED)


@given(VERDICTS)
def test_only_a_refusal_is_stalled(verdict: Verdict) -> None:
    """What is tried again, or was cancelled, needs nobody; what is refused does."""
    status = status_of_verdict(dj(), verdict, {}, now=NOW)
    refused = verdict.final and verdict.state is JobState.FAILED
    assert is_true(status, Type.STALLED) == is_true(status, Type.FAILED) == refused
    assert is_finished(status) == ("completionTime" in status) == verdict.final
    assert not is_true(status, Type.COMPLETE)


@given(jobs(), AROUND)
def test_a_result_is_told_while_there_is_one(job: Job, around: Surroundings) -> None:
    """`ResultAvailable` is true exactly while a result is named, and no URL ever stands there."""
    status = told(job, around=around)
    assert is_true(status, Type.RESULT_AVAILABLE) == ("result" in status)
    assert ("result" in status) == (job.state in WITH_RESULT and job.result_key != "")
    assert "://" not in str({name: value for name, value in status.items() if name == "result"})


@given(jobs(UNFINISHED), AROUND)
def test_only_an_end_is_a_hundred_percent(job: Job, around: Surroundings) -> None:
    """A job that has not ended is 99 % done at most."""
    assert 0 <= int(told(job, around=around)["progress"]["percent"].removesuffix("%")) <= 99


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.COMPLETED_WITH_ERRORS, JobState.EXPIRED])
def test_a_success_is_a_hundred_percent(state: JobState) -> None:
    """A job that has completed is done, though files were missing or the result is gone."""
    assert told(a(state, files_done=4))["progress"]["percent"] == "100%"


def test_the_generation_is_the_specs() -> None:
    """A status, and each condition in it, say which spec they are about."""
    status = status_of(dj(generation=7), QUEUED, {}, NOWHERE, now=NOW)
    assert status["observedGeneration"] == 7
    assert {one["observedGeneration"] for one in status["conditions"]} == {7}


@given(jobs())
def test_only_what_waits_is_held(job: Job) -> None:
    """`Suspended` is true for what spec.suspend keeps from a worker, not for what runs, or has ended."""
    waits = job.state in {JobState.QUEUED, JobState.RETRYING}
    assert is_true(told(job), Type.SUSPENDED) == (job.suspended and waits)


def test_the_start_is_the_submission() -> None:
    """A job's start is when it was queued, and stays through all that follows."""
    first = told(QUEUED, now=NOW + 9)
    assert first["startTime"] == moment_of(NOW)
    assert told(a(JobState.RETRYING, created_us=1, attempt=1), first)["startTime"] == moment_of(NOW)


def test_a_held_job_has_not_started() -> None:
    """While it is held before its start a job has no start time; when it is let go on, that is the moment."""
    held = told(a(JobState.QUEUED, suspended=True))
    assert "startTime" not in held
    assert told(QUEUED, held, now=NOW + 60)["startTime"] == moment_of(NOW + 60)


def test_a_job_that_is_held_again_starts_anew() -> None:
    """Held while it waits, a job loses its start, and has another when it goes on."""
    held = told(a(JobState.QUEUED, suspended=True), told(QUEUED))
    assert "startTime" not in held
    assert told(QUEUED, held, now=NOW + 60)["startTime"] == moment_of(NOW + 60)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RETRYING])
def test_being_held_between_attempts_does_not_count(state: JobState) -> None:
    """The start, from which the deadline counts, is the last resumption also after a first attempt."""
    held = told(a(state, suspended=True, attempt=1), told(a(JobState.PROCESSING, attempt=1)))
    assert told(a(state, attempt=1), held, now=NOW + 600)["startTime"] == moment_of(NOW + 600)


def test_a_place_is_counted_from_one() -> None:
    """The next to begin is at place 1, with a guess when it ends."""
    status = told(QUEUED, around=Surroundings(place=Place("ready", 0, 30), service_seconds=10))
    assert status["queuePosition"] == 1
    assert status["eta"] == moment_of(NOW + 40)


@pytest.mark.parametrize("where", ["parked", "delayed", "joined", "suspended"])
def test_a_job_aside_has_no_place(where: str) -> None:
    """A job that cannot begin has neither place nor guess."""
    assert not {"queuePosition", "eta"} & told(QUEUED, around=Surroundings(place=Place(where))).keys()


def test_a_held_job_has_no_place() -> None:
    """A place that is some seconds old is not told of a job that was held since."""
    around = Surroundings(place=Place("ready", 0, 30), service_seconds=10)
    assert "queuePosition" not in told(a(JobState.QUEUED, suspended=True), around=around)


def test_a_running_jobs_end_is_guessed_by_its_pace() -> None:
    """A job that took ten seconds for a quarter is expected to take thirty more."""
    job = a(
        JobState.PROCESSING, attempt=1, bytes_done=25, bytes_total=100, leased_us=int((NOW - 10) * SECOND)
    )
    assert told(job)["eta"] == moment_of(NOW + 30)


def test_a_hopeless_guess_is_survived() -> None:
    """A job that has a byte of a terabyte after an hour has a status, with or without a guess."""
    job = a(
        JobState.PROCESSING, attempt=1, bytes_done=1, bytes_total=10**12, leased_us=int((NOW - 3600) * SECOND)
    )
    assert faults_of(told(job)) == []


def test_the_worker_is_told_while_it_holds_the_job() -> None:
    """A worker stands there while it works, and goes with the end."""
    assert told(a(JobState.PROCESSING, worker="w"))["worker"] == "w"
    assert "worker" not in told(a(JobState.COMPLETED, worker="w"))


def test_a_result_is_told_whole() -> None:
    """Bucket, key, size, the files in it and those that are not, and its end."""
    job = a(
        JobState.COMPLETED_WITH_ERRORS, files_done=4, files_failed=1, result_key="results/one/1.zip",
        result_bytes=9, expires_us=int((NOW + 60) * SECOND),
    )  # fmt: skip
    assert told(job, around=Surroundings(bucket="results"))["result"] == {
        "bucket": "results", "key": "results/one/1.zip", "bytes": 9, "files": 3, "failedFiles": 1,
        "expiresAt": moment_of(NOW + 60),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("job", "outcome", "failed"),
    [
        (a(JobState.COMPLETED), "Succeeded", None),
        (a(JobState.COMPLETED_WITH_ERRORS, files_failed=1), "CompletedWithErrors", None),
        (a(JobState.EXPIRED), "Succeeded", None),
        (a(JobState.EXPIRED, files_failed=1), "CompletedWithErrors", None),
        (a(JobState.FAILED, error_code="storage-unavailable"), "Failed", "StorageUnavailable"),
        (a(JobState.FAILED), "Failed", "Failed"),
        (a(JobState.CANCELLED, error_code="cancelled"), "Cancelled", None),
        (a(JobState.CANCELLED, error_code="deadline-exceeded"), "DeadlineExceeded", "DeadlineExceeded"),
    ],
    ids=lambda one: one.state.value if isinstance(one, Job) else None,
)
def test_outcomes(job: Job, outcome: str, failed: str | None) -> None:
    """`Finished` says how a job ended, and `Failed` why; a deadline is a failure, as in batch/v1."""
    status = told(job)
    assert reason_of(status, Type.FINISHED) == outcome
    assert is_true(status, Type.FAILED) == (failed is not None)
    assert reason_of(status, Type.FAILED) == (failed or "")


@pytest.mark.parametrize(
    "code",
    [
        *ERROR_CODES,
        "-",
        "--x",
        "S3 down",
        "2-many",
        "é",
        "a.b",
    ],
)
def test_reasons_are_words(code: str) -> None:
    """Whatever an error's code is, the reason made of it is one that a condition can hold."""
    assert faults_of(told(a(JobState.FAILED, error_code=code))) == []


def test_messages_have_a_length() -> None:
    """However long an error's text is, the API server takes the status."""
    assert faults_of(told(a(JobState.FAILED, error_code="failed", error_message="x" * 40_000))) == []


def test_a_dead_letter_that_is_queued_again_has_not_ended() -> None:
    """What had failed and is tried again is neither finished nor stalled."""
    status = told(QUEUED, told(a(JobState.FAILED, error_code="dead-letter")))
    assert not is_finished(status)
    assert not is_true(status, Type.STALLED)
    assert is_true(status, Type.QUEUED)
    assert "completionTime" not in status


def completed(expires: float, generation: int = 1) -> dict[str, Any]:
    """The status of a job that has completed."""
    job = a(JobState.COMPLETED, files_done=4, result_key="k", expires_us=int(expires * SECOND))
    return status_of(dj(generation=generation), job, {}, NOWHERE, now=NOW)


def test_without_a_record_a_status_stays() -> None:
    """A record goes before its object; what the status says stands."""
    assert status_without_record(dj(), completed(NOW + 60), now=NOW) is None
    failed = told(a(JobState.FAILED, error_code="failed"))
    assert status_without_record(dj(), failed, now=NOW) is None


def test_without_a_record_a_result_expires() -> None:
    """A result whose time is over goes from the status though nobody is left to say so, once."""
    found = status_without_record(dj(), completed(NOW - 1), now=NOW)
    assert found is not None
    assert faults_of(found) == []
    assert found["phase"] == "Expired"
    assert "result" not in found
    assert reason_of(found, Type.RESULT_AVAILABLE) == "Expired"
    assert not is_true(found, Type.RESULT_AVAILABLE)
    assert is_finished(found)
    assert status_without_record(dj(), found, now=NOW + 60) is None


def test_without_a_record_an_expiry_is_told() -> None:
    """The message is about the expiry then, as it is where the record says so."""
    found = status_without_record(dj(), completed(NOW - 1), now=NOW)
    assert found is not None
    assert "removed" in found["message"]


def test_without_a_record_a_generation_is_observed() -> None:
    """A change of a finished object's spec is observed: else kstatus has it in progress for ever."""
    found = status_without_record(dj(generation=2), completed(NOW + 60), now=NOW)
    assert found is not None
    assert found["observedGeneration"] == 2
    assert status_without_record(dj(generation=2), found, now=NOW) is None


@pytest.mark.parametrize("expires", [NOW + 60, NOW - 1])
def test_without_a_record_each_condition_is_about_the_generation(expires: float) -> None:
    """So are its conditions, by which `kubectl wait` goes; those of somebody else stay as they are."""
    before = completed(expires)
    theirs = {**before["conditions"][0], "type": "Theirs"}
    found = status_without_record(
        dj(generation=2), {**before, "conditions": [*before["conditions"], theirs]}, now=NOW
    )
    assert found is not None
    ours = [one for one in found["conditions"] if one["type"] != "Theirs"]
    assert {one["observedGeneration"] for one in ours} == {2}
    assert [one["type"] for one in ours] == [one["type"] for one in before["conditions"]]
    assert all(one == theirs for one in found["conditions"] if one not in ours)


def test_without_a_record_a_condition_that_lags_is_put_right() -> None:
    """Also where the status alone is about the generation already."""
    before = {**completed(NOW + 60), "observedGeneration": 2}
    found = status_without_record(dj(generation=2), before, now=NOW)
    assert found is not None
    assert {one["observedGeneration"] for one in found["conditions"]} == {2}


def test_a_refusal_is_told() -> None:
    """A refused object is at its end, failed, and says what to change."""
    status = status_of_verdict(
        dj(), Verdict(final=True, reason="InvalidFileIds", message="Do x."), {}, now=NOW
    )
    assert (status["phase"], status["message"]) == ("Failed", "Do x.")
    assert reason_of(status, Type.FINISHED) == "Failed"
    assert reason_of(status, Type.FAILED) == reason_of(status, Type.STALLED) == "InvalidFileIds"
    assert "jobId" not in status


def test_a_full_queue_is_told() -> None:
    """An object that waits to become a job is neither queued nor at its end: it is pending."""
    verdict = Verdict(final=False, reason="QuotaExceeded", message="Later.")
    status = status_of_verdict(dj(), verdict, {}, now=NOW)
    assert reason_of(status, Type.QUEUED) == "QuotaExceeded"
    assert not is_true(status, Type.QUEUED)
    assert not is_finished(status)
    assert status["phase"] == "Pending"


def test_a_status_is_read_by_its_conditions() -> None:
    """Whether an object is finished is what `Finished` says, not its phase."""
    assert not is_finished({"phase": "Completed"})
    assert not is_finished({})


def test_what_a_job_took_is_told() -> None:
    """Seconds begun and bytes of attempts that have ended; the one under way changes nothing yet."""
    job = a(
        JobState.PROCESSING, worker_us=1_000_001, worker_bytes=7, leased_us=int(NOW * SECOND),
        updated_us=int((NOW + 60) * SECOND), bytes_done=5, bytes_total=9,
    )  # fmt: skip
    status = told(job)
    assert (status["workerSeconds"], status["workerBytes"]) == (2, 7)
    assert (told(QUEUED)["workerSeconds"], told(QUEUED)["workerBytes"]) == (0, 0)
