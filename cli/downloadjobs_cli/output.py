"""What the command line prints: calm lines for people, JSON for scripts, errors on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TextIO

import click

from downloadjobs_cli.errors import CliError

KB: Final = 1000
MINUTE: Final = 60
HOUR: Final = 3600

DUMB_TERMINALS: Final = frozenset({"dumb", "unknown"})
"""What TERM says of terminals that know no escape sequences: no line can be drawn anew, or coloured."""

_CONTROLS: Final = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
"""C0, DEL and C1 but for ends of lines and tabs: a terminal obeys them, or takes them for ends of lines."""

_REPLACED: Final = dict.fromkeys(_CONTROLS, "\N{REPLACEMENT CHARACTER}")
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in _CONTROLS}


def harmless(text: str) -> str:
    """A text as a terminal may get it: what a server says must not move the cursor or set the title."""
    return text.replace("\r\n", "\n").translate(_REPLACED)


def json_text(document: Mapping[str, Any] | Sequence[Any], indent: int | None = None) -> str:
    """A document as JSON that a terminal may get: `json` itself escapes only the controls below 0x20."""
    return json.dumps(document, indent=indent, ensure_ascii=False).translate(_ESCAPED)


def amount(count: float) -> str:
    """Bytes for people, in decimal units as disks and networks count: `46.2 MB`."""
    if abs(count) < KB:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= KB
        if abs(count) < KB or unit == "TB":
            break
    return f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """A time span for people: `0.8 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:  # noqa: PLR2004 - under ten seconds a tenth is worth telling
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02} s".removesuffix(" 00 s")
    return f"{whole // HOUR} h {whole % HOUR // MINUTE:02} min"


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 file`, `40 files`, `1,000 files`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines with columns under each other, two spaces between.

    Args:
        rows: the cells; a header is a row like the others.
        right: the columns that are aligned to the right, such as numbers.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def is_dumb() -> bool:
    """Whether the terminal, if there is one, knows no escape sequences."""
    return os.environ.get("TERM") in DUMB_TERMINALS


def styled(text: str, **style: Any) -> str:  # noqa: ANN401 - click's
    """A text in colour or bold, unless nobody wants that (https://no-color.org) or the terminal cannot."""
    return text if os.environ.get("NO_COLOR") or is_dumb() else click.style(text, **style)


def to_stderr(text: str, label: str = "") -> None:
    """Print a line to standard error; one that cannot be written is left out, and is no reason to end.

    Args:
        text: the line.
        label: before it; may be in colour.

    Raises:
        BrokenPipeError: its reader is gone.
    """
    try:
        click.echo(f"{label}{harmless(text)}", err=True)
    except BrokenPipeError:
        raise
    except OSError:
        return


def unwritable(error: OSError, before: str = "") -> CliError:
    """What to say when standard output is full.

    Args:
        error: why it cannot be written.
        before: a sentence on what is done nevertheless.
    """
    why = f"Standard output cannot be written: {error.strerror or error}."
    return CliError(f"{before} {why}".lstrip(), code="cannot-write")


class Output:
    """Where a command prints.

    Args:
        as_json: print documents for scripts; lines for people are then left out.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, text: str = "", *, bold: bool = False) -> None:
        """Print a line for people to standard output."""
        if not self.as_json:
            text = harmless(text)
            click.echo(styled(text, bold=True) if bold else text)

    def note(self, text: str) -> None:
        """Print a line for people to standard error, where it is in no script's way."""
        if not self.as_json:
            to_stderr(text)

    def value(self, text: str) -> None:
        """Print what a script takes, such as a job's id."""
        click.echo(harmless(text))

    def document(self, document: Mapping[str, Any] | Sequence[Any]) -> None:
        """Print one JSON document: on one line, but indented for eyes at a terminal."""
        click.echo(json_text(document, indent=2 if stdout_is_terminal() else None))

    def line(self, document: Mapping[str, Any]) -> None:
        """Print one of several JSON documents, each on a line of its own."""
        click.echo(json_text(document))

    def error(self, error: CliError) -> None:
        """Print why the command ends, to standard error; if nobody can read it, the exit code must do."""
        tail = f" (request {error.request_id})" if error.request_id else ""
        with suppress(BrokenPipeError):
            if self.as_json:
                to_stderr(json_text(error.document()))
            else:
                to_stderr(f"{error.message}{tail}", label=f"{styled('error:', fg='red', bold=True)} ")


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches this stream; a closed stream is none."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def stdout_is_terminal() -> bool:
    """Whether standard output goes to a person."""
    return is_terminal(sys.stdout)
