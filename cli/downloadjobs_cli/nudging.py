"""Learns by an event stream when a job has changed, so that its status is asked for then, not by the clock.

The stream only says when. What is shown is the status, so whatever becomes of the stream (an older API, a
proxy that holds it back, a restart), polling goes on as without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final, Self

from downloadjobs_cli.errors import CliError, TransientError

AGAIN_SECONDS: Final = 2.0
"""Before a stream that broke is opened again."""

LEAST_SECONDS: Final = 0.25
"""Between two nudges: progress comes twice a second at most, and several events may come at once."""

Opener = Callable[[str | None], AbstractContextManager[Iterable[str]]]
"""Opens the stream after the event with this id, and gives its lines. Raises `CliError`."""


class Nudges:
    """Follows one job's stream in a thread.

    Args:
        opener: opens it.
    """

    def __init__(self, opener: Opener) -> None:
        self._open = opener
        self._last: str | None = None
        self._nudged = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="events", daemon=True)
        self.open = False
        """Whether the stream is open: then a change is told of at once."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        # The thread may wait for the next line; it ends with that, or with the process.
        self._stopped.set()

    def wait(self, seconds: float) -> None:
        """Wait for a change, so long at most."""
        began = time.monotonic()
        self._nudged.wait(seconds)
        self._nudged.clear()
        time.sleep(min(seconds, max(0.0, LEAST_SECONDS - (time.monotonic() - began))))

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._open(self._last) as lines:
                    self.open = True
                    self._read(lines)
            except TransientError as error:
                wait = max(AGAIN_SECONDS, error.retry_after or 0)
            except CliError:
                return  # no such stream here, or it has said all
            except Exception:  # noqa: BLE001 - polling goes on without it; mostly the client was closed meanwhile
                return
            else:
                wait = AGAIN_SECONDS
            finally:
                self.open = False
            self._nudged.set()
            self._stopped.wait(wait)

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            if self._stopped.is_set():
                return
            if line.startswith("id: "):
                self._last = line.removeprefix("id: ")
            elif line.startswith("data: "):
                self._nudged.set()
