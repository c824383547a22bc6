"""Cursors: places in a list that come back as they were given, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from downloadjobs_api.cursors import MAX_CURSOR, cursor_of, position_of
from downloadjobs_core.jobstore import Position

USERS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)
POSITIONS = st.builds(
    Position,
    st.integers(0, 2**53).map(str),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128),
)


@given(USERS, POSITIONS)
def test_a_cursor_leads_back(user: str, position: Position) -> None:
    """A cursor is the place that it was made of, and fits into a URL as it is."""
    cursor = cursor_of(user, position)
    assert position_of(user, cursor) == position
    assert len(cursor) <= MAX_CURSOR
    assert all(char.isalnum() or char in "-_" for char in cursor)


@pytest.mark.parametrize("score", ["abc", "nan", "inf", "(1", "-1", "1e9", "", "1" * 18, "1.5", "\u0661"])
def test_a_hand_made_cursor_names_a_moment(score: str) -> None:
    """The check is no secret, so whoever makes a cursor may put anything into it: only a moment is taken."""
    assert position_of("ada", cursor_of("ada", Position(score, "job"))) is None


@given(USERS, POSITIONS, st.data())
def test_a_changed_cursor_is_none(user: str, position: Position, data: st.DataObject) -> None:
    """One character of it that is another, is missing or too many, and it is refused."""
    cursor = cursor_of(user, position)
    index = data.draw(st.integers(0, len(cursor) - 1))
    char = data.draw(st.sampled_from("ABCxyz019-_=+/ \n%"))
    changed = data.draw(
        st.sampled_from(
            [cursor[:index] + char + cursor[index + 1 :], cursor[:index] + char + cursor[index:],
             cursor[:index] + cursor[index + 1 :], cursor + char, char + cursor]
        )
    )  # fmt: skip
    assume(changed != cursor)
    assert position_of(user, changed) is None


@given(USERS, USERS, POSITIONS)
def test_a_cursor_is_one_users(user: str, other: str, position: Position) -> None:
    """Another user's cursor is none."""
    assume(user != other)
    assert position_of(other, cursor_of(user, position)) is None


@given(st.text(max_size=700))
def test_any_text_is_read(text: str) -> None:
    """Whatever a client sends, it is refused and breaks nothing."""
    assert position_of("ada", text) is None


@pytest.mark.parametrize("text", ["", "=", "====", "A", "é", "\0", "A" * 10_000])
def test_nonsense_is_refused(text: str) -> None:
    """What no cursor looks like is none."""
    assert position_of("ada", text) is None
