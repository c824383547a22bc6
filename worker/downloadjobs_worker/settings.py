"""The worker's settings."""

from __future__ import annotations

from typing import Final

from pydantic import Field, ValidationInfo, field_validator

from downloadjobs_core.objectstore.protocol import MIN_PART_BYTES
from downloadjobs_core.settings import METRICS_PORT, Port, QueueSettings, RedisSettings, StorageSettings
from downloadjobs_worker.retrying import RetryPolicy

MIB: Final = 1024 * 1024


class WorkerSettings(RedisSettings, QueueSettings, StorageSettings):
    """Everything the worker reads from the environment.

    A slot's memory is bounded by `PART_BYTES` times (`UPLOAD_THREADS` + 3), for parts being filled,
    held back and uploaded, and `READ_AHEAD_FILES` times `READ_AHEAD_BYTES`, whatever the files' sizes.
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
    part_bytes: int = Field(8 * MIB, ge=MIN_PART_BYTES, le=512 * MIB, description="of a multipart upload")
    upload_threads: int = Field(2, ge=1, le=16, description="parts uploaded at once by one job")
    read_ahead_files: int = Field(4, ge=1, le=32, description="files read at once by one job")
    read_ahead_bytes: int = Field(4 * MIB, ge=MIB, le=256 * MIB, description="read ahead of each file")
    deduplicate_results: bool = False
    download_delay_enabled: bool = False
    download_delay_min_ms: int = Field(1_000, ge=0)
    download_delay_max_ms: int = Field(5_000, ge=0)

    @field_validator("download_delay_max_ms")
    @classmethod
    def _delays_in_order(cls, longest: int, info: ValidationInfo) -> int:
        if longest < info.data.get("download_delay_min_ms", 0):
            raise ValueError("must be at least DOWNLOAD_DELAY_MIN_MS")
        return longest

    @property
    def retry(self) -> RetryPolicy:
        """When a failed job is tried again."""
        return RetryPolicy(self.retry_base_seconds, self.retry_factor, self.retry_cap_seconds)
