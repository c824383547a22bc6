"""Sample files: what they are, and how they come into a bucket."""

from __future__ import annotations

import io
import zipfile

import pytest

from downloadjobs_cli import seeding
from downloadjobs_cli.main import run
from downloadjobs_cli.options import ByteSize
from downloadjobs_cli.sample_files import BLOCK_BYTES, MIN_BYTES, SampleFile, sample_files
from downloadjobs_cli.seeding import Seeded, parts_of, seed
from downloadjobs_core.objectstore.memory import MemoryObjectStore


@pytest.mark.parametrize("size", [MIN_BYTES, 64_000, BLOCK_BYTES, 3 * BLOCK_BYTES + 17])
def test_a_sample_file_is_a_zip_of_exactly_its_size(size: int) -> None:
    """Any size gives a zip that opens, with right CRC-32s and exactly so many bytes."""
    content = b"".join(SampleFile(10003, size).chunks())
    assert len(content) == size
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["about.txt", "data.bin"]
        assert b"Sample file 10003" in archive.read("about.txt")


def test_a_sample_file_is_always_the_same() -> None:
    """The bytes follow from id and size, and files of different ids differ."""
    first, again, other = (b"".join(SampleFile(number, 5000).chunks()) for number in (10003, 10003, 10004))
    assert first == again
    assert first != other


def test_sizes_lie_within_their_limits_and_follow_from_the_id() -> None:
    """Sizes spread over the range asked for; a file has the same size in every set it is in."""
    files = sample_files(200, 10_000, 1000, 100_000)
    assert [file.file_id for file in files] == list(range(10_000, 10_200))
    assert all(1000 <= file.size <= 100_000 for file in files)
    assert min(file.size for file in files) < 2000
    assert max(file.size for file in files) > 50_000
    assert sample_files(1, 10_050, 1000, 100_000) == [files[50]]


def test_seeding_twice_puts_once() -> None:
    """Files that are there with their size are left alone; one of another size is put again."""
    store = MemoryObjectStore("b")
    files = sample_files(5, 10_000, 1000, 2000)
    wrote: list[int] = []
    first = seed(store, "downloads/", files, wrote.append)
    assert first == Seeded(5, sum(file.size for file in files), 0)
    assert sum(wrote) == first.put_bytes
    assert seed(store, "downloads/", files) == Seeded(0, 0, 5)
    store.put("downloads/10002.zip", b"short")
    assert seed(store, "downloads/", files) == Seeded(1, files[2].size, 4)
    assert store.stat("downloads/10002.zip").size == files[2].size


def test_a_large_file_goes_up_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond one part's size is uploaded in parts, and is the same file."""
    monkeypatch.setattr(seeding, "PART_BYTES", 5 * BLOCK_BYTES)
    store = MemoryObjectStore("b")
    file = SampleFile(10003, 12 * BLOCK_BYTES + 5)
    seed(store, "", [file])
    with store.open("10003.zip") as reader:
        content = b"".join(iter(lambda: reader.read(BLOCK_BYTES), b""))
    assert content == b"".join(file.chunks())
    assert list(store.pending_uploads("")) == []


def test_parts_are_whole_but_the_last() -> None:
    """Chunks of any size become parts of the size asked for, in the same order."""
    assert list(parts_of(iter([b"ab", b"cdefg", b"", b"h"]), 3)) == [b"abc", b"def", b"gh"]
    assert list(parts_of(iter([b"abc"]), 3)) == [b"abc"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("300", 300),
        ("64k", 64_000),
        ("4MB", 4_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("1KiB", 1024),
        ("7b", 7),
    ],
)
def test_sizes_have_units(text: str, size: int) -> None:
    """K is a thousand and Ki is 1,024, as with disks and memory."""
    assert ByteSize()(text) == size


def test_seed_needs_a_bucket(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`seed` without S3_BUCKET_NAME, or with wrong settings, ends with 2 and names the setting."""
    monkeypatch.delenv("S3_BUCKET_NAME", raising=False)
    assert run(["seed"]) == 2
    assert "S3_BUCKET_NAME is not set" in capsys.readouterr().err
    monkeypatch.setenv("S3_ENDPOINT", "nonsense")
    assert run(["seed"]) == 2
    assert "S3_ENDPOINT: must be a URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--size", "100"], ["--size-min", "5MB"], ["--size", "much"], ["--first-id", "99999999"]]
)
def test_seed_refuses_what_cannot_be_made(words: list[str]) -> None:
    """Sizes too small for a zip, in the wrong order, or no sizes, and ids out of range end with 2."""
    assert run(["seed", *words]) == 2
