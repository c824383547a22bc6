"""Signals that ask to end, made one thing: KeyboardInterrupt, until the end has begun."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a supervisor's request, and a terminal that is closed."""


class Interrupts:
    """Within its context, each of `SIGNALS` raises KeyboardInterrupt in the main thread.

    After `hold`, they raise no more, so that what has begun to stop is stopped to its end; each further
    one then calls what `hold` was given. Signals that were ignored before (as `nohup` does) stay so.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._held: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self, further: Callable[[], None]) -> None:
        """Raise no more.

        Args:
            further: called at each further signal, in the middle of whatever runs.
        """
        self._held = further

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._held is None:
            raise KeyboardInterrupt
        self._held()
