"""The token bucket that all jobs' patches share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_operator.rationing import BURST_SECONDS, TokenBucket


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


RATES = st.floats(0.01, 1_000)
STEPS = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 20), st.booleans()), max_size=30)


@given(rate=RATES, steps=STEPS)
def test_it_gives_no_more_than_its_rate_and_one_burst(
    rate: float, steps: list[tuple[float, int, bool]]
) -> None:
    """In no time t are more than rate x t tokens given beside the burst, whatever is owed meanwhile."""
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    given_out = 0
    burst = max(1.0, rate * BURST_SECONDS)
    for seconds, tries, owes in steps:
        clock.now += seconds
        if owes:
            bucket.owe()
        given_out += sum(bucket.take() for _ in range(tries))
        assert given_out <= rate * clock.now + burst + 1e-6 * (1 + given_out)


@given(RATES)
def test_it_comes_back_from_debt(rate: float) -> None:
    """However much was owed, a token is there again after two bursts' time and one token's."""
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    for _ in range(5_000):
        bucket.owe()
    assert not bucket.take()
    clock.now += 2 * max(BURST_SECONDS, 1 / rate) + 1 / rate
    assert bucket.take()


def test_what_cannot_wait_is_paid_by_what_can() -> None:
    """Owed tokens are missing to those who ask."""
    bucket = TokenBucket(3, Clock())
    bucket.owe()
    bucket.owe()
    assert [bucket.take(), bucket.take()] == [True, False]


@pytest.mark.parametrize("rate", [0.01, 1, 50])
def test_the_first_token_is_there_at_once(rate: float) -> None:
    """Even a slow bucket begins with a whole token."""
    assert TokenBucket(rate, Clock()).take()
