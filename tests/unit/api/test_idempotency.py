"""The Idempotency-Key: which values hold a key, and what makes two requests the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_api.idempotency import MAX_KEY, read_key
from downloadjobs_api.operations import IDEMPOTENCY_KEY
from downloadjobs_core.job import Once

VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=MAX_KEY)
LONG = st.text('a"\\\\', min_size=MAX_KEY - 1, max_size=MAX_KEY + 1)
QUOTED_ALONE = re.compile(r'[",\\]')


def quoted(key: str) -> str:
    """A key as a string of structured fields."""
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(VISIBLE)
def test_every_key_can_be_sent_in_quotes(key: str) -> None:
    """Whatever visible ASCII a key has, in quotes it is read as it is."""
    assert read_key(quoted(key)) == key


@given(VISIBLE.filter(lambda key: not key.startswith('"')))
def test_a_bare_key_is_the_same_as_one_in_quotes(key: str) -> None:
    """Without quotes a key is taken as it stands, unless it needs them."""
    assert read_key(key) == (None if QUOTED_ALONE.search(key) else key)


@given(st.text(max_size=300))
def test_what_is_read_is_always_a_key(value: str) -> None:
    """No header gives a key that is empty, too long, or not visible ASCII."""
    key = read_key(value)
    assert key is None or (1 <= len(key) <= MAX_KEY and all("!" <= char <= "~" for char in key))


@pytest.mark.parametrize(
    "value",
    ["", " ", '""', '"', "a b", '"a b"', "a,b", '"a", "b"', '"a""b"', 'a"', '"a', '"a\\"', '"a\\b"', "a\\",
     "é", '"é"', "a\x7f", "x" * (MAX_KEY + 1), quoted("x" * (MAX_KEY + 1)), '"a";p=1', "a\tb"],
)  # fmt: skip
def test_what_is_no_key_is_refused(value: str) -> None:
    """Empty, too long, several of them, blanks inside, or half in quotes: that is no key."""
    assert read_key(value) is None


@given(st.one_of(VISIBLE, VISIBLE.map(quoted), st.builds('"{}"'.format, VISIBLE), LONG, LONG.map(quoted)))
def test_the_document_describes_what_is_a_key(value: str) -> None:
    """A client that sends what the OpenAPI document allows is never refused, and the other way round."""
    pattern = str(IDEMPOTENCY_KEY.schema["pattern"])
    assert (re.search(pattern, value) is not None) == (read_key(value) is not None)


def test_blanks_around_do_not_count() -> None:
    """White space around a header's value is none of it (RFC 9110, 5.5)."""
    assert read_key("  a\t") == read_key('\t"a" ') == "a"


ASKED = st.fixed_dictionaries(
    {"file_ids": st.lists(st.integers(1, 3), max_size=3), "priority": st.sampled_from([None, "low", "high"])}
)


@given(ASKED, ASKED)
def test_requests_are_the_same_if_they_ask_for_the_same(
    one: dict[str, object], other: dict[str, object]
) -> None:
    """The digest of two requests is equal if and only if all that they ask for is; order counts."""
    same = Once.of("u", "k", one, 60).asked == Once.of("u", "k", other, 60).asked
    assert same == (one == other)


@given(ASKED)
def test_a_member_that_is_not_there_changes_nothing(asked: dict[str, object]) -> None:
    """A release that knows one member more takes the keys of the one before."""
    assert Once.of("u", "k", asked, 60) == Once.of("u", "k", {**asked, "callbackUrl": None}, 60)


@given(VISIBLE, VISIBLE, VISIBLE, VISIBLE)
def test_users_share_no_keys(user: str, key: str, other: str, its_key: str) -> None:
    """Two keys are one if and only if both the user and the key are the same."""
    same = Once.of(user, key, {}, 60).key == Once.of(other, its_key, {}, 60).key
    assert same == ((user, key) == (other, its_key))
