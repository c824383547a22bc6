"""`manifest.json`, the archive's last member: what became of every requested file.

`docs/manifest.md` shows a whole one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

NAME: Final = "manifest.json"
SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One distinct file: its member's name, size in bytes, CRC-32 (8 hex digits) and ETag, or its error."""

    fileId: int  # noqa: N815 - the JSON's name
    name: str
    status: str
    """`ok`, or `error`: then the archive has no such member."""
    size: int | None
    crc32: str | None
    etag: str | None
    error: str | None
    """A stable code such as `not-found`."""
    message: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole document."""

    schema: int
    jobId: str | None  # noqa: N815 - the JSON's name
    """None in a result that jobs of several users may share, as is `requestedAt`."""
    requestedAt: str | None  # noqa: N815 - the JSON's name
    totalFileIds: int  # noqa: N815 - the JSON's name
    files: Sequence[ManifestFile]


def encode(manifest: Manifest) -> bytes:
    """The member's bytes: JSON for people, the same for the same manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
