"""The mock storage: generated files, and results in a folder. For trying things out without an S3 server.

Several processes of one machine (or one shared volume) may use a folder at once: what
appears in it appears whole, by renaming. It holds:

    objects/<key>         results, and whatever else was stored
    uploads/<id>/         unfinished uploads: `key`, and one file a part
    files/<id>.zip        generated files that were asked for as a file
    scratch/              files being written
    link.key              the key that links are signed with
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from downloadjobs_core.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    UploadNotFoundError,
)
from downloadjobs_core.objectstore import mock_files
from downloadjobs_core.objectstore.arguments import check_expiry, check_part_number, in_order
from downloadjobs_core.objectstore.folder_reading import FileReader, GeneratedReader, stored_stat
from downloadjobs_core.objectstore.mock_links import LINK_PATH, LinkSigner
from downloadjobs_core.objectstore.protocol import (
    MIN_PART_BYTES,
    BytesLike,
    ObjectReader,
    ObjectStat,
    Part,
    PendingUpload,
)

COPY_BYTES: Final = 1024 * 1024
PLACING_TRIES: Final = 10
"""A file's folder can vanish before the file is in it when another process deletes its last neighbour."""

_UPLOAD_ID: Final = re.compile(r"[0-9a-f]{32}")


class FolderObjectStore:
    """The mock storage; see `ObjectStore`. Content types are not kept.

    Keys `{source_prefix}{id}.zip` are files: generated, read-only, there if the id is
    divisible by 7, and never listed.

    Args:
        root: the folder; made, for its owner alone, if there is none.
        source_prefix: what the keys of files begin with.
        base_url: scheme and host of the API, which serves the links.
        min_part_bytes: the smallest part but the last.
        clock: Unix time, seconds.

    Raises:
        ObjectStoreError: the folder cannot be used.
    """

    bucket: str = "mock"

    def __init__(
        self,
        root: Path,
        source_prefix: str,
        base_url: str,
        *,
        min_part_bytes: int = MIN_PART_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._source_prefix = source_prefix
        self._base_url = base_url.rstrip("/")
        self._min_part_bytes = min_part_bytes
        self._clock = clock
        self._objects, self._uploads = root / "objects", root / "uploads"
        self._files, self._scratch = root / "files", root / "scratch"
        self._links = LinkSigner(root / "link.key")
        self.check()

    def check(self) -> None:
        """See `ObjectStore.check`. Makes the folder anew if it was removed."""
        with self._translating():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self._objects, self._uploads, self._files, self._scratch):
                folder.mkdir(mode=0o700, exist_ok=True)
                found = folder.lstat()
                if not S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                    raise ObjectStoreError(
                        f"{folder} belongs to someone else: set MOCK_STORAGE_DIR to a folder of your own."
                    )

    def stat(self, key: str) -> ObjectStat:
        """See `ObjectStore.stat`."""
        with self.open(key) as reader:
            return reader.stat

    def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
        """See `ObjectStore.open`."""
        file_id = mock_files.file_id_of(key, self._source_prefix)
        reader: ObjectReader
        if file_id is None:
            with self._translating(key):
                reader = FileReader(key, self._object_path(key), offset)
        elif mock_files.is_available(file_id):
            reader = GeneratedReader(key, file_id, offset)
        else:
            raise ObjectNotFoundError(key)
        if if_match not in {None, reader.stat.etag} or offset > reader.stat.size:
            reader.close()
            raise ObjectChangedError(key)
        return reader

    def path_of(self, key: str) -> Path:
        """A file with the object's bytes, to serve it from. A generated file is written first.

        Raises:
            ObjectNotFoundError: there is no such object.
        """
        file_id = mock_files.file_id_of(key, self._source_prefix)
        if file_id is None:
            self.stat(key)
            return self._object_path(key)
        if not mock_files.is_available(file_id):
            raise ObjectNotFoundError(key)
        path = self._files / f"{file_id}.zip"
        if not path.exists():
            with self._translating(key):
                self._write(path, [mock_files.read_at(file_id, 0, mock_files.MAX_BYTES)])
        return path

    def put(self, key: str, data: BytesLike, *, content_type: str = "application/octet-stream") -> str:
        """See `ObjectStore.put`."""
        del content_type
        path = self._writable_path(key)
        with self._translating(key):
            return self._write(path, [data])

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        path = self._writable_path(key)
        with suppress(ObjectNotFoundError), self._translating(key):
            path.unlink()
        for folder in path.relative_to(self._objects).parents[:-1]:
            with suppress(OSError):  # it is not empty
                (self._objects / folder).rmdir()

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `ObjectStore.list`. Generated files are not listed."""
        with self._translating():
            for folder, folders, names in os.walk(self._objects):
                folders.sort()
                for name in sorted(names):
                    path = Path(folder, name)
                    key = path.relative_to(self._objects).as_posix()
                    if key.startswith(prefix):
                        with suppress(FileNotFoundError):
                            yield stored_stat(key, path.stat())

    def create_upload(self, key: str, *, content_type: str = "application/octet-stream") -> str:
        """See `ObjectStore.create_upload`."""
        del content_type
        self._writable_path(key)
        upload_id = secrets.token_hex(16)
        with self._translating(key):
            self._write(self._uploads / upload_id / "key", [key.encode()])
        return upload_id

    def upload_part(self, key: str, upload_id: str, number: int, data: BytesLike) -> Part:
        """See `ObjectStore.upload_part`."""
        check_part_number(number)
        folder = self._upload_folder(key, upload_id)
        part = Part(number, hashlib.blake2b(data, digest_size=16).hexdigest())
        with self._translating_upload(key):
            self._write(folder / _part_name(part), [data], make_folder=False)
            for older in folder.glob(f"{number:05}.*"):
                if older.name != _part_name(part):
                    older.unlink(missing_ok=True)
        return part

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> str:
        """See `ObjectStore.complete_upload`."""
        ordered = in_order(parts)
        folder = self._upload_folder(key, upload_id)
        paths = [folder / _part_name(part) for part in ordered]
        with self._translating_upload(key):
            sizes = [path.stat().st_size for path in paths]
            if any(size < self._min_part_bytes for size in sizes[:-1]):
                raise ObjectStoreError(f"A part of {key} is smaller than {self._min_part_bytes} bytes.")
            etag = self._write(self._object_path(key), _contents(paths))
        shutil.rmtree(folder, ignore_errors=True)
        return etag

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See `ObjectStore.abort_upload`."""
        with suppress(UploadNotFoundError):
            shutil.rmtree(self._upload_folder(key, upload_id), ignore_errors=True)

    def pending_uploads(self, prefix: str) -> Iterator[PendingUpload]:
        """See `ObjectStore.pending_uploads`."""
        with self._translating():
            for folder in sorted(self._uploads.iterdir()):
                with suppress(FileNotFoundError):  # just begun, or just ended
                    key = (folder / "key").read_text(encoding="utf-8")
                    if key.startswith(prefix):
                        yield PendingUpload(key, folder.name, (folder / "key").stat().st_mtime)

    def presign_get(self, key: str, *, expires_seconds: int, filename: str | None = None) -> str:
        """See `ObjectStore.presign_get`. The API serves this URL, after `verify`."""
        check_expiry(expires_seconds)
        with self._translating(key):
            token = self._links.sign(key, int(self._clock()) + expires_seconds, filename)
        return f"{self._base_url}{LINK_PATH}{token}"

    def verify(self, token: str, now: float) -> tuple[str, str | None]:
        """The key, and the file name if there is one, that a link's token was signed for.

        Args:
            token: the last segment of the URL's path.
            now: Unix time, seconds.

        Raises:
            LinkRefusedError: it is past its time, or not one of ours.
        """
        with self._translating():
            return self._links.verify(token, now)

    def _object_path(self, key: str) -> Path:
        """Where an object lies. Raises `ValueError` for a key that could lead out of the folder."""
        if "\0" in key or {"", ".", ".."} & set(key.split("/")):
            raise ValueError(f"{key!r} is no key: it has an empty segment, `.`, `..` or a NUL")
        return self._objects / key

    def _writable_path(self, key: str) -> Path:
        if mock_files.file_id_of(key, self._source_prefix) is not None:
            raise ObjectStoreDeniedError(f"The mock storage generates {key}: it cannot be changed.")
        return self._object_path(key)

    def _upload_folder(self, key: str, upload_id: str) -> Path:
        folder = self._uploads / upload_id
        if _UPLOAD_ID.fullmatch(upload_id):
            with suppress(FileNotFoundError):
                if (folder / "key").read_text(encoding="utf-8") == key:
                    return folder
        raise UploadNotFoundError(f"There is no such upload of {key}: it was completed or aborted.")

    def _write(self, path: Path, chunks: Iterable[BytesLike], *, make_folder: bool = True) -> str:
        """Write a file that appears whole or not at all, and return its ETag."""
        descriptor, scratch = tempfile.mkstemp(dir=self._scratch)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                now = time.time_ns()  # finer than the file system's clock: the ETag is made of it
                os.utime(file.fileno(), ns=(now, now))
                etag = stored_stat("", os.fstat(file.fileno())).etag
            for left in reversed(range(PLACING_TRIES)):
                try:
                    if make_folder:
                        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    Path(scratch).replace(path)
                    break
                except (FileNotFoundError, FileExistsError):
                    if not make_folder or not left:
                        raise
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
        return etag

    @contextmanager
    def _translating_upload(self, key: str) -> Iterator[None]:
        try:
            with self._translating(key):
                yield
        except ObjectNotFoundError as error:
            raise UploadNotFoundError(
                f"The upload of {key} cannot go on: it ended, or a part is not there."
            ) from error

    @contextmanager
    def _translating(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            if key:
                raise ObjectNotFoundError(key) from error
            raise self._unusable(error) from error
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> ObjectStoreUnavailableError:
        return ObjectStoreUnavailableError(
            f"The mock storage in {self._root} (MOCK_STORAGE_DIR) cannot be used: {error.strerror}."
        )


def _part_name(part: Part) -> str:
    return f"{part.number:05}.{part.etag}"


def _contents(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(COPY_BYTES):
                yield chunk
