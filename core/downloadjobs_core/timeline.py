"""A job's timeline: what its attempts did and when, out of its record and the notes beside it.

The scripts note the end of each attempt (`note` in `lua/lib/prelude.lua`), and workers what an attempt
did meanwhile, with their calls that write progress or end it. Notes are text, one entry each:

    attempt <token> <number> <leased_us> <ended_us> <how it ended> <error code or -> <worker>
    suspended <at_us>, resumed <at_us>, requeued <at_us>
    stages <token>, and then on lines of their own
        planning <from_ms> <took_ms> <files>
        upload <from_ms> <took_ms> <bytes>
        files <index of the first> <from_ms> <rows, with semicolons between>

A row is `gap_ms,took_ms,bytes` and, for a file that is not in the result, `,code`; the gap is the time
since the row before, so that a file costs some 14 bytes. Milliseconds count from the attempt's lease: a
worker's clock is never compared with Redis'. A call whose answer was lost comes again, so stages may
stand twice, and count once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from downloadjobs_core.job import Job
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState

MOST_ITEMS: Final = 5_000
"""Items of one answer: four attempts at the largest job. The newest count."""

NO_CODE: Final = "-"
MS_US: Final = 1_000
ATTEMPT_FIELDS: Final = 7
"""Fields of an `attempt` entry after its name; the last, the worker's name, may hold spaces."""

Value = str | int | None


def timeline_key(job_id: str) -> str:
    """The key of a job's notes, a list."""
    return f"{ROOT}:timeline:{job_id}"


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file of an attempt: milliseconds since its lease, bytes, and why it is not in the result."""

    from_ms: int
    to_ms: int
    size: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of an attempt, in milliseconds since its lease; `number` is its files or its bytes."""

    name: str
    from_ms: int
    to_ms: int
    number: int


@dataclass(frozen=True, slots=True)
class Item:
    """One bar of the timeline; `end_us` is None while it lasts. Times are microseconds since 1970."""

    name: str
    at_us: int
    end_us: int | None
    attempt: int | None
    status: str
    attributes: dict[str, Value] = field(default_factory=dict)


def encode_stage(stage: Stage) -> str:
    """A stage's line."""
    return f"{stage.name} {stage.from_ms} {stage.to_ms - stage.from_ms} {stage.number}"


def encode_files(first: int, rows: Sequence[FileRow]) -> str:
    """The line of an attempt's files from the one with index `first` on."""
    start = previous = rows[0].from_ms
    parts = []
    for row in rows:
        code = f",{row.error}" if row.error else ""
        parts.append(f"{row.from_ms - previous},{row.to_ms - row.from_ms},{row.size}{code}")
        previous = row.to_ms
    return f"files {first} {start} {';'.join(parts)}"


@dataclass(slots=True)
class _Attempt:
    """What the notes say of one attempt."""

    token: str
    number: int = 0
    leased_us: int = 0
    ended_us: int | None = None
    how: str = ""
    code: str = ""
    worker: str = ""
    stages: dict[str, Stage] = field(default_factory=dict)
    files: dict[int, FileRow] = field(default_factory=dict)

    def read(self, line: str) -> None:
        """Take in one line of stages."""
        name, *rest = line.split(" ")
        if name != "files":
            from_ms, took_ms, number = (int(text) for text in rest)
            self.stages[name] = Stage(name, from_ms, from_ms + took_ms, number)
            return
        index, at = int(rest[0]), int(rest[1])
        for offset, row in enumerate(rest[2].split(";")):
            gap, took, size, *code = row.split(",")
            at += int(gap)
            self.files[index + offset] = FileRow(at, at + int(took), int(size), code[0] if code else "")
            at += int(took)

    def at(self, offset_ms: int) -> int:
        """A moment of the attempt; never past its end, which is by another clock."""
        moment = self.leased_us + offset_ms * MS_US
        return moment if self.ended_us is None else min(moment, self.ended_us)

    def items(self, file_ids: Sequence[int]) -> Iterable[Item]:
        """The attempt itself, and its stages."""
        attributes: dict[str, Value] = {"worker": self.worker or None, "errorCode": self.code or None}
        yield Item("attempt", self.leased_us, self.ended_us, self.number, self.how, attributes)
        for stage in self.stages.values():
            told = {"files" if stage.name == "planning" else "bytes": stage.number}
            yield Item(
                stage.name, self.at(stage.from_ms), self.at(stage.to_ms), self.number, "ok", dict(told)
            )
        for index, row in sorted(self.files.items()):
            if index < len(file_ids):
                yield Item(
                    "file",
                    self.at(row.from_ms),
                    self.at(row.to_ms),
                    self.number,
                    "error" if row.error else "ok",
                    {"fileId": file_ids[index], "bytes": row.size, "error": row.error or None},
                )


@dataclass(slots=True)
class _Notes:
    """All notes of a job, read."""

    attempts: dict[str, _Attempt] = field(default_factory=dict)
    moments: list[tuple[str, int]] = field(default_factory=list)
    """`suspended`, `resumed` or `requeued`, and when."""

    def read(self, entry: str) -> None:
        kind, _, rest = entry.partition(" ")
        if kind == "attempt":
            token, number, leased, ended, how, code, worker = rest.split(" ", ATTEMPT_FIELDS - 1)
            attempt = self.of(token)
            attempt.number, attempt.leased_us, attempt.ended_us = int(number), int(leased), int(ended)
            attempt.how, attempt.worker = how, worker
            attempt.code = "" if code == NO_CODE else code
        elif kind == "stages":
            token, *lines = rest.split("\n")
            for line in lines:
                self.of(token).read(line)
        else:
            self.moments.append((kind, int(rest)))

    def of(self, token: str) -> _Attempt:
        return self.attempts.setdefault(token, _Attempt(token))


def read_notes(job: Job, entries: Iterable[str]) -> _Notes:
    """Read a job's notes; one that a newer release wrote in a form of its own is left out."""
    notes = _Notes()
    for entry in entries:
        try:
            notes.read(entry)
        except ValueError:
            continue
    if job.token:
        running = notes.of(job.token)
        running.number, running.leased_us, running.worker = job.attempt, job.leased_us, job.worker
        running.how = "running"
    return notes


def timeline(job: Job, entries: Iterable[str]) -> tuple[list[Item], int]:
    """A job's items in the order of their beginnings, and how many were left out.

    Args:
        job: its record.
        entries: its notes, in the order they were written.
    """
    notes = read_notes(job, entries)
    # Of an attempt whose own entry was left out, nothing tells when it began.
    attempts = sorted(
        (attempt for attempt in notes.attempts.values() if attempt.leased_us), key=lambda a: a.leased_us
    )
    items = list(_waits(job, attempts, notes.moments))
    for attempt in attempts:
        items.extend(attempt.items(job.file_ids))
    items.extend(_suspensions(job, notes.moments))
    if job.finished_us:
        status = JobState.COMPLETED.value if job.state is JobState.EXPIRED else job.state.value
        attributes: dict[str, Value] = {
            "files": job.files_done,
            "failedFiles": job.files_failed,
            "resultBytes": job.result_bytes or None,
            "errorCode": job.error_code or None,
        }
        items.append(Item("finish", job.finished_us, job.finished_us, None, status, attributes))
    if job.state is JobState.EXPIRED:
        items.append(Item("expired", job.updated_us, job.updated_us, None, "ok"))
    items.sort(key=lambda item: item.at_us)  # stable: an attempt stands before what it did
    omitted = max(0, len(items) - MOST_ITEMS)
    return items[omitted:], omitted + job.timeline_omitted


def _waits(job: Job, attempts: Sequence[_Attempt], moments: Sequence[tuple[str, int]]) -> Iterable[Item]:
    """The times between attempts: `queued`, `retrying` after a failure, or `dead` until it was queued."""
    requeued = [at_us for name, at_us in moments if name == "requeued"]
    begins = [("queued", job.created_us), *(("queued", at_us) for at_us in requeued)]
    begins += [
        ("retrying" if attempt.how == "failed" else "queued", attempt.ended_us)
        for attempt in attempts
        if attempt.ended_us is not None
    ]
    ends = [*(attempt.leased_us for attempt in attempts), *requeued]
    if job.finished_us:
        ends.append(job.finished_us)
    for name, at_us in begins:
        later = (end for end in ends if end > at_us or end == job.finished_us == at_us)
        end_us = min(later, default=None)
        if end_us == at_us != job.created_us:
            continue  # the attempt ended the job
        if end_us in requeued:
            yield Item("dead", at_us, end_us, None, "ok")
        else:
            yield Item(name, at_us, end_us, None, "ok" if end_us is not None else "waiting")


def _suspensions(job: Job, moments: Sequence[tuple[str, int]]) -> Iterable[Item]:
    """The times in which the job was held; one that is held from its submission on is noted nowhere else."""
    begins = [at_us for name, at_us in moments if name == "suspended"]
    ends = [at_us for name, at_us in moments if name == "resumed"]
    if len(ends) > len(begins) or (job.suspended and len(ends) == len(begins)):
        begins.insert(0, job.created_us)
    if job.finished_us:
        ends.append(job.finished_us)
    for at_us in begins:
        end_us = min((end for end in ends if end >= at_us), default=None)
        yield Item("suspended", at_us, end_us, None, "ok" if end_us is not None else "waiting")
