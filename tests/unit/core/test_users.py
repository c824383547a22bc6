"""Users' ids: which a client may name, in the API and in a DownloadJob alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.users import OWNER_PREFIX, is_reserved, is_user_id


@pytest.mark.parametrize("user", ["a", "ada@example.com", "k8s", "K8s:team", "ak8s:", "!", "~" * 128])
def test_users_are_visible_ascii(user: str) -> None:
    """1 to 128 such characters are an id."""
    assert is_user_id(user)
    assert not is_reserved(user)


@pytest.mark.parametrize("user", ["k8s:", "k8s:team", "k8s:" + "a" * 124])
def test_no_user_is_a_namespace(user: str) -> None:
    """An id with the prefix of namespaces is reserved."""
    assert not is_user_id(user)
    assert is_reserved(user)


@pytest.mark.parametrize(
    "user", ["", " ", "a,b", "a b", "ä", "a\n", "\n", "x" * 129, "a\x7f", "a\0b", "k8s:a b"]
)
def test_what_could_be_two_users_or_break_a_line_is_none(user: str) -> None:
    """It is no id, whatever its prefix."""
    assert not is_user_id(user)
    assert not is_reserved(user)


@given(st.text(max_size=140))
def test_an_id_is_visible_and_no_namespaces(user: str) -> None:
    """Nothing else comes through."""
    if is_user_id(user):
        assert 1 <= len(user) <= 128
        assert all("!" <= one <= "~" and one != "," for one in user)
        assert not user.startswith(OWNER_PREFIX)
