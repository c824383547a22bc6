"""How job events look to clients, as Server-Sent Events (WHATWG HTML, 9.2). `docs/events.md` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from downloadjobs_core.event_stream import PROGRESS, JobEvent
from downloadjobs_core.job import Job, rfc3339

SNAPSHOT: Final = "snapshot"

LAST_KINDS: Final = frozenset({"finished", "cancelled", "dead", "dropped", "expired"})
"""After these a job's stream ends."""

COMMENT: Final = b":\n\n"
"""Says that the stream is alive: to proxies that close silent ones, and to us, who learn if it arrives."""

_NUMBERS: Final = {"attempt": "attempt", "deliveries": "deliveries"}
_TEXTS: Final = {"worker": "worker", "error_code": "errorCode"}

encode: Final = msgspec.json.Encoder().encode


def retry_chunk(milliseconds: int) -> bytes:
    """Tells the client how long to wait, once this stream has ended, before it comes back."""
    return b"retry: %d\n\n" % milliseconds


def chunk(entry: str, kind: str, document: dict[str, Any]) -> bytes:
    """One event. Its data is one line, since JSON has its line breaks escaped."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (entry.encode(), kind.encode(), encode(document))


def event_document(event: JobEvent) -> dict[str, Any]:
    """What clients are told of an event: the same for all kinds, and what its kind has."""
    fields = event.fields

    def number(name: str) -> int:
        return int(fields.get(name) or 0)

    document: dict[str, Any] = {
        "jobId": event.job_id,
        "state": event.state,
        "progress": {
            "processed": number("files_done"),
            "total": number("files_total"),
            "bytes": number("bytes_done"),
            "bytesTotal": number("bytes_total"),
        },
        "updatedAt": rfc3339(number("at_us")),
    }
    document |= {member: number(name) for name, member in _NUMBERS.items() if name in fields}
    document |= {member: fields[name] for name, member in _TEXTS.items() if fields.get(name)}
    if "due_us" in fields:
        document["retryAt"] = rfc3339(number("due_us"))
    if event.kind == "finished":
        document["failedFiles"] = number("files_failed")
    return document


def event_chunk(event: JobEvent) -> bytes:
    """An event as a stream sends it."""
    return chunk(event.entry, event.kind, event_document(event))


def progress_of(job: Job) -> JobEvent:
    """The newest event of a job that runs, if that was progress: its record tells the same."""
    numbers = {
        "at_us": job.updated_us,
        "files_done": job.files_done,
        "files_total": job.files_total,
        "files_failed": job.files_failed,
        "bytes_done": job.bytes_done,
        "bytes_total": job.bytes_total,
    }
    fields = {name: str(number) for name, number in numbers.items()}
    return JobEvent(job.event, job.job_id, PROGRESS, job.user, job.state.value, fields)


def overview_document(jobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The snapshot of a user's jobs."""
    return {"items": list(jobs)}
