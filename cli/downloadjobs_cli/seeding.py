"""`seed`: puts sample files into the bucket, where there are none yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from downloadjobs_cli.sample_files import SampleFile
from downloadjobs_core.errors import ObjectNotFoundError
from downloadjobs_core.objectstore.protocol import ObjectStore

THREADS: Final = 4

PART_BYTES: Final = 64 * 1024 * 1024
"""A file up to this size is put whole; a larger one goes up in parts of it, so memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """How many files, and bytes, were put, and how many were there before."""

    put: int
    put_bytes: int
    there: int


def seed(
    store: ObjectStore,
    prefix: str,
    files: Sequence[SampleFile],
    wrote: Callable[[int], None] = lambda count: None,  # noqa: ARG005 - nobody listens
) -> Seeded:
    """Put the files that are not there with their size; their bytes follow from id and size.

    Args:
        store: the bucket.
        prefix: of the keys.
        files: what to put.
        wrote: told how many bytes were put since the last call, by several threads.

    Raises:
        ObjectStoreError: the bucket is missing, or the store refuses or cannot be reached.
    """
    store.check()

    def put(file: SampleFile) -> int:
        key = f"{prefix}{file.key_name}"
        if _size(store, key) == file.size:
            return 0
        _put(store, key, file, wrote)
        return file.size

    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="seed")
    try:
        written = [size for size in pool.map(put, files) if size]
    finally:
        pool.shutdown(cancel_futures=True)
    return Seeded(len(written), sum(written), len(files) - len(written))


def _size(store: ObjectStore, key: str) -> int | None:
    try:
        return store.stat(key).size
    except ObjectNotFoundError:
        return None


def _put(store: ObjectStore, key: str, file: SampleFile, wrote: Callable[[int], None]) -> None:
    if file.size <= PART_BYTES:
        store.put(key, b"".join(file.chunks()), content_type="application/zip")
        wrote(file.size)
        return
    upload = store.create_upload(key, content_type="application/zip")
    try:
        parts = []
        for number, data in enumerate(parts_of(file.chunks(), PART_BYTES), 1):
            parts.append(store.upload_part(key, upload, number, data))
            wrote(len(data))
        store.complete_upload(key, upload, parts)
    except BaseException:
        store.abort_upload(key, upload)
        raise


def parts_of(chunks: Iterator[bytes], part_bytes: int) -> Iterator[bytes]:
    """The same bytes in pieces of `part_bytes`, the last one shorter."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= part_bytes:
            yield bytes(buffer[:part_bytes])
            del buffer[:part_bytes]
    if buffer:
        yield bytes(buffer)
