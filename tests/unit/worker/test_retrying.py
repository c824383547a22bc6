"""When a failed job is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_worker.retrying import RetryPolicy


def test_delays_double() -> None:
    """By default a retry waits 5, 10, 20 seconds."""
    assert [RetryPolicy().delay_seconds(n, 0) for n in (1, 2, 3)] == [5, 10, 20]


def test_jitter_is_a_tenth_at_most() -> None:
    """Jobs that failed together are spread over a tenth of their delay."""
    assert RetryPolicy().delay_seconds(1, 1) == 5.5
    assert all(5 <= RetryPolicy().delay_seconds(1) <= 5.5 for _ in range(100))


@given(st.integers(1, 10**9))
def test_delays_are_capped(failures: int) -> None:
    """However often a job failed, it waits no longer than the cap, and the number stays finite."""
    assert RetryPolicy().delay_seconds(failures, 0) <= 300
