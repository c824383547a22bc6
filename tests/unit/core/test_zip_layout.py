"""The rules of `downloadjobs_core.zip_layout`, each read back by readers that others wrote."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downloadjobs_core import zip_layout
from downloadjobs_core.zip_layout import (
    EARLIEST,
    LATEST,
    LOCAL_CRC_OFFSET,
    MAX_NAME_BYTES,
    MAX_POSITION,
    ZIP64_COUNT_LIMIT,
    ZIP64_LIMIT,
    CrcPatch,
    Placement,
    ZipLayout,
    ZipLayoutError,
    _pack_end,
    archive_size,
    plan,
)

Members = Sequence[tuple[str, bytes]]

MODIFIED = datetime(2024, 2, 29, 13, 37, 59, tzinfo=UTC)
GIB = 1 << 30

ILLEGAL_NAMES = {
    "empty": "",
    "absolute": "/etc/passwd",
    "only a slash": "/",
    "a drive letter": "C:/windows",
    "a drive letter without a slash": "c:windows",
    "parent": "..",
    "parent first": "../a",
    "parent inside": "a/../b",
    "parent last": "a/..",
    "this directory": "./a",
    "an empty segment": "a//b",
    "a directory": "a/",
    "a backslash": "a\\b",
    "NUL": "a\0b",
    "a lone surrogate": "a\ud800",
    "too long": "a" * (MAX_NAME_BYTES + 1),
    "too long only when encoded": "é" * (MAX_NAME_BYTES // 2 + 1),
}


def build(members: Members, modified: datetime = MODIFIED) -> bytes:
    """An archive as a streamer makes it: headers with CRC 0, patched afterwards."""
    layout = ZipLayout(modified)
    archive = bytearray()
    for name, data in members:
        archive += layout.begin(name, len(data))
        archive += data
        patch = layout.finish(zlib.crc32(data))
        archive[patch.offset : patch.offset + 4] = patch.data
    return bytes(archive + layout.trailer())


def header(name: str, size: int, modified: datetime = MODIFIED) -> bytes:
    """A member's local header, at the start of an archive."""
    return ZipLayout(modified).begin(name, size)


def planned(members: Sequence[tuple[str, int]]) -> ZipLayout:
    """A layout of members whose data nobody has."""
    layout = ZipLayout(MODIFIED)
    for name, size in members:
        layout.begin(name, size)
        layout.finish(0)
    return layout


def is_legal(name: str) -> bool:
    """Whether the layout takes this name."""
    try:
        header(name, 0)
    except ZipLayoutError:
        return False
    return True


any_name = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\\"), min_size=1, max_size=30
).filter(is_legal)
any_members = st.lists(
    st.tuples(any_name, st.binary(max_size=300)), max_size=12, unique_by=lambda member: member[0]
)
# For tools that write or print names: no control characters, and a number in front, so that no name is also
# the directory of another.
plain_names = st.text("abc xyz._-()[]+é日本語Ж𝄞/", min_size=1, max_size=20).filter(is_legal)
plain_members = st.lists(st.tuples(plain_names, st.binary(max_size=300)), min_size=1, max_size=12).map(
    lambda members: [(f"{index}-{name}", data) for index, (name, data) in enumerate(members)]
)


@contextmanager
def archive_file(archive: bytes) -> Iterator[Path]:
    """The archive as a file, for one example of a test."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "result.zip"
        path.write_bytes(archive)
        yield path


def run(*command: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> str:
    """Runs a tool that must succeed without complaint; returns its standard output."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*map(str, command)], input=stdin, cwd=cwd, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert done.stderr == b""
    return done.stdout.decode()


def needs(tool: str) -> pytest.MarkDecorator:
    """Skips a test, by the tool's name, where the tool is not installed."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


# Bytes


def test_golden_archive_of_one_member() -> None:
    """The bytes of a one-member archive are those worked out by hand from the specification."""
    by_hand = (
        # local header: needs 1.0, no flags, stored, 13:37:58, 2024-02-29
        "504b0304 0a00 0000 0000 bd6c 5d58"
        # crc-32 of "hello", sizes 5 and 5, name of 5 bytes, no extra
        "86a61036 05000000 05000000 0500 0000"
        # "a.txt", "hello"
        "612e747874 68656c6c6f"
        # central header: made by Unix 6.3, then as above
        "504b0102 3f03 0a00 0000 0000 bd6c 5d58 86a61036 05000000 05000000 0500 0000"
        # no comment, disk 0, no internal attributes, -rw-r--r--, header at 0, "a.txt"
        "0000 0000 0000 0000a481 00000000 612e747874"
        # end: disk 0 and 0, 1 entry of 1, directory of 51 bytes at 40, no comment
        "504b0506 0000 0000 0100 0100 33000000 28000000 0000"
    )
    assert build([("a.txt", b"hello")]) == bytes.fromhex(by_hand)


def test_golden_zip64_local_header() -> None:
    """From 0xFFFFFFFF bytes up, a local header has both sizes in a zip64 field and needs version 4.5."""
    by_hand = (
        "504b0304 2d00 0000 0000 bd6c 5d58 00000000 ffffffff ffffffff 0100 1400 62"
        "0100 1000 ffffffff00000000 ffffffff00000000"
    )
    assert header("b", 0xFFFFFFFF) == bytes.fromhex(by_hand)


def test_golden_zip64_trailer() -> None:
    """Beyond 4 GiB a central entry has its offset as zip64, and the end record has a zip64 twin."""
    big = 5 * GIB
    trailer = planned([("b", big), ("c", 0)]).trailer()
    by_hand = (
        # "b": sizes 5 GiB and 5 GiB in zip64, its offset 0 in its own field
        "504b0102 3f03 2d00 0000 0000 bd6c 5d58 00000000 ffffffff ffffffff 0100 1400"
        "0000 0000 0000 0000a481 00000000 62 0100 1000 0000004001000000 0000004001000000"
        # "c": sizes 0 in their own fields, its offset 5 GiB + 51 in zip64
        "504b0102 3f03 2d00 0000 0000 bd6c 5d58 00000000 00000000 00000000 0100 0c00"
        "0000 0000 0000 0000a481 ffffffff 63 0100 0800 3300004001000000"
        # zip64 end: 44 bytes follow, 2 entries of 2, directory of 126 bytes at 5 GiB + 82
        "504b0606 2c00000000000000 3f03 2d00 00000000 00000000"
        "0200000000000000 0200000000000000 7e00000000000000 5200004001000000"
        # locator: disk 0, zip64 end at 5 GiB + 208, 1 disk
        "504b0607 00000000 d000004001000000 01000000"
        # end: only the offset is too large for it
        "504b0506 0000 0000 0200 0200 7e000000 ffffffff 0000"
    )
    assert trailer == bytes.fromhex(by_hand)


def test_empty_archive_is_its_end_record() -> None:
    """An archive without members is the 22 bytes of the end record (4.3.1)."""
    archive = build([])
    assert archive == b"PK\x05\x06" + bytes(18)
    assert zipfile.ZipFile(BytesIO(archive)).namelist() == []


@pytest.mark.parametrize(("name", "flags"), [("a b~.txt", 0), ("é.txt", 0x800), ("a\tb", 0x800)])
def test_utf8_flag_only_where_it_matters(name: str, flags: int) -> None:
    """Bit 11 is set, in both headers, only for names that are not printable ASCII; they are UTF-8."""
    archive = build([(name, b"")])
    central = archive.index(b"PK\x01\x02")
    assert struct.unpack_from("<H", archive, 6) == (flags,)
    assert struct.unpack_from("<H", archive, central + 8) == (flags,)
    assert archive[30:].startswith(name.encode())


@given(any_members)
def test_local_headers_alone_tell_the_members(members: Members) -> None:
    """A reader that goes forward from local header to local header finds every name, size, CRC and byte."""
    archive = build(members)
    found = []
    position = 0
    while archive[position : position + 4] == b"PK\x03\x04":
        flags, method = struct.unpack_from("<2H", archive, position + 6)
        crc32, packed, size, name_length, extra_length = struct.unpack_from("<3I2H", archive, position + 14)
        name_at = position + 30
        data_at = name_at + name_length + extra_length
        data = archive[data_at : data_at + size]
        assert flags & ~0x800 == 0, "bit 3 would mean a data descriptor"
        assert (method, packed, crc32) == (0, size, zlib.crc32(data))
        found.append((archive[name_at : name_at + name_length].decode(), data))
        position = data_at + size
    assert found == members


# Time


@pytest.mark.parametrize(
    ("modified", "time", "date"),
    [
        (datetime(1980, 1, 1, 0, 0, 0, tzinfo=UTC), 0x0000, 0x0021),
        (datetime(1979, 12, 31, 23, 59, 59, tzinfo=UTC), 0x0000, 0x0021),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), 0x0000, 0x0021),
        (datetime(2107, 12, 31, 23, 59, 59, tzinfo=UTC), 0xBF7D, 0xFF9F),
        (datetime(2108, 1, 1, tzinfo=UTC), 0xBF7D, 0xFF9F),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), 0xBF7D, 0xFF9F),
    ],
)
def test_time_is_clamped(modified: datetime, time: int, date: int) -> None:
    """Moments that a DOS time cannot say become 1980-01-01 00:00:00 or 2107-12-31 23:59:58."""
    assert struct.unpack_from("<2H", header("a", 0, modified), 10) == (time, date)


@given(st.datetimes(EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None), timezones=st.just(UTC)))
def test_time_is_rounded_down_to_even_seconds(modified: datetime) -> None:
    """A member's time is the given one in UTC, rounded down to even seconds."""
    info = zipfile.ZipFile(BytesIO(build([("a", b"")], modified))).getinfo("a")
    assert datetime(*info.date_time, tzinfo=UTC) == modified.replace(
        second=modified.second & ~1, microsecond=0
    )


def test_time_is_written_in_utc() -> None:
    """The same moment gives the same bytes, in whatever time zone it is told."""
    elsewhere = MODIFIED.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    assert build([("a", b"1")], elsewhere) == build([("a", b"1")], MODIFIED)


def test_naive_time_is_refused() -> None:
    """A time without a zone is refused: it would mean another moment on another machine."""
    naive = MODIFIED.replace(tzinfo=None)
    with pytest.raises(ZipLayoutError, match="time zone"):
        ZipLayout(naive)


# Readers


@given(any_members)
def test_python_zipfile_reads_it(members: Members) -> None:
    """Python's zipfile finds all names and contents in order, and no fault."""
    with zipfile.ZipFile(BytesIO(build(members))) as archive:
        assert archive.testzip() is None
        assert [(info.orig_filename, archive.read(info)) for info in archive.infolist()] == members


@needs("unzip")
@settings(max_examples=15, deadline=None)
@given(plain_members)
def test_unzip_reads_it(members: Members) -> None:
    """Info-ZIP's unzip finds no fault."""
    with archive_file(build(members)) as path:
        assert "No errors detected" in run("unzip", "-t", path)


@needs("7z")
@settings(max_examples=15, deadline=None)
@given(plain_members)
def test_7z_reads_it(members: Members) -> None:
    """7-Zip, which compares local with central headers, finds no fault and no warning."""
    with archive_file(build(members)) as path:
        assert "Everything is Ok" in run("7z", "t", path)


@needs("bsdtar")
@settings(max_examples=15, deadline=None)
@given(plain_members)
def test_bsdtar_reads_it_from_a_pipe(members: Members) -> None:
    """The streaming reader of libarchive, which cannot seek to the directory, extracts every file."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory)
        run("bsdtar", "-xf", "-", stdin=build(members), cwd=target)
        extracted = {
            path.relative_to(target).as_posix(): path.read_bytes()
            for path in target.rglob("*")
            if path.is_file()
        }
    assert extracted == dict(members)


@needs("java")
def test_java_zip_input_stream_reads_it(tmp_path: Path) -> None:
    """Java's ZipInputStream, which refuses stored members with data descriptors, reads all from a pipe."""
    source = tmp_path / "Read.java"
    source.write_text(
        """
        import java.io.PrintStream;
        import java.util.zip.CRC32;
        import java.util.zip.ZipInputStream;

        class Read {
            public static void main(String[] arguments) throws Exception {
                PrintStream out = new PrintStream(System.out, true, "UTF-8");
                ZipInputStream zip = new ZipInputStream(System.in);
                for (var entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
                    CRC32 crc = new CRC32();
                    crc.update(zip.readAllBytes());
                    out.println(entry.getName() + "|" + entry.getSize() + "|" + crc.getValue());
                }
            }
        }
        """
    )
    members = [("a.txt", b"hello"), ("empty", b""), ("日本/é 𝄞.bin", bytes(range(256)) * 100)]
    stdout = run(
        "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", source, stdin=build(members), cwd=tmp_path
    )
    assert stdout.splitlines() == [f"{name}|{len(data)}|{zlib.crc32(data)}" for name, data in members]


def test_longest_name_is_read() -> None:
    """A name of 65,535 bytes, the most its length field can say, is read back whole."""
    name = "é" * (MAX_NAME_BYTES // 2) + "a"
    assert len(name.encode()) == MAX_NAME_BYTES
    archive = zipfile.ZipFile(BytesIO(build([(name, b"data"), ("b", b"more")])))
    assert archive.namelist() == [name, "b"]
    assert archive.testzip() is None


# Zip64


@pytest.mark.parametrize(
    ("size", "length"), [(ZIP64_LIMIT - 1, 31), (ZIP64_LIMIT, 51), (ZIP64_LIMIT + 1, 51)]
)
def test_local_header_is_zip64_from_the_limit_up(size: int, length: int) -> None:
    """A local header carries the 20-byte zip64 field iff the size is 0xFFFFFFFF or more."""
    assert len(header("a", size)) == length


@pytest.mark.parametrize(
    ("members", "extra_lengths"),
    [
        ([("a", ZIP64_LIMIT - 1), ("b", 0)], [0, 12]),
        ([("a", ZIP64_LIMIT), ("b", 0)], [20, 12]),
        ([("a", ZIP64_LIMIT), ("b", ZIP64_LIMIT)], [20, 28]),
        ([("a", ZIP64_LIMIT - 32), ("b", 0)], [0, 0]),
        ([("a", ZIP64_LIMIT - 31), ("b", 0)], [0, 12]),
    ],
)
def test_central_entries_carry_only_the_fields_they_need(
    members: list[tuple[str, int]], extra_lengths: list[int]
) -> None:
    """A central entry's zip64 field holds those of sizes and offset that overflow, or is absent."""
    trailer = planned(members).trailer()
    found = []
    position = 0
    while trailer[position : position + 4] == b"PK\x01\x02":
        name_length, extra_length = struct.unpack_from("<2H", trailer, position + 28)
        found.append(extra_length)
        position += 46 + name_length + extra_length
    assert found == extra_lengths


def has_zip64_end(trailer: bytes) -> bool:
    """Whether zip64 end record and locator stand before the end record; one without the other is a fault."""
    found = trailer[-98:-94] == b"PK\x06\x06", trailer[-42:-38] == b"PK\x06\x07"
    assert found in {(True, True), (False, False)}
    return all(found)


@pytest.mark.parametrize(("offset", "expected"), [(ZIP64_LIMIT - 1, False), (ZIP64_LIMIT, True)])
def test_zip64_end_record_where_the_offset_needs_it(offset: int, *, expected: bool) -> None:
    """There is a zip64 end record if the directory begins at 0xFFFFFFFF or beyond, else none."""
    layout = planned([("a", offset - 31)])
    assert layout.position == offset
    assert has_zip64_end(layout.trailer()) is expected


def test_zip64_end_record_where_the_directory_size_needs_it() -> None:
    """There is a zip64 end record from a directory of 0xFFFFFFFF bytes (4 GiB of names) up, else none."""
    assert not has_zip64_end(bytes(98) + _pack_end(1, ZIP64_LIMIT - 1, 0))
    assert has_zip64_end(_pack_end(1, ZIP64_LIMIT, 0))


def test_zip64_end_record_where_the_count_needs_it() -> None:
    """There is a zip64 end record from 65,535 members up, else none."""
    layout = planned([(f"{index}", 0) for index in range(ZIP64_COUNT_LIMIT - 1)])
    assert not has_zip64_end(layout.trailer())
    layout.begin("last", 0)
    layout.finish(0)
    assert has_zip64_end(layout.trailer())


@pytest.fixture
def sparse_archive(tmp_path: Path) -> Path:
    """An archive with 5 GiB of a hole between two small members; the big one's CRC is not its own."""
    path = tmp_path / "sparse.zip"
    layout = ZipLayout(MODIFIED)
    with path.open("wb") as file:
        for name, size, data in [("before", 3, b"one"), ("big", 5 * GIB, b""), ("after/é", 3, b"two")]:
            file.write(layout.begin(name, size))
            file.write(data)
            patch = layout.finish(zlib.crc32(data))
            file.seek(patch.offset)
            file.write(patch.data)
            file.seek(layout.position)
        file.write(layout.trailer())
    return path


def test_python_zipfile_reads_beyond_4_gib(sparse_archive: Path) -> None:
    """Python's zipfile finds sizes and offsets beyond 4 GiB, and reads a member that begins there."""
    with zipfile.ZipFile(sparse_archive) as archive:
        expected = plan([("before", 3), ("big", 5 * GIB), ("after/é", 3)])
        assert [(info.filename, info.file_size, info.header_offset) for info in archive.infolist()] == [
            (placement.name, placement.size, placement.header_offset) for placement in expected
        ]
        assert archive.read("before") == b"one"
        assert archive.read("after/é") == b"two"


@needs("unzip")
def test_unzip_reads_beyond_4_gib(sparse_archive: Path) -> None:
    """Info-ZIP's unzip reads a member that begins beyond 4 GiB."""
    assert run("unzip", "-p", sparse_archive, "after/é") == "two"


@needs("7z")
def test_7z_reads_beyond_4_gib(sparse_archive: Path) -> None:
    """7-Zip finds no fault in a member that begins beyond 4 GiB."""
    assert "Everything is Ok" in run("7z", "t", sparse_archive, "after/é")


@needs("bsdtar")
def test_bsdtar_reads_beyond_4_gib(sparse_archive: Path) -> None:
    """The seeking reader of libarchive reads a member that begins beyond 4 GiB."""
    assert run("bsdtar", "-xOf", sparse_archive, "after/é") == "two"


def test_more_than_65535_members() -> None:
    """An archive of 70,000 members opens with all of them, and `archive_size` knows its length."""
    names = [f"{index:05}" for index in range(70_000)]
    archive = build([(name, b"") for name in names])
    assert zipfile.ZipFile(BytesIO(archive)).namelist() == names
    assert archive_size((name, 0) for name in names) == len(archive)


# Plans


@given(any_members)
def test_archive_size_is_the_real_length(members: Members) -> None:
    """`archive_size` says exactly how long the archive will be."""
    assert archive_size((name, len(data)) for name, data in members) == len(build(members))


@pytest.mark.parametrize(
    "sizes",
    [
        [ZIP64_LIMIT - 1, 0],
        [ZIP64_LIMIT, 0],
        [ZIP64_LIMIT - 32, 0],
        [ZIP64_LIMIT - 31],
        [5 * GIB, 1, 5 * GIB],
    ],
    ids=str,
)
def test_archive_size_counts_zip64_records(sizes: list[int]) -> None:
    """`archive_size` knows where zip64 fields and records are needed."""
    members = [(f"{index}", size) for index, size in enumerate(sizes)]
    layout = planned(members)
    assert archive_size(members) == layout.position + len(layout.trailer())


@given(
    st.lists(st.tuples(any_name, st.integers(0, 6 * GIB)), max_size=12, unique_by=lambda member: member[0])
)
def test_plan_is_what_the_layout_does(members: list[tuple[str, int]]) -> None:
    """`plan` places members as `ZipLayout` does, without data or CRCs."""
    assert tuple(plan(members)) == planned(members).placements


@given(any_members)
def test_placements_say_where_things_are(members: Members) -> None:
    """Header and data of each member stand where its placement says, one directly after the other."""
    archive = build(members)
    position = 0
    for placement, (name, data) in zip(
        plan((name, len(data)) for name, data in members), members, strict=True
    ):
        assert placement.header_offset == position
        expected = bytearray(header(name, len(data)))
        expected[LOCAL_CRC_OFFSET : LOCAL_CRC_OFFSET + 4] = zlib.crc32(data).to_bytes(4, "little")
        assert archive[placement.header_offset : placement.data_offset] == expected
        assert archive[placement.data_offset : placement.end] == data
        position = placement.end


# Order of calls


@given(any_members)
def test_same_input_gives_same_bytes(members: Members) -> None:
    """The same order, names, sizes, CRCs and timestamp give the same bytes; `trailer` changes nothing."""
    assert build(members) == build(members)
    layout = planned([(name, len(data)) for name, data in members])
    assert layout.trailer() == layout.trailer()


def test_finish_says_where_to_patch_the_crc() -> None:
    """The patch is the little-endian CRC at the header's offset in the archive plus 14."""
    layout = ZipLayout(MODIFIED)
    layout.begin("a", 1000)
    assert layout.finish(0x01020304) == CrcPatch(LOCAL_CRC_OFFSET, b"\x04\x03\x02\x01")
    start = layout.position
    layout.begin("b", 0)
    assert layout.finish(0xFFFFFFFF) == CrcPatch(start + 14, b"\xff\xff\xff\xff")


def test_position_counts_the_open_member() -> None:
    """`position` counts the data of the open member in full, and `placements` has the member."""
    layout = ZipLayout(MODIFIED)
    assert (layout.position, layout.placements) == (0, ())
    layout.begin("ab", 100)
    placement = Placement(name="ab", size=100, header_offset=0, data_offset=32)
    assert (layout.position, layout.placements) == (132, (placement,))
    layout.finish(0)
    assert (layout.position, layout.placements) == (132, (placement,))
    assert (placement.crc_offset, placement.end) == (14, 132)


def test_begin_needs_the_last_member_finished() -> None:
    """`begin` is refused while a member is open."""
    layout = ZipLayout(MODIFIED)
    layout.begin("a", 1)
    with pytest.raises(ZipLayoutError, match="open"):
        layout.begin("b", 1)


def test_trailer_needs_the_last_member_finished() -> None:
    """`trailer` is refused while a member is open."""
    layout = ZipLayout(MODIFIED)
    layout.begin("a", 1)
    with pytest.raises(ZipLayoutError, match="open"):
        layout.trailer()


def test_finish_needs_an_open_member() -> None:
    """`finish` is refused before any `begin`, and twice."""
    layout = ZipLayout(MODIFIED)
    with pytest.raises(ZipLayoutError, match="No member"):
        layout.finish(0)
    layout.begin("a", 1)
    layout.finish(0)
    with pytest.raises(ZipLayoutError, match="No member"):
        layout.finish(0)


# What is refused


@pytest.mark.parametrize("name", ILLEGAL_NAMES.values(), ids=ILLEGAL_NAMES.keys())
def test_illegal_name_is_refused(name: str) -> None:
    """A name that is forbidden, or that readers would not all take for one file, is refused."""
    layout = planned([("a", 3)])
    before = layout.position, layout.placements
    with pytest.raises(ZipLayoutError) as caught:
        layout.begin(name, 0)
    assert len(str(caught.value)) < 1000
    assert (layout.position, layout.placements) == before
    with pytest.raises(ZipLayoutError):
        archive_size([(name, 0)])


@pytest.mark.parametrize("name", ["...", "..a", "a../b", ".hidden", "ab:c", "日:x", "1:2", " ", "a\nb"])
def test_odd_but_legal_name_is_taken(name: str) -> None:
    """Dots, colons, spaces and line ends inside a segment are part of the name."""
    assert zipfile.ZipFile(BytesIO(build([(name, b"1")]))).read(name) == b"1"


def test_duplicate_name_is_refused() -> None:
    """A name that is already in the archive is refused, by the layout and by a plan."""
    layout = planned([("a", 3)])
    with pytest.raises(ZipLayoutError, match="two members"):
        layout.begin("a", 3)
    with pytest.raises(ZipLayoutError, match="two members"):
        archive_size([("a", 3), ("a", 3)])


@pytest.mark.parametrize("size", [-1, MAX_POSITION, 2**64])
def test_size_out_of_range_is_refused(size: int) -> None:
    """A size below 0, or one that ends beyond 2**63 - 1, is refused."""
    with pytest.raises(ZipLayoutError):
        ZipLayout(MODIFIED).begin("a", size)
    with pytest.raises(ZipLayoutError):
        archive_size([("a", size)])


def test_sum_of_sizes_out_of_range_is_refused() -> None:
    """No member may end beyond 2**63 - 1, however small it is."""
    with pytest.raises(ZipLayoutError, match="beyond"):
        archive_size([("a", MAX_POSITION - 50)])
    layout = planned([("a", MAX_POSITION - 51)])
    assert layout.position == MAX_POSITION
    with pytest.raises(ZipLayoutError, match="beyond"):
        layout.begin("b", 0)


@pytest.mark.parametrize("crc32", [-1, 2**32])
def test_crc_out_of_range_is_refused(crc32: int) -> None:
    """A CRC that is not an unsigned 32-bit number is refused, and the member stays open."""
    layout = ZipLayout(MODIFIED)
    layout.begin("a", 1)
    with pytest.raises(ZipLayoutError, match="32-bit"):
        layout.finish(crc32)
    layout.finish(0)


# Cost


def test_memory_of_a_thousand_members_is_small() -> None:
    """A layout of 1,000 members takes less than 512 KiB, names included, whatever their size."""
    tracemalloc.start()
    try:
        layout = planned([(f"some/directory/file-{index:06}.bin", 5 * GIB) for index in range(1_000)])
        snapshot = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    # What the layout's own lines allocated; another test's thread may allocate meanwhile.
    own = snapshot.filter_traces([tracemalloc.Filter(inclusive=True, filename_pattern=zip_layout.__file__)])
    assert len(layout.placements) == 1_000
    assert sum(trace.size for trace in own.traces) < 512 * 1024
