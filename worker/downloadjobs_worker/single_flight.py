"""Single flight: before a result is made, it is looked for; and while one attempt makes it, others wait.

A digest of all that determines a result's bytes says which results are the same.
`docs/deduplication.md` has the whole picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import ObjectNotFoundError, ObjectStoreError
from downloadjobs_core.file_faults import FileFault
from downloadjobs_core.leases import LeaseStore, Outcome
from downloadjobs_core.objectstore.protocol import ObjectStat, ObjectStore
from downloadjobs_core.sharing import Answer, Boarding, Shared, Sharing, shared_result_key
from downloadjobs_core.states import JobState
from downloadjobs_worker.hold import Hold, Joined
from downloadjobs_worker.manifest import ManifestFile
from downloadjobs_worker.patience import patiently, until_redis_answers
from downloadjobs_worker.planning import PlannedFile

FORMAT: Final = 1
"""Of a shared result's bytes. Raise it when the zip's layout or the manifest changes: older results are not
given out any more then."""

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Flight:
    """One attempt's look for its result.

    Attributes:
        planned: what the result holds.
        key: where the attempt makes the result, if it must.
        found: how the job ends with a result that is there; None if the attempt makes it.
    """

    digest: str
    planned: Sequence[PlannedFile]
    key: str
    found: Outcome | None = None


@dataclass(frozen=True, slots=True)
class SingleFlight:
    """Looks for results before they are made. One for the process.

    Attributes:
        results: where archives lie, under `results_prefix`.
        source: the bucket and the prefix of the files, since an id means one file only there.
    """

    leases: LeaseStore
    results: ObjectStore
    results_prefix: str
    source: tuple[str, str]

    def board(self, hold: Hold, planned: Sequence[PlannedFile]) -> Flight:
        """Look for the result.

        Raises:
            Joined: another attempt makes it now, and the job waits for that.
            LeaseLostError, HandBackRequested: the attempt must stop.
            ObjectStoreError: storage could not be asked for a result that should be there.
        """
        job = hold.job
        digest = digest_of(planned, job.total_file_ids, self.source)
        key = shared_result_key(self.results_prefix, digest, job.token)
        gone = ""
        while True:
            hold.raise_if_stopped()
            boarding = until_redis_answers(
                partial(self.leases.board, job, digest, gone=gone, stages=hold.stages.unwritten().text),
                hold.raise_if_stopped,
            )
            if boarding.answer is Answer.WAIT:
                raise Joined
            if boarding.answer is Answer.MAKE:
                return Flight(digest, planned, key)
            if self._is_there(hold, boarding):
                return Flight(digest, planned, key, _reused(planned, digest, boarding))
            log.warning("a shared result is not in storage, and is forgotten", key=boarding.key)
            gone = boarding.key

    def made(self, flight: Flight, size: int, entries: Sequence[ManifestFile]) -> Shared:
        """How a result is shared that was just made: with nobody, if it is not what its digest promises."""
        if not _is_as_planned(entries, flight.planned):
            log.info("a result is not shared: a file changed after it was looked up")
            return Shared(Sharing.KEPT, flight.digest)
        try:
            found = self.results.stat(flight.key)
        except ObjectStoreError as error:
            # It is made, and is its job's all the same: no reason for another attempt.
            log.warning("a result is not shared: it could not be read", key=flight.key, error=str(error))
            return Shared(Sharing.KEPT, flight.digest)
        return Shared(Sharing.OFFERED if found.size == size else Sharing.KEPT, flight.digest, found.etag)

    def _is_there(self, hold: Hold, boarding: Boarding) -> bool:
        """Whether the object is in storage, as it was made: somebody may have removed it by hand."""
        try:
            found = patiently(hold, "stat", lambda: self.results.stat(boarding.key))
        except ObjectNotFoundError:
            return False
        return (found.size, found.etag) == (boarding.size, boarding.etag)


def digest_of(planned: Sequence[PlannedFile], total_file_ids: int, source: tuple[str, str]) -> str:
    """The SHA-256 of what determines a result's bytes, as 64 hexadecimal digits.

    Args:
        planned: the files in their order, each with its size and ETag, or with why it is not there.
        total_file_ids: how many ids were asked for, which the manifest tells.
        source: the bucket and the prefix of the files.
    """
    files = [
        [file.file_id, file.found.size, file.found.etag]
        if isinstance(file.found, ObjectStat)
        else [file.file_id, file.found.code]
        for file in planned
    ]
    text = json.dumps([FORMAT, *source, total_file_ids, files], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _reused(planned: Sequence[PlannedFile], digest: str, boarding: Boarding) -> Outcome:
    failed = [(file.file_id, file.found.code) for file in planned if isinstance(file.found, FileFault)]
    size = sum(file.size for file in planned)
    return Outcome(
        JobState.COMPLETED_WITH_ERRORS if failed else JobState.COMPLETED,
        result_key=boarding.key,
        result_bytes=boarding.size,
        files_done=len(planned),
        files_failed=len(failed),
        failed=failed,
        bytes_done=size,
        bytes_total=size,
        shared=Shared(Sharing.REUSED, digest, boarding.etag),
    )


def _is_as_planned(entries: Sequence[ManifestFile], planned: Sequence[PlannedFile]) -> bool:
    """Whether each file was read as it was looked up: it can change in between, or vanish."""
    return all(
        (entry.size, entry.etag) == (file.found.size, file.found.etag)
        if isinstance(file.found, ObjectStat)
        else entry.error == file.found.code
        for entry, file in zip(entries, planned, strict=True)
    )
