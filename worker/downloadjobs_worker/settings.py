"""The worker's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, FilePath, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from downloadjobs_core.errors import WebhookKeyError
from downloadjobs_core.objectstore.protocol import MIN_PART_BYTES
from downloadjobs_core.settings import (
    METRICS_PORT,
    CertificatesFile,
    Origin,
    Port,
    QueueSettings,
    RedisSettings,
    StorageSettings,
    WebhookAddressSettings,
)
from downloadjobs_core.telemetry_settings import TelemetrySettings
from downloadjobs_core.webhook_keys import read_signer
from downloadjobs_worker.retrying import RetryPolicy
from downloadjobs_worker.uploading import LEAST_BUFFERS

MIB: Final = 1024 * 1024

UPLOAD_MEMORY_BYTES: Final = 128 * MIB
"""With it and the other defaults, four slots stay within the chart's limit of 1 GiB, whatever they make."""


def _delays(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


RetryDelays = Annotated[
    tuple[Annotated[float, Field(gt=0, le=7 * 86_400)], ...],
    Field(max_length=20),
    NoDecode,
    BeforeValidator(_delays),
]


class WorkerSettings(
    RedisSettings, QueueSettings, WebhookAddressSettings, StorageSettings, TelemetrySettings
):
    """Everything the worker reads from the environment.

    A slot's memory is bounded by `UPLOAD_MEMORY_BYTES`, for parts being filled, held back and uploaded, and
    `READ_AHEAD_FILES` times (`READ_AHEAD_BYTES` + 1 MiB), whatever the files' sizes.
    """

    host: str = Field("0.0.0.0", description="the address to listen on")  # noqa: S104 - a pod's own address
    metrics_port: Port = METRICS_PORT
    worker_concurrency: int = Field(4, ge=1, le=64, description="jobs at once in one process")
    worker_name: str | None = Field(None, description="shown as a job's worker; the host's name by default")
    pod_uid: str | None = Field(None, description="in Kubernetes, which pod this is (downward API)")
    drain_seconds: float = Field(100, ge=0, description="how long running jobs may go on after SIGTERM")
    retry_base_seconds: float = Field(5, gt=0)
    retry_factor: float = Field(2, ge=1)
    retry_cap_seconds: float = Field(300, gt=0)
    storage_patience_seconds: float = Field(
        900, ge=0, le=86_400, description="how long a running job waits for storage that is away"
    )
    part_bytes: int = Field(8 * MIB, ge=MIN_PART_BYTES, le=512 * MIB, description="of a multipart upload")
    upload_threads: int = Field(2, ge=1, le=16, description="parts uploaded at once by one job")
    upload_memory_bytes: int | None = Field(
        None,
        ge=LEAST_BUFFERS * MIN_PART_BYTES,
        description="of one job's parts, at most; see `upload_memory`",
    )
    read_ahead_files: int = Field(4, ge=1, le=32, description="files read at once by one job")
    read_ahead_bytes: int = Field(4 * MIB, ge=MIB, le=256 * MIB, description="read ahead of each file")
    deduplicate_results: bool = False
    download_delay_enabled: bool = False
    download_delay_min_ms: int = Field(1_000, ge=0)
    download_delay_max_ms: int = Field(5_000, ge=0)

    webhook_signing_key_file: FilePath | None = Field(
        None, description="Ed25519 keys that sign webhooks, the current one first; none are sent without it"
    )
    webhook_concurrency: int = Field(4, ge=1, le=64, description="webhooks sent at once by one process")
    webhook_timeout_seconds: float = Field(10, ge=1, le=60, description="for one try, from look-up to answer")
    webhook_retry_seconds: RetryDelays = Field(
        (5, 60, 300, 1_800, 7_200, 21_600, 43_200), description="between the tries of a webhook, with commas"
    )
    webhook_ca_file: CertificatesFile | None = Field(
        None, description="certificates to trust beside the system's, for receivers of one's own"
    )
    webhook_proxy: Origin | None = Field(
        None, description="an HTTP proxy that webhooks go through; then it is the one that guards"
    )

    @field_validator("webhook_signing_key_file")
    @classmethod
    def _keys_to_sign_with(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                read_signer(path)
            except WebhookKeyError as error:
                raise ValueError(str(error)) from None
        return path

    @field_validator("download_delay_max_ms")
    @classmethod
    def _delays_in_order(cls, longest: int, info: ValidationInfo) -> int:
        if longest < info.data.get("download_delay_min_ms", 0):
            raise ValueError("must be at least DOWNLOAD_DELAY_MIN_MS")
        return longest

    @field_validator("upload_memory_bytes")
    @classmethod
    def _memory_for_parts(cls, memory: int | None, info: ValidationInfo) -> int | None:
        if memory is not None and memory < LEAST_BUFFERS * info.data.get("part_bytes", 0):
            raise ValueError(f"must be at least {LEAST_BUFFERS} times PART_BYTES")
        return memory

    @property
    def upload_memory(self) -> int:
        """What the parts of one job may take, in bytes: 128 MiB, unless other settings ask for more."""
        asked = self.part_bytes * (self.upload_threads + LEAST_BUFFERS)
        return self.upload_memory_bytes or max(UPLOAD_MEMORY_BYTES, asked)

    @property
    def retry(self) -> RetryPolicy:
        """When a failed job is tried again."""
        return RetryPolicy(self.retry_base_seconds, self.retry_factor, self.retry_cap_seconds)
