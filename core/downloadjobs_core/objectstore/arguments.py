"""Checks and encodings that every store has in common."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from downloadjobs_core.objectstore.protocol import MAX_PARTS, MAX_PRESIGN_SECONDS, Part

_ATTR_CHARS: Final = "!#$&+-.^_`|~"
"""What RFC 8187 lets stand unquoted in an extended value, beside letters and digits."""

_PLAIN: Final = frozenset(string.ascii_letters + string.digits + " !#$&'()+,-.;=@[]^_`{}~")
"""What every client reads alike inside a quoted file name: no quote, percent sign, slash or backslash."""


def content_disposition(filename: str) -> str:
    """The header's value that makes a browser save the answer as `filename`.

    Names beyond plain ASCII are given twice, the second time in UTF-8 (RFC 6266, 4.3).
    """
    plain = "".join(char if char in _PLAIN else "_" for char in filename)
    value = f'attachment; filename="{plain}"'
    return value if plain == filename else f"{value}; filename*=UTF-8''{quote(filename, safe=_ATTR_CHARS)}"


def check_expiry(expires_seconds: int) -> None:
    """Raises `ValueError` unless 1 ≤ `expires_seconds` ≤ `MAX_PRESIGN_SECONDS`."""
    if not 1 <= expires_seconds <= MAX_PRESIGN_SECONDS:
        raise ValueError(f"a URL can be good for 1 to {MAX_PRESIGN_SECONDS} seconds, not {expires_seconds}")


def check_part_number(number: int) -> None:
    """Raises `ValueError` unless 1 ≤ `number` ≤ `MAX_PARTS`."""
    if not 1 <= number <= MAX_PARTS:
        raise ValueError(f"parts are numbered from 1 to {MAX_PARTS}, not {number}")


def in_order(parts: Sequence[Part]) -> list[Part]:
    """The parts by their number. Raises `ValueError` if there are none, or two of one number."""
    ordered = sorted(parts, key=lambda part: part.number)
    if not ordered:
        raise ValueError("an upload is completed with at least one part")
    if len({part.number for part in ordered}) < len(ordered):
        raise ValueError("two parts have the same number")
    return ordered
