"""What is read of a receiver's answer, whatever it holds."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_worker.webhook_sending import SendError, _parsed, retry_after_of

NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str), st.sampled_from(["00", "01", "12", "31", "2020", "9999"])
)
DATES = st.builds(
    "{}, {} {} {} {}:{}:{} {}{}".format,
    st.sampled_from(["Mon", "Sun", "x"]),
    NUMBERS,
    st.sampled_from(["Jan", "Feb", "Dec", "13"]),
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    st.sampled_from(["", "+", "-", "GMT"]),
    NUMBERS,
)


@given(st.one_of(st.text(max_size=64), DATES))
def test_a_retry_after_is_seconds_or_nothing(text: str) -> None:
    """No text that stands there raises anything."""
    seconds = retry_after_of(text)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@given(st.sampled_from([b"200", b"302", b"429", b"503", b"599"]), st.binary(max_size=80))
def test_a_head_is_an_answer_or_an_error_that_couriers_know(status: bytes, fields: bytes) -> None:
    """No bytes of a receiver are a fault."""
    try:
        answer = _parsed(b"HTTP/1.1 " + status + b" x\r\nretry-after: " + fields)
    except SendError:
        return
    assert answer.status == int(status)
    assert answer.retry_after_seconds is None or answer.status == 429 or answer.status >= 500
