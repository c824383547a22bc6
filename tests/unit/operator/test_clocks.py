"""Other machines' clocks."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from downloadjobs_operator.clocks import ServerClock
from support_operator import NOW


def clock() -> ServerClock:
    """One whose own machine's time stands still."""
    return ServerClock("redis", here=lambda: NOW)


@pytest.mark.parametrize("ahead", [600.0, -600.0, 3.0])
def test_the_servers_time_counts(ahead: float) -> None:
    """Whether this machine's clock is fast or slow, it is the server's time that is told."""
    found = clock()
    found.heard(NOW + ahead)
    assert found.now() == NOW + ahead


def test_a_small_difference_is_none() -> None:
    """An HTTP date has whole seconds, and an answer takes its time: that is no difference of clocks."""
    found = clock()
    found.heard(NOW - 1.5)
    assert found.now() == NOW


def test_clocks_that_differ_are_told_once() -> None:
    """A difference that also hurts elsewhere is an error in the log, once, and its end is told as well."""
    found = clock()
    with capture_logs() as logs:
        for ahead in (20, 60, 70, 0, -90):
            found.heard(NOW + ahead)
    assert [(one["log_level"], one.get("server_ahead_seconds")) for one in logs] == [
        ("error", 60),
        ("info", None),
        ("error", -90),
    ]


@pytest.mark.parametrize("date", [None, "", "soon"])
def test_a_date_that_cannot_be_read_tells_nothing(date: str | None) -> None:
    """A proxy may leave the header out, or write anything."""
    found = clock()
    found.heard_date(date)
    assert found.now() == NOW


def test_a_date_is_heard() -> None:
    """An HTTP date is to the second."""
    found = clock()
    found.heard_date("Fri, 15 Jan 2027 09:00:00 GMT")
    assert found.now() == NOW + 3600
