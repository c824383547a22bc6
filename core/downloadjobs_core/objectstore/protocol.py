"""What the project needs of an object store: a small part of S3.

Only calls that MinIO, SeaweedFS and AWS share. A store is bound to one bucket;
keys are strings without a leading slash. Every method may raise
`ObjectStoreUnavailableError`, `CredentialsRefusedError`, `ObjectStoreDeniedError` or
`BucketNotFoundError`, and a plain `ObjectStoreError` for what no retry mends (a wrong region, a
part too small).
All methods block: callers on an event loop run them in a thread. Stores are safe for
several threads, readers are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias, runtime_checkable

MIN_PART_BYTES = 5 * 1024 * 1024
"""S3's smallest part of a multipart upload, but for the last one."""

MAX_PARTS = 10_000
"""S3's largest number of parts of one multipart upload."""

MAX_PRESIGN_SECONDS = 604_800
"""Seven days: the longest that a presigned URL of signature version 4 can be good."""

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""What can be stored. It is sent without a copy, so leave it alone until the call returns."""


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """One object: its key, size in bytes, and ETag (without the quotes of the header)."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Part:
    """An uploaded part: its number (1 to `MAX_PARTS`) and the ETag the store gave it."""

    number: int
    etag: str


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """A multipart upload that was begun and neither completed nor aborted."""

    key: str
    upload_id: str
    initiated_at: float
    """Unix time, seconds."""


class ObjectReader(Protocol):
    """An open read of one object from an offset to its end. Close it in every case."""

    stat: ObjectStat
    """The whole object's size and ETag, whatever the offset."""

    def read(self, max_bytes: int) -> bytes:
        """Return up to `max_bytes` bytes, or `b""` at the end.

        Raises:
            ObjectStoreUnavailableError: the connection broke, or ended before the last byte.
        """

    def close(self) -> None:
        """Release the connection; it is reused only if the body was read to its end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class ObjectStore(Protocol):
    """One bucket of an object store."""

    bucket: str

    def check(self) -> None:
        """Prove that the server answers, the credentials are good and the bucket exists."""

    def stat(self, key: str) -> ObjectStat:
        """Raises `ObjectNotFoundError` if there is no such object."""

    def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
        """Open an object for reading, from byte `offset` on (RFC 9110, 14.2).

        An `offset` equal to the object's size gives a reader that is at its end.

        Raises:
            ObjectNotFoundError: there is no such object.
            ObjectChangedError: its ETag is not `if_match` (RFC 9110, 13.1.1), or it is
                shorter than `offset`.
        """

    def put(self, key: str, data: BytesLike, *, content_type: str = "application/octet-stream") -> str:
        """Store a whole object and return its ETag."""

    def delete(self, key: str) -> None:
        """Remove an object; no error if there is none."""

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """All objects whose key begins with `prefix`."""

    def create_upload(self, key: str, *, content_type: str = "application/octet-stream") -> str:
        """Begin a multipart upload and return its id."""

    def upload_part(self, key: str, upload_id: str, number: int, data: BytesLike) -> Part:
        """Upload one part. Parts may come in any order and differ in size.

        Sending a number again is safe only with the same bytes: SeaweedFS keeps the first
        ones, other servers the last.

        Raises:
            UploadNotFoundError: the upload was completed or aborted.
        """

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> str:
        """Join the parts, in order of their numbers, and return the object's ETag.

        Raises:
            UploadNotFoundError: the upload was aborted, or a part is not there; or it was
                completed before (SeaweedFS and AWS answer with the same ETag again then).
            ObjectStoreError: a part other than the last is smaller than `MIN_PART_BYTES`;
                the upload stays.
        """

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts; no error if it is gone already."""

    def pending_uploads(self, prefix: str) -> Iterable[PendingUpload]:
        """Uploads under `prefix` that were neither completed nor aborted.

        With a whole key as `prefix` the answer is exact. MinIO answers any other prefix from
        memory, and has forgotten there what was begun before its last restart.
        """

    def presign_get(self, key: str, *, expires_seconds: int, filename: str | None = None) -> str:
        """A URL that lets anyone read this one object for `expires_seconds` (1 to `MAX_PRESIGN_SECONDS`).

        With `filename`, the answer carries it in a Content-Disposition header.
        The URL is a secret: it is never logged. Asks the server nothing.
        """
