"""What an attempt did and when, for its job's timeline; `core/downloadjobs_core/timeline.py` has the form."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from downloadjobs_core.timeline import FileRow, Stage, encode_files, encode_stage

PLANNING: Final = "planning"
"""Every file was looked up."""

UPLOAD: Final = "upload"
"""After the last file: what was left of the result was sent, and the result became visible."""


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What Redis was not told yet: its text, and how many stages and files are told with it."""

    text: str
    stages: int
    files: int


@dataclass(slots=True)
class StageLog:
    """Written by the attempt's thread, and read by the keeper's too: both lists only grow."""

    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _stages: list[Stage] = field(default_factory=list)
    _files: list[FileRow] = field(default_factory=list)
    _stages_written: int = 0
    _files_written: int = 0

    def __post_init__(self) -> None:
        self._began = self.clock()

    def now_ms(self) -> int:
        """Milliseconds since the lease."""
        return round((self.clock() - self._began) * 1000)

    def ended(self, name: str, began_ms: int, number: int) -> None:
        """A stage ended now; `number` is its files or bytes."""
        self._stages.append(Stage(name, began_ms, self.now_ms(), number))

    def file_done(self, began_ms: int, size: int, error: str) -> int:
        """The next file is in the archive, or is known to be missing; when, in milliseconds."""
        now_ms = self.now_ms()
        self._files.append(FileRow(began_ms, now_ms, size, error))
        return now_ms

    def unwritten(self) -> Unwritten:
        """What is to be told with the next call to Redis."""
        stages, files = len(self._stages), len(self._files)
        lines = [encode_stage(stage) for stage in self._stages[self._stages_written : stages]]
        if files > self._files_written:
            lines.append(encode_files(self._files_written, self._files[self._files_written : files]))
        return Unwritten("\n".join(lines), stages, files)

    def written(self, told: Unwritten) -> None:
        """Redis was told so much. What it may have been told without our knowing is told again."""
        self._stages_written, self._files_written = told.stages, told.files
