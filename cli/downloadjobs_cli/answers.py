"""The API's answers, typed. Fields that this release does not know are left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

COMPLETED: Final = "completed"
IN_PART: Final = "completed_with_errors"
FAILED: Final = "failed"
ENDED: Final = frozenset({COMPLETED, IN_PART, FAILED, "cancelled", "expired"})
"""States after which polling ends. The fixed routes say `completed` for `completed_with_errors` too."""


class Progress(msgspec.Struct, frozen=True, rename="camel"):
    """Distinct files, and bytes of the zip's members where the API knows them."""

    processed: int
    total: int
    bytes: int = 0
    bytes_total: int = 0


class Submitted(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to `initiate`."""

    job_id: str
    status: str
    total_file_ids: int
    estimated_time: str = ""


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to `status`."""

    job_id: str
    status: str
    progress: Progress
    updated_at: str = ""
    failed_files: int = 0

    @property
    def ended(self) -> bool:
        """Whether the job goes no further."""
        return self.status in ENDED

    @property
    def whole(self) -> bool:
        """Whether every file that was asked for is in the result."""
        return self.status == COMPLETED and self.failed_files == 0


class Result(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to `result`. The URL is a secret: whoever has it can read the zip."""

    job_id: str
    status: str
    download_url: str
    expires_in: int = 0
    """Seconds."""
    failed_files: int = 0


class Cancelled(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a cancellation."""

    job_id: str
    state: str


class Checked(msgspec.Struct, frozen=True):
    """The answer to `check`; `key` and `size` (bytes) are null when there is no such file."""

    file_id: int
    available: bool
    key: str | None = msgspec.field(name="s3Key", default=None)
    size: int | None = None


Answer = TypeVar("Answer", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Reply(Generic[Answer]):
    """One answer: typed, as the API sent it, and when the API wants to be asked again (seconds)."""

    value: Answer
    document: dict[str, Any]
    retry_after: float | None = None


class Problem(msgspec.Struct, frozen=True, rename="camel"):
    """An RFC 9457 problem, with the three members that every error of the API has."""

    title: str = ""
    detail: str = ""
    error: str = ""
    message: str = ""
    request_id: str | None = None

    @property
    def text(self) -> str:
        """What to show a person."""
        return self.message or self.detail or self.title
