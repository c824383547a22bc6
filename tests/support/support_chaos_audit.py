"""What lies in the bucket after a chaos run, and whether every result is what was asked for."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from downloadjobs_cli.verifying import verify
from downloadjobs_core.errors import ObjectStoreError
from downloadjobs_core.objectstore.protocol import ObjectStore
from support_chaos_plan import LARGE_FILES, SMALL_FILES, PlannedJob
from support_worker import PREFIX, content, put_files

RESULTS_PREFIX: Final = "results/"
COPY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """The files that jobs ask for: the CRC-32 of each, by its member's name."""

    crcs: Mapping[str, int]
    sizes: Mapping[str, int]

    @classmethod
    def put(cls, store: ObjectStore) -> StoredFiles:
        """Store them all."""
        sizes = {**SMALL_FILES, **LARGE_FILES}
        stored = put_files(store, sizes)
        return cls(
            {name: zlib.crc32(data) for name, data in stored.items()},
            {name: len(data) for name, data in stored.items()},
        )


@dataclass(frozen=True, slots=True)
class Bucket:
    """What lies under the results' prefix: keys of objects, and of unfinished uploads."""

    objects: frozenset[str]
    uploads: tuple[str, ...]

    @classmethod
    def look(cls, store: ObjectStore) -> Bucket:
        """List it."""
        return cls(
            frozenset(found.key for found in store.list(RESULTS_PREFIX)),
            tuple(upload.key for upload in store.pending_uploads(RESULTS_PREFIX)),
        )

    def orphans(self, published: Collection[str]) -> list[str]:
        """What nobody points to: objects that are no result, and every upload; a line each."""
        return [
            *(f"object {key}" for key in sorted(self.objects - set(published))),
            *(f"upload {key}" for key in self.uploads),
        ]


@dataclass(slots=True)
class Results:
    """Checks published results one by one."""

    store: ObjectStore
    files: StoredFiles
    folder: Path
    checked: int = 0
    compared: int = 0
    """Members whose bytes were compared with the stored file's, one by one."""
    bytes_read: int = 0
    problems: list[str] = field(default_factory=list)

    def check(self, job: PlannedJob, key: str, *, compare_bytes: bool) -> bool:
        """Fetch a result and check every CRC, the manifest, and that it holds what was asked for.

        Args:
            job: whose result it is.
            key: where it lies.
            compare_bytes: compare the members' bytes, too, not only size and CRC-32.

        Returns:
            whether it is whole; if not, `problems` says why.
        """
        path = self.folder / "result.zip"
        try:
            self._fetch(key, path)
        except ObjectStoreError as error:
            self.problems.append(f"{key} cannot be read: {error}")
            return False
        report = verify(path, job_id=job.job_id, files=len(job.file_ids))
        found = list(report.problems)
        found += [f"{file.name} is missing from it: {file.error}." for file in report.missing]
        for file_id in job.file_ids:
            name = f"{file_id}.zip"
            member = report.members.get(name)
            if member is None or (member.crc32, member.size) != (
                self.files.crcs[name],
                self.files.sizes[name],
            ):
                found.append(f"{name} is not the file that was stored.")
        if compare_bytes and not found:
            found += self._compare(path, job)
        self.problems += [f"{key}: {problem}" for problem in found]
        self.checked += 1
        return not found

    def _fetch(self, key: str, path: Path) -> None:
        with self.store.open(key) as reader, path.open("wb") as file:
            while data := reader.read(COPY_BYTES):
                file.write(data)
                self.bytes_read += len(data)

    def _compare(self, path: Path, job: PlannedJob) -> list[str]:
        differing = []
        sizes = {**SMALL_FILES, **LARGE_FILES}
        with zipfile.ZipFile(path) as archive:
            for file_id in job.file_ids:
                self.compared += 1
                if archive.read(f"{file_id}.zip") != content(file_id, sizes[file_id]):
                    differing.append(f"{PREFIX}{file_id}.zip has other bytes.")
        return differing
