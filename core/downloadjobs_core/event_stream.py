"""Reads the streams of job events, which the scripts write with every change. `docs/events.md` lists them.

There is one of all jobs, and a short list of each job's own. An event has the same id in both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from downloadjobs_core.job import SHOWN_FIELDS, Job, job_key
from downloadjobs_core.leases import translated_errors
from downloadjobs_core.scripts import ROOT

if TYPE_CHECKING:
    from redis.asyncio import Redis

BEGINNING: Final = "0-0"
"""Before the first entry."""

PROGRESS: Final = "progress"

TRIES: Final = 5

ENTRY: Final = re.compile(r"(\d{1,15})-(\d{1,9})")
"""An entry's id, as far as Redis gives them: milliseconds since 1970, and a number within one of them."""

Position = tuple[int, int]
"""An entry's id, as it is ordered."""


def position_of(entry: str) -> Position | None:
    """Where an entry stands in its stream; None for what is no id."""
    found = ENTRY.fullmatch(entry)
    return (int(found[1]), int(found[2])) if found is not None and entry.isascii() else None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One change of a job."""

    entry: str
    """The entry's id in the stream, in the order of the changes."""
    job_id: str
    kind: str
    user: str
    """Empty where the entry does not say, as an older release's progress does not."""
    state: str = ""
    """The job's, after it."""
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The whole entry."""

    @property
    def position(self) -> Position:
        """Where it stands among all."""
        return position_of(self.entry) or (0, 0)

    @property
    def whole(self) -> bool:
        """Whether it says how far the job is. Those of an older release do not."""
        return "files_total" in self.fields


def _events(entries: Iterable[tuple[str, dict[str, str]]]) -> list[JobEvent]:
    return [
        JobEvent(
            entry,
            fields.get("job", ""),
            fields.get("kind", ""),
            fields.get("user", ""),
            fields.get("state", ""),
            fields,
        )
        for entry, fields in entries
    ]


def _own_event(job: Job, entry: str) -> JobEvent:
    """An event out of its job's own list, as `emit` in the scripts writes it."""
    entry_id, *flat = cast("list[str]", json.loads(entry))
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return JobEvent(entry_id, job.job_id, fields["kind"], job.user, fields["state"], fields)


class EventStream:
    """The stream, from where a reader stands. Methods raise `QueueUnavailableError`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def end(self) -> str:
        """The id of the newest entry, or `BEGINNING`."""
        with translated_errors():
            newest = cast("list[tuple[str, Any]]", await self._redis.xrevrange(f"{ROOT}:events", count=1))
        return newest[0][0] if newest else BEGINNING

    async def trimmed_past(self, position: str) -> bool:
        """Whether entries after a position may have been trimmed away: the entry there is gone.

        Asked after `read` gave some, so that the stream is not empty.
        """
        if position == BEGINNING:
            return False
        with translated_errors():
            oldest = cast("list[tuple[str, Any]]", await self._redis.xrange(f"{ROOT}:events", count=1))
        return bool(oldest) and (position_of(oldest[0][0]) or (0, 0)) > (position_of(position) or (0, 0))

    async def after(self, position: str, limit: int) -> list[JobEvent]:
        """Entries after a position that there are already."""
        with translated_errors():
            entries = await self._redis.xrange(f"{ROOT}:events", min=f"({position}", count=limit)
        return _events(cast("list[tuple[str, dict[str, str]]]", entries))

    async def of_job(self, job_id: str) -> tuple[Job | None, list[JobEvent]]:
        """A job's record, and the events kept of it but its progress, both of one moment."""
        with translated_errors():
            pipeline = self._redis.pipeline(transaction=True)
            _ = pipeline.hgetall(job_key(job_id))
            _ = pipeline.lrange(f"{ROOT}:history:{job_id}", 0, -1)
            values, entries = cast("tuple[dict[str, str], list[str]]", await pipeline.execute())
        if not values:
            return None, []
        job = Job.from_hash(values)
        return job, [_own_event(job, entry) for entry in entries]

    async def of_user(self, user: str, limit: int) -> tuple[str, list[Job]]:
        """The newest jobs that a user may see, without their files, and the id of the newest event of all.

        Of one moment: the records show exactly the events up to that one. (Where jobs come faster than they
        are read, some may show later ones too.) Damaged records are left out.
        """
        ids: list[str] = []
        newest: list[tuple[str, Any]] = []
        before = newest
        rows: list[list[str | None]] = []
        for _ in range(TRIES):
            before = newest
            with translated_errors():
                pipeline = self._redis.pipeline(transaction=True)
                _ = pipeline.xrevrange(f"{ROOT}:events", count=1)
                _ = pipeline.zrevrange(f"{ROOT}:user:{user}:jobs", 0, limit - 1)
                for job_id in ids:
                    _ = pipeline.hmget(job_key(job_id), *SHOWN_FIELDS)
                newest, now, *rows = await pipeline.execute()
            if set(now) <= set(ids):
                break
            ids = now
        else:
            newest = before  # by then, all that are not among the rows had not come yet
        jobs = []
        for row in rows:
            with suppress(KeyError, ValueError):
                job = Job.from_hash(
                    {name: value for name, value in zip(SHOWN_FIELDS, row, strict=True) if value}
                )
                if job.may_be_seen_by(user):
                    jobs.append(job)
        return newest[0][0] if newest else BEGINNING, jobs

    async def read(self, after: str, *, wait_ms: int, limit: int) -> list[JobEvent]:
        """Entries after the one with this id; waits for the first for `wait_ms` at most."""
        with translated_errors():
            reply = await self._redis.xread({f"{ROOT}:events": after}, count=limit, block=wait_ms)
        return _events(_entries(reply))


def _entries(reply: Any) -> Any:  # noqa: ANN401 - its shape depends on the protocol's version
    """Out of `[[stream, entries]]` (RESP2) or `{stream: [entries]}` (RESP3)."""
    if not reply:
        return []
    if isinstance(reply, dict):
        return next(iter(reply.values()))[0]
    return reply[0][1]
