"""What is drawn at a terminal: a job's progress, and bytes moving."""

from __future__ import annotations

import time
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from downloadjobs_cli.answers import Reply, Status
from downloadjobs_cli.display import Rate, describe
from downloadjobs_cli.output import harmless

BAR_WIDTH: Final = 30
"""Characters: what stands beside it fits into 100."""


class JobBar:
    """A live line at a terminal.

    Args:
        stderr: draw on standard error, where standard output is for a script.
    """

    def __init__(self, *, stderr: bool) -> None:
        self._rate = Rate()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[state]:<10}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[text]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=stderr, markup=False, emoji=False, highlight=False),
        )
        self._task: TaskID = self._progress.add_task("", total=None, state="", text="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def update(self, reply: Reply[Status]) -> None:
        """Move the bar: by bytes where they are known, else by files."""
        status, progress = reply.value, reply.value.progress
        done, total = (
            (progress.bytes, progress.bytes_total)
            if progress.bytes_total
            else (progress.processed, progress.total)
        )
        self._progress.update(
            self._task,
            completed=total if status.whole else done,
            total=total,
            state=harmless(status.status),
            text=describe(status, self._rate.add(time.monotonic(), progress.bytes)),
        )

    def note(self, text: str) -> None:
        """Print it above the bar."""
        self._progress.console.print(harmless(text))


class ByteBar:
    """Bytes moving, with their rate; it goes away when it is done.

    Args:
        label: what is done, such as `Downloading`.
    """

    def __init__(self, label: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, markup=False, emoji=False, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task(label, total=None)

    def start(self) -> None:
        """Begin to draw."""
        self._progress.start()

    def stop(self) -> None:
        """Take it away."""
        self._progress.stop()

    def reach(self, done: int, total: int | None) -> None:
        """Show that so many bytes are done, of how many in all if that is known."""
        self._progress.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a line above it."""
        self._progress.console.print(harmless(text))
