"""The byte layout of a result zip: every byte that is not a member's data, and where it stands.

Pure: nothing here reads, writes or waits. The same order, names, sizes, CRCs and timestamp always give the
same bytes. Members are stored, and each local header is complete, without a data descriptor, so that an
archive can be read from a pipe. A streamer writes the header before it knows the CRC, then patches 4 bytes:

    layout = ZipLayout(modified)
    write(layout.begin(name, size))      # CRC 0
    write(data)                          # exactly `size` bytes
    patch(layout.finish(crc32))          # offset and bytes; may lie in a part not yet uploaded
    write(layout.trailer())

To plan a server-side copy without data, see `plan` and `archive_size`. To go on from a checkpoint, call
`begin` and `finish` again for each member that is done, with its known CRC, and throw the bytes away.

Section numbers are those of PKWARE's APPNOTE.TXT 6.3.10,
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT. All offsets and sizes are bytes; all integers in
the archive are little-endian (4.4.1.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

LOCAL_CRC_OFFSET: Final = 14
"""The CRC-32 in a local header stands behind the signature (4 bytes) and five fields of 2 bytes (4.3.7)."""

ZIP64_LIMIT: Final = 0xFFFFFFFF
"""A 4-byte field cannot hold this or more: the value itself means "see the zip64 field" (4.4.8, 4.4.16)."""

ZIP64_COUNT_LIMIT: Final = 0xFFFF
"""The same for the 2-byte counts of entries (4.4.21, 4.4.22)."""

MAX_NAME_BYTES: Final = 0xFFFF
"""The longest encoded name: its length is a 2-byte field (4.4.10)."""

MAX_POSITION: Final = 2**63 - 1
"""No member ends beyond: the format could say 2**64 - 1, but many readers keep offsets in signed 64 bits."""

EARLIEST: Final = datetime(1980, 1, 1, tzinfo=UTC)
"""The first moment a DOS date can say: its years count from 1980 (4.4.6)."""

LATEST: Final = datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC)
"""The last one: 7 bits for the year, and seconds in steps of two (4.4.6)."""

_COMMON: Final = struct.Struct("<5H3I2H")  # from version needed to extra field length: 4.3.7 and 4.3.12
_CENTRAL_REST: Final = struct.Struct("<3H2I")  # from comment length to local header's offset: 4.3.12
_END64: Final = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
_LOCATOR64: Final = struct.Struct("<4sIQI")  # 4.3.15
_END: Final = struct.Struct("<4s4H2IH")  # 4.3.16

_LOCAL_LENGTH: Final = 4 + _COMMON.size
"""A local header without name and extra field: signature and the common fields, 30 bytes (4.3.7)."""

_CENTRAL_LENGTH: Final = 4 + 2 + _COMMON.size + _CENTRAL_REST.size
"""A central header without name and extra field, 46 bytes; the 2 are "version made by" (4.3.12)."""

_END64_LENGTH: Final = _END64.size - 12
"""What the zip64 end record says of its length: its signature and this field do not count (4.3.14.1)."""

_ZIP64_EXTRA_ID: Final = 0x0001
"""The header ID of the zip64 extended information extra field (4.5.3)."""

_STORED: Final = 0
"""Compression method: the files are compressed already (4.4.5)."""

_UTF8_NAME: Final = 1 << 11
"""General purpose flag: the name is UTF-8, not IBM code page 437 (4.4.4, D.1)."""

_NEEDS_DEFAULT: Final = 10
"""Version needed to extract a stored file: 1.0 (4.4.3.2)."""

_NEEDS_ZIP64: Final = 45
"""Version needed where a record has zip64 fields: 4.5 (4.4.3.2)."""

_MAX_CRC32: Final = 0xFFFFFFFF
"""A CRC-32 is an unsigned 4-byte field (4.4.7)."""

_MADE_BY: Final = (3 << 8) | 63
"""Unix, so that the external attributes below are read as a mode; specification 6.3 (4.4.2)."""

_EXTERNAL_ATTRIBUTES: Final = 0o100644 << 16
"""Regular file, rw-r--r--: for Unix the upper half is `st_mode`, and 0 would make files nobody may read."""

_SHOWN_CHARACTERS: Final = 100
"""How much of a name an error's text shows: enough to find it, little enough for a log line."""


class ZipLayoutError(ValueError):
    """A name, size, CRC, time or order of calls that would not give a sound archive."""


@dataclass(frozen=True, slots=True)
class CrcPatch:
    """Bytes to write over the zero CRC of a local header.

    Attributes:
        offset: Where in the archive, in bytes from its start.
        data: The CRC-32, 4 bytes, little-endian.
    """

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one member stands; offsets are bytes from the start of the archive.

    Attributes:
        name: The member's name, with `/` between segments.
        size: Its data, in bytes; stored, so this is both the compressed and the uncompressed size.
        header_offset: The first byte of its local header.
        data_offset: The first byte of its data, directly after that header.
    """

    name: str
    size: int
    header_offset: int
    data_offset: int

    @property
    def crc_offset(self) -> int:
        """The first of the 4 bytes that `CrcPatch` replaces."""
        return self.header_offset + LOCAL_CRC_OFFSET

    @property
    def end(self) -> int:
        """The first byte after the data: the next member's header, or the central directory."""
        return self.data_offset + self.size


class _DosStamp(NamedTuple):
    """MS-DOS time and date, 2 bytes each (4.4.6)."""

    time: int
    date: int


def plan(members: Iterable[tuple[str, int]]) -> Iterator[Placement]:
    """Where each member would stand, without data or CRCs.

    Args:
        members: Name and size in bytes, in the order of the archive.

    Yields:
        One placement a member, the same that `ZipLayout` gives it.

    Raises:
        ZipLayoutError: A name is illegal or there twice, or a size is out of range.
    """
    seen: set[str] = set()
    position = 0
    for name, size in members:
        if name in seen:
            raise _duplicate(name)
        seen.add(name)
        placement = _place(name, size, position)
        position = placement.end
        yield placement


def archive_size(members: Iterable[tuple[str, int]]) -> int:
    """The length in bytes of the whole archive, from names and sizes alone.

    Args:
        members: Name and size in bytes, in the order of the archive. The order matters: only members that
            begin beyond 4 GiB need a longer entry in the central directory.

    Raises:
        ZipLayoutError: As for `plan`.
    """
    count = position = directory_size = 0
    for placement in plan(members):
        count += 1
        position = placement.end
        directory_size += _CENTRAL_LENGTH + len(placement.name.encode()) + len(_central_extra(placement))
    end_size = _END.size
    if _needs_zip64_end(count, directory_size, position):
        end_size += _END64.size + _LOCATOR64.size
    return position + directory_size + end_size


class ZipLayout:
    """The layout of one archive, written in order: `begin`, `finish`, `begin`, `finish`, …, `trailer`.

    It keeps a few hundred bytes a member, never data. Not thread-safe: one writer owns it.

    Args:
        modified: The one timestamp of all members: aware; written in UTC, rounded down to even seconds,
            clamped to 1980 to 2107. Take it from what does not change between attempts, such as the job's
            submission, or the bytes will differ.

    Raises:
        ZipLayoutError: `modified` is naive.
    """

    __slots__ = ("_crcs", "_members", "_open", "_position", "_stamp")

    def __init__(self, modified: datetime) -> None:
        self._stamp = _dos_stamp(modified)
        self._members: dict[str, Placement] = {}
        self._crcs: list[int] = []  # of finished members, in the order of `_members`
        self._open: Placement | None = None  # the member that is begun and not finished
        self._position = 0

    @property
    def position(self) -> int:
        """Bytes of the archive so far; the data of an open member counts in full."""
        return self._position

    @property
    def placements(self) -> tuple[Placement, ...]:
        """All members in order, an open one too. A copy: it does not follow later changes."""
        return tuple(self._members.values())

    def begin(self, name: str, size: int) -> bytes:
        """Opens the next member and returns its local header, whose CRC is still 0.

        Args:
            name: At most `MAX_NAME_BYTES` in UTF-8; relative, with `/` between segments, none of which is
                empty, `.` or `..`. Names that a file system cannot hold side by side (`a` and `a/b`, or `A`
                and `a` where case does not count) are the caller's to avoid.
            size: Exactly how many bytes of data will follow the header.

        Raises:
            ZipLayoutError: A member is open, the name is illegal or taken, or the size is out of range. The
                layout is then as before.
        """
        if self._open is not None:
            raise ZipLayoutError("The last member is still open: finish it before the next.")
        if name in self._members:
            raise _duplicate(name)
        placement = _place(name, size, self._position)
        self._members[name] = placement
        self._open = placement
        self._position = placement.end
        return _pack_local_header(name, size, self._stamp)

    def finish(self, crc32: int) -> CrcPatch:
        """Closes the open member and returns what to write over the zero CRC in its header.

        Args:
            crc32: The CRC-32 of its data, as from `zlib.crc32`. For a plan, any value will do.

        Raises:
            ZipLayoutError: No member is open, or the CRC is not an unsigned 32-bit number.
        """
        if self._open is None:
            raise ZipLayoutError("No member is open.")
        if not 0 <= crc32 <= _MAX_CRC32:
            raise ZipLayoutError(f"{crc32} is not an unsigned 32-bit number, so no CRC-32.")
        self._crcs.append(crc32)
        crc_offset, self._open = self._open.crc_offset, None
        return CrcPatch(crc_offset, crc32.to_bytes(4, "little"))

    def trailer(self) -> bytes:
        """The central directory and the end records, to stand at `position`; changes nothing.

        The zip64 end record and locator are there only if a field of the end record overflows, and only the
        fields that do are set to all ones (4.4.1.4): readers have refused archives that set the others too
        (libarchive's issue 869).

        Raises:
            ZipLayoutError: A member is open.
        """
        if self._open is not None:
            raise ZipLayoutError("The last member is still open: finish it before the trailer.")
        trailer = bytearray()
        for placement, crc32 in zip(self._members.values(), self._crcs, strict=True):
            trailer += _pack_central_header(placement, self._stamp, crc32)
        trailer += _pack_end(len(self._members), len(trailer), self._position)
        return bytes(trailer)


def _place(name: str, size: int, position: int) -> Placement:
    """Checks one member and places it at `position`."""
    name_length = len(_encode_name(name))
    if not 0 <= size <= MAX_POSITION:
        raise ZipLayoutError(f"{_shown(name)} cannot have {size} bytes.")
    placement = Placement(
        name, size, position, position + _LOCAL_LENGTH + name_length + len(_local_extra(size))
    )
    if placement.end > MAX_POSITION:
        raise ZipLayoutError(f"{_shown(name)} with {size} bytes would end beyond {MAX_POSITION} bytes.")
    return placement


def _encode_name(name: str) -> bytes:
    """Refuses what 4.4.17.1 forbids, and names of no file, of another file, or of one outside the target."""
    if not name:
        raise ZipLayoutError("A member's name is empty.")
    if "\0" in name:
        raise ZipLayoutError(f"{_shown(name)} has a NUL, at which many readers would cut the name.")
    if "\\" in name:
        raise ZipLayoutError(f"{_shown(name)} has a backslash, which Windows takes for a separator.")
    if name.startswith("/") or (name[1:2] == ":" and name[0].isascii() and name[0].isalpha()):
        raise ZipLayoutError(f"{_shown(name)} is absolute.")
    if name.endswith("/"):
        raise ZipLayoutError(f"{_shown(name)} ends in a slash, which makes it a directory.")
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ZipLayoutError(f"{_shown(name)} has a segment that is empty, '.' or '..'.")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise ZipLayoutError(f"{_shown(name)} has a lone surrogate, which UTF-8 cannot encode.") from error
    if len(encoded) > MAX_NAME_BYTES:
        raise ZipLayoutError(f"{_shown(name)} is {len(encoded)} bytes long, more than {MAX_NAME_BYTES}.")
    return encoded


def _shown(name: str) -> str:
    return repr(name) if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]!r}…"


def _duplicate(name: str) -> ZipLayoutError:
    return ZipLayoutError(f"There are two members named {_shown(name)}.")


def _dos_stamp(modified: datetime) -> _DosStamp:
    """DOS times have no zone (4.4.6); UTC, so that the bytes do not depend on where the worker runs."""
    if modified.utcoffset() is None:
        raise ZipLayoutError("The time of modification has no time zone.")
    utc = min(max(modified, EARLIEST), LATEST).astimezone(UTC)
    return _DosStamp(
        time=utc.hour << 11 | utc.minute << 5 | utc.second // 2,
        date=(utc.year - EARLIEST.year) << 9 | utc.month << 5 | utc.day,
    )


def _flags(name: str) -> int:
    """Bit 11 only where it makes a difference; bit 3, data descriptor, never (4.4.4).

    A name of printable ASCII is the same bytes in UTF-8 and in code page 437 (D.1). With no flag at all it is
    understood by every streaming reader, also by one that knows no bit 11, or refuses flags it does not know;
    Python's zipfile and Info-ZIP do the same. Code page 437 has pictures in place of control characters, so
    these count as not ASCII here.
    """
    return 0 if name.isascii() and name.isprintable() else _UTF8_NAME


def _zip64_extra(*values: int) -> bytes:
    """The zip64 extra field with these 8-byte values in the order of 4.5.3; empty where there are none."""
    if not values:
        return b""
    return struct.pack(f"<2H{len(values)}Q", _ZIP64_EXTRA_ID, 8 * len(values), *values)


def _local_extra(size: int) -> bytes:
    return _zip64_extra(size, size) if size >= ZIP64_LIMIT else b""


def _central_extra(placement: Placement) -> bytes:
    """Only fields whose 4-byte twin is all ones may appear (4.5.3): both sizes, the offset, or all three.

    Seen: Debian's unzip 6.00 misreads what follows a member of exactly 0xFFFFFFFF bytes, the one size
    that looks like its own marker. 7-Zip, libarchive, Java and Python read it.
    """
    sizes = (placement.size, placement.size) if placement.size >= ZIP64_LIMIT else ()
    offset = (placement.header_offset,) if placement.header_offset >= ZIP64_LIMIT else ()
    return _zip64_extra(*sizes, *offset)


def _needs_zip64_end(count: int, directory_size: int, directory_offset: int) -> bool:
    return count >= ZIP64_COUNT_LIMIT or max(directory_size, directory_offset) >= ZIP64_LIMIT


def _pack_local_header(name: str, size: int, stamp: _DosStamp) -> bytes:
    """30 bytes with a CRC of 0, the name, and the zip64 field if needed (4.3.7).

    That field is there from 0xFFFFFFFF bytes up, and holds both sizes, as 4.5.3 demands of a local header.
    Below, a reader needs no more than version 1.0 of the format.
    """
    extra = _local_extra(size)
    return b"PK\x03\x04" + _pack_common(name, size, stamp, 0, extra) + name.encode() + extra


def _pack_central_header(placement: Placement, stamp: _DosStamp, crc32: int) -> bytes:
    extra = _central_extra(placement)
    rest = _CENTRAL_REST.pack(
        0,  # length of the comment
        0,  # disk on which the member begins
        0,  # internal attributes: binary data
        _EXTERNAL_ATTRIBUTES,
        min(placement.header_offset, ZIP64_LIMIT),
    )
    return (
        b"PK\x01\x02"
        + _MADE_BY.to_bytes(2, "little")
        + _pack_common(placement.name, placement.size, stamp, crc32, extra)
        + rest
        + placement.name.encode()
        + extra
    )


def _pack_common(name: str, size: int, stamp: _DosStamp, crc32: int, extra: bytes) -> bytes:
    """The fields that local and central header share, in the same order in both."""
    return _COMMON.pack(
        _NEEDS_ZIP64 if extra else _NEEDS_DEFAULT,
        _flags(name),
        _STORED,
        stamp.time,
        stamp.date,
        crc32,
        min(size, ZIP64_LIMIT),  # compressed
        min(size, ZIP64_LIMIT),  # uncompressed
        len(name.encode()),
        len(extra),
    )


def _pack_end(count: int, directory_size: int, directory_offset: int) -> bytes:
    """The end record, behind its zip64 record and locator where one of its fields overflows."""
    zip64 = b""
    if _needs_zip64_end(count, directory_size, directory_offset):
        zip64 = _END64.pack(
            b"PK\x06\x06",
            _END64_LENGTH,
            _MADE_BY,
            _NEEDS_ZIP64,
            0,  # this disk
            0,  # disk with the start of the central directory
            count,  # entries on this disk
            count,
            directory_size,
            directory_offset,
        ) + _LOCATOR64.pack(
            b"PK\x06\x07",
            0,  # disk with the zip64 end record
            directory_offset + directory_size,
            1,  # disks in total
        )
    count_field = min(count, ZIP64_COUNT_LIMIT)
    return zip64 + _END.pack(
        b"PK\x05\x06",
        0,  # this disk
        0,  # disk with the start of the central directory
        count_field,  # entries on this disk
        count_field,
        min(directory_size, ZIP64_LIMIT),
        min(directory_offset, ZIP64_LIMIT),
        0,  # length of the comment
    )
