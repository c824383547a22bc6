"""One attempt at one leased job, from its start to the script that ends it.

Whatever happens, the lease ends in one of six ways: finished, retried later,
handed back, joined to another job's, lost, or, when Redis cannot be reached, left to run out.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    LeaseLostError,
    ObjectChangedError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    QueueUnavailableError,
    ResultGoneError,
    ResultTooLargeError,
    UploadNotFoundError,
)
from downloadjobs_core.job import Job
from downloadjobs_core.leases import LeaseStore, Outcome
from downloadjobs_core.states import JobState
from downloadjobs_worker.bundling import Bundler
from downloadjobs_worker.hold import HandBackRequested, Hold, Joined
from downloadjobs_worker.keeper import Keeper
from downloadjobs_worker.metrics import Cause, WorkerMetrics, why_lost
from downloadjobs_worker.patience import until_redis_answers
from downloadjobs_worker.retrying import RetryPolicy
from downloadjobs_worker.single_flight import SingleFlight
from downloadjobs_worker.storage_watch import StorageWatch

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: a stable code, a sentence for the user, and whether another may do better."""

    code: str
    message: str
    retryable: bool


_DENIED: Final = Failure("storage-denied", "The storage refuses the worker's credentials.", retryable=True)
"""Retried, or a moment's fault in rotating credentials would fail every job that waits."""

_FAILURES: Final = {
    ObjectChangedError: Failure("file-changed", "A file changed while it was read.", retryable=True),
    BucketNotFoundError: Failure("bucket-not-found", "The storage's bucket does not exist.", retryable=True),
    ObjectStoreDeniedError: _DENIED,
    CredentialsRefusedError: _DENIED,
    ResultTooLargeError: Failure(
        "result-too-large", "The files are too large for one result: ask for fewer at once.", retryable=False
    ),
    # No call mends an upload that the store lost, but a fresh attempt makes a fresh one.
    UploadNotFoundError: Failure(
        "storage-unavailable", "The storage lost the unfinished result.", retryable=True
    ),
}


def failure_of(error: Exception) -> Failure:
    """Translate an error of an attempt for the user. What it does not know is retried, and logged whole."""
    for kind, failure in _FAILURES.items():
        if isinstance(error, kind):
            return failure
    if isinstance(error, ObjectStoreError):
        if error.retryable:
            return Failure("storage-unavailable", "The storage could not be reached.", retryable=True)
        return Failure("storage-refused", "The storage refused a request of the worker.", retryable=False)
    return Failure("internal", "The worker met an unexpected fault.", retryable=True)


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended: a job's state, or `retrying`, `handed_back`, `joined`, `lost` or `unwritten`."""

    how: str
    code: str = ""
    """Why, if it failed."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Simulation: a random wait before each job, in milliseconds."""

    min_ms: int = 0
    max_ms: int = 0

    def seconds(self) -> float:
        """Draw one."""
        return random.uniform(self.min_ms, self.max_ms) / 1000  # noqa: S311 - a simulation


@dataclass(slots=True)
class _Ledger:
    """Keeps the attempt's upload in Redis until its end, and remembers whether anything is left."""

    leases: LeaseStore
    job: Job
    leftovers: bool = False

    def begun(self, key: str) -> None:
        self.leases.note_upload(self.job, key)

    def ended(self, key: str) -> None:
        try:
            self.leases.forget_upload(key)
        except QueueUnavailableError as error:
            log.debug("an ended upload is left to the orphan sweep to forget", key=key, error=str(error))

    def left(self, key: str) -> None:  # noqa: ARG002 - a ledger's signature; the sweep finds the key itself
        self.leftovers = True


@dataclass(frozen=True, slots=True)
class AttemptRunner:
    """Runs leased jobs in the consumer's threads."""

    leases: LeaseStore
    keeper: Keeper
    bundler: Bundler
    retry: RetryPolicy
    delay: Delay
    metrics: WorkerMetrics
    flights: SingleFlight | None = None
    """Where a job's result is looked for before it is made; None if no results are shared."""
    storage: StorageWatch | None = None
    """Asked whether storage as a whole is away: jobs wait for it. None: an outage fails the attempt."""

    def run(self, job: Job) -> AttemptEnd:
        """Make one attempt. Raises nothing: a lease that could not be ended runs out."""
        with logs.context(job_id=job.job_id, request_id=job.request_id, trace_id=job.trace_id):
            hold = self.keeper.hold(job)
            hold.storage = self.storage
            log.info("attempt started", attempt=job.attempt, delivery=job.deliveries, files=job.files_total)
            started = time.monotonic()
            ledger = _Ledger(self.leases, job)
            self.metrics.attempt_began(hold)
            try:
                return self._attempt(hold, ledger, started)
            except HandBackRequested:
                self.metrics.interrupted(Cause.DRAIN)
                self._end("hand back", lambda: self.leases.hand_back(job, hold.stages.unwritten().text))
                log.info("job handed back", attempt=job.attempt)
                return AttemptEnd("handed_back")
            except Joined:
                self.metrics.interrupted(Cause.JOINED)
                log.info("job waits for the same result, which another job makes", attempt=job.attempt)
                return AttemptEnd("joined")
            except LeaseLostError as error:
                self.metrics.interrupted(why_lost(self.leases, job))
                log.warning("attempt stopped", reason=error.reason)
                return AttemptEnd("lost")
            except QueueUnavailableError as error:
                self.metrics.interrupted(Cause.QUEUE_UNAVAILABLE)
                log.warning("the attempt's outcome could not be written", error=str(error))
                return AttemptEnd("unwritten", "queue-unavailable")
            except Exception as error:  # noqa: BLE001 - every fault of a job ends as its outcome
                return self._fail(hold, error, started)
            finally:
                self.keeper.release(hold)
                self.metrics.attempt_ended(hold)
                if ledger.leftovers:
                    self._end("order a sweep", self.leases.order_sweep)
                log.debug("attempt ended", seconds=round(time.monotonic() - started, 3))

    def _attempt(self, hold: Hold, ledger: _Ledger, started: float) -> AttemptEnd:
        job = hold.job
        if self.delay.max_ms:
            hold.sleep(self.delay.seconds())
        outcome = self.bundler.bundle(
            hold,
            lambda: until_redis_answers(lambda: self.leases.check(job), hold.raise_if_stopped),
            ledger,
            self.flights,
        )
        try:
            until_redis_answers(lambda: self.leases.finish(job, outcome, hold.stages.unwritten().text))
        except ResultGoneError:
            # Its last owner's time ended just now.
            return self._attempt(hold, ledger, started)
        except LeaseLostError:
            self._remove_result(outcome, ledger)
            raise
        self.metrics.finished(job, outcome, time.monotonic() - started)
        log.info(
            "job finished",
            state=outcome.state.value,
            files=outcome.files_done,
            files_failed=outcome.files_failed,
            result_bytes=outcome.result_bytes,
            deduplicated=outcome.deduplicated,
            seconds=round(time.monotonic() - started, 3),
        )
        return AttemptEnd(outcome.state.value, outcome.error_code)

    def _fail(self, hold: Hold, error: Exception, started: float) -> AttemptEnd:
        job = hold.job
        failure = failure_of(error)
        log.warning(
            "attempt failed",
            code=failure.code,
            error=str(error),
            exc_info=error if failure.code == "internal" else None,
        )
        failures = job.failures + 1
        if failure.retryable and failures < job.max_attempts:
            delay = self.retry.delay_seconds(failures)
            ended = self._end(
                "retry",
                lambda: self.leases.retry_later(
                    job,
                    delay_seconds=delay,
                    code=failure.code,
                    message=failure.message,
                    stages=hold.stages.unwritten().text,
                ),
            )
            if ended:
                self.metrics.retried(time.monotonic() - started)
            log.info("job will be retried", delay_seconds=round(delay, 1), attempt=job.attempt)
            return AttemptEnd("retrying", failure.code)
        progress = hold.progress
        outcome = Outcome(
            JobState.FAILED,
            files_done=progress.files_done,
            bytes_done=progress.bytes_done,
            bytes_total=progress.bytes_total,
            error_code=failure.code,
            error_message=failure.message,
        )
        if self._end("fail", lambda: self.leases.finish(job, outcome, hold.stages.unwritten().text)):
            self.metrics.finished(job, outcome, time.monotonic() - started)
        log.warning("job failed", code=failure.code, attempts=job.attempt)
        return AttemptEnd(outcome.state.value, failure.code)

    def _end(self, what: str, call: Callable[[], None]) -> bool:
        try:
            until_redis_answers(call)
        except (LeaseLostError, QueueUnavailableError) as error:
            log.warning("the attempt's end could not be written", end=what, error=str(error))
            return False
        return True

    def _remove_result(self, outcome: Outcome, ledger: _Ledger) -> None:
        """Remove what this attempt alone owns: a result whose pointer was refused."""
        if not outcome.result_key or outcome.deduplicated:
            return
        try:
            self.bundler.results.delete(outcome.result_key)
        except ObjectStoreError as error:
            log.warning(
                "a refused result is left to the orphan sweep", key=outcome.result_key, error=str(error)
            )
            ledger.left(outcome.result_key)
