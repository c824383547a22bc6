"""What a client that follows jobs has to be told first, or again: what it missed, or how things are now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from downloadjobs_api.event_documents import SNAPSHOT, chunk, event_chunk, overview_document, progress_of
from downloadjobs_api.jobs import item_document, job_document
from downloadjobs_core.errors import JobNotFoundError, NotOwnerError
from downloadjobs_core.event_stream import BEGINNING, EventStream, JobEvent, position_of
from downloadjobs_core.job import Job
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.states import FINISHED, JobState

LOOKED_AT: Final = 200
"""The newest jobs of a user, of which the snapshot shows those that have not ended."""

ENDED_SHOWN: Final = 50
"""And so many of those that have."""

REPLAY_LIMIT: Final = 5_000
"""Events of all users that are looked through for those a client missed; past them it gets a snapshot."""

REPLAY_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What to send, and what the client knows then."""

    chunks: Sequence[bytes]
    last: str
    """The id of the newest event that it knows. Only later ones are news."""
    ended: bool = False
    """There is nothing more to come."""


class Following:
    """Reads what a client must be told. Methods raise `QueueUnavailableError`."""

    def __init__(self, stream: EventStream, jobs: JobStore) -> None:
        self._stream = stream
        self._jobs = jobs

    async def job(self, user: str, job_id: str, last: str | None) -> CaughtUp:
        """Of one job.

        Args:
            user: who asks.
            job_id: which.
            last: the id of the last event that the client knows, as it says itself; None for nothing.

        Raises:
            JobNotFoundError, NotOwnerError
        """
        job, kept = await self._stream.of_job(job_id)
        if job is None or job.is_maintenance:
            raise JobNotFoundError(job_id)
        if not job.may_be_seen_by(user):
            raise NotOwnerError(job_id)
        newest = newest_event(job)
        ended = job.state in FINISHED
        missed = None if last is None else missed_events(job, kept, last)
        if missed is not None:
            return CaughtUp([event_chunk(event) for event in missed], newest, ended)
        place = None if ended else await self._jobs.place(job_id)
        return CaughtUp([chunk(newest, SNAPSHOT, job_document(job, place))], newest, ended)

    async def user(self, user: str, last: str | None) -> CaughtUp:
        """Of all jobs that a user may see.

        Args:
            user: who asks.
            last: as above.
        """
        if last is not None:
            missed = await self._missed_of(user, last)
            if missed is not None:
                return missed
        newest, jobs = await self._stream.of_user(user, LOOKED_AT)
        running = [job for job in jobs if job.state not in FINISHED]
        ended = [job for job in jobs if job.state in FINISHED]
        shown = sorted([*running, *ended[:ENDED_SHOWN]], key=lambda job: job.created_us, reverse=True)
        places = await asyncio.gather(*(self._jobs.place(job.job_id) for job in running))
        place_of = {job.job_id: place for job, place in zip(running, places, strict=True)}
        items = [item_document(job, place_of.get(job.job_id)) for job in shown]
        return CaughtUp([chunk(newest, SNAPSHOT, overview_document(items))], newest)

    async def _missed_of(self, user: str, last: str) -> CaughtUp | None:
        """What there is in the stream of all, if it still has everything since then."""
        position = position_of(last)
        if position is None or await self._stream.trimmed_past(last):
            return None
        if position > (position_of(await self._stream.end()) or (0, 0)):
            return None
        found: list[bytes] = []
        for _ in range(REPLAY_LIMIT // REPLAY_BATCH):
            events = await self._stream.after(last, REPLAY_BATCH)
            for event in events:
                last = event.entry
                if user in {event.user, event.fields.get("reader")}:
                    if not event.whole:
                        return None
                    found.append(event_chunk(event))
            if len(events) < REPLAY_BATCH:
                return CaughtUp(found, last)
        return None


def newest_event(job: Job) -> str:
    """The id of the newest event that a record shows."""
    if job.event:
        return job.event
    return f"{job.updated_us // 1_000}-0" if job.updated_us else BEGINNING


def missed_events(job: Job, kept: Sequence[JobEvent], last: str) -> list[JobEvent] | None:
    """The events of a job after one, but of its progress only the newest; None if that cannot be told.

    Args:
        job: its record.
        kept: those that its own stream has, of the same moment.
        last: the id that a client gave, which may be anything.
    """
    position = position_of(last)
    newest = position_of(newest_event(job))
    if position is None or newest is None or position > newest:
        return None
    if position == newest:
        return []
    # An older release's scripts write the record and not this list, which then ends with another state.
    if not kept or not kept[0].position <= position or kept[-1].state != job.state:
        return None
    if any(later.position <= earlier.position for earlier, later in pairwise(kept)):
        return None  # the stream of all was lost, and Redis' clock went back
    missed = [event for event in kept if event.position > position]
    if job.state is JobState.PROCESSING and newest > max(kept[-1].position, position):
        missed.append(progress_of(job))
    return missed
