"""What the API does for its users; it knows no HTTP."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar

from downloadjobs_api.metrics import ApiMetrics
from downloadjobs_core.claims import ClaimStore
from downloadjobs_core.errors import (
    ClaimUnknownError,
    JobNotFoundError,
    NothingToRetryError,
    NotOwnerError,
    ObjectNotFoundError,
    UnfinishedError,
)
from downloadjobs_core.job import Job, NewJob, Once, distinct
from downloadjobs_core.jobstore import Accepted, Changed, JobsPage, JobStatus, JobStore, Place, Position
from downloadjobs_core.objectstore.protocol import ObjectStat, ObjectStore
from downloadjobs_core.states import (
    FINISHED,
    WITH_RESULT,
    JobState,
    Priority,
    allowed_priority,
    highest_priority,
    lower_priority,
)
from downloadjobs_core.webhook_addresses import CallbackUrl

Result = TypeVar("Result")

BUCKET_GOOD_SECONDS: Final = 30.0
"""How long an absent file is believed to be absent, before the bucket itself is looked at again."""


class ResultNotReadyError(Exception):
    """The job has not ended; there may be a result later."""


class NoResultError(Exception):
    """The job ended, and there never is a result."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.error_message or f"The job was {job.state.value}.")


class ResultExpiredError(Exception):
    """There was a result, and its time is over."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, kept with the job it makes."""

    request_id: str
    traceparent: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was accepted, now or when the same request came before."""

    job_id: str
    total_file_ids: int
    accepted: Accepted


@dataclass(frozen=True, slots=True)
class Download:
    """A result that can be fetched."""

    url: str
    """A secret: never logged."""
    expires_seconds: int
    files_failed: int


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Numbers the service is told by settings."""

    max_attempts: int
    presign_seconds: int
    storage_timeout_seconds: float
    priority_ceilings: Mapping[str, Priority]
    """The highest class by user; `*` for everybody else."""
    idempotency_seconds: int
    """How long an Idempotency-Key is kept."""
    start_delay_ms: tuple[int, int] = (0, 0)
    """Simulation: the synchronous call waits a random time between these."""


class Downloads:
    """Jobs and files, as a signed-in user may use them.

    Blocking storage calls run in `threads`, never on the event loop. Methods raise
    `QueueUnavailableError` and `ObjectStoreError` when a server cannot be used, and
    `TimeoutError` when storage takes too long.
    """

    def __init__(
        self,
        jobs: JobStore,
        files: ObjectStore,
        results: ObjectStore,
        threads: Executor,
        *,
        claims: ClaimStore,
        metrics: ApiMetrics,
        files_prefix: str,
        limits: DownloadLimits,
    ) -> None:
        self._jobs = jobs
        self._files = files
        self._results = results
        self._threads = threads
        self._claims = claims
        self._metrics = metrics
        self._files_prefix = files_prefix
        self._limits = limits
        self._bucket_good_until = 0.0

    async def initiate(
        self,
        user: str,
        file_ids: Sequence[int],
        priority: Priority | None,
        origin: Origin,
        *,
        key: str | None = None,
        callback: CallbackUrl | None = None,
    ) -> Submitted:
        """Accept a job for a user.

        Args:
            user: whose it is.
            file_ids: what it bundles.
            priority: its class, or None for the usual one.
            origin: what asked for it.
            key: by which the same request is known when it comes again.
            callback: where a call tells of its end.

        Raises:
            PriorityTooHighError, TooManyQueuedError, KeyReusedError
        """
        url = None if callback is None else callback.url
        once = self._once(user, key, {"file_ids": file_ids, "priority": priority, "callbackUrl": url})
        return await self._submit(user, file_ids, priority, origin, once=once, callback=callback)

    async def retry(
        self,
        user: str,
        job_id: str,
        origin: Origin,
        key: str | None = None,
        *,
        still_good: Callable[[str], CallbackUrl | None],
    ) -> Submitted:
        """Accept a job with those files of another that are not in its result: all, if it has none.

        It tells the same receiver of its end, if it is the same user's.

        Args:
            user: who asks.
            job_id: the job whose files failed.
            origin: of the request.
            key: that makes it happen once.
            still_good: judges the job's callback URL.

        Raises:
            JobNotFoundError, NotOwnerError, UnfinishedError, NothingToRetryError, and what `initiate` raises
        """
        failed = await self._visible(user, job_id)
        if failed.state not in FINISHED:
            raise UnfinishedError(job_id)
        file_ids = files_to_retry(failed)
        if not file_ids:
            raise NothingToRetryError(job_id)
        ceiling = highest_priority(user, self._limits.priority_ceilings)
        priority = lower_priority(failed.priority, ceiling)
        once = self._once(user, key, {"retryOf": job_id})
        callback = still_good(failed.callback_url) if failed.callback_url and failed.user == user else None
        return await self._submit(
            user, file_ids, priority, origin, once=once, retry_of=job_id, callback=callback
        )

    def _once(self, user: str, key: str | None, asked: Mapping[str, object]) -> Once | None:
        return None if key is None else Once.of(user, key, asked, self._limits.idempotency_seconds)

    async def _submit(
        self,
        user: str,
        file_ids: Sequence[int],
        priority: Priority | None,
        origin: Origin,
        *,
        once: Once | None,
        retry_of: str = "",
        callback: CallbackUrl | None = None,
    ) -> Submitted:
        try:
            job = NewJob(
                job_id=str(uuid.uuid4()),
                user=user,
                file_ids=distinct(file_ids),
                total_file_ids=len(file_ids),
                max_attempts=self._limits.max_attempts,
                priority=allowed_priority(user, priority, self._limits.priority_ceilings),
                request_id=origin.request_id,
                traceparent=origin.traceparent,
                retry_of=retry_of,
                callback=callback,
            )
            accepted = await self._jobs.submit(job, once)
        except Exception as error:
            self._metrics.submitted(error)
            raise
        if accepted.first_id:
            self._metrics.repeated()
        else:
            self._metrics.submitted()
        return Submitted(accepted.first_id or job.job_id, job.total_file_ids, accepted)

    async def own_jobs(
        self, user: str, states: Collection[JobState], after: Position | None, limit: int
    ) -> JobsPage:
        """A page of the jobs that a user may see, newest first; see `JobStore.page`."""
        return await self._jobs.page(user, states, after, limit)

    async def detail(self, user: str, job_id: str) -> tuple[Job, Place | None]:
        """A job's record, and where it stands in the queue if it waits.

        Raises:
            JobNotFoundError, NotOwnerError
        """
        job = await self._visible(user, job_id)
        return job, None if job.state in FINISHED else await self._jobs.place(job_id)

    async def cancel(self, user: str, job_id: str) -> Changed:
        """Cancel a job.

        Raises:
            JobNotFoundError, NotOwnerError
        """
        if (await self._visible(user, job_id)).user != user:
            raise NotOwnerError(job_id)
        return await self._jobs.cancel(job_id, code="cancelled", message="Its owner cancelled it.")

    async def _visible(self, user: str, job_id: str) -> Job:
        job = await self._jobs.get(job_id)
        if job is None:
            raise JobNotFoundError(job_id)
        if not job.may_be_seen_by(user):
            raise NotOwnerError(job_id)
        return job

    async def status(self, user: str, job_id: str) -> JobStatus:
        """A job's status now.

        Raises:
            JobNotFoundError, NotOwnerError
        """
        status = await self._jobs.status(job_id)
        if status is None:
            raise JobNotFoundError(job_id)
        if not status.may_be_seen_by(user):
            raise NotOwnerError(job_id)
        return status

    async def result(self, user: str, job_id: str) -> Download:
        """A short-lived URL of a job's result.

        Raises:
            JobNotFoundError, NotOwnerError, ResultNotReadyError, NoResultError, ResultExpiredError
        """
        return await self._download(await self._visible(user, job_id))

    async def claim(self, job_id: str, nonce: str) -> Download:
        """The same for whoever knows the nonce of a claim on the job; who asks does not matter.

        Raises:
            ClaimUnknownError, JobNotFoundError, ResultNotReadyError, NoResultError, ResultExpiredError
        """
        if not await self._claims.holds(job_id, nonce):
            raise ClaimUnknownError
        job = await self._jobs.get(job_id)
        if job is None:
            raise JobNotFoundError(job_id)
        return await self._download(job)

    async def _download(self, job: Job) -> Download:
        if job.state is JobState.EXPIRED or 0 < job.expires_us <= time.time() * 1_000_000:
            raise ResultExpiredError
        if job.state not in FINISHED:
            raise ResultNotReadyError
        if job.state not in WITH_RESULT:
            raise NoResultError(job)
        url = await self._presigned(self._results, job.result_key, f"download-{job.job_id}.zip")
        return Download(url, self._limits.presign_seconds, job.files_failed)

    def key_of(self, file_id: int) -> str:
        """The key of a file's object."""
        return f"{self._files_prefix}{file_id}.zip"

    async def look_up(self, file_id: int) -> ObjectStat | None:
        """A file's object, or None if there is none."""
        key = self.key_of(file_id)

        def stat() -> ObjectStat | None:
            try:
                return self._files.stat(key)
            except ObjectNotFoundError:
                return None

        found = await self._in_thread(stat)
        if found is None and time.monotonic() >= self._bucket_good_until:
            # To a HEAD, a missing bucket looks like a missing file (and to some servers, wrong credentials).
            await self._in_thread(self._files.check)
            self._bucket_good_until = time.monotonic() + BUCKET_GOOD_SECONDS
        return found

    async def start(self, file_id: int) -> tuple[ObjectStat, str] | None:
        """One file's object and a short-lived URL of it, or None if there is none."""
        shortest, longest = self._limits.start_delay_ms
        if longest:
            await asyncio.sleep(random.uniform(shortest, longest) / 1000)  # noqa: S311 - a simulation
        found = await self.look_up(file_id)
        if found is None:
            return None
        return found, await self._presigned(self._files, found.key, f"{file_id}.zip")

    async def check_storage(self) -> None:
        """Prove that storage can be used."""
        await self._in_thread(self._files.check)
        if self._results is not self._files:
            await self._in_thread(self._results.check)

    async def check_queue(self) -> None:
        """Prove that Redis answers."""
        await self._jobs.ping()

    async def check_queue_takes_jobs(self) -> None:
        """Prove that Redis takes writes."""
        await self._jobs.check_writable()

    async def _presigned(self, store: ObjectStore, key: str, filename: str) -> str:
        # In a thread, because credentials that are not static may have to be fetched first.
        seconds = self._limits.presign_seconds
        made = False
        try:
            url = await self._in_thread(
                lambda: store.presign_get(key, expires_seconds=seconds, filename=filename)
            )
            made = True
            return url
        finally:
            self._metrics.presigned(made=made)

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        running = asyncio.get_running_loop().run_in_executor(self._threads, call)
        return await asyncio.wait_for(running, self._limits.storage_timeout_seconds)


def files_to_retry(job: Job) -> Sequence[int]:
    """The files of a job that has ended which are in no result of it, in their order."""
    if job.state not in WITH_RESULT | {JobState.EXPIRED}:
        return job.file_ids
    if not job.failures_known:
        return job.file_ids
    failed = {file_id for ids in job.failed_files.values() for file_id in ids}
    return [file_id for file_id in job.file_ids if file_id in failed]


def estimated_time(accepted: Accepted) -> str:
    """When a job will probably be done, as `"30-90 seconds"`.

    The jobs before it and its own, shared among the slots now at work.
    """
    rounds = accepted.ahead // max(1, accepted.slots) + 1
    shortest = max(1, round(accepted.service_seconds * rounds))
    return f"{shortest}-{3 * shortest} seconds"
