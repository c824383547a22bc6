"""Which difference is worth a patch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_operator.patching import PROGRESS_POINTS, PROGRESS_SECONDS, Urgency, urgency

VALUES = st.booleans() | st.integers() | st.text(max_size=3)
STATUSES = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), VALUES | st.lists(VALUES, max_size=3), max_size=4),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), VALUES | inner, max_size=4),
    max_leaves=8,
)
"""Statuses of few names, so that two have some in common."""


def status(percent: int = 0, **more: object) -> dict[str, Any]:
    """A status of a job that is so far."""
    return {"phase": "Processing", "progress": {"percent": f"{percent}%", "processed": percent}} | more


@pytest.mark.parametrize("percent", ["9" * 5_000 + "%", "\u0664\u0662%", "-1%", "", None, 42])
def test_a_share_that_somebody_wrote_by_hand(percent: object) -> None:
    """It hinders no status, whatever it is."""
    forged = status() | {"progress": {"percent": percent}}
    assert urgency(forged, status(50), seconds_since_patch=0) is not Urgency.NOW
    assert urgency(forged, status(phase="Completed"), seconds_since_patch=0) is Urgency.NOW


@given(STATUSES)
def test_equal_statuses_are_no_hurry(one: dict[str, Any]) -> None:
    """Nothing is written where nothing changed, however long ago the last patch was."""
    assert urgency(one, one, seconds_since_patch=1e9) is Urgency.NOT_YET


@pytest.mark.parametrize(
    "new",
    [
        status(phase="Completed"),
        status(worker="w"),
        status(observedGeneration=2),
        {"phase": "Processing"} | {"x": 1},
    ],
)
def test_transitions_are_written_at_once(new: dict[str, Any]) -> None:
    """Whatever is not progress, place or estimate is written now, right after the last patch too."""
    assert urgency(status(), new, seconds_since_patch=0) is Urgency.NOW


def test_little_progress_waits() -> None:
    """Less than five points within ten seconds are not written."""
    assert urgency(status(), status(PROGRESS_POINTS - 1), seconds_since_patch=9.9) is Urgency.NOT_YET


def test_five_points_are_written_soon() -> None:
    """Five points are written when there is room, however soon after the last patch."""
    assert urgency(status(), status(PROGRESS_POINTS), seconds_since_patch=0) is Urgency.SOON


def test_any_progress_is_written_after_ten_seconds() -> None:
    """One more file is written once the last patch is ten seconds old."""
    assert urgency(status(), status(1), seconds_since_patch=PROGRESS_SECONDS) is Urgency.SOON


def test_an_estimate_alone_is_never_written() -> None:
    """An eta moves with every look, which is no news."""
    old, new = status(eta="2027-01-01T00:00:00Z"), status(eta="2027-01-01T00:01:00Z")
    assert urgency(old, new, seconds_since_patch=1e9) is Urgency.NOT_YET


@pytest.mark.parametrize(
    ("before", "after", "worth"), [(100, 81, False), (100, 79, True), (2, 1, True), (1, 2, True)]
)
def test_a_place_is_written_when_it_changed_by_a_fifth(before: int, after: int, *, worth: bool) -> None:
    """A place in the queue is worth a patch if it moved by more than a fifth of itself."""
    old, new = status(queuePosition=before), status(queuePosition=after)
    found = urgency(old, new, seconds_since_patch=PROGRESS_SECONDS)
    assert found is (Urgency.SOON if worth else Urgency.NOT_YET)


@pytest.mark.parametrize(
    ("old", "new"), [(status(queuePosition=1), status()), (status(), status(queuePosition=1))]
)
def test_a_place_that_comes_or_goes_is_written(old: dict[str, Any], new: dict[str, Any]) -> None:
    """That a job has a place, or none any more, is worth a patch."""
    assert urgency(old, new, seconds_since_patch=PROGRESS_SECONDS) is Urgency.SOON


@pytest.mark.parametrize(
    "percent",
    [
        None,
        7,
        "",
        "half",
    ],
)
def test_a_status_that_somebody_wrote_by_hand_is_survived(percent: object) -> None:
    """A share that is no number, written by hand, is worth a patch or not, but no fault."""
    old = status() | {"progress": {"percent": percent}}
    assert urgency(old, status(50), seconds_since_patch=PROGRESS_SECONDS) in Urgency
