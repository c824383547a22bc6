"""Shows a job's progress: a bar at a terminal, lines in a pipe, JSON for scripts."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, Self, TextIO

import click

from downloadjobs_cli.answers import Reply, Status
from downloadjobs_cli.output import Output, amount, harmless, is_dumb, is_terminal, to_stderr

LINE_SECONDS: Final = 2.0
"""Lines in a pipe come at most this often."""

RATE_WINDOW_SECONDS: Final = 10.0
"""The rate shown is the mean over this long: shorter jumps about, longer hides a change."""


class Rate:
    """Bytes a second over the last seconds.

    Args:
        window: how far back it looks, in seconds.
    """

    def __init__(self, window: float = RATE_WINDOW_SECONDS) -> None:
        self._window = window
        self._points: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> float | None:
        """Note how many bytes are done now. None while there is nothing to tell yet."""
        if self._points and count < self._points[-1][1]:
            self._points.clear()  # a new attempt began at the first byte
        self._points.append((now, count))
        while len(self._points) > 2 and self._points[1][0] <= now - self._window:  # noqa: PLR2004 - two ends
            self._points.popleft()
        since, before = self._points[0]
        return (count - before) / (now - since) if now > since and count > before else None


def describe(status: Status, rate: float | None) -> str:
    """Files, bytes and rate as text; what the API does not know is left out."""
    progress = status.progress
    parts = [f"{progress.processed:,}/{progress.total:,} files"]
    if progress.bytes_total:
        parts.append(f"{amount(progress.bytes)} of {amount(progress.bytes_total)}")
    if rate is not None and not status.ended:
        parts.append(f"{amount(rate)}/s")
    return "  ".join(parts)


def can_draw(stream: TextIO) -> bool:
    """Whether a bar can be drawn: a person watches, at a terminal that moves its cursor."""
    return is_terminal(stream) and not is_dumb()


class Display(Protocol):
    """Shows the answers of a `Watcher`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_error: object) -> None: ...

    def update(self, reply: Reply[Status]) -> None:
        """Show the newest answer."""

    def note(self, text: str) -> None:
        """Tell what happens beside the job, such as an API that does not answer."""


class Lines:
    """Plain lines, on change only, and not too many of them.

    Args:
        stderr: print to standard error, where standard output is for a script.
        indent: before each line.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, stderr: bool, indent: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stderr = stderr
        self._indent = indent
        self._clock = clock
        self._rate = Rate()
        self._shown: tuple[Any, ...] = ()
        self._shown_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        return

    def update(self, reply: Reply[Status]) -> None:
        """Print a line if there is news and the last line is old enough, or the job ended."""
        status, now = reply.value, self._clock()
        rate = self._rate.add(now, status.progress.bytes)
        news = (status.status, status.progress.processed, status.progress.bytes, status.progress.bytes_total)
        early = self._shown_at is not None and now - self._shown_at < LINE_SECONDS
        if news == self._shown or (early and not status.ended):
            return
        self._shown, self._shown_at = news, now
        line = f"{self._indent}{status.status:<10}  {describe(status, rate)}"
        if self._stderr:
            to_stderr(line)
        else:
            click.echo(harmless(line))

    def note(self, text: str) -> None:
        """Print it to standard error."""
        to_stderr(text)


class JsonLines:
    """The API's own document on a line of its own, whenever it changed.

    Args:
        output: where to print.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._shown: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        return

    def update(self, reply: Reply[Status]) -> None:
        """Print the document if it differs from the last."""
        if reply.document != self._shown:
            self._shown = reply.document
            self._output.line(reply.document)

    def note(self, text: str) -> None:
        """Nothing: a script waits for documents."""


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        return

    def update(self, reply: Reply[Status]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


def display_for(output: Output, *, stderr: bool = False, indent: str = "") -> Display:
    """The display that suits where the output goes.

    Args:
        output: knows whether a script reads.
        stderr: standard output is for a result, so progress goes to standard error.
        indent: before each line in a pipe.
    """
    if output.as_json:
        return JsonLines(output)
    stream = sys.stderr if stderr else sys.stdout
    if can_draw(stream):
        from downloadjobs_cli.bars import JobBar

        return JobBar(stderr=stderr)
    return Lines(stderr=stderr, indent=indent)
