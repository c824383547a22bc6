"""What a client that comes back has missed, by what Redis kept; and what a Prefer header asks for."""

from __future__ import annotations

import pytest

from downloadjobs_api.following import missed_events, newest_event
from downloadjobs_api.waiting import wanted_wait
from downloadjobs_core.event_stream import JobEvent, position_of
from downloadjobs_core.job import Job
from downloadjobs_core.states import JobState


def event(entry: str, kind: str, state: str) -> JobEvent:
    """One that was kept."""
    return JobEvent(entry, "j", kind, "ada", state, {"files_total": "1"})


KEPT = [event("5-0", "queued", "queued"), event("7-0", "started", "processing")]


def job(entry: str, state: JobState = JobState.PROCESSING) -> Job:
    """A record that shows events up to one."""
    return Job(job_id="j", user="ada", state=state, updated_us=9_000, event=entry)


@pytest.mark.parametrize(
    ("last", "newest", "missed"),
    [
        ("5-0", "7-0", ["7-0"]),
        ("7-0", "7-0", []),
        ("5-0", "9-1", ["7-0", "9-1"]),
        ("8-0", "9-1", ["9-1"]),
        ("9-0", "9-1", ["9-1"]),
        ("9-1", "9-1", []),
        ("4-9", "9-1", None),
        ("9-2", "9-1", None),
        ("9", "9-1", None),
        ("\u0661-\u0661", "9-1", None),
    ],
)
def test_what_was_missed(last: str, newest: str, missed: list[str] | None) -> None:
    """Kept events after the client's, then progress if it is newer; None if the id is none of them."""
    found = missed_events(job(newest), KEPT, last)
    assert (found if found is None else [e.entry for e in found]) == missed


def test_events_that_an_older_release_did_not_keep_are_noticed() -> None:
    """The stream ends with another state than the record has: some are missing, so it tells nothing."""
    assert missed_events(job("9-0", JobState.RETRYING), KEPT, "5-0") is None
    assert missed_events(job("9-0", JobState.FAILED), [], "5-0") is None


def test_a_record_of_an_older_release_has_a_position() -> None:
    """Without an event's id the time of the last change stands for it, in the stream's unit."""
    assert newest_event(job("")) == "9-0"
    assert newest_event(job("3-1")) == "3-1"


def test_ids_are_ordered_by_time_and_number() -> None:
    """Not as texts."""
    assert (position_of("10-0") or ()) > (position_of("9-5") or ())
    assert (position_of("9-10") or ()) > (position_of("9-9") or ())


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=10", 10),
        ("WAIT = 10", 10),
        ('wait="10"', 10),
        ("respond-async, wait=10; foo=bar, wait=5", 10),
        ("wait", None),
        ("wait=x, wait=5", None),
        ("wait=-1", None),
        ("await=5", None),
        ("", None),
    ],
)
def test_what_prefer_asks_for(prefer: str, seconds: int | None) -> None:
    """The first `wait` counts, if it is a number of seconds."""
    assert wanted_wait(prefer) == seconds
