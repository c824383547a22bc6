"""Verifies a result: the zip opens, every member's bytes have their CRC-32, and the manifest agrees.

The manifest is `manifest.json`, the zip's member that says what became of every requested file
(`docs/manifest.md`). It is read here as data from outside: nothing in it is taken for granted.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

MANIFEST: Final = "manifest.json"
MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024
"""A manifest of 1,000 files has about 200 kB; far beyond, it is no manifest of ours."""

CHUNK_BYTES: Final = 1024 * 1024

OK: Final = "ok"

BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,  # encrypted; and its NotImplementedError: compressed in an unknown way
    ValueError,
)
"""What zipfile raises for archives that are broken or not ours."""


class ManifestFile(msgspec.Struct, frozen=True, rename="camel"):
    """What became of one requested file. `crc32` is hexadecimal, `size` in bytes."""

    file_id: int
    name: str
    status: str
    size: int | None = None
    crc32: str | None = None
    error: str | None = None
    message: str | None = None


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """The members of the manifest that are checked."""

    files: list[ManifestFile]
    job_id: str | None = ""
    """None in a result that several jobs may share."""
    total_file_ids: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """A member as it was read: how many bytes, and their CRC-32."""

    size: int
    crc32: int


@dataclass(slots=True)
class Report:
    """What verifying found.

    Attributes:
        members: every member that could be read whole and has its CRC-32, by name; with the manifest.
        damaged: the names of the others.
        missing: files that were asked for and are not in the result, as the manifest says.
        problems: what is wrong, one sentence each; empty for a sound result.
    """

    members: dict[str, Member] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    missing: list[ManifestFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether the zip is what it says it is. A sound result may still lack files."""
        return not self.problems

    @property
    def whole(self) -> bool:
        """Whether it is sound, and every file that was asked for is in it."""
        return self.sound and not self.missing

    @property
    def files(self) -> int:
        """How many files are in it, without the manifest."""
        return len(self.members) - (MANIFEST in self.members)

    @property
    def data_bytes(self) -> int:
        """Bytes of all members."""
        return sum(member.size for member in self.members.values())


def verify(
    path: Path,
    *,
    job_id: str | None = None,
    files: int | None = None,
    read: Callable[[int], None] = lambda count: None,  # noqa: ARG005 - nobody listens
) -> Report:
    """Read a whole result and compare it with its manifest.

    Args:
        path: the zip.
        job_id: the job whose result it must be, if that is known.
        files: how many distinct files were asked for, if that is known.
        read: told how many bytes were read since the last call.

    Returns:
        the report; a broken archive is a problem in it, no exception.

    Raises:
        OSError: the file cannot be read.
    """
    report = Report()
    try:
        with zipfile.ZipFile(path) as archive:
            content = _read_members(archive, report, read)
    except BROKEN as error:
        report.problems.append(f"It is no zip, or its end is missing: {str(error).rstrip('.')}.")
        return report
    if content is None:
        return report
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        report.problems.append(f"{MANIFEST} cannot be understood: {error}.")
        return report
    if job_id is not None and manifest.job_id not in {job_id, None}:
        report.problems.append(f"{MANIFEST} is of job {manifest.job_id or '(none)'}, not of {job_id}.")
    report.missing = [file for file in manifest.files if file.status != OK]
    report.problems += compare(manifest.files, report.members, report.damaged, files)
    return report


def _read_members(archive: zipfile.ZipFile, report: Report, read: Callable[[int], None]) -> bytes | None:
    """Read every member to its end. Returns the manifest's bytes if it could be read."""
    manifest: bytes | None = None
    names = Counter(info.filename for info in archive.infolist())
    report.problems += [f"{name} is in the zip {count} times." for name, count in names.items() if count > 1]
    if MANIFEST not in names:
        report.problems.append(f"{MANIFEST} is not in the zip.")
    for info in archive.infolist():
        kept = bytearray()
        crc32 = size = 0
        try:
            if info.header_offset < 0:
                raise zipfile.BadZipFile("it would begin before the file does")
            with archive.open(info) as member:
                while chunk := member.read(CHUNK_BYTES):
                    crc32 = zlib.crc32(chunk, crc32)
                    size += len(chunk)
                    read(len(chunk))
                    if info.filename == MANIFEST and size <= MAX_MANIFEST_BYTES:
                        kept += chunk
        except BROKEN as error:
            report.problems.append(f"{info.filename} is damaged: {str(error).rstrip('.')}.")
            report.damaged.add(info.filename)
            continue
        if size != info.file_size:  # zipfile compares the CRC only at the end it expects
            report.problems.append(f"{info.filename} is cut: {size:,} of {info.file_size:,} bytes.")
            report.damaged.add(info.filename)
            continue
        report.members[info.filename] = Member(size, crc32)
        if info.filename == MANIFEST:
            manifest = bytes(kept)
    return manifest


def compare(
    listed: Sequence[ManifestFile],
    members: Mapping[str, Member],
    damaged: AbstractSet[str] = frozenset(),
    files: int | None = None,
) -> list[str]:
    """What the manifest and the zip's members do not agree on.

    Args:
        listed: the manifest's files.
        members: the members that could be read, by name, with the manifest.
        damaged: the names of members that could not be read; they are told of already.
        files: how many distinct files were asked for, if that is known.
    """
    problems = []
    if files is not None and len(listed) != files:
        problems.append(f"{MANIFEST} lists {len(listed):,} files, but {files:,} were asked for.")
    names = Counter(file.name for file in listed)
    problems += [f"{MANIFEST} lists {name} {count} times." for name, count in names.items() if count > 1]
    for file in listed:
        member = members.get(file.name)
        if file.status != OK:
            if member is not None:
                problems.append(f"{file.name} is in the zip, but {MANIFEST} says it failed.")
        elif member is None:
            if file.name not in damaged:
                problems.append(f"{file.name} is listed in {MANIFEST}, but is not in the zip.")
        elif file.size != member.size:
            problems.append(
                f"{file.name} has {member.size:,} bytes, but {MANIFEST} says {_shown(file.size)}."
            )
        elif _crc32(file.crc32) != member.crc32:
            problems.append(
                f"{file.name} has the CRC-32 {member.crc32:08x}, but {MANIFEST} says {file.crc32 or 'none'}."
            )
    unlisted = members.keys() - names.keys() - {MANIFEST}
    problems += [f"{name} is in the zip, but not in {MANIFEST}." for name in sorted(unlisted)]
    return problems


def _crc32(text: str | None) -> int | None:
    try:
        return int(text or "", 16)
    except ValueError:
        return None


def _shown(size: int | None) -> str:
    return "nothing" if size is None else f"{size:,}"
