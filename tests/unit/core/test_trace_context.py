"""W3C Trace Context."""

import pytest

from downloadjobs_core import trace_context

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
VALID = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_a_valid_context_is_continued() -> None:
    """The client's trace goes on."""
    assert trace_context.accept(VALID) == VALID
    assert trace_context.trace_id(VALID) == TRACE


def test_a_later_version_is_read_as_the_first() -> None:
    """A higher version may have more fields; its first four are read (3.2.4)."""
    assert trace_context.accept(f"cc-{TRACE}-00f067aa0ba902b7-01-more") == VALID


@pytest.mark.parametrize(
    "header",
    [
        None, "", "nonsense", VALID.upper(), VALID + "-more", VALID.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE}-{'0' * 16}-01", VALID + "\n",
    ],
)  # fmt: skip
def test_an_invalid_context_begins_a_new_trace(header: str | None) -> None:
    """A broken header is replaced by a new, unsampled trace (3.2.2)."""
    accepted = trace_context.accept(header)
    assert trace_context.trace_id(accepted) not in {TRACE, "0" * 32}
    assert accepted.endswith("-00")
    assert trace_context.accept(accepted) == accepted
