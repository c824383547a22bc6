"""The API's settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from downloadjobs_core.settings import (
    METRICS_PORT,
    Ceilings,
    Origin,
    Port,
    QueueSettings,
    RedisSettings,
    StorageSettings,
)
from downloadjobs_core.states import Priority


class AuthMode(StrEnum):
    """How a request says who its user is."""

    HEADER = "header"
    """By `x-user-id`, which the ingress sets, and strips from what clients send."""

    ANONYMOUS = "anonymous"
    """Everybody is one user: for a try-out."""


class ApiSettings(RedisSettings, QueueSettings, StorageSettings):
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
    auth_mode: AuthMode = AuthMode.HEADER
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
    request_timeout_ms: int = Field(30_000, ge=100, description="for the synchronous calls to storage")
    storage_threads: int = Field(8, ge=1, le=256, description="blocking storage calls at once")
    download_delay_enabled: bool = False
    download_delay_min_ms: int = Field(1_000, ge=0)
    download_delay_max_ms: int = Field(5_000, ge=0)
    drain_seconds: float = Field(100, ge=0, description="how long open requests may go on after SIGTERM")

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
