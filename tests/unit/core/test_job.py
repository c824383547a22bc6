"""The job's record."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.job import Job, NewJob, distinct, rfc3339
from downloadjobs_core.states import JobState, Priority


@given(st.lists(st.integers(10_000, 10_020)))
def test_duplicates_collapse_to_their_first_place(ids: list[int]) -> None:
    """An id asked for twice is one member, at the place where it came first."""
    unique = distinct(ids)
    assert len(set(unique)) == len(unique)
    assert set(unique) == set(ids)
    assert list(unique) == sorted(unique, key=ids.index)


def test_a_new_job_reads_back_as_submitted() -> None:
    """What is written at submission is what the record says."""
    new = NewJob(
        job_id="j", user="u", file_ids=(10_001, 10_000), total_file_ids=3, max_attempts=4,
        priority=Priority.LOW, request_id="r", traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
    )  # fmt: skip
    fields = new.fields()
    values = {str(name): str(value) for name, value in zip(fields[::2], fields[1::2], strict=True)}
    job = Job.from_hash({"id": "j", "user": "u", "state": "queued", "priority": "low"} | values)
    assert (job.file_ids, job.total_file_ids, job.files_total) == ((10_001, 10_000), 3, 2)
    assert (job.max_attempts, job.priority, job.request_id) == (4, Priority.LOW, "r")
    assert job.trace_id == "a" * 32


def test_a_record_with_unknown_fields_is_read() -> None:
    """A hash written by the next release can be read by this one."""
    job = Job.from_hash({"id": "j", "user": "u", "state": "queued", "colour": "green"})
    assert job.state is JobState.QUEUED


def test_a_record_is_never_changed_in_place() -> None:
    """A record is what Redis said at one moment; changing the copy would change nothing there."""
    job = Job.from_hash({"id": "j", "user": "u", "state": "queued"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.user = "v"  # type: ignore[misc]


def test_times_are_rfc3339_in_utc() -> None:
    """Times on the wire are RFC 3339 with milliseconds and Z."""
    assert rfc3339(1_700_000_000_123_456) == "2023-11-14T22:13:20.123Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
