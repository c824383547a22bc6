"""An object store whose requests are spans of the trace they belong to.

Named as OpenTelemetry names calls of AWS' API; a request outside of any trace (a probe, maintenance) is
none. https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, get_current_span

from downloadjobs_core.errors import ObjectNotFoundError
from downloadjobs_core.objectstore.measured import result_of
from downloadjobs_core.objectstore.protocol import (
    BytesLike,
    ObjectReader,
    ObjectStat,
    ObjectStore,
    Part,
    PendingUpload,
)


class TracedObjectStore(ObjectStore):
    """Passes every call on, within a span. A read's span ends with the answer's head."""

    def __init__(self, store: ObjectStore, tracer: Tracer) -> None:
        self._store = store
        self._tracer = tracer
        self.bucket = store.bucket

    @contextmanager
    def _span(self, method: str, key: str = "", **more: str | int) -> Iterator[None]:
        if not get_current_span().get_span_context().is_valid:
            yield
            return
        attributes: dict[str, str | int] = {
            "rpc.system": "aws-api",
            "rpc.service": "S3",
            "rpc.method": method,
            "aws.s3.bucket": self.bucket,
            **({"aws.s3.key": key} if key else {}),
            **{f"aws.s3.{name}": value for name, value in more.items()},
        }
        with self._tracer.start_as_current_span(
            f"S3/{method}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", result_of(error))
                if not isinstance(error, ObjectNotFoundError):
                    span.set_status(Status(StatusCode.ERROR))
                raise

    def check(self) -> None:
        """See `ObjectStore`, as for all others."""
        with self._span("HeadBucket"):
            self._store.check()

    def stat(self, key: str) -> ObjectStat:
        """Traced; that there is no such object is an answer, and no error."""
        with self._span("HeadObject", key):
            return self._store.stat(key)

    def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
        """Traced to the answer's head."""
        with self._span("GetObject", key):
            return self._store.open(key, offset=offset, if_match=if_match)

    def put(self, key: str, data: BytesLike, *, content_type: str = "application/octet-stream") -> str:
        """Traced."""
        with self._span("PutObject", key):
            return self._store.put(key, data, content_type=content_type)

    def delete(self, key: str) -> None:
        """Traced."""
        with self._span("DeleteObject", key):
            self._store.delete(key)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Not traced: only maintenance lists, and that belongs to no job."""
        return self._store.list(prefix)

    def create_upload(self, key: str, *, content_type: str = "application/octet-stream") -> str:
        """Traced."""
        with self._span("CreateMultipartUpload", key):
            return self._store.create_upload(key, content_type=content_type)

    def upload_part(self, key: str, upload_id: str, number: int, data: BytesLike) -> Part:
        """Traced, with the part's number."""
        with self._span("UploadPart", key, part_number=number):
            return self._store.upload_part(key, upload_id, number, data)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> str:
        """Traced."""
        with self._span("CompleteMultipartUpload", key):
            return self._store.complete_upload(key, upload_id, parts)

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Traced."""
        with self._span("AbortMultipartUpload", key):
            self._store.abort_upload(key, upload_id)

    def pending_uploads(self, prefix: str) -> Iterable[PendingUpload]:
        """Traced whole: there are few."""
        with self._span("ListMultipartUploads", prefix):
            return tuple(self._store.pending_uploads(prefix))

    def presign_get(self, key: str, *, expires_seconds: int, filename: str | None = None) -> str:
        """Not traced: it asks the server nothing, and its answer is a secret."""
        return self._store.presign_get(key, expires_seconds=expires_seconds, filename=filename)
