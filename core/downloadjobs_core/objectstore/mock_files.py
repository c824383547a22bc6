"""The files of the mock storage: none exists, each is generated from its id.

A file is there if and only if its id is divisible by 7. Its size and bytes follow from
the id alone, so that every process on every machine generates the same.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

MIN_BYTES: Final = 64 * 1024
MAX_BYTES: Final = 1024 * 1024

AVAILABLE_EVERY: Final = 7
"""Existing clients of the mock know this rule."""

_BLOCK_BYTES: Final = 64 * 1024
"""Bytes generated at once: any offset is reached by generating at most this much for nothing."""

_NAME: Final = re.compile(r"(0|[1-9][0-9]{0,11})\.zip")


def file_id_of(key: str, prefix: str) -> int | None:
    """The id in `{prefix}{id}.zip`, available or not; None for any other key."""
    match = _NAME.fullmatch(key[len(prefix) :]) if key.startswith(prefix) else None
    return int(match[1]) if match else None


def is_available(file_id: int) -> bool:
    """Whether the mock storage has this file."""
    return file_id % AVAILABLE_EVERY == 0


def size_of(file_id: int) -> int:
    """The file's size in bytes, from `MIN_BYTES` to `MAX_BYTES`."""
    digest = hashlib.sha256(f"size:{file_id}".encode()).digest()
    return MIN_BYTES + int.from_bytes(digest[:8]) % (MAX_BYTES - MIN_BYTES + 1)


def etag_of(file_id: int) -> str:
    """A stable name of the file's content."""
    return hashlib.sha256(f"etag:{file_id}".encode()).hexdigest()[:32]


def read_at(file_id: int, offset: int, max_bytes: int) -> bytes:
    """The file's bytes from `offset` on: `max_bytes` of them, or as many as there are."""
    end = min(offset + max_bytes, size_of(file_id))
    if offset >= end:
        return b""
    first = offset // _BLOCK_BYTES
    blocks = range(first, -(-end // _BLOCK_BYTES))
    data = b"".join(hashlib.shake_128(f"{file_id}:{block}".encode()).digest(_BLOCK_BYTES) for block in blocks)
    begin = first * _BLOCK_BYTES
    return data[offset - begin : end - begin]
