"""Reading a DownloadJob with care: an object may be older than a rule of its schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from downloadjobs_core.job import MAX_FILE_ID, MAX_FILES, MIN_FILE_ID
from downloadjobs_operator.downloadjob import (
    BACKOFF_LIMIT,
    CLAIM,
    FINALIZER,
    MIRROR,
    DownloadJob,
    RefusedError,
    file_ids_of,
    is_marked,
    moment_of,
    seconds_of,
)
from support_operator import JSON, body, dj

FIELDS = (
    "fileIds", "userId", "priority", "suspend", "cancel", "backoffLimit", "activeDeadlineSeconds",
    "ttlSecondsAfterFinished", "result",
)  # fmt: skip


def objects() -> st.SearchStrategy[Any]:
    """Any JSON, or a mapping in which the fields that are read stand with any JSON in them."""
    return JSON | st.dictionaries(
        st.sampled_from([*FIELDS, "expirationSeconds", "deletionPolicy", MIRROR]), JSON
    )


@given(spec=objects(), metadata=st.dictionaries(st.sampled_from(["annotations", "generation"]), objects()))
def test_any_object_with_a_uid_and_a_name_is_read(spec: object, metadata: Mapping[str, Any]) -> None:
    """Whatever JSON stands where something else should, reading is no fault."""
    found = DownloadJob.from_body({"metadata": {**metadata, "uid": "u", "name": "n"}, "spec": spec})
    assert (found.uid, found.name) == ("u", "n")
    assert isinstance(found.backoff_limit, int)
    assert isinstance(found.user_id, str)


@given(st.text())
def test_any_deletion_timestamp_is_read(text: str) -> None:
    """A time that is none counts as absent."""
    assert dj(deletionTimestamp=text).deleted_at is None or seconds_of(text) is not None


@example([None])
@given(objects())
def test_ids_are_all_right_or_refused(ids: object) -> None:
    """Ids that come through are integers in their bounds, 1 to 1,000 of them; all else is refused."""
    reason = ""
    try:
        found = file_ids_of(body(spec={"fileIds": ids}))
        assert 1 <= len(found) <= MAX_FILES
        assert all(type(one) is int and MIN_FILE_ID <= one <= MAX_FILE_ID for one in found)
    except RefusedError as error:
        reason = error.reason
    assert reason in {"", "InvalidFileIds"}


@pytest.mark.parametrize("count", [1, 2, MAX_FILES])
def test_good_ids_come_as_they_are(count: int) -> None:
    """Ids keep their order, and duplicates stay: what a job makes of them is the job's."""
    ids = [MAX_FILE_ID, *([MIN_FILE_ID] * (count - 1))]
    assert file_ids_of(body(spec={"fileIds": ids})) == tuple(ids)


@pytest.mark.parametrize(
    "wrong",
    [
        True,
        10_000.0,
        10_000.5,
        "10000",
        None,
        [10_000],
        {},
        MIN_FILE_ID - 1,
        MAX_FILE_ID + 1,
        -1,
        2**63,
    ],
)
def test_a_wrong_id_is_named(wrong: object) -> None:
    """The refusal says which id is wrong, and what ids are."""
    with pytest.raises(RefusedError, match="10000 to 100000000") as caught:
        file_ids_of(body(spec={"fileIds": [10_000, wrong]}))
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("ids", [None, [], "10000", 10_000, {"0": 10_000}, [10_000] * (MAX_FILES + 1)])
def test_what_is_no_list_of_ids_is_refused(ids: object) -> None:
    """None, no ids, too many of them, and whatever is no list are refused with the limits."""
    with pytest.raises(RefusedError, match="1 to 1,000"):
        file_ids_of(body(spec={"fileIds": ids}))


@pytest.mark.parametrize("whole", [{}, {"spec": None}, {"spec": []}])
def test_an_object_without_a_spec_is_refused(whole: Mapping[str, Any]) -> None:
    """Where no spec is, there are no ids."""
    with pytest.raises(RefusedError):
        file_ids_of(whole)


def test_a_refusal_is_short() -> None:
    """However long a wrong id is, the text fits a condition, whose message has 32,768 characters at most."""
    with pytest.raises(RefusedError) as caught:
        file_ids_of(body(spec={"fileIds": ["x" * 40_000]}))
    assert len(str(caught.value)) <= 32_768


@pytest.mark.parametrize("value", ["true", 1, None, "yes"])
def test_only_true_is_true(value: object) -> None:
    """Nothing but the JSON true holds or cancels a job."""
    found = dj(spec={"suspend": value, "cancel": value})
    assert not found.suspend
    assert not found.cancel


@pytest.mark.parametrize("value", [True, "3", 3.0, None])
def test_wrong_numbers_count_as_absent(value: object) -> None:
    """A number of another type leaves the default, and a bool is none."""
    found = dj(spec={"backoffLimit": value, "activeDeadlineSeconds": value, "ttlSecondsAfterFinished": value})
    assert (found.backoff_limit, found.deadline_seconds, found.ttl_seconds) == (BACKOFF_LIMIT, None, None)


def test_zero_is_a_number() -> None:
    """0 is not the absence of a limit: no retry, and deleted at once."""
    found = dj(spec={"backoffLimit": 0, "ttlSecondsAfterFinished": 0})
    assert (found.backoff_limit, found.ttl_seconds) == (0, 0)


@pytest.mark.parametrize(
    ("policy", "retained"), [("Retain", True), ("Delete", False), ("retain", False), (True, False)]
)
def test_only_retain_retains(policy: object, *, retained: bool) -> None:
    """A policy that is not known is the default: the result goes with its object."""
    assert dj(spec={"result": {"deletionPolicy": policy}}).retain is retained


def test_ids_are_counted_but_not_kept() -> None:
    """Of the ids only their number is kept."""
    found = dj(spec={"fileIds": [20_000, 20_001, 20_002]})
    assert found.file_count == 3
    assert "20001" not in repr(found)


def test_a_text_is_no_list_of_ids() -> None:
    """A text where ids should be has no files."""
    assert dj(spec={"fileIds": "10000"}).file_count == 0


def test_annotations_that_are_read() -> None:
    """The claim and the mirror's hash are digests, or absent."""
    found = dj(annotations={CLAIM: "c" * 64, MIRROR: "a" * 64})
    assert (found.claim, found.mirror) == ("c" * 64, "a" * 64)
    assert dj(annotations={"other": "x"}).claim == ""


@given(st.integers(0, 253_402_300_799))
def test_times_survive_being_written(seconds: int) -> None:
    """A moment of whole seconds is read as it was written."""
    assert seconds_of(moment_of(seconds)) == seconds


@given(st.text() | st.none() | st.integers())
def test_no_text_is_a_faulty_time(value: object) -> None:
    """What is no time is None, and never a fault."""
    found = seconds_of(value)
    assert found is None or isinstance(found, float)


def test_times_are_utc() -> None:
    """A time without a zone is UTC, whatever the machine's own is."""
    assert seconds_of("2027-01-15T08:00:00Z") == seconds_of("2027-01-15T08:00:00") == 1_800_000_000
    assert seconds_of("2027-01-15T10:00:00+02:00") == 1_800_000_000


def test_of_a_wrong_annotation_only_a_mark_is_kept() -> None:
    """What should be a digest and is none is not kept, but told from none and from other wrong ones."""
    one, other = (
        dj(annotations={CLAIM: text * 250_000, MIRROR: text * 250_000}) for text in ("x", "\N{GRINNING FACE}")
    )
    assert one.claim == one.mirror != other.claim == other.mirror
    assert is_marked(one.claim)
    assert max(len(found.claim) for found in (one, other)) < 100
    assert dj(annotations={CLAIM: "a" * 64, MIRROR: ""}).claim == "a" * 64


@pytest.mark.parametrize("ours", [[], [FINALIZER]])
def test_of_many_finalizers_only_ours_is_kept(ours: list[str]) -> None:
    """Of more finalizers than are needed it is kept whether ours is among them, and that there are more."""
    many = dj(finalizers=[*(f"example.org/f{number}" for number in range(12_000)), *ours])
    assert (many.finalizers, many.finalizers_cut) == (tuple(ours), True)
    few = dj(finalizers=["a/b", *ours])
    assert (few.finalizers, few.finalizers_cut) == (("a/b", *ours), False)
