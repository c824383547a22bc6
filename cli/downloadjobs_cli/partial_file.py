"""The unfinished download on disk: its bytes in `PATH.part`, and beside it what is needed to go on.

The sidecar `PATH.part.json` never holds the presigned URL: that is a secret, and short-lived anyway.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from downloadjobs_cli.errors import CliError, SettingsError
from downloadjobs_cli.exit_codes import ExitCode

SCHEMA: Final = 1

MOST_SIDECAR_BYTES: Final = 64 * 1024
"""A sidecar has some 200 bytes; far beyond, it is none of ours."""

NO_DETOUR: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Open no symbolic link, and wait for nobody at the other end of a named pipe."""

_STRONG_TAG: Final = re.compile(r'"[\x21\x23-\x7e]*"')


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
    """The tag if a range may be joined by it.

    Weak tags do not promise equal bytes (RFC 9110, 8.8.3.2), and what is no ASCII cannot be sent back.
    """
    return etag if etag is not None and _STRONG_TAG.fullmatch(etag) else None


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


def refuse_special(path: Path) -> bool:
    """Refuse a path at which something else than a regular file is. Returns whether a file is there.

    A symbolic link is refused like a device. To replace the link would take away what was not meant (as
    root even `/dev/stdout`), and to write through it would change a file that nobody named.

    Raises:
        SettingsError: a link, folder, device, named pipe or socket is there.
        OSError: nobody can tell, as the name is too long or a folder on the way may not be read.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISREG(mode):
        return True
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    raise SettingsError(
        f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}, no regular file, and is not replaced,"
        " not even by --force. Name another path.",
        code="no-regular-file",
    )


def part_path(target: Path) -> Path:
    """Where the bytes of an unfinished download to `target` are."""
    return target.with_name(f"{target.name}.part")


class PartialFile:
    """`PATH.part` and its sidecar, locked against a second download to the same path.

    Args:
        target: the path of the whole file.

    Raises:
        SettingsError: `PATH.part` is there, and is no regular file; a symbolic link is not followed.
    """

    def __init__(self, target: Path) -> None:
        self.path = part_path(target)
        self._sidecar = target.with_name(f"{target.name}.part.json")
        self._target = target
        refuse_special(self.path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_DETOUR
        self._file: BinaryIO = os.fdopen(os.open(self.path, flags, 0o666), "ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise CliError(
                f"Another download to {target} is under way. Wait for it, or name another path.",
                code="busy",
                exit_code=ExitCode.USAGE,
            ) from None
        self._sidecar_of: Origin | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.path.exists() and self.size == 0:  # nothing came: leave nothing
                self.path.unlink()
                self._sidecar.unlink(missing_ok=True)
        finally:
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
                found = msgspec.json.decode(self._sidecar_bytes(), type=Origin)
            except (OSError, ValueError, RecursionError):
                return None
            self._sidecar_of = found if strong(found.etag) is not None else None
        return self._sidecar_of

    def _sidecar_bytes(self) -> bytes:
        with os.fdopen(os.open(self._sidecar, os.O_RDONLY | NO_DETOUR), "rb") as file:
            return file.read(MOST_SIDECAR_BYTES) or b""

    def begin(self, origin: Origin | None) -> None:
        """Drop what is there, and note what the coming bytes are from; None if they cannot be resumed."""
        self._file.truncate(0)
        self._sidecar_of = origin
        # Made anew, so that nothing is written through a link that somebody put there.
        self._sidecar.unlink(missing_ok=True)
        if origin is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_DETOUR
            with os.fdopen(os.open(self._sidecar, flags, 0o666), "wb") as file:
                file.write(msgspec.json.encode(origin))

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
