"""The API's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, FilePath, ValidationInfo, field_validator

from downloadjobs_api.edge_settings import AuthMode, EdgeSettings
from downloadjobs_core.errors import WebhookKeyError
from downloadjobs_core.settings import (
    METRICS_PORT,
    Ceilings,
    Origin,
    Port,
    QueueSettings,
    RedisSettings,
    StorageSettings,
    WebhookAddressSettings,
)
from downloadjobs_core.states import Priority
from downloadjobs_core.telemetry_settings import TelemetrySettings, TraceUrl
from downloadjobs_core.webhook_keys import read_public_keys

__all__ = ["ApiSettings", "AuthMode"]


class ApiSettings(
    RedisSettings, QueueSettings, WebhookAddressSettings, EdgeSettings, StorageSettings, TelemetrySettings
):
    """Everything the API reads from the environment."""

    host: str = Field("0.0.0.0", description="the address to listen on")  # noqa: S104 - a pod's own address
    port: Port = 3000
    metrics_port: Port = METRICS_PORT
    api_public_url: Origin | None = Field(
        None, description="where clients reach this API; only for mock storage"
    )
    api_workers: int = Field(1, ge=1, le=64, description="gunicorn worker processes")
    redis_max_connections: int = Field(64, ge=1, description="of one worker process")
    root_message: str = "downloadjobs"
    dashboard_enabled: bool = Field(True, description="serve the page /dashboard")  # noqa: FBT003 - a default
    allow_anonymous_start: Annotated[bool | None, Field(description="true outside production by default")] = (
        None
    )
    max_attempts: int = Field(3, ge=1, le=20)
    priority_ceilings: Ceilings = Field(
        {"*": Priority.NORMAL},
        description='the highest class: one for all, or JSON by user, as {"*": "normal", "ada": "high"}',
    )
    presign_seconds: int = Field(600, ge=1, le=604_800, description="how long a download URL is good for")
    idempotency_ttl_seconds: int = Field(
        86_400, ge=60, le=2_592_000, description="how long an Idempotency-Key is kept"
    )
    request_timeout_ms: int = Field(
        30_000, ge=100, description="for a request; long polls and streams last longer"
    )
    storage_threads: int = Field(8, ge=1, le=256, description="blocking storage calls at once")
    download_delay_enabled: bool = False
    download_delay_min_ms: int = Field(1_000, ge=0)
    download_delay_max_ms: int = Field(5_000, ge=0)
    trace_url_template: TraceUrl | None = Field(
        None, description="where a trace viewer shows the trace with the id {trace_id}"
    )
    sse_max_streams: int = Field(
        1_000, ge=0, description="event streams open at once in one worker process, and as many requests held"
    )
    sse_max_streams_per_user: int = Field(
        50, ge=1, description="of each, one user's; one stream more gets 429"
    )
    long_poll_max_seconds: float = Field(
        50,
        ge=0,
        le=600,
        description="how long `Prefer: wait` may hold a request; less than proxies wait for one",
    )
    drain_seconds: float = Field(100, ge=0, description="how long open requests may go on after SIGTERM")

    webhook_public_key_file: FilePath | None = Field(
        None, description="by which receivers verify webhooks; without it, callback URLs are refused"
    )

    @field_validator("webhook_public_key_file")
    @classmethod
    def _keys_to_verify_by(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                read_public_keys(path)
            except WebhookKeyError as error:
                raise ValueError(str(error)) from None
        return path

    @field_validator("download_delay_max_ms")
    @classmethod
    def _delays_in_order(cls, longest: int, info: ValidationInfo) -> int:
        if longest < info.data.get("download_delay_min_ms", 0):
            raise ValueError("must be at least DOWNLOAD_DELAY_MIN_MS")
        return longest

    @property
    def public_url(self) -> str:
        """Where clients reach this API, for mock storage's URLs; real results are served by S3 itself."""
        return self.api_public_url or f"http://localhost:{self.port}"

    @property
    def anonymous_start(self) -> bool:
        """Whether `start`, which hands out a URL, answers without a user."""
        return not self.production if self.allow_anonymous_start is None else self.allow_anonymous_start
