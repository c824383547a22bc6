"""Where a list goes on: a place in it as a token that clients hand back, and do not look into."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Final

from downloadjobs_core.jobstore import Position

CHECK_BYTES: Final = 8

SCORE: Final = re.compile(r"[0-9]{1,17}")

MAX_CURSOR: Final = 512
"""Characters; ours have some 90."""


def cursor_of(user: str, position: Position) -> str:
    """A cursor for a place in a user's list.

    It carries a check over the user: what was changed, or is another's, is refused rather than guessed at.
    The check is no secret. Whoever makes a cursor by hand sees their own jobs from another place, no more.
    """
    content = f"{position.created_us}:{position.job_id}".encode()
    return urlsafe_b64encode(_check(user, content) + content).rstrip(b"=").decode()


def position_of(user: str, cursor: str) -> Position | None:
    """The place that a cursor of this user names, or None if it is none."""
    if len(cursor) > MAX_CURSOR or not cursor.isascii():
        return None
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        check, content = raw[:CHECK_BYTES], raw[CHECK_BYTES:]
        created_us, colon, job_id = content.decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    if not SCORE.fullmatch(created_us):
        return None
    position = Position(created_us, job_id)
    # base64 can be written in several ways; only ours counts.
    genuine = check == _check(user, content) and colon and cursor_of(user, position) == cursor
    return position if genuine else None


def _check(user: str, content: bytes) -> bytes:
    return blake2b(user.encode() + b"\0" + content, digest_size=CHECK_BYTES, person=b"cursor").digest()
