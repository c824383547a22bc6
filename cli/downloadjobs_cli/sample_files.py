"""Sample files: valid little zips whose bytes depend only on the file's id and size.

Pure: nothing here writes anywhere. Every file opens in any zip tool and has exactly the size asked for.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from downloadjobs_core.zip_layout import ZipLayout, archive_size

MODIFIED: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The members' timestamp: a constant, or the bytes would differ each day."""

BLOCK_BYTES: Final = 1024 * 1024
"""Pseudo-random bytes are made once for each file and repeated, so that gigabytes take no minutes."""

ABOUT: Final = "about.txt"
DATA: Final = "data.bin"

MIN_BYTES: Final = 512
"""A zip of these two members has some 330 bytes without data."""


@dataclass(frozen=True, slots=True)
class SampleFile:
    """One file to make: its id, and its exact size in bytes (at least `MIN_BYTES`)."""

    file_id: int
    size: int

    @property
    def key_name(self) -> str:
        """The object's name under the key prefix."""
        return f"{self.file_id}.zip"

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes."""
        layout = ZipLayout(MODIFIED)
        about = (
            f"Sample file {self.file_id}, made by `downloadjobs seed`.\n"
            f"{DATA} holds pseudo-random bytes that depend only on this number and the size.\n"
        ).encode()
        empty = archive_size([(ABOUT, len(about)), (DATA, 0)])
        # Beyond 4 GiB the headers themselves grow; the second look finds the size that fits.
        length = self.size - empty
        length -= archive_size([(ABOUT, len(about)), (DATA, length)]) - self.size
        crc32 = 0
        for block in self._data(length):
            crc32 = zlib.crc32(block, crc32)
        # Made twice rather than kept: the header, which holds the CRC-32, comes before the data.
        yield _member_header(layout, ABOUT, len(about), zlib.crc32(about)) + about
        yield _member_header(layout, DATA, length, crc32)
        yield from self._data(length)
        yield layout.trailer()

    def _data(self, length: int) -> Iterator[bytes]:
        block = random.Random(self.file_id).randbytes(min(length, BLOCK_BYTES))  # noqa: S311 - no secret
        whole, rest = divmod(length, BLOCK_BYTES)
        for _ in range(whole):
            yield block
        if rest:
            yield block[:rest]


def _member_header(layout: ZipLayout, name: str, size: int, crc32: int) -> bytes:
    header = bytearray(layout.begin(name, size))
    start = layout.placements[-1].header_offset
    patch = layout.finish(crc32)
    header[patch.offset - start : patch.offset - start + len(patch.data)] = patch.data
    return bytes(header)


def sample_files(count: int, first_id: int, size_min: int, size_max: int) -> list[SampleFile]:
    """Files with ids in a row, and sizes that depend only on the id: many small ones, a few large ones.

    Args:
        count: how many.
        first_id: the first one's id.
        size_min: the smallest size, bytes.
        size_max: the largest size, bytes.
    """
    low, high = math.log(size_min), math.log(size_max)

    def size_of(file_id: int) -> int:
        drawn = math.exp(random.Random(f"size {file_id}").uniform(low, high))  # noqa: S311 - no secret
        return min(max(round(drawn), size_min), size_max)

    return [SampleFile(file_id, size_of(file_id)) for file_id in range(first_id, first_id + count)]
