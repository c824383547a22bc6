"""Bundles a job's files into one zip in the bucket of results.

Files flow from `ReadAhead` through the pure `ZipLayout` into `PartUploader`;
nothing is ever on disk, and memory is bounded by settings, not by file size.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from downloadjobs_core.errors import ObjectChangedError
from downloadjobs_core.file_faults import NOT_FOUND, FileFault, fault_by_code
from downloadjobs_core.job import Job, rfc3339
from downloadjobs_core.leases import Outcome
from downloadjobs_core.objectstore.protocol import ObjectStat, ObjectStore
from downloadjobs_core.states import JobState
from downloadjobs_core.zip_layout import LOCAL_CRC_OFFSET, ZipLayout, archive_size
from downloadjobs_worker import manifest
from downloadjobs_worker.hold import Hold
from downloadjobs_worker.manifest import Manifest, ManifestFile
from downloadjobs_worker.planning import PlannedFile, plan_files
from downloadjobs_worker.reading import FileStream, ReadAhead
from downloadjobs_worker.single_flight import SingleFlight
from downloadjobs_worker.stages import PLANNING, UPLOAD
from downloadjobs_worker.uploading import PartPlan, PartUploader, UploadLedger

CRC_BYTES: Final = 4

PLAN_THREADS: Final = 8
"""Look-ups at once: they wait for the network, not for the processor."""

ZIP_EPOCH: Final = datetime(1980, 1, 1, tzinfo=UTC)
"""The first time that a zip can tell: that of all members of a result that must not tell of its first job."""

_MANIFEST_BYTES_PER_FILE: Final = 512
"""More than one file's entry takes; only the size of parts depends on it."""


@dataclass(frozen=True, slots=True)
class BundlingLimits:
    """What bounds one job's memory and connections; sizes in bytes (see `WorkerSettings`)."""

    part_bytes: int
    upload_threads: int
    upload_memory_bytes: int
    read_ahead_files: int
    read_ahead_bytes: int


@dataclass(frozen=True, slots=True)
class Bundler:
    """Makes results. One for the process; each call of `bundle` is one attempt.

    Attributes:
        files: where the requested files lie, under `files_prefix`.
        results: where archives go, under `results_prefix`.
    """

    files: ObjectStore
    results: ObjectStore
    limits: BundlingLimits
    files_prefix: str
    results_prefix: str

    def result_key(self, job: Job) -> str:
        """The attempt's own key: a later attempt has another, so none overwrites another's result."""
        return f"{self.results_prefix}{job.job_id}/{job.token}.zip"

    def bundle(
        self,
        hold: Hold,
        confirm_lease: Callable[[], None],
        ledger: UploadLedger,
        flights: SingleFlight | None = None,
    ) -> Outcome:
        """Make one job's archive.

        Args:
            hold: the attempt; its progress is advanced, and it is asked when to stop.
            confirm_lease: called just before the archive becomes visible; raises if the lease is lost.
            ledger: remembers the upload until its end.
            flights: where the same result is looked for before it is made; None for every job its own.

        Returns:
            how the job ends: completed, completed with errors, or failed because no file was found.

        Raises:
            ObjectStoreError: storage failed; nothing of the attempt is left in it.
            ResultTooLargeError: its parts would take more memory than they may.
            LeaseLostError, HandBackRequested: the attempt must stop; nothing of it is left.
            Joined: another attempt makes the same result, and the job waits for it.
        """
        job = hold.job
        began_ms = hold.stages.now_ms()
        planned = plan_files(self.files, hold, job.file_ids, prefix=self.files_prefix, threads=PLAN_THREADS)
        hold.stages.ended(PLANNING, began_ms, len(planned))
        hold.progress.bytes_total = sum(file.size for file in planned)
        if all(isinstance(file.found, FileFault) for file in planned):
            return _no_file_found(
                [(file.file_id, file.found) for file in planned if isinstance(file.found, FileFault)]
            )
        flight = flights.board(hold, planned) if flights else None
        if flight is not None and flight.found is not None:
            return flight.found

        key = flight.key if flight else self.result_key(job)
        total = archive_size((file.member_name, file.size) for file in planned)
        uploader = PartUploader(
            self.results,
            key,
            hold,
            plan=PartPlan.of(
                total + _MANIFEST_BYTES_PER_FILE * len(planned),
                part_bytes=self.limits.part_bytes,
                threads=self.limits.upload_threads,
                memory_bytes=self.limits.upload_memory_bytes,
            ),
            ledger=ledger,
        )
        try:
            entries = self._write_archive(hold, planned, uploader, anonymous=flight is not None)
            if all(entry.error for entry in entries):
                # What the plan found went away before its turn.
                uploader.abort()
                return _no_file_found([(entry.fileId, fault_by_code(entry.error or "")) for entry in entries])
            began_ms = hold.stages.now_ms()
            uploader.flush()
            confirm_lease()
            size = uploader.complete()
            hold.stages.ended(UPLOAD, began_ms, size)
        except BaseException:
            uploader.abort()
            raise
        uploader.close()
        failed = [(entry.fileId, entry.error) for entry in entries if entry.error is not None]
        return Outcome(
            JobState.COMPLETED_WITH_ERRORS if failed else JobState.COMPLETED,
            result_key=key,
            result_bytes=size,
            files_done=len(entries),
            files_failed=len(failed),
            failed=failed,
            bytes_done=hold.progress.bytes_done,
            bytes_total=hold.progress.bytes_total,
            shared=flights.made(flight, size, entries) if flights and flight else None,
        )

    def _write_archive(
        self, hold: Hold, planned: list[PlannedFile], uploader: PartUploader, *, anonymous: bool
    ) -> list[ManifestFile]:
        job = hold.job
        asked_at = datetime.fromtimestamp(job.created_us / 1_000_000, UTC)
        archive = _Archive(ZIP_EPOCH if anonymous else asked_at, uploader)
        entries = []
        with ReadAhead(
            self.files, hold, planned, self.limits.read_ahead_files, self.limits.read_ahead_bytes
        ) as ahead:
            began_ms = hold.stages.now_ms()
            for stream in ahead:
                entry = _add_file(archive, stream, hold)
                entries.append(entry)
                hold.progress.files_done += 1
                began_ms = hold.stages.file_done(began_ms, entry.size or 0, entry.error or "")
        content = manifest.encode(
            Manifest(
                schema=manifest.SCHEMA,
                jobId=None if anonymous else job.job_id,
                requestedAt=None if anonymous else rfc3339(job.created_us),
                totalFileIds=job.total_file_ids,
                files=entries,
            )
        )
        archive.begin(manifest.NAME, len(content))
        archive.add(content)
        archive.finish()
        archive.end()
        return entries


class _Archive:
    """Joins the pure layout and the uploader: members in, patched parts out."""

    def __init__(self, modified: datetime, uploader: PartUploader) -> None:
        self._layout = ZipLayout(modified)
        self._uploader = uploader
        self._crc32 = 0

    def begin(self, name: str, size: int) -> None:
        crc_offset = self._layout.position + LOCAL_CRC_OFFSET
        header = self._layout.begin(name, size)
        self._uploader.expect_patch(crc_offset, CRC_BYTES)
        self._uploader.write(header)
        self._crc32 = 0

    def add(self, data: bytes) -> None:
        self._crc32 = zlib.crc32(data, self._crc32)
        self._uploader.write(data)

    def finish(self) -> int:
        self._uploader.patch(self._layout.finish(self._crc32))
        return self._crc32

    def end(self) -> None:
        self._uploader.write(self._layout.trailer())


def _add_file(archive: _Archive, stream: FileStream, hold: Hold) -> ManifestFile:
    """Copy one file into the archive, or say in its entry why it is not there."""
    found = stream.opened()
    planned = stream.planned
    if isinstance(found, FileFault):
        hold.progress.bytes_total -= planned.size
        return _entry(planned, error=found)
    hold.progress.bytes_total += found.size - planned.size
    archive.begin(planned.member_name, found.size)
    written = 0
    for chunk in stream.chunks():
        written += len(chunk)
        if written > found.size:
            break
        archive.add(chunk)
        hold.progress.bytes_done += len(chunk)
    if written != found.size:
        raise ObjectChangedError(planned.key)
    return _entry(planned, found=found, crc32=archive.finish())


def _entry(
    planned: PlannedFile,
    *,
    found: ObjectStat | None = None,
    crc32: int | None = None,
    error: FileFault | None = None,
) -> ManifestFile:
    return ManifestFile(
        fileId=planned.file_id,
        name=planned.member_name,
        status="error" if error else "ok",
        size=found.size if found else None,
        crc32=None if crc32 is None else f"{crc32:08x}",
        etag=found.etag if found else None,
        error=error.code if error else None,
        message=error.message if error else None,
    )


def _no_file_found(failed: list[tuple[int, FileFault]]) -> Outcome:
    if any(fault != NOT_FOUND for _, fault in failed):
        message = "None of the requested files can be had."
    elif len(failed) > 1:
        message = "None of the requested files exists."
    else:
        message = "The requested file does not exist."
    return Outcome(
        JobState.FAILED,
        files_done=len(failed),
        files_failed=len(failed),
        failed=[(file_id, fault.code) for file_id, fault in failed],
        error_code="no-file-found",
        error_message=message,
    )
