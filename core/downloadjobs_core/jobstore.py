"""The API's side of the queue: submit a job and read it, on an event loop.

Reads that arrive within one tick of the event loop go to Redis as one
pipeline, and equal ids are read once: measured, that doubled the rate of
status answers. Nothing is cached: every answer was read after it was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.leases import translated_errors
from downloadjobs_core.scripts import AsyncScripts
from downloadjobs_core.states import JobState

if TYPE_CHECKING:
    from redis.asyncio import Redis

FIRST_SERVICE_SECONDS: Final = 10.0
"""What a job is taken to last before one has ended."""

_STATUS_FIELDS: Final = (
    "user", "state", "files_done", "files_total", "files_failed", "bytes_done", "bytes_total", "updated_us",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The part of a job's record that a status answer shows."""

    user: str
    state: JobState
    files_done: int
    files_total: int
    files_failed: int
    bytes_done: int
    bytes_total: int
    updated_us: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """What `submit` says: whether the job is new, and what stands before it."""

    created: bool
    ahead: int = 0
    """Jobs ready before it, of its own class and those above."""
    running: int = 0
    service_seconds: float = FIRST_SERVICE_SECONDS
    """The running mean of what one job takes."""


class JobStore:
    """Jobs in Redis. Every method raises `QueueUnavailableError` when Redis cannot be asked."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts = AsyncScripts(redis)
        self._waiting: dict[str, asyncio.Future[JobStatus | None]] = {}
        self._reads: set[asyncio.Task[None]] = set()

    async def ping(self) -> None:
        """Prove that Redis answers."""
        with translated_errors():
            await self._redis.ping()

    async def submit(self, job: NewJob) -> Accepted:
        """Write the job's hash and its queue entry together; the same id twice is one job."""
        with translated_errors():
            reply = await self._scripts.run("submit", *job.submission())
        if not reply[0]:
            return Accepted(created=False)
        _, ahead, running, mean_us = reply
        service = float(mean_us) / 1_000_000 if mean_us else FIRST_SERVICE_SECONDS
        return Accepted(created=True, ahead=ahead, running=running, service_seconds=service)

    async def get(self, job_id: str) -> Job | None:
        """The whole record, or None."""
        with translated_errors():
            values = cast("dict[str, str]", await self._redis.hgetall(job_key(job_id)))
        return Job.from_hash(values) if values else None

    async def status(self, job_id: str) -> JobStatus | None:
        """The status of a job as Redis has it now, or None if there is no such job."""
        future = self._waiting.get(job_id)
        if future is None:
            loop = asyncio.get_running_loop()
            if not self._waiting:
                loop.call_soon(self._read_waiting)
            future = self._waiting[job_id] = loop.create_future()
        return await asyncio.shield(future)

    def _read_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        task = asyncio.get_running_loop().create_task(self._read(waiting))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _read(self, waiting: dict[str, asyncio.Future[JobStatus | None]]) -> None:
        try:
            with translated_errors():
                pipeline = self._redis.pipeline(transaction=False)
                for job_id in waiting:
                    _ = pipeline.hmget(job_key(job_id), *_STATUS_FIELDS)
                rows = await pipeline.execute()
        except BaseException as error:
            for future in waiting.values():
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # whoever asked may be gone; then nobody else retrieves it
            if not isinstance(error, Exception):
                raise
            return
        for future, row in zip(waiting.values(), rows, strict=True):
            if not future.done():
                future.set_result(_status_from(row))


def _status_from(row: Sequence[str | None]) -> JobStatus | None:
    user, state, *numbers = row
    if user is None or state is None:
        return None
    return JobStatus(user, JobState(state), *(int(number or 0) for number in numbers))
