"""Traces: what a file may hold, and what is made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_operator.autoscaler.traces import GENERATED, Arrival, Trace, TraceError, read, write


@pytest.mark.parametrize(
    ("text", "arrivals"),
    [
        ("seconds\n0\n2.5\n", [Arrival(0, 10), Arrival(2.5, 10)]),
        ("seconds,count\n5,2\n1,1\n9,0\n", [Arrival(1, 10), Arrival(5, 10), Arrival(5, 10)]),
        ("service_seconds, seconds\n3,0\n,1\n", [Arrival(0, 3), Arrival(1, 10)]),
        ("seconds,size\n0,100000000\n", [Arrival(0, 2)]),
    ],
)
def test_columns_are_known_by_their_names(text: str, arrivals: list[Arrival]) -> None:
    """Only `seconds` must be there; what is left out has a default, and the order does not matter."""
    trace = read(text.splitlines(), "trace.csv")
    assert list(trace.arrivals) == arrivals
    assert trace.seconds == arrivals[-1].at


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the first line must name columns"),
        ("0,1\n", "It is: 0,1"),
        ("seconds,colour\n", "It is: seconds,colour"),
        ("seconds,seconds\n", "It is: seconds,seconds"),
        ("seconds\n", "has no jobs"),
        ("seconds,count\n1\n", "line 2: it must have 2 fields"),
        ("seconds\n1,2\n", "line 2: it must have 1 fields"),
        ("seconds\n1\nx\n", "line 3: seconds must be a number from 0 to 31,622,400; it is 'x'"),
        ("seconds\n-1\n", "line 2: seconds"),
        ("seconds\nnan\n", "line 2: seconds"),
        ("seconds,service_seconds\n1,inf\n", "line 2: service_seconds"),
        ("seconds,count\n1,2000000\n2,1\n", "line 3: more than 2,000,000 jobs"),
    ],
)
def test_a_wrong_file_is_told_by_its_line(text: str, words: str) -> None:
    """Whoever wrote the file finds the place."""
    with pytest.raises(TraceError) as refused:
        read(text.splitlines(), "trace.csv")
    assert str(refused.value).startswith("trace.csv")
    assert words in str(refused.value)


@given(
    st.lists(
        st.builds(
            Arrival, st.integers(0, 10**6).map(lambda n: n / 8), st.integers(0, 10**4).map(lambda n: n / 8)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_written_can_be_read(arrivals: list[Arrival]) -> None:
    """A trace's lines give the trace."""
    ordered = tuple(sorted(arrivals, key=lambda arrival: arrival.at))
    assert read(write(Trace("x", ordered, ordered[-1].at)), "x").arrivals == ordered


@pytest.mark.parametrize("name", GENERATED)
def test_made_up_traces_are_repeatable(name: str) -> None:
    """The same seed gives the same jobs, in their order and within the time; another gives others."""
    trace = GENERATED[name](3)
    assert trace == GENERATED[name](3)
    assert trace != GENERATED[name](4)
    times = [arrival.at for arrival in trace.arrivals]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] < trace.seconds


def test_the_day_is_a_day() -> None:
    """Some 20,000 jobs, with an idle night and busy hours."""
    trace = GENERATED["day"](1)
    hours = [0] * 24
    for arrival in trace.arrivals:
        hours[int(arrival.at / 3_600)] += 1
    assert 15_000 < len(trace.arrivals) < 25_000
    assert max(hours[0:3]) < 60
    assert min(hours[9:12]) > 1_000
