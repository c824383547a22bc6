"""Nudges: a stream says when to ask, and whatever becomes of it, asking goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from downloadjobs_cli import nudging
from downloadjobs_cli.errors import RefusedError, TransientError
from downloadjobs_cli.nudging import Nudges
from support_worker import eventually


def test_an_event_ends_the_wait() -> None:
    """An event wakes who waits; a comment does not."""

    @contextmanager
    def opener(_last: str | None) -> Iterator[Iterator[str]]:
        def lines() -> Iterator[str]:
            yield from (":", "", "id: 1-0", "event: started", "data: {}", "")
            time.sleep(30)

        yield lines()

    with Nudges(opener) as nudges:
        began = time.monotonic()
        nudges.wait(20)
        assert time.monotonic() - began < 10
        assert nudges.open


def test_a_stream_that_breaks_is_opened_again_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last id is sent; an end that was heard is not asked for again."""
    monkeypatch.setattr(nudging, "AGAIN_SECONDS", 0.01)
    asked: list[str | None] = []

    @contextmanager
    def opener(last: str | None) -> Iterator[Iterator[str]]:
        asked.append(last)
        if len(asked) == 2:
            raise TransientError("away")
        if len(asked) == 4:
            raise RefusedError("There are no events.")
        yield iter([f"id: {len(asked)}-0", "data: {}", ""])

    with Nudges(opener) as nudges:
        eventually(lambda: len(asked) == 4, 10, "four openings")
        eventually(lambda: not nudges.open, 10, "the end")
        time.sleep(0.1)
    assert asked == [None, "1-0", "1-0", "3-0"]


def test_without_a_stream_the_clock_says_when() -> None:
    """An API that has no events is polled as before."""
    nothing = [""]

    @contextmanager
    def opener(_last: str | None) -> Iterator[Iterator[str]]:
        if nothing:
            raise RefusedError("There is nothing at this path.")
        yield iter(nothing)

    with Nudges(opener) as nudges:
        began = time.monotonic()
        nudges.wait(0.5)
        assert 0.4 < time.monotonic() - began < 5
        assert not nudges.open
