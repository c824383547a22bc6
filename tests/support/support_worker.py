"""What the worker's tests share: leased jobs, files in a store, and a patient wait."""

from __future__ import annotations

import io
import random
import time
import zipfile
from collections.abc import Callable

from downloadjobs_core.job import Job
from downloadjobs_core.objectstore.protocol import ObjectStore
from downloadjobs_core.states import JobState
from downloadjobs_worker.hold import Hold

PREFIX = "downloads/"


def leased(*file_ids: int, job_id: str = "job", token: str = "1700000000000000") -> Hold:  # noqa: S107 - a fencing token
    """A hold on a job as a pop gives it."""
    return Hold(
        Job(
            job_id=job_id, user="u", state=JobState.PROCESSING, file_ids=file_ids,
            total_file_ids=len(file_ids), files_total=len(file_ids), attempt=1, max_attempts=3,
            token=token, created_us=1_700_000_000_000_000,
        )
    )  # fmt: skip


class NoLedger:
    """Remembers no uploads."""

    def begun(self, key: str) -> None:
        """Forget it."""

    def left(self, key: str) -> None:
        """Forget it."""

    def ended(self, key: str) -> None:
        """Forget it."""


def content(file_id: int, size: int) -> bytes:
    """The bytes that `put_files` stores for an id: random, but always the same."""
    return random.Random(file_id).randbytes(size)


def put_files(store: ObjectStore, sizes: dict[int, int]) -> dict[str, bytes]:
    """Store files of the given sizes in bytes; their member names and bytes."""
    stored = {}
    for file_id, size in sizes.items():
        data = content(file_id, size)
        store.put(f"{PREFIX}{file_id}.zip", data)
        stored[f"{file_id}.zip"] = data
    return stored


def read_object(store: ObjectStore, key: str) -> bytes:
    """A whole object."""
    with store.open(key) as reader:
        return b"".join(iter(lambda: reader.read(1 << 20), b""))


def members(archive: bytes) -> dict[str, bytes]:
    """The members of a zip, after a test of every CRC."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def eventually(condition: Callable[[], bool], seconds: float = 30, what: str = "the condition") -> None:
    """Wait until a condition holds. Raises `AssertionError` if it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.05)
