"""What the command line tells a script by its exit code. The README lists them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    """The job failed or is done only in part, or a result is not what it should be."""
    USAGE = 2
    """The command line, or a setting, is wrong."""
    UNREACHABLE = 3
    """The API or the object store cannot be reached, or cannot work now."""
    REFUSED = 4
    """The API says no: not signed in, somebody else's job, no such job, expired."""
    TIMED_OUT = 5
    INTERRUPTED = 130
    """Ctrl-C, or a signal that asks to end."""
    READER_GONE = 141
    """What reads the output went away (`| head`); shells give 128 + SIGPIPE."""
