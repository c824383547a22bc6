"""The unfinished download on disk: its bytes in `PATH.part`, and beside it what is needed to go on.

The sidecar `PATH.part.json` never holds the presigned URL: that is a secret, and short-lived anyway.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from downloadjobs_cli.errors import CliError
from downloadjobs_cli.exit_codes import ExitCode

SCHEMA: Final = 1


class Origin(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the bytes of a partial file were read from.

    Attributes:
        schema: version of this document.
        job_id: the job whose result it is.
        etag: the result's strong entity tag, with its quotes as in the header.
        size: bytes of the whole result.
    """

    schema: int = SCHEMA
    job_id: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class ContentRange:
    """`bytes first-last/size` of a 206 answer (RFC 9110, 14.4); the last byte is not needed here."""

    first: int
    size: int

    @classmethod
    def parse(cls, header: str | None) -> ContentRange | None:
        """Read the header; None if it is absent or in another form."""
        unit, _, rest = (header or "").partition(" ")
        span, _, size = rest.partition("/")
        first = span.partition("-")[0]
        if unit != "bytes" or not first.isdecimal() or not size.isdecimal():
            return None
        return cls(int(first), int(size))


def strong(etag: str | None) -> str | None:
    """The tag if a range may be joined by it: weak tags do not promise equal bytes (RFC 9110, 8.8.3.2)."""
    return etag if etag is not None and etag.startswith('"') else None


def resume_offset(origin: Origin | None, job_id: str, on_disk: int) -> int:
    """From which byte to go on; 0 begins anew.

    Args:
        origin: what the bytes on disk came from, if that is known.
        job_id: the job that is wanted now.
        on_disk: how many bytes there are.
    """
    if origin is None or origin.schema != SCHEMA or origin.job_id != job_id or on_disk > origin.size:
        return 0
    return on_disk


def continues(origin: Origin, offset: int, status: int, content_range: str | None, etag: str | None) -> bool:
    """Whether an answer's body belongs behind the bytes on disk.

    Args:
        origin: what the bytes on disk came from.
        offset: the first byte that was asked for.
        status: of the answer.
        content_range: the answer's Content-Range.
        etag: the answer's ETag; a server that ignores If-Match is found out by it.
    """
    found = ContentRange.parse(content_range)
    return (
        status == HTTPStatus.PARTIAL_CONTENT
        and found is not None
        and (found.first, found.size) == (offset, origin.size)
        and etag == origin.etag
    )


class PartialFile:
    """`PATH.part` and its sidecar, locked against a second download to the same path.

    Args:
        target: the path of the whole file.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._sidecar = target.with_name(f"{target.name}.part.json")
        self._target = target
        self._file: BinaryIO = self.path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise CliError(
                f"Another download to {target} is under way. Wait for it, or name another path by -o.",
                code="busy",
                exit_code=ExitCode.USAGE,
            ) from None
        self._sidecar_of: Origin | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path.exists() and self.size == 0:  # nothing came: leave nothing
            self.path.unlink()
            self._sidecar.unlink(missing_ok=True)
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes that are there."""
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    @property
    def origin(self) -> Origin | None:
        """What the bytes came from; None if that is unknown, so they are of no use."""
        if self._sidecar_of is None:
            try:
                self._sidecar_of = msgspec.json.decode(self._sidecar.read_bytes(), type=Origin)
            except (OSError, msgspec.DecodeError):
                return None
        return self._sidecar_of

    def begin(self, origin: Origin | None) -> None:
        """Drop what is there, and note what the coming bytes are from; None if they cannot be resumed."""
        self._file.truncate(0)
        self._sidecar_of = origin
        if origin is None:
            self._sidecar.unlink(missing_ok=True)
        else:
            self._sidecar.write_bytes(msgspec.json.encode(origin))

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(data)

    def complete(self) -> Path:
        """Give the file its name, once its bytes are on the disk. Returns that name."""
        return self._rename(self._target)

    def set_aside(self) -> Path:
        """Name it `PATH.broken`, so that it can be looked at and the next try begins anew."""
        return self._rename(self._target.with_name(f"{self._target.name}.broken"))

    def _rename(self, path: Path) -> Path:
        self._file.flush()
        os.fsync(self._file.fileno())
        self.path.replace(path)
        self._sidecar.unlink(missing_ok=True)
        return path
