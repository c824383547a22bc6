"""The worker's side of the queue: lease a job, keep it, and end it.

Every call is one Lua script. A lease is held by its fencing token; a call with
a token that is no longer current changes nothing and says so, which is all the
protection a job needs from a process that was stopped and woke up too late.
(Kleppmann, "How to do distributed locking", 2016, on why a lease alone is not enough.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import redis.exceptions

from downloadjobs_core import file_faults
from downloadjobs_core.errors import (
    IllegalTransitionError,
    LeaseLostError,
    QueueUnavailableError,
    ResultGoneError,
    TooManyQueuedError,
)
from downloadjobs_core.job import Job, NewJob
from downloadjobs_core.scripts import ROOT, Scripts
from downloadjobs_core.sharing import Boarding, Shared, Sharing, sharing_arguments
from downloadjobs_core.states import JobState, Priority

if TYPE_CHECKING:
    from redis import Redis

SECOND_US: Final = 1_000_000
BATCH: Final = 100
"""Jobs that one call of `promote` or `reap` moves at most, so that Redis is never blocked for long."""


RECORD_MARGIN_SECONDS: Final = 86_400
"""By which a record outlives its result at least: by what it says, the result is removed, perhaps late."""

SWEEP_TASK: Final = "sweep-orphans"
"""The name of the maintenance task that removes what lost attempts left."""


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """What the queue is told by settings. Durations are in seconds."""

    lease_seconds: float = 30
    max_deliveries: int = 5
    result_ttl_seconds: int = 86_400
    record_ttl_seconds: int = 604_800
    user_max_running: int = 10
    user_max_queued: int = 10_000
    orphan_grace_seconds: float = 3_600
    """How long after a lost attempt what it left is swept: longer than any of its requests can take."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended a job: its state, and where the result lies if there is one."""

    state: JobState
    result_key: str = ""
    result_bytes: int = 0
    files_done: int = 0
    files_failed: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    error_code: str = ""
    error_message: str = ""
    failed: Sequence[tuple[int, str]] = ()
    """The files that are not in the result, each with its fault's code."""
    shared: Shared | None = None
    """How others can have the result, too; None if it is this job's alone."""

    @property
    def deduplicated(self) -> bool:
        """Whether the result was made for another job."""
        return self.shared is not None and self.shared.how is Sharing.REUSED

    def fields(self) -> list[str | int]:
        """The pairs of field and value that `finish.lua` writes beside its own."""
        return [
            "result_key", self.result_key,
            "result_bytes", self.result_bytes,
            "files_done", self.files_done,
            "files_failed", self.files_failed,
            "bytes_done", self.bytes_done,
            "bytes_total", self.bytes_total,
            "error_code", self.error_code,
            "error_message", self.error_message,
            "failed_files", file_faults.encode(self.failed),
        ]  # fmt: skip


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the Redis client's exceptions into those of the domain."""
    try:
        yield
    except redis.exceptions.ResponseError as error:
        if str(error).startswith("ILLEGALTRANSITION"):
            raise IllegalTransitionError(str(error)) from error
        raise QueueUnavailableError(f"Redis refused a command: {error}") from error
    except redis.exceptions.AuthenticationError as error:
        raise QueueUnavailableError(
            f"Redis refuses the login ({error}): correct REDIS_USERNAME and REDIS_PASSWORD, or REDIS_URL"
        ) from error
    except redis.exceptions.RedisError as error:
        raise QueueUnavailableError(f"Redis cannot be reached: {error}") from error


@dataclass(slots=True)
class LeaseStore:
    """The queue as a worker sees it. Raises `QueueUnavailableError` when Redis cannot be asked."""

    redis: Redis
    policy: QueuePolicy
    _scripts: Scripts = field(init=False)

    def __post_init__(self) -> None:
        self._scripts = Scripts(self.redis)

    @property
    def _lease_us(self) -> int:
        return int(self.policy.lease_seconds * SECOND_US)

    def ping(self) -> None:
        """Prove that Redis answers."""
        with translated_errors():
            self.redis.ping()

    def submit(self, job: NewJob) -> bool:
        """Accept a job; False if its id was accepted before. Raises `TooManyQueuedError`."""
        policy = self.policy
        arguments = job.submission(
            max_queued=policy.user_max_queued, record_seconds=policy.record_ttl_seconds
        )
        with translated_errors():
            accepted, *rest = self._scripts.run("submit", *arguments)
        if accepted < 0:
            raise TooManyQueuedError(job.user, rest[0])
        return bool(accepted)

    def pop(self, worker: str, *, holder: str = "", call: str = "") -> dict[str, str] | None:
        """Lease the next ready job: its hash with the new token, or None.

        Args:
            worker: who takes it, shown to users.
            holder: which process that is; `worker` without it. One that is fenced gets nothing.
            call: an id of this call, until it was answered: again, it gets the lease whose answer was lost.
        """
        with translated_errors():
            reply = self._scripts.run(
                "pop", worker, self._lease_us, self.policy.user_max_running, holder or worker, call
            )
        return None if reply is None else dict(zip(reply[::2], reply[1::2], strict=True))

    def lease(self, worker: str) -> Job | None:
        """`pop`, as a record."""
        values = self.pop(worker)
        return None if values is None else Job.from_hash(values)

    def ready_count(self) -> int:
        """How many jobs could be leased now."""
        with translated_errors():
            return sum(int(self.redis.zcard(f"{ROOT}:ready:{priority}")) for priority in Priority)

    def wait_for_work(self, timeout_seconds: float) -> None:
        """Return when a job was made ready, or after the time-out."""
        with translated_errors():
            self.redis.blpop([f"{ROOT}:wake"], timeout=timeout_seconds)

    def renew(self, leases: Iterable[tuple[str, str]], *, worker: str = "", slots: int = 0) -> list[str]:
        """Renew leases, given as pairs of job id and token, and say how many slots the worker has.

        Returns:
            for each, in order, an empty string, or why it is lost: the job's state now, or `gone`.
        """
        flat = [part for lease in leases for part in lease]
        with translated_errors():
            return list(self._scripts.run("renew", self._lease_us, worker, slots, *flat))

    def leave(self, worker: str) -> None:
        """Take a worker that ends out of the count of slots."""
        with translated_errors():
            self._scripts.run("leave", worker)

    def progress(
        self, job: Job, *, files_done: int, bytes_done: int, bytes_total: int, stages: str = ""
    ) -> None:
        """Write how far an attempt has come. Raises `LeaseLostError`.

        Args:
            job: as it was leased.
            files_done: also those that are missing.
            bytes_done: of members.
            bytes_total: of all members.
            stages: what the attempt did since the last call (`timeline.py`), for this and all below.
        """
        self._fenced("progress", job, files_done, bytes_done, bytes_total, stages)

    def check(self, job: Job) -> None:
        """Prove that the attempt still holds its job, and renew. Raises `LeaseLostError`."""
        self._fenced("check", job, self._lease_us)

    def board(self, job: Job, digest: str, *, gone: str = "", stages: str = "") -> Boarding:
        """Ask for the result of a digest: whether to make it, to take one that is there, or to wait.

        Args:
            job: whose attempt asks.
            digest: of what its result would hold.
            gone: the key of a result that was offered, and is not in storage.
            stages: what the attempt did since the last call, noted if it ends now.

        Raises:
            LeaseLostError: the attempt holds its job no longer.
        """
        return Boarding.from_reply(self._fenced("board", job, digest, gone, stages))

    def finish(self, job: Job, outcome: Outcome, stages: str = "") -> None:
        """End a job.

        Raises:
            LeaseLostError: the attempt holds its job no longer, and nothing was changed.
            ResultGoneError: the result to be reused is being removed, and nothing was changed.
        """
        result_seconds = job.result_ttl_seconds or self.policy.result_ttl_seconds
        keep_us = result_seconds * SECOND_US if outcome.result_key else 0
        record_seconds = self.policy.record_ttl_seconds
        if outcome.result_key:
            record_seconds = max(record_seconds, result_seconds + RECORD_MARGIN_SECONDS)
        sharing = sharing_arguments(
            outcome.shared, outcome.result_key, outcome.result_bytes, self.policy.result_ttl_seconds
        )
        state, fields = outcome.state.value, outcome.fields()
        ended = self._fenced("finish", job, state, keep_us, record_seconds, stages, *sharing, *fields)
        if ended < 0:
            raise ResultGoneError(outcome.result_key)

    def retry_later(
        self, job: Job, *, delay_seconds: float, code: str, message: str, stages: str = ""
    ) -> None:
        """End an attempt that failed and place the next one. Raises `LeaseLostError`."""
        self._fenced("retry_later", job, int(delay_seconds * SECOND_US), code, message, stages)

    def hand_back(self, job: Job, stages: str = "") -> None:
        """Give a job back to the front of the queue, uncounted. Raises `LeaseLostError`."""
        self._fenced("hand_back", job, stages)

    def promote(self) -> int:
        """Make delayed jobs ready whose time has come; the number of them."""
        with translated_errors():
            return int(self._scripts.run("promote", BATCH))

    def reap(self) -> tuple[int, int]:
        """Take back jobs whose lease ran out: how many were made ready, and how many are dead letters."""
        with translated_errors():
            back, dead = self._scripts.run(
                "reap",
                BATCH,
                self.policy.max_deliveries,
                self.policy.record_ttl_seconds,
                int(self.policy.orphan_grace_seconds * SECOND_US),
                self._lease_us,
            )
        return int(back), int(dead)

    def note_upload(self, job: Job, key: str) -> None:
        """Remember the key of an upload that is about to be created. Raises `LeaseLostError`."""
        self._fenced("note_upload", job, key)

    def forget_upload(self, key: str) -> None:
        """It was completed or aborted."""
        with translated_errors():
            self.redis.hdel(f"{ROOT}:uploads", key)

    def order_sweep(self) -> None:
        """Have storage swept for what an attempt could not remove, unless a sweep comes sooner."""
        with translated_errors():
            seconds, micros = self.redis.time()
            due = seconds * SECOND_US + micros + int(self.policy.orphan_grace_seconds * SECOND_US)
            self.redis.zadd(f"{ROOT}:maintenance", {SWEEP_TASK: due}, lt=True)

    def _fenced(self, script: str, job: Job, *args: str | float) -> Any:  # noqa: ANN401 - replies differ by script
        with translated_errors():
            reply = self._scripts.run(script, job.job_id, job.token, *args)
        if reply in (0, [0]):
            raise LeaseLostError(job.job_id, "its token is no longer the current one")
        return reply
