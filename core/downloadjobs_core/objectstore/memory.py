"""An object store in memory, with the rules of S3: for tests, and for nothing that must last."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

from downloadjobs_core.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreError,
    UploadNotFoundError,
)
from downloadjobs_core.objectstore.arguments import check_expiry, check_part_number, in_order
from downloadjobs_core.objectstore.protocol import (
    MIN_PART_BYTES,
    BytesLike,
    ObjectReader,
    ObjectStat,
    Part,
    PendingUpload,
)


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    etag: str
    content_type: str


@dataclass(slots=True)
class _Upload:
    key: str
    content_type: str
    initiated_at: float
    parts: dict[int, tuple[str, bytes]] = field(default_factory=dict)


class MemoryReader:
    """An open read; see `ObjectReader`. What is stored later does not change it."""

    def __init__(self, stat: ObjectStat, data: bytes, offset: int) -> None:
        self.stat = stat
        self._data = data
        self._offset = offset

    def read(self, max_bytes: int) -> bytes:
        """See `ObjectReader.read`."""
        data = self._data[self._offset : self._offset + max_bytes]
        self._offset += len(data)
        return data

    def close(self) -> None:
        """See `ObjectReader.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryObjectStore:
    """One bucket in memory; see `ObjectStore`.

    Args:
        bucket: its name.
        min_part_bytes: the smallest part but the last; tests take a small one.
        clock: Unix time in seconds, for when an upload was begun.
    """

    def __init__(
        self,
        bucket: str = "memory",
        *,
        min_part_bytes: int = MIN_PART_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.bucket = bucket
        self._min_part_bytes = min_part_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, _Upload] = {}

    def check(self) -> None:
        """See `ObjectStore.check`."""

    def stat(self, key: str) -> ObjectStat:
        """See `ObjectStore.stat`."""
        stored = self._stored(key)
        return ObjectStat(key, len(stored.data), stored.etag)

    def content_type(self, key: str) -> str:
        """The content type an object was stored with. Raises `ObjectNotFoundError`."""
        return self._stored(key).content_type

    def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
        """See `ObjectStore.open`."""
        stored = self._stored(key)
        if if_match not in {None, stored.etag} or offset > len(stored.data):
            raise ObjectChangedError(key)
        return MemoryReader(ObjectStat(key, len(stored.data), stored.etag), stored.data, offset)

    def put(self, key: str, data: BytesLike, *, content_type: str = "application/octet-stream") -> str:
        """See `ObjectStore.put`."""
        content = bytes(data)
        etag = _etag(content)
        with self._lock:
            self._objects[key] = _Object(content, etag, content_type)
        return etag

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with self._lock:
            self._objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `ObjectStore.list`."""
        with self._lock:
            found = sorted(item for item in self._objects.items() if item[0].startswith(prefix))
        for key, stored in found:
            yield ObjectStat(key, len(stored.data), stored.etag)

    def create_upload(self, key: str, *, content_type: str = "application/octet-stream") -> str:
        """See `ObjectStore.create_upload`."""
        upload_id = secrets.token_hex(16)
        with self._lock:
            self._uploads[upload_id] = _Upload(key, content_type, self._clock())
        return upload_id

    def upload_part(self, key: str, upload_id: str, number: int, data: BytesLike) -> Part:
        """See `ObjectStore.upload_part`."""
        check_part_number(number)
        content = bytes(data)
        etag = _etag(content)
        with self._lock:
            self._upload(key, upload_id).parts[number] = (etag, content)
        return Part(number, etag)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> str:
        """See `ObjectStore.complete_upload`."""
        ordered = in_order(parts)
        with self._lock:
            upload = self._upload(key, upload_id)
            contents = []
            for part in ordered:
                etag, content = upload.parts.get(part.number, ("", b""))
                if etag != part.etag:
                    raise UploadNotFoundError(f"The upload of {key} has no such part {part.number}.")
                contents.append(content)
            if any(len(content) < self._min_part_bytes for content in contents[:-1]):
                raise ObjectStoreError(f"A part of {key} is smaller than {self._min_part_bytes} bytes.")
            etag = f"{_etag(b''.join(bytes.fromhex(part.etag) for part in ordered))}-{len(ordered)}"
            self._objects[key] = _Object(b"".join(contents), etag, upload.content_type)
            del self._uploads[upload_id]
        return etag

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See `ObjectStore.abort_upload`."""
        with self._lock:
            upload = self._uploads.get(upload_id)
            if upload is not None and upload.key == key:
                del self._uploads[upload_id]

    def pending_uploads(self, prefix: str) -> Sequence[PendingUpload]:
        """See `ObjectStore.pending_uploads`."""
        with self._lock:
            return [
                PendingUpload(upload.key, upload_id, upload.initiated_at)
                for upload_id, upload in self._uploads.items()
                if upload.key.startswith(prefix)
            ]

    def presign_get(self, key: str, *, expires_seconds: int, filename: str | None = None) -> str:
        """See `ObjectStore.presign_get`. Nothing serves this URL; its query tells what was asked for."""
        check_expiry(expires_seconds)
        query = {"expires": str(expires_seconds)} | ({} if filename is None else {"filename": filename})
        return f"memory://{self.bucket}/{quote(key)}?{urlencode(query)}"

    def _stored(self, key: str) -> _Object:
        with self._lock:
            try:
                return self._objects[key]
            except KeyError:
                raise ObjectNotFoundError(key) from None

    def _upload(self, key: str, upload_id: str) -> _Upload:
        """The upload, with the lock held."""
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise UploadNotFoundError(
                f"There is no upload {upload_id} of {key}: it was completed or aborted."
            )
        return upload


def _etag(data: bytes) -> str:
    """The MD5 sum, as S3 has it: a name for the content, not a protection."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
