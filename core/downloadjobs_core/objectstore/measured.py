"""An object store that tells how long each request took, and how it ended.

Only requests are measured, not the reading of an open object: that is the job's own time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreDeniedError,
    ObjectStoreUnavailableError,
    UploadNotFoundError,
)
from downloadjobs_core.objectstore.protocol import (
    BytesLike,
    ObjectReader,
    ObjectStat,
    ObjectStore,
    Part,
    PendingUpload,
)

OK: Final = "ok"
ERROR: Final = "error"

_RESULTS: Final[Mapping[type[Exception], str]] = {
    ObjectNotFoundError: "not_found",
    UploadNotFoundError: "not_found",
    BucketNotFoundError: "not_found",
    ObjectChangedError: "changed",
    ObjectStoreDeniedError: "denied",
    CredentialsRefusedError: "denied",
    ObjectStoreUnavailableError: "unavailable",
}

OPERATIONS: Final = (
    "check", "stat", "open", "put", "delete", "list", "create_upload", "upload_part", "complete_upload",
    "abort_upload", "pending_uploads",
)  # fmt: skip
RESULTS: Final = (OK, *dict.fromkeys(_RESULTS.values()), ERROR)

Observe = Callable[[str, str, float], None]
"""Told of each request: one of `OPERATIONS`, one of `RESULTS`, and its seconds."""


def result_of(error: Exception) -> str:
    """How a request ended that raised this."""
    return next((name for kind, name in _RESULTS.items() if isinstance(error, kind)), ERROR)


class MeasuredObjectStore(ObjectStore):
    """Passes every call on, and measures it."""

    def __init__(self, store: ObjectStore, observe: Observe) -> None:
        self._store = store
        self._observe = observe
        self.bucket = store.bucket

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        began = time.monotonic()
        result = OK
        try:
            yield
        except Exception as error:
            result = result_of(error)
            raise
        finally:
            self._observe(operation, result, time.monotonic() - began)

    def check(self) -> None:
        """See `ObjectStore`, as for all others."""
        with self._measured("check"):
            self._store.check()

    def stat(self, key: str) -> ObjectStat:
        """Measured."""
        with self._measured("stat"):
            return self._store.stat(key)

    def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
        """Measured to the answer's head."""
        with self._measured("open"):
            return self._store.open(key, offset=offset, if_match=if_match)

    def put(self, key: str, data: BytesLike, *, content_type: str = "application/octet-stream") -> str:
        """Measured."""
        with self._measured("put"):
            return self._store.put(key, data, content_type=content_type)

    def delete(self, key: str) -> None:
        """Measured."""
        with self._measured("delete"):
            self._store.delete(key)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Measured to the first object; whoever goes on takes their own time between pages."""
        with self._measured("list"):
            found = self._store.list(prefix)
            first = next(found, None)
        if first is not None:
            yield first
            yield from found

    def create_upload(self, key: str, *, content_type: str = "application/octet-stream") -> str:
        """Measured."""
        with self._measured("create_upload"):
            return self._store.create_upload(key, content_type=content_type)

    def upload_part(self, key: str, upload_id: str, number: int, data: BytesLike) -> Part:
        """Measured."""
        with self._measured("upload_part"):
            return self._store.upload_part(key, upload_id, number, data)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> str:
        """Measured."""
        with self._measured("complete_upload"):
            return self._store.complete_upload(key, upload_id, parts)

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Measured."""
        with self._measured("abort_upload"):
            self._store.abort_upload(key, upload_id)

    def pending_uploads(self, prefix: str) -> Iterable[PendingUpload]:
        """Measured whole: there are few."""
        with self._measured("pending_uploads"):
            return tuple(self._store.pending_uploads(prefix))

    def presign_get(self, key: str, *, expires_seconds: int, filename: str | None = None) -> str:
        """Not measured: it asks the server nothing."""
        return self._store.presign_get(key, expires_seconds=expires_seconds, filename=filename)
