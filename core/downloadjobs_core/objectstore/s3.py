"""The object store on an S3 server: MinIO, SeaweedFS, AWS and others, by minio-py.

The credentials need, on the bucket: `s3:ListBucket` to tell what is absent from what is
forbidden, `s3:GetObject` to read, and to write `s3:PutObject`, `s3:DeleteObject`,
`s3:AbortMultipartUpload` and `s3:ListBucketMultipartUploads`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from minio import Minio
from minio import datatypes as minio_types
from minio.credentials.providers import Provider
from minio.error import S3Error
from minio.helpers import check_bucket_name
from urllib3 import PoolManager

from downloadjobs_core.errors import (
    BucketNotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    UploadNotFoundError,
)
from downloadjobs_core.objectstore.arguments import (
    check_expiry,
    check_part_number,
    content_disposition,
    in_order,
)
from downloadjobs_core.objectstore.protocol import BytesLike, ObjectStat, Part, PendingUpload
from downloadjobs_core.objectstore.s3_credentials import credentials
from downloadjobs_core.objectstore.s3_faults import FaultTranslator
from downloadjobs_core.objectstore.s3_http import http_client
from downloadjobs_core.objectstore.s3_reading import S3Reader, opened


@dataclass(frozen=True, slots=True)
class S3Config:
    """How to reach an S3 server.

    Attributes:
        endpoint: `http(s)://host[:port]`; None for AWS.
        region: always signed with, so that nobody has to be asked for it.
        access_key: with `secret_key`, static credentials. Without both: the standard AWS
            variables, a web identity token, or the instance's or container's metadata.
        secret_key: see `access_key`.
        force_path_style: the bucket in the path (True) or in the host name (False); None
            takes the host name on AWS and the path elsewhere.
        ca_file: certificates to trust instead of the public ones (PEM).
        public_endpoint: `http(s)://host[:port]` that presigned URLs are made for.
        connect_timeout_seconds: for a connection with its TLS handshake.
        read_timeout_seconds: the longest silence while sending or receiving.
        pool_connections: idle connections kept open; more are opened when needed.
    """

    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    force_path_style: bool | None = None
    ca_file: Path | None = None
    public_endpoint: str | None = None
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 30.0
    pool_connections: int = 16


def connect(config: S3Config, bucket: str) -> S3ObjectStore:
    """Build the store of one bucket. Asks no server; call it after a fork, not before.

    Raises:
        ObjectStoreError: an endpoint, the region, the bucket's name or `ca_file` cannot be used.
    """
    try:
        check_bucket_name(bucket)
    except ValueError as error:
        raise ObjectStoreError(f"S3_BUCKET_NAME cannot be used: {error}.") from error
    http = http_client(
        connect_timeout_seconds=config.connect_timeout_seconds,
        read_timeout_seconds=config.read_timeout_seconds,
        connections=config.pool_connections,
        ca_file=config.ca_file,
    )
    provider = credentials(config.access_key, config.secret_key, config.region)
    endpoint = config.endpoint or _aws_endpoint(config.region)
    client = _client(endpoint, config, provider, http)
    public = config.public_endpoint
    presigner = client if public is None else _client(public, config, provider, http)
    return S3ObjectStore(client, presigner, http, bucket, FaultTranslator(endpoint, bucket))


class S3ObjectStore:
    """One bucket of an S3 server; see `ObjectStore`. Built by `connect`."""

    def __init__(
        self, client: Minio, presigner: Minio, http: PoolManager, bucket: str, faults: FaultTranslator
    ) -> None:
        self.bucket = bucket
        self._client = client
        self._presigner = presigner
        self._http = http
        self._faults = faults

    def close(self) -> None:
        """Close the idle connections."""
        self._http.clear()

    def check(self) -> None:
        """See `ObjectStore.check`."""
        try:
            with self._faults.translating():
                exists = self._client.bucket_exists(self.bucket)
        except ObjectStoreUnavailableError:
            raise
        except ObjectStoreError:
            # The answer to HEAD has no body to say why; the one to GET has.
            with self._faults.translating():
                self._client._execute("GET", self.bucket, query_params={"list-type": "2", "max-keys": "1"})
            raise
        if not exists:
            raise BucketNotFoundError(self.bucket)

    def stat(self, key: str) -> ObjectStat:
        """See `ObjectStore.stat`. A missing bucket looks like a missing object here; `check` tells."""
        with self._faults.translating(key):
            found = self._client.stat_object(self.bucket, key)
            return ObjectStat(key, found.size or 0, found.etag or "")

    def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> S3Reader:
        """See `ObjectStore.open`."""
        conditions = {} if if_match is None else {"If-Match": f'"{if_match}"'}
        with self._faults.translating(key):
            try:
                response = self._client.get_object(
                    self.bucket, key, offset=offset, request_headers=_headers(conditions)
                )
            except S3Error as error:
                if error.response.status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise
                return self._at_end(key, offset, if_match)
            return opened(key, offset, response)

    def _at_end(self, key: str, offset: int, if_match: str | None) -> S3Reader:
        """No byte is left at `offset`: right at the end, or because the object shrank."""
        stat = self.stat(key)
        if stat.size != offset or if_match not in {None, stat.etag}:
            raise ObjectChangedError(key)
        return S3Reader(stat, None, 0)

    def put(self, key: str, data: BytesLike, *, content_type: str = "application/octet-stream") -> str:
        """See `ObjectStore.put`."""
        with self._faults.translating(key):
            headers = _headers({"Content-Type": content_type})
            return self._client._put_object(self.bucket, key, cast("bytes", data), headers).etag or ""

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with suppress(ObjectNotFoundError), self._faults.translating(key):
            self._client.remove_object(self.bucket, key)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `ObjectStore.list`."""
        with self._faults.translating():
            for found in self._client.list_objects(self.bucket, prefix=prefix, recursive=True):
                yield ObjectStat(found.object_name, found.size or 0, found.etag or "")

    def create_upload(self, key: str, *, content_type: str = "application/octet-stream") -> str:
        """See `ObjectStore.create_upload`."""
        with self._faults.translating(key):
            headers = _headers({"Content-Type": content_type})
            return self._client._create_multipart_upload(self.bucket, key, headers)

    def upload_part(self, key: str, upload_id: str, number: int, data: BytesLike) -> Part:
        """See `ObjectStore.upload_part`."""
        check_part_number(number)
        with self._faults.translating(key):
            etag = self._client._upload_part(self.bucket, key, cast("bytes", data), None, upload_id, number)
            return Part(number, etag)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> str:
        """See `ObjectStore.complete_upload`."""
        ordered = [minio_types.Part(part.number, part.etag) for part in in_order(parts)]
        with self._faults.translating(key):
            done = self._client._complete_multipart_upload(self.bucket, key, upload_id, ordered)
        if not done.etag:
            # S3 may begin its answer with 200 and meet a fault while it joins the parts.
            raise ObjectStoreUnavailableError(f"The object store began to complete {key} and then failed.")
        return done.etag

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See `ObjectStore.abort_upload`."""
        with suppress(UploadNotFoundError), self._faults.translating(key):
            self._client._abort_multipart_upload(self.bucket, key, upload_id)

    def pending_uploads(self, prefix: str) -> Iterator[PendingUpload]:
        """See `ObjectStore.pending_uploads`."""
        found = False
        for upload in self._uploads(prefix):
            found = True
            yield upload
        if not found and prefix:
            # MinIO knows only whole keys and the empty prefix here.
            yield from (upload for upload in self._uploads("") if upload.key.startswith(prefix))

    def _uploads(self, prefix: str) -> Iterator[PendingUpload]:
        key_marker = id_marker = None
        with self._faults.translating():
            while True:
                page = self._client._list_multipart_uploads(
                    self.bucket, prefix=prefix, key_marker=key_marker, upload_id_marker=id_marker
                )
                for upload in page.uploads:
                    begun = upload.initiated_time.timestamp() if upload.initiated_time else 0.0
                    yield PendingUpload(upload.object_name, upload.upload_id or "", begun)
                # minio-py 7.2.20 keeps the second marker under a misspelt name.
                markers = page.next_key_marker, vars(page).get("self._next_upload_id_marker")
                if not page.is_truncated or markers in {(None, None), (key_marker, id_marker)}:
                    return
                key_marker, id_marker = markers

    def presign_get(self, key: str, *, expires_seconds: int, filename: str | None = None) -> str:
        """See `ObjectStore.presign_get`."""
        check_expiry(expires_seconds)
        answer = {} if filename is None else {"response-content-disposition": content_disposition(filename)}
        with self._faults.translating(key):
            return self._presigner.presigned_get_object(
                self.bucket, key, timedelta(seconds=expires_seconds), response_headers=_headers(answer)
            )


def _client(endpoint: str, config: S3Config, provider: Provider, http: PoolManager) -> Minio:
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path.strip("/"):
        raise ObjectStoreError(
            f"{endpoint} is no S3 endpoint: it must be http(s)://host[:port] without a path."
        )
    try:
        client = Minio(
            parts.netloc,
            secure=parts.scheme == "https",
            region=config.region,
            http_client=http,
            credentials=provider,
        )
    except ValueError as error:
        raise ObjectStoreError(f"S3_ENDPOINT or S3_REGION cannot be used: {error}.") from error
    if config.force_path_style is not None:
        client._base_url.virtual_style_flag = not config.force_path_style
    return client


def _aws_endpoint(region: str) -> str:
    return f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _headers(headers: Mapping[str, str]) -> dict[str, str | list[str] | tuple[str]]:
    """Headers as minio-py types them. It changes what it is given, so each call gets a dict of its own."""
    return dict(headers)
