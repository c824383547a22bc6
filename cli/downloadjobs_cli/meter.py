"""Shows bytes moving (a download, a verification, a seeding): a bar at a terminal, sparse lines in a pipe."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from downloadjobs_cli.display import LINE_SECONDS, can_draw
from downloadjobs_cli.output import amount, to_stderr

if TYPE_CHECKING:
    from downloadjobs_cli.bars import ByteBar


class Meter:
    """One measured activity, shown on standard error: standard output may be for a script.

    Args:
        label: what is done, such as `Downloading`.
        shown: show nothing if false.
    """

    def __init__(self, label: str, *, shown: bool = True) -> None:
        self._label = label
        self._shown = shown
        self._done = 0
        self._said_at = time.monotonic()
        self._bar: ByteBar | None = None
        if shown and can_draw(sys.stderr):
            from downloadjobs_cli.bars import ByteBar

            self._bar = ByteBar(label)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def reach(self, done: int, total: int | None) -> None:
        """Show that so many bytes are done, of how many in all if that is known."""
        self._done = done
        if self._bar is not None:
            self._bar.reach(done, total)
        elif self._shown and time.monotonic() - self._said_at >= LINE_SECONDS:
            self._said_at = time.monotonic()
            of = f" of {amount(total)}" if total else ""
            to_stderr(f"{self._label}: {amount(done)}{of}")

    def advance(self, count: int, total: int | None) -> None:
        """Show that so many bytes more are done."""
        self.reach(self._done + count, total)

    def note(self, text: str) -> None:
        """Print a line for people, above the bar."""
        if self._bar is not None:
            self._bar.note(text)
        elif self._shown:
            to_stderr(text)
