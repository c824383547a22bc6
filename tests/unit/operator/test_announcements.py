"""The Events of a DownloadJob: one for each transition."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.job import Job
from downloadjobs_core.states import FINISHED, JobState
from downloadjobs_operator.announcements import Announcement, announcements, event_body, held_up
from downloadjobs_operator.downloadjob import moment_of
from downloadjobs_operator.reconciling import UNREACHED
from downloadjobs_operator.status import Surroundings, Verdict, status_of, status_of_verdict
from support_operator import NOW, SECOND, dj, jobs

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

PROCESSING = {"attempt": 1, "worker": "w"}
QUOTA = Verdict(final=False, reason="QuotaExceeded", message="Too many.")
REFUSED = Verdict(final=True, reason="InvalidUserId", message="Another.")
NEVER = Verdict(final=True, reason="Cancelled", message="Before it was queued.", state=JobState.CANCELLED)


def after(step: Verdict | tuple[JobState, dict[str, Any]], before: dict[str, Any]) -> dict[str, Any]:
    """The status after one step of a life."""
    if isinstance(step, Verdict):
        return status_of_verdict(dj(), step, before, now=NOW)
    state, fields = step
    job = Job(
        job_id="uid-of-one", user="k8s:team", state=state, max_attempts=3, files_total=2,
        finished_us=int(NOW * SECOND) if state in FINISHED else 0, **fields,
    )  # fmt: skip
    return status_of(dj(), job, before, Surroundings(), now=NOW)


def told(*steps: Verdict | tuple[JobState, dict[str, Any]]) -> list[Announcement]:
    """All that is told of a life."""
    status: dict[str, Any] = {}
    found = []
    for step in steps:
        new = after(step, status)
        found += announcements(status, new)
        status = new
    return found


def reasons(*steps: Verdict | tuple[JobState, dict[str, Any]]) -> list[str]:
    """What is told of a life, by the Events' reasons."""
    return [one.reason for one in told(*steps)]


def test_a_good_life() -> None:
    """Queued, started, completed, and its result expired."""
    assert reasons(
        (JobState.QUEUED, {}),
        (JobState.PROCESSING, PROCESSING),
        (JobState.PROCESSING, PROCESSING | {"bytes_done": 5, "bytes_total": 9}),
        (JobState.COMPLETED, {"attempt": 1, "result_key": "k"}),
        (JobState.EXPIRED, {"attempt": 1}),
    ) == ["Queued", "Started", "Completed", "ResultExpired"]


def test_a_life_with_retries() -> None:
    """Each attempt's start, and each failure that is tried again, is told by itself."""
    retrying = {"attempt": 1, "error_message": "S3 is down."}
    found = told(
        (JobState.QUEUED, {}),
        (JobState.PROCESSING, PROCESSING),
        (JobState.RETRYING, retrying),
        (JobState.PROCESSING, {"attempt": 2}),
        (JobState.RETRYING, retrying | {"attempt": 2}),
        (JobState.PROCESSING, {"attempt": 3}),
        (
            JobState.FAILED,
            {"attempt": 3, "error_code": "storage-unavailable", "error_message": "S3 is down."},
        ),
    )
    assert [(one.reason, one.occasion) for one in found[:-1]] == [
        ("Queued", ""), ("Started", "1"), ("Retrying", "1"),
        ("Started", "2"), ("Retrying", "2"), ("Started", "3"),
    ]  # fmt: skip
    assert (found[-1].reason, found[-1].message) == ("Failed", "S3 is down.")
    assert [one.reason for one in found if one.warning] == ["Retrying", "Retrying", "Failed"]


def test_a_life_that_nobody_saw() -> None:
    """What must have happened between two looks is told as well, in order."""
    assert reasons((JobState.COMPLETED, {"attempt": 1})) == ["Queued", "Started", "Completed"]
    assert reasons((JobState.EXPIRED, {"attempt": 1})) == ["Queued", "Started", "Completed", "ResultExpired"]
    assert reasons((JobState.QUEUED, {}), (JobState.RETRYING, {"attempt": 1})) == [
        "Queued",
        "Started",
        "Retrying",
    ]


def test_a_retry_after_a_retry_is_told() -> None:
    """Two failures in a row with the attempt between them unseen are two."""
    steps = [(JobState.RETRYING, {"attempt": 1}), (JobState.RETRYING, {"attempt": 2})]
    assert reasons(*steps) == ["Queued", "Started", "Retrying", "Started", "Retrying"]


@pytest.mark.parametrize(
    ("last", "reason", "warning"),
    [
        ((JobState.CANCELLED, {"error_code": "cancelled"}), "Cancelled", False),
        ((JobState.CANCELLED, {"error_code": "deadline-exceeded"}), "Failed", True),
        ((JobState.FAILED, {"error_code": "dead-letter"}), "Failed", True),
        ((JobState.COMPLETED, {}), "Completed", False),
        ((JobState.COMPLETED_WITH_ERRORS, {"files_failed": 1}), "Completed", True),
    ],
)
def test_ends(last: tuple[JobState, dict[str, Any]], reason: str, *, warning: bool) -> None:
    """An end is told once; one that lacks something is a warning, and a deadline is a failure."""
    found = told((JobState.QUEUED, {}), last, last)[1:]
    assert [(one.reason, one.warning) for one in found] == [(reason, warning)]


def test_what_never_became_a_job() -> None:
    """A refusal fails, and a cancellation before it was queued is one, without any start."""
    assert reasons(REFUSED) == ["Failed"]
    assert reasons(NEVER) == ["Cancelled"]


def test_a_full_queue_is_told_once() -> None:
    """That too many wait is told when it begins, however often it is tried again; then that it was queued."""
    assert reasons(QUOTA, QUOTA, (JobState.QUEUED, {})) == ["QuotaExceeded", "Queued"]


def test_a_queue_that_is_away_is_told_once() -> None:
    """That the queue cannot be reached is told when it begins, as a warning; then that it was queued."""
    found = told(UNREACHED, UNREACHED, (JobState.QUEUED, {}))
    assert [(one.reason, one.warning) for one in found] == [("QueueUnavailable", True), ("Queued", False)]
    assert "tried again by itself" in found[0].message


def test_a_deletion_that_waits() -> None:
    """What cannot go because of the queue is told that it goes by itself, and when at the latest."""
    one = held_up(dj(deletionTimestamp=moment_of(NOW)), give_up_seconds=600)
    assert (one.reason, one.warning) == ("QueueUnavailable", True)
    assert f"at the latest at {moment_of(NOW + 600)}" in one.message
    another = held_up(dj(deletionTimestamp=moment_of(NOW + 1)), give_up_seconds=600)
    assert one.occasion != another.occasion


def test_a_dead_letter_that_is_tried_again() -> None:
    """A second end after a first one has an Event of its own: its time tells them apart."""
    first = (JobState.FAILED, {"attempt": 3})
    found = told(first, (JobState.QUEUED, {"attempt": 3}), (JobState.PROCESSING, {"attempt": 4}), first)
    assert [one.reason for one in found][-2:] == ["Started", "Failed"]


def test_a_wipe_begins_anew() -> None:
    """A job that is submitted again after a wipe is not told as queued again, nor its attempts as fewer."""
    assert reasons((JobState.PROCESSING, {"attempt": 2}), (JobState.QUEUED, {})) == ["Queued", "Started"]


@given(jobs(), st.floats(0, 1_000))
def test_nothing_happened_between_equal_statuses(job: Job, later: float) -> None:
    """Between two looks at the same record there is nothing to tell."""
    first = status_of(dj(), job, {}, Surroundings(), now=NOW)
    assert announcements(first, status_of(dj(), job, first, Surroundings(), now=NOW + later)) == []


@given(jobs(), jobs())
def test_any_two_statuses_can_be_told(job: Job, next_job: Job) -> None:
    """Between any two records only known things happen, each once, and the end comes after the start."""
    first = status_of(dj(), job, {}, Surroundings(), now=NOW)
    found = [
        one.reason for one in announcements(first, status_of(dj(), next_job, first, Surroundings(), now=NOW))
    ]
    order = [
        "Queued",
        "Started",
        "Retrying",
        "QuotaExceeded",
        "QueueUnavailable",
        "Failed",
        "Cancelled",
        "Completed",
        "ResultExpired",
    ]
    assert found == sorted(set(found), key=order.index)


def test_an_event_is_about_its_object() -> None:
    """An Event names the object, by uid, and lies in its namespace."""
    event = event_body(dj(), Announcement("Queued", "Queued as job x."), now=NOW, instance="pod-1")
    assert event["metadata"]["namespace"] == event["involvedObject"]["namespace"] == "team"
    assert event["involvedObject"]["apiVersion"] == "downloadjobs.dev/v1"
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("DownloadJob", "one")
    assert event["involvedObject"]["uid"] == "uid-of-one"
    assert event["eventTime"] == "2027-01-15T08:00:00.000000Z"
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2027-01-15T08:00:00Z"
    assert event["count"] == 1
    assert event["type"] == "Normal"


def test_an_event_told_twice_is_one() -> None:
    """The name is made of what it tells, whoever tells it when; another occasion has another name."""

    def name(occasion: str, uid: str = "u", instance: str = "a", now: float = NOW) -> str:
        told = Announcement("Started", f"By {instance}.", occasion=occasion)
        return str(event_body(dj(uid=uid), told, now=now, instance=instance)["metadata"]["name"])

    assert name("1") == name("1", instance="b", now=NOW + 60)
    assert len({name("1"), name("2"), name("1", uid="v")}) == 3


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a" * 253,
        "a" * 235 + "-" + "a" * 10,
    ],
)
def test_an_events_name_is_a_name(name: str) -> None:
    """However long the object's name is, the Event's is a DNS subdomain of 253 characters at most."""
    found = event_body(dj(name), Announcement("Queued", ""), now=NOW, instance="p")["metadata"]["name"]
    assert SUBDOMAIN.fullmatch(found)
    assert len(found) <= 253


def test_long_texts_of_other_scripts_are_cut() -> None:
    """A text has 1,024 bytes at most in UTF-8, which the API server counts where `eventTime` is set."""
    event = event_body(dj(), Announcement("Failed", "\u4e0b" * 1_000), now=NOW, instance="p")
    assert len(event["message"].encode()) <= 1_024


def test_long_texts_are_cut() -> None:
    """A text is cut to what the API server takes."""
    event = event_body(dj(), Announcement("Failed", "x" * 5_000), now=NOW, instance="p" * 500)
    assert len(event["message"]) == 1_024
    assert len(event["reportingInstance"]) == 128
