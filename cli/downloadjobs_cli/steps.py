"""The demo's voice: numbered steps, each with what was done and how long it took."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from downloadjobs_cli.output import Output, duration

LABEL_WIDTH: Final = 11
TEXT_WIDTH: Final = 84
"""With number, label and duration a line has 110 characters at most."""


class Step:
    """One step under way; what it did is filled in before it ends."""

    def __init__(self) -> None:
        self.text = ""


class Steps:
    """Counts the steps and says each when it is done.

    Args:
        output: where to say it.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._number = 0
        self.began = time.monotonic()

    @contextmanager
    def step(self, label: str) -> Iterator[Step]:
        """Time a step, and say it once it is done; a step that fails says nothing."""
        self._number += 1
        began = time.monotonic()
        step = Step()
        yield step
        self._output.say(line(self._number, label, step.text, time.monotonic() - began))

    @property
    def seconds(self) -> float:
        """Since the first step."""
        return time.monotonic() - self.began


def line(number: int, label: str, text: str, seconds: float) -> str:
    """A step as text; a long one goes on under itself."""
    first, *rest = textwrap.wrap(text, TEXT_WIDTH, break_on_hyphens=False) or [""]
    indent = " " * (3 + LABEL_WIDTH)
    head = f"{number}. {label:<{LABEL_WIDTH}}{first:<{TEXT_WIDTH}}  {duration(seconds):>6}"
    return "\n".join([head, *(f"{indent}{more}" for more in rest)])
