"""The job as Redis holds it, and as one is asked for.

`docs/job-record.md` shows a whole hash. Times end in `_us`: microseconds since
1970 by Redis' clock. Strings are UTF-8; numbers are decimal strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState, Priority

SCHEMA: Final = 1
"""Version of the hash's fields. A worker goes on with jobs of the previous release."""

MAINTENANCE: Final = "maintenance"

MIN_FILE_ID: Final = 10_000
MAX_FILE_ID: Final = 100_000_000
MAX_FILES: Final = 1_000
"""The contract's limits: 1 to 1,000 ids from 10,000 to 100,000,000."""


RECORD_FIELDS: Final = (
    "id", "user", "state", "priority", "kind", "source", "reader", "mirror", "suspended",
    "total_file_ids", "files_total", "files_done", "files_failed", "bytes_done", "bytes_total",
    "attempt", "failures", "max_attempts", "deliveries", "worker",
    "created_us", "started_us", "leased_us", "updated_us", "finished_us", "due_us", "expires_us",
    "result_key", "result_bytes", "error_code", "error_message", "deduplicated",
)  # fmt: skip
"""What those read who watch many jobs: all but the file ids, which are most of a record's bytes."""


def job_key(job_id: str) -> str:
    """The key of a job's hash."""
    return f"{ROOT}:job:{job_id}"


def distinct(file_ids: Iterable[int]) -> tuple[int, ...]:
    """The ids in the order of their first appearance: an id asked for twice is one member."""
    return tuple(dict.fromkeys(file_ids))


def rfc3339(time_us: int) -> str:
    """Microseconds since 1970 as RFC 3339 in UTC, with milliseconds and `Z`."""
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{_to_the_second(seconds)}.{micros // 1000:03}Z"


@lru_cache(maxsize=4096)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be submitted. Submitting the same `job_id` twice is one job."""

    job_id: str
    user: str
    file_ids: tuple[int, ...]
    """Distinct, in the order they become members of the zip."""
    total_file_ids: int
    """How many ids were asked for, duplicates included."""
    max_attempts: int
    priority: Priority = Priority.NORMAL
    source: str = "rest"
    reader: str = ""
    """A user who may see the job and fetch its result beside its own, who is charged for it."""
    suspended: bool = False
    """It is held from the start."""
    result_ttl_seconds: int = 0
    """How long its result is kept; 0 for the queue's own rule."""
    request_id: str = ""
    traceparent: str = ""
    """The W3C trace context the job was asked for in, continued by its worker."""

    def fields(self) -> list[str | int]:
        """The pairs of field and value that `submit.lua` writes beside its own."""
        return [
            "schema", SCHEMA,
            "source", self.source,
            "file_ids", json.dumps(self.file_ids, separators=(",", ":")),
            "total_file_ids", self.total_file_ids,
            "files_total", len(self.file_ids),
            "max_attempts", self.max_attempts,
            "result_ttl_seconds", self.result_ttl_seconds,
            "request_id", self.request_id,
            "traceparent", self.traceparent,
        ]  # fmt: skip

    def submission(self, *, max_queued: int, index_seconds: int) -> list[str | int]:
        """The arguments of `submit.lua`.

        Args:
            max_queued: jobs of one user that may wait.
            index_seconds: how long the list of a user's jobs is kept after the last one.
        """
        return [
            self.job_id, self.user, self.priority.value, len(self.file_ids), max_queued, index_seconds,
            self.reader, int(self.suspended), *self.fields(),
        ]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job's record, read from its hash. Fields that a job does not have yet are 0 or empty."""

    job_id: str
    user: str
    state: JobState
    priority: Priority = Priority.NORMAL
    kind: str = ""
    """`maintenance` for the queue's own tasks, whose `job_id` is the task's name."""
    source: str = "rest"
    reader: str = ""
    """Who may see it and fetch its result beside its user; empty for nobody."""
    mirror: str = ""
    """The uid of the DownloadJob that shows a job that came by REST (the operator's `mirrors.py`)."""
    suspended: bool = False
    """It is held, or will be when it comes back to the queue."""
    file_ids: tuple[int, ...] = ()
    total_file_ids: int = 0
    files_total: int = 0
    files_done: int = 0
    files_failed: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    attempt: int = 0
    """The number of the attempt under way or ended last, from 1."""
    failures: int = 0
    max_attempts: int = 1
    deliveries: int = 0
    """How often it was leased since its last outcome."""
    token: str = ""
    """The current attempt's fencing token; empty while nobody holds the job."""
    worker: str = ""
    created_us: int = 0
    started_us: int = 0
    leased_us: int = 0
    updated_us: int = 0
    finished_us: int = 0
    due_us: int = 0
    expires_us: int = 0
    result_key: str = ""
    result_bytes: int = 0
    result_ttl_seconds: int = 0
    """How long its result is kept; 0 for the queue's own rule."""
    deduplicated: bool = False
    """Its result was made for another job."""
    error_code: str = ""
    error_message: str = ""
    request_id: str = ""
    traceparent: str = ""

    @classmethod
    def from_hash(cls, values: Mapping[str, str]) -> Job:
        """Read a hash; fields this release does not know are left alone."""

        def number(field: str) -> int:
            return int(values.get(field) or 0)

        def text(field: str) -> str:
            return values.get(field, "")

        return cls(
            job_id=values["id"],
            user=values["user"],
            state=JobState(values["state"]),
            priority=Priority(values.get("priority", Priority.NORMAL)),
            kind=text("kind"),
            source=text("source"),
            reader=text("reader"),
            mirror=text("mirror"),
            suspended=text("suspended") == "1",
            file_ids=tuple(json.loads(values.get("file_ids") or "[]")),
            total_file_ids=number("total_file_ids"),
            files_total=number("files_total"),
            files_done=number("files_done"),
            files_failed=number("files_failed"),
            bytes_done=number("bytes_done"),
            bytes_total=number("bytes_total"),
            attempt=number("attempt"),
            failures=number("failures"),
            max_attempts=int(values.get("max_attempts") or 1),
            deliveries=number("deliveries"),
            token=text("token"),
            worker=text("worker"),
            created_us=number("created_us"),
            started_us=number("started_us"),
            leased_us=number("leased_us"),
            updated_us=number("updated_us"),
            finished_us=number("finished_us"),
            due_us=number("due_us"),
            expires_us=number("expires_us"),
            result_key=text("result_key"),
            result_bytes=number("result_bytes"),
            result_ttl_seconds=number("result_ttl_seconds"),
            deduplicated=text("deduplicated") == "1",
            error_code=text("error_code"),
            error_message=text("error_message"),
            request_id=text("request_id"),
            traceparent=text("traceparent"),
        )

    def may_be_seen_by(self, user: str) -> bool:
        """Whether it is the user's own, or one that they may fetch the result of."""
        return user in {self.user, self.reader}

    @property
    def is_maintenance(self) -> bool:
        """Whether this is a task of the queue's own, not a user's job."""
        return self.kind == MAINTENANCE

    @property
    def trace_id(self) -> str:
        """The 32 hex digits of the job's trace (W3C Trace Context, 3.2.2.3), or empty."""
        fields = self.traceparent.split("-")
        return fields[1] if len(fields) == 4 else ""  # noqa: PLR2004 - version, trace, parent, flags
