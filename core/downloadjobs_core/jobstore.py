"""The API's side of the queue: submit a job and read it, on an event loop.

Reads that arrive within one tick of the event loop, or while such a read is
under way, go to Redis as one pipeline, and equal ids are read once: measured,
that doubled the rate of status answers. Nothing is cached: every answer was
read after it was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from downloadjobs_core.counts import FIRST_SERVICE_SECONDS, Counts
from downloadjobs_core.errors import (
    JobNotFoundError,
    KeyReusedError,
    QueueUnavailableError,
    TooManyQueuedError,
    UnknownStateError,
)
from downloadjobs_core.job import RECORD_FIELDS, SHOWN_FIELDS, Job, NewJob, Once, job_key
from downloadjobs_core.leases import SECOND_US, QueuePolicy, translated_errors
from downloadjobs_core.pipelining import PipelinedScripts
from downloadjobs_core.scripts import ROOT, AsyncScripts
from downloadjobs_core.states import JobState
from downloadjobs_core.timeline import timeline_key

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from downloadjobs_core.rate_counts import RateCounts

PROBE_SECONDS: Final = 60

MOST_LOOKS: Final = 500
"""Records that one page with a filter looks at: some 2 ms, in which Redis does nothing else."""

SPARE_LOOKS: Final = 50
"""How many vanished records a page without a filter may meet before it gets shorter."""

_AGAIN: Final = 2
_OF_ANOTHER_REQUEST: Final = -2
"""Replies of `submit.lua` about keys."""

_STATUS_FIELDS: Final = (
    "user", "reader", "state", "files_done", "files_total", "files_failed",
    "bytes_done", "bytes_total", "updated_us",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The part of a job's record that a status answer shows."""

    user: str
    reader: str
    state: JobState
    files_done: int
    files_total: int
    files_failed: int
    bytes_done: int
    bytes_total: int
    updated_us: int

    def may_be_seen_by(self, user: str) -> bool:
        """Whether it is the user's own, or one that they may fetch the result of."""
        return user in {self.user, self.reader}


@dataclass(frozen=True, slots=True)
class Accepted:
    """What `submit` says: whether the job is new, and what stands before it."""

    created: bool
    ahead: int = 0
    """Jobs ready before it, of its own class and those above."""
    slots: int = 1
    """How many jobs run at once; at least 1, since waiting jobs make a worker start."""
    service_seconds: float = FIRST_SERVICE_SECONDS
    """The running mean of what one job takes."""
    first_id: str = ""
    """The job that an earlier request with the same key made; empty if this one is the first. The numbers
    are then those of its answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a waiting job stands."""

    where: str
    """ready; parked, because its user runs as many as allowed; delayed, for a retry; joined, as another
    job makes the same result; suspended."""
    ahead: int = 0
    """Jobs that start before it, as things are now; only for ready."""
    starts_in_seconds: float = 0
    estimate_error: float = 0
    """How far past estimates were off: a running mean of |real - estimated| by the real wait."""
    service_seconds: float = FIRST_SERVICE_SECONDS
    """The running mean of what one job takes."""

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> Place | None:
        """Read what `place_of` in the scripts gives; None if the job does not wait."""
        if not reply:
            return None
        where, ahead, starts_us, error, service_us = reply
        return cls(where, int(ahead), int(starts_us) / SECOND_US, float(error), int(service_us) / SECOND_US)


@dataclass(frozen=True, slots=True)
class Changed:
    """What a request to change a job did: whether it counts, and the job's state (before a cancellation)."""

    done: bool
    state: JobState


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page of a list ended: the last job that was looked at, which need not be there any more."""

    created_us: str
    """As the list's score has it, digit by digit."""
    job_id: str


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A part of a list of jobs, each with where it stands if it waits; and where the next part begins."""

    jobs: list[tuple[Job, Place | None]]
    end: Position | None


class JobStore:
    """Jobs in Redis. Every method raises `QueueUnavailableError` when Redis cannot be asked."""

    def __init__(self, redis: Redis, policy: QueuePolicy, rates: RateCounts | None = None) -> None:
        """`rates`: counts of requests, which reads of statuses take along to Redis."""
        self._redis = redis
        self._policy = policy
        self._scripts = AsyncScripts(redis)
        self._submissions = PipelinedScripts(redis)
        self._waiting: dict[str, list[asyncio.Future[JobStatus | None]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._rates = rates

    async def ping(self) -> None:
        """Prove that Redis answers."""
        with translated_errors():
            await self._redis.ping()

    async def now(self) -> float:
        """The time by Redis' clock, in seconds since 1970."""
        with translated_errors():
            seconds, micros = await self._redis.time()
        return seconds + micros / SECOND_US

    async def check_writable(self) -> None:
        """Prove that Redis takes writes: it may be full, or a replica."""
        with translated_errors():
            await self._redis.set(f"{ROOT}:probe", "1", ex=PROBE_SECONDS)

    async def submit(self, job: NewJob, once: Once | None = None) -> Accepted:
        """Write the job's hash and its queue entry together; the same id, or key, twice is one job.

        Raises:
            TooManyQueuedError: as many jobs of the user wait as may.
            KeyReusedError: something else was asked for with the same key.
        """
        policy = self._policy
        arguments = job.submission(
            max_queued=policy.user_max_queued, record_seconds=policy.record_ttl_seconds, once=once
        )
        with translated_errors():
            accepted, *rest = await self._submissions.run("submit", *arguments)
        if accepted == _OF_ANOTHER_REQUEST:
            raise KeyReusedError
        if accepted < 0:
            raise TooManyQueuedError(job.user, rest[0])
        if not accepted:
            return Accepted(created=False)
        if accepted == _AGAIN:
            first_id, ahead, slots, service_us = rest
            return Accepted(
                created=False,
                ahead=ahead,
                slots=slots,
                service_seconds=service_us / SECOND_US,
                first_id=first_id,
            )
        ahead, slots, service_us = rest
        return Accepted(created=True, ahead=ahead, slots=slots, service_seconds=int(service_us) / SECOND_US)

    async def place(self, job_id: str) -> Place | None:
        """Where a waiting job stands; None if it does not wait. In O(log n) of the jobs that do."""
        with translated_errors():
            reply = await self._scripts.run("place", job_id)
        return Place.from_reply(reply or ())

    async def page(
        self, user: str, states: Collection[JobState], after: Position | None, limit: int
    ) -> JobsPage:
        """Some of the jobs that a user may see, newest first.

        Args:
            user: whose; also jobs whose result they may fetch.
            states: only jobs in one of these; all if there is none.
            after: where the page before ended.
            limit: jobs at most. There may be fewer although there are more, because a call looks at
                `MOST_LOOKS` of them at most.
        """
        score, last = (after.created_us, after.job_id) if after else ("", "")
        looks = MOST_LOOKS if states else limit + SPARE_LOOKS
        with translated_errors():
            reply = await self._scripts.run(
                "list", user, limit, looks, score, last, len(SHOWN_FIELDS), *SHOWN_FIELDS, *states
            )
        score, last, *found = reply
        jobs = []
        for row, place in zip(found[::2], found[1::2], strict=True):
            with suppress(KeyError, ValueError):  # a damaged record, or a newer release's
                values = {name: value for name, value in zip(SHOWN_FIELDS, row, strict=True) if value}
                jobs.append((Job.from_hash(values), Place.from_reply(place)))
        return JobsPage(jobs, Position(score, last) if last else None)

    async def cancel(self, job_id: str, *, code: str, message: str) -> Changed:
        """Cancel a job, wherever it is; one that has ended stays as it is. Raises `JobNotFoundError`."""
        return await self._change("cancel", job_id, code, message, *self._afterwards)

    async def withdraw(self, job_id: str, *, code: str, message: str, remove_result: bool) -> Changed:
        """Cancel a job, or have its result removed if it has ended. Raises `JobNotFoundError`."""
        return await self._change("withdraw", job_id, code, message, *self._afterwards, int(remove_result))

    @property
    def _afterwards(self) -> tuple[int, int]:
        """How long a cancelled job's record is kept (s), and after what time its remains are swept (us)."""
        policy = self._policy
        return policy.record_ttl_seconds, int(policy.orphan_grace_seconds * SECOND_US)

    async def name_mirror(self, job_id: str, *, instead_of: str, mirror: str) -> bool:
        """Note which DownloadJob shows a job; False if another one does. Raises `JobNotFoundError`."""
        with translated_errors():
            named = await self._scripts.run("mirror", job_id, instead_of, mirror)
        if named < 0:
            raise JobNotFoundError(job_id)
        return bool(named)

    async def suspend(self, job_id: str) -> Changed:
        """Hold a job before it starts; one that runs goes on. Raises `JobNotFoundError`."""
        return await self._change("suspend", job_id)

    async def resume(self, job_id: str) -> Changed:
        """Let a suspended job go on. Raises `JobNotFoundError`."""
        return await self._change("resume", job_id)

    async def _change(self, script: str, job_id: str, *args: str | float) -> Changed:
        with translated_errors():
            done, state = await self._scripts.run(script, job_id, *args)
        if done < 0:
            raise JobNotFoundError(job_id)
        try:
            return Changed(bool(done), JobState(state))
        except ValueError:
            raise UnknownStateError(job_id, state) from None

    async def counts(self) -> Counts:
        """How many jobs are where, in one call that is O(log n)."""
        with translated_errors():
            reply = await self._scripts.run("counts")
        return Counts.from_reply(reply)

    async def get(self, job_id: str) -> Job | None:
        """The whole record, or None."""
        with translated_errors():
            values = cast("dict[str, str]", await self._redis.hgetall(job_key(job_id)))
        return Job.from_hash(values) if values else None

    async def notes(self, job_id: str) -> tuple[Job | None, list[str]]:
        """The whole record, or None, and the notes of its timeline, in one round trip."""
        with translated_errors():
            pipeline = self._redis.pipeline(transaction=False)
            _ = pipeline.hgetall(job_key(job_id))
            _ = pipeline.lrange(timeline_key(job_id), 0, -1)
            values, entries = cast("tuple[dict[str, str], list[str]]", await pipeline.execute())
        return (Job.from_hash(values) if values else None), entries

    async def records(self, job_ids: Sequence[str]) -> dict[str, Job | None]:
        """The records of several jobs in one round trip, without their file ids; None where there is none.

        A damaged record, or a newer release's, is left out.
        """
        with translated_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                _ = pipeline.hmget(job_key(job_id), *RECORD_FIELDS)
            rows = cast("list[list[str | None]]", await pipeline.execute())
        found: dict[str, Job | None] = {}
        for job_id, row in zip(job_ids, rows, strict=True):
            with suppress(KeyError, ValueError):
                values = {name: value for name, value in zip(RECORD_FIELDS, row, strict=True) if value}
                found[job_id] = Job.from_hash(values) if values else None
        return found

    async def epoch(self) -> str:
        """What a wipe of Redis takes away; empty until the first job after it."""
        with translated_errors():
            return cast("str | None", await self._redis.hget(f"{ROOT}:queue", "epoch")) or ""

    async def unfinished(self) -> list[str]:
        """The ids of all jobs that wait or run."""
        with translated_errors():
            pipeline = self._redis.pipeline(transaction=False)
            _ = pipeline.zrange(f"{ROOT}:waiting", 0, -1)
            _ = pipeline.zrange(f"{ROOT}:leased", 0, -1)
            waiting, leased = cast("list[list[str]]", await pipeline.execute())
        return list(dict.fromkeys((*waiting, *leased)))

    async def status(self, job_id: str) -> JobStatus | None:
        """The status of a job as Redis has it now, or None if there is no such job."""
        loop = asyncio.get_running_loop()
        # A future for each who asks: one that gives up must not cancel the others'.
        future: asyncio.Future[JobStatus | None] = loop.create_future()
        self._waiting.setdefault(job_id, []).append(future)
        if self._reading is None:
            # The task begins at the next tick, when everybody who asks in this one has asked.
            self._reading = loop.create_task(self._read_all())
        return await future

    async def _read_all(self) -> None:
        """Read until nobody waits: what is asked for meanwhile goes out together after that."""
        waiting: dict[str, list[asyncio.Future[JobStatus | None]]] = {}
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                await self._read(waiting)
        finally:
            # Whatever happened, nobody is left waiting, and the next who asks starts a new reader.
            self._reading = None
            if self._rates is not None:
                self._rates.alight()
            unread, self._waiting = self._waiting, {}
            for future in (f for asked in (waiting, unread) for futures in asked.values() for f in futures):
                if not future.done():
                    future.cancel()

    async def _read(self, waiting: dict[str, list[asyncio.Future[JobStatus | None]]]) -> None:
        rows: list[Sequence[str | None] | Exception] | None = None
        failure: Exception | None = None
        rates = self._rates
        counted = None
        try:
            with translated_errors():
                pipeline = self._redis.pipeline(transaction=False)
                for job_id in waiting:
                    _ = pipeline.hmget(job_key(job_id), *_STATUS_FIELDS)
                counted = rates.board(pipeline) if rates is not None else None
                rows = await pipeline.execute(raise_on_error=False)  # each has its own
        except Exception as error:  # noqa: BLE001 - given to everybody who asked
            failure = error
        if counted is not None and rates is not None:
            rates.landed(counted, rows[-1] if rows is not None else failure)
        for number, futures in enumerate(waiting.values()):
            status, wrong = None, failure
            if rows is not None:
                try:
                    status = _status_from(rows[number])
                except (
                    ValueError,
                    QueueUnavailableError,
                ) as error:  # one damaged record, or a newer release's, is that job's alone
                    wrong = error
            for future in futures:
                if future.done():
                    continue
                if wrong is None:
                    future.set_result(status)
                else:
                    future.set_exception(wrong)


def _status_from(row: Sequence[str | None] | Exception) -> JobStatus | None:
    if isinstance(row, Exception):
        with translated_errors():
            raise row
    user, reader, state, *numbers = row
    if user is None or state is None:
        return None
    return JobStatus(user, reader or "", JobState(state), *(int(number or 0) for number in numbers))
