"""Conditions: when a client has an answer already, or means another."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_api.conditional import matches, matches_strongly, tag_of
from downloadjobs_api.resources import encode, status_document, status_tag
from downloadjobs_core.jobstore import JobStatus
from downloadjobs_core.states import JobState

TAG = 'W/"a-1"'


@pytest.mark.parametrize(
    "condition", ["*", TAG, '"a-1"', f'"b", {TAG}', f'{TAG},"b"', f'"x,y" , {TAG} ', '"b","a-1"']
)
def test_a_tag_is_found(condition: str) -> None:
    """By the weak comparison (RFC 9110, 8.8.3.2), alone or in a list; `*` is any."""
    assert matches(condition, TAG)


@pytest.mark.parametrize("condition", ["", "a-1", '"a-1', "W/a-1", '"a-10"', '"A-1"', "**", '"*"', ",", "W/"])
def test_another_tag_is_not(condition: str) -> None:
    """Another tag, or what is none, does not hide a body."""
    assert not matches(condition, TAG)


@pytest.mark.parametrize("condition", ["*", '"a-1"', '"b", "a-1"', ' "a-1","b"'])
def test_a_tag_is_found_strongly(condition: str) -> None:
    """If-Match names a strong tag alone or in a list; `*` is any."""
    assert matches_strongly(condition, '"a-1"')


@pytest.mark.parametrize("condition", ["", TAG, "a-1", '"a-10"', '"b"', ",", '"*"'])
def test_another_tag_is_not_found_strongly(condition: str) -> None:
    """A weak tag is never the same as a strong one (RFC 9110, 8.8.3.2)."""
    assert not matches_strongly(condition, '"a-1"')


@given(st.text(max_size=60))
def test_any_condition_is_read(condition: str) -> None:
    """Whatever a client sends breaks nothing, and matches only if the tag is in it."""
    if matches(condition, TAG):
        assert condition == "*" or '"a-1"' in condition


@given(st.binary(), st.binary())
def test_bodies_have_their_tags(one: bytes, other: bytes) -> None:
    """The same body has the same tag, another has another."""
    assert (tag_of(one) == tag_of(other)) == (one == other)


STATUS = JobStatus("u", "", JobState.PROCESSING, 1, 4, 0, 10, 40, 1_700_000_000_000_000)


@pytest.mark.parametrize(
    "change",
    [
        {"updated_us": STATUS.updated_us + 1_000},
        {"state": JobState.COMPLETED},
        {"state": JobState.COMPLETED_WITH_ERRORS, "files_failed": 1},
        {"files_done": 2},
        {"bytes_done": 11},
    ],
    ids="-".join,
)
def test_another_status_has_another_tag(change: dict[str, object]) -> None:
    """Whatever changes in a status answer changes its tag."""
    later = dataclasses.replace(STATUS, **change)  # type: ignore[arg-type]
    assert encode(status_document("j", later)) != encode(status_document("j", STATUS))
    assert status_tag(later) != status_tag(STATUS)


def test_a_status_keeps_its_tag() -> None:
    """Nothing but the record is in the tag: two processes of one release give the same."""
    assert status_tag(STATUS) == status_tag(dataclasses.replace(STATUS, user="v", reader="w"))
