"""The job as Redis holds it, and as one is asked for.

`docs/job-record.md` shows a whole hash. Times end in `_us`: microseconds since
1970 by Redis' clock. Strings are UTF-8; numbers are decimal strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState, Priority
from downloadjobs_core.webhook_addresses import CallbackUrl

SCHEMA: Final = 1
"""Version of the hash's fields. A worker goes on with jobs of the previous release."""

MAINTENANCE: Final = "maintenance"

MIN_FILE_ID: Final = 10_000
MAX_FILE_ID: Final = 100_000_000
MAX_FILES: Final = 1_000
"""The contract's limits: 1 to 1,000 ids from 10,000 to 100,000,000."""


RECORD_FIELDS: Final = (
    "id", "user", "reader", "state", "priority", "kind", "source", "mirror", "suspended",
    "total_file_ids", "files_total", "files_done", "files_failed", "bytes_done", "bytes_total",
    "attempt", "failures", "max_attempts", "deliveries", "worker",
    "created_us", "started_us", "leased_us", "updated_us", "finished_us", "due_us", "expires_us",
    "result_key", "result_bytes", "error_code", "error_message", "deduplicated",
    "callback_origin", "callback_event", "callback_state", "callback_attempts", "callback_status",
    "callback_error", "callback_due_us",
    "worker_us", "worker_bytes", "retry_of", "retried_by", "event",
)  # fmt: skip
"""What those read who watch many jobs: all but the files' ids, which are most of a record's bytes.
`list.lua` counts on the first four."""

SHOWN_FIELDS: Final = (*RECORD_FIELDS, "request_id", "traceparent")
"""What a job's owner is shown of each of many."""


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


@dataclass(frozen=True, slots=True)
class Once:
    """Makes a submission that comes again the same job: what `submit.lua` keeps of its Idempotency-Key."""

    key: str
    """A digest of user and key: users share no keys."""
    asked: str
    """A digest of what was asked for: the same key with another one is refused."""
    keep_seconds: int

    @classmethod
    def of(cls, user: str, key: str, asked: Mapping[str, object], keep_seconds: int) -> Once:
        """Of a request.

        Args:
            user: who asks.
            key: theirs.
            asked: everything by which requests differ, as JSON has it. A member that is None counts as not
                there, so that a new one changes nothing about requests without it.
            keep_seconds: how long the key is kept.
        """
        named = {name: value for name, value in asked.items() if value is not None}
        content = json.dumps(named, sort_keys=True, separators=(",", ":"))
        return cls(_digest(f"{user}\0{key}"), _digest(content), keep_seconds)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


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
    callback: CallbackUrl | None = None
    """Where a call tells of its end."""
    retry_of: str = ""
    """The job whose failed files these are."""

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
            *(() if self.callback is None else self._callback_fields(self.callback)),
        ]  # fmt: skip

    @staticmethod
    def _callback_fields(callback: CallbackUrl) -> tuple[str, ...]:
        return "callback_url", callback.url, "callback_origin", callback.origin, "callback_state", "pending"

    def submission(
        self, *, max_queued: int, record_seconds: int, once: Once | None = None
    ) -> list[str | int]:
        """The arguments of `submit.lua`.

        Args:
            max_queued: jobs of one user that may wait.
            record_seconds: how long a record is kept after its job's end.
            once: the key that makes repetitions of the request one job.
        """
        return [
            self.job_id, self.user, self.priority.value, len(self.file_ids), max_queued, record_seconds,
            self.reader, int(self.suspended),
            once.key if once else "", once.asked if once else "", once.keep_seconds if once else 0,
            self.retry_of, *self.fields(),
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
    failed_files: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """The files that are not in the result, by why (`file_faults.py`)."""
    worker_us: int = 0
    """How long workers held it, in all attempts whose lease has ended."""
    worker_bytes: int = 0
    """Bytes of files that those attempts were done with."""
    retry_of: str = ""
    """The job whose failed files these are."""
    retried_by: str = ""
    """The job that tries its failed files again; the newest, if there are several."""
    request_id: str = ""
    traceparent: str = ""
    callback_url: str = field(default="", repr=False)
    """Where it is called back; only in the whole record."""
    callback_origin: str = ""
    """Scheme, host and port of its callback URL, whose rest may be a secret; empty without one."""
    callback_event: str = ""
    """The state that its newest call tells of."""
    callback_state: str = ""
    """`pending`, `delivered` or `failed`."""
    callback_attempts: int = 0
    callback_status: int = 0
    callback_error: str = ""
    callback_due_us: int = 0
    timeline_omitted: int = 0
    """Entries of its timeline that were left out."""
    event: str = ""
    """The id of the newest event that the record shows; empty for a job that an older release made."""

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
            failed_files=json.loads(values.get("failed_files") or "{}"),
            worker_us=number("worker_us"),
            worker_bytes=number("worker_bytes"),
            retry_of=text("retry_of"),
            retried_by=text("retried_by"),
            request_id=text("request_id"),
            traceparent=text("traceparent"),
            callback_url=text("callback_url"),
            callback_origin=text("callback_origin"),
            callback_event=text("callback_event"),
            callback_state=text("callback_state"),
            callback_attempts=number("callback_attempts"),
            callback_status=number("callback_status"),
            callback_error=text("callback_error"),
            callback_due_us=number("callback_due_us"),
            timeline_omitted=number("timeline_omitted"),
            event=text("event"),
        )

    def may_be_seen_by(self, user: str) -> bool:
        """Whether it is the user's own, or one that they may fetch the result of."""
        return user in {self.user, self.reader}

    @property
    def is_maintenance(self) -> bool:
        """Whether this is a task of the queue's own, not a user's job."""
        return self.kind == MAINTENANCE

    @property
    def failures_known(self) -> bool:
        """Whether it is known which files failed. Workers of older releases told only how many."""
        return bool(self.failed_files) or not self.files_failed

    @property
    def running_us(self) -> int:
        """How long the attempt under way had taken when the record last changed; 0 without one."""
        running = self.state is JobState.PROCESSING and self.leased_us
        return max(0, self.updated_us - self.leased_us) if running else 0

    @property
    def used_us(self) -> int:
        """How long workers have held it, in all attempts, as of when the record last changed."""
        return self.worker_us + self.running_us

    @property
    def used_bytes(self) -> int:
        """Bytes of files that all attempts were done with, as of when the record last changed."""
        return self.worker_bytes + (self.bytes_done if self.state is JobState.PROCESSING else 0)

    @property
    def remaining_seconds(self) -> float | None:
        """How long the attempt under way will go on at its pace so far, from when the record last changed."""
        if not (self.running_us and self.bytes_done and self.bytes_total):
            return None
        left = max(0, self.bytes_total - self.bytes_done)
        return self.running_us / 1_000_000 * left / self.bytes_done

    @property
    def trace_id(self) -> str:
        """The 32 hex digits of the job's trace (W3C Trace Context, 3.2.2.3), or empty."""
        fields = self.traceparent.split("-")
        return fields[1] if len(fields) == 4 else ""  # noqa: PLR2004 - version, trace, parent, flags
