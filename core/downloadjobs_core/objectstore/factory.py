"""Opens the object stores that the settings describe."""

from __future__ import annotations

from dataclasses import dataclass

from downloadjobs_core.objectstore.folder import FolderObjectStore
from downloadjobs_core.objectstore.protocol import ObjectStore
from downloadjobs_core.objectstore.s3 import S3Config, connect
from downloadjobs_core.settings import StorageSettings


@dataclass(frozen=True, slots=True)
class Stores:
    """Where files are read and results are written; the same bucket unless `S3_RESULTS_BUCKET` is set."""

    files: ObjectStore
    results: ObjectStore
    mock: FolderObjectStore | None = None
    """Set when mock storage stands in: then it is both of the others."""


def open_stores(settings: StorageSettings, *, connections: int, public_url: str = "") -> Stores:
    """Open the stores without asking any server.

    Args:
        settings: of the process.
        connections: how many requests go to storage at once.
        public_url: the API's own origin, under which mock results are served.
    """
    if settings.s3_bucket_name is None:
        mock = FolderObjectStore(settings.mock_dir, source_prefix=settings.s3_key_prefix, base_url=public_url)
        return Stores(files=mock, results=mock, mock=mock)
    config = S3Config(
        endpoint=settings.endpoint,
        region=settings.s3_region,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        force_path_style=settings.s3_force_path_style,
        ca_file=settings.s3_ca_file,
        public_endpoint=settings.s3_public_endpoint,
        pool_connections=connections,
    )
    files = connect(config, settings.s3_bucket_name)
    if settings.s3_results_bucket in {None, settings.s3_bucket_name}:
        return Stores(files=files, results=files)
    return Stores(files=files, results=connect(config, settings.s3_results_bucket or ""))
