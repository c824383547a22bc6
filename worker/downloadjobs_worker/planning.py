"""Looks up every file of a job before the first byte is read.

The plan freezes order, sizes and ETags, so that progress is honest from the
start, parts are large enough, and a second attempt makes the same archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from downloadjobs_core import logs
from downloadjobs_core.errors import ObjectNotFoundError, ObjectStoreDeniedError
from downloadjobs_core.file_faults import DENIED, NOT_FOUND, FileFault
from downloadjobs_core.objectstore.protocol import ObjectStat, ObjectStore
from downloadjobs_worker.hold import Hold
from downloadjobs_worker.patience import patiently, waited_for_storage


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One requested file: where it lies, and what was found there."""

    file_id: int
    key: str
    found: ObjectStat | FileFault

    @property
    def member_name(self) -> str:
        """Its name in the archive."""
        return f"{self.file_id}.zip"

    @property
    def size(self) -> int:
        """Bytes it adds to the archive's members; 0 for a file that is not there."""
        return self.found.size if isinstance(self.found, ObjectStat) else 0


def key_of(prefix: str, file_id: int) -> str:
    """The key of a file's object."""
    return f"{prefix}{file_id}.zip"


def fault_of(error: ObjectNotFoundError | ObjectStoreDeniedError) -> FileFault:
    """The fault that a manifest names for an error that concerns one file."""
    return NOT_FOUND if isinstance(error, ObjectNotFoundError) else DENIED


def look_up(store: ObjectStore, hold: Hold, file_id: int, key: str) -> PlannedFile:
    """Ask for one file's size and ETag, with patience.

    Raises:
        ObjectStoreError: the storage could not be asked, or refuses everything.
        LeaseLostError, HandBackRequested: the attempt must stop.
    """
    try:
        return PlannedFile(file_id, key, patiently(hold, "stat", lambda: store.stat(key)))
    except (ObjectNotFoundError, ObjectStoreDeniedError) as error:
        return PlannedFile(file_id, key, fault_of(error))


def plan_files(
    store: ObjectStore, hold: Hold, file_ids: Sequence[int], *, prefix: str, threads: int
) -> list[PlannedFile]:
    """Look up all files, several at once, in the order they were asked for.

    Raises:
        ObjectStoreUnavailableError: the storage could not be asked.
        BucketNotFoundError: nothing was found because the whole bucket is missing.
        CredentialsRefusedError, ObjectStoreDeniedError: the storage refuses everything.
        LeaseLostError, HandBackRequested: the attempt must stop.
    """
    while True:
        files = _look_up_all(store, hold, file_ids, prefix, threads)
        if not all(isinstance(file.found, FileFault) for file in files):
            return files
        # The answer to HEAD has no body to tell a missing object from a missing bucket.
        if not waited_for_storage(hold, store.check):
            return files


def _look_up_all(
    store: ObjectStore, hold: Hold, file_ids: Sequence[int], prefix: str, threads: int
) -> list[PlannedFile]:
    def look_up_id(file_id: int) -> PlannedFile:
        return look_up(store, hold, file_id, key_of(prefix, file_id))

    pool = ThreadPoolExecutor(threads, thread_name_prefix="plan")
    try:
        return list(pool.map(logs.in_context(look_up_id), file_ids))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
