"""The queue's own tasks: which there are, and what they ask Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, cast

from downloadjobs_core.errors import LeaseLostError
from downloadjobs_core.job import Job, job_key
from downloadjobs_core.leases import SECOND_US, SWEEP_TASK, translated_errors
from downloadjobs_core.scripts import ROOT, Scripts

if TYPE_CHECKING:
    from redis import Redis

EVERY_SECONDS: Final = 3_600
"""Between two runs of a batched task: a sleeping pool of workers is woken at most once an hour for it."""


class Task(StrEnum):
    """A maintenance task; its name stands in the set `maintenance`, scored by when it is due."""

    EXPIRE_RESULTS = "expire-results"
    EXPIRE_SHARED = "expire-shared"
    SWEEP_ORPHANS = SWEEP_TASK


@dataclass(frozen=True, slots=True)
class Attempted:
    """What Redis says of one attempt."""

    known: bool
    """Its job has a record; of one whose result can be shared: it began after the last wipe."""
    current: bool
    """The attempt holds its job now."""
    published: bool
    """Its result is one that a job points to."""


@dataclass(slots=True)
class UpkeepStore:
    """What maintenance reads and writes in Redis. Raises `QueueUnavailableError`."""

    redis: Redis
    _scripts: Scripts = field(init=False)

    def __post_init__(self) -> None:
        self._scripts = Scripts(self.redis)

    def now_us(self) -> int:
        """The time by Redis' clock, in microseconds since 1970."""
        with translated_errors():
            seconds, micros = self.redis.time()
        return seconds * SECOND_US + micros

    def expired_results(self, limit: int) -> list[tuple[str, str]]:
        """Jobs whose result is past its time: id, and the result's key (empty if the record is gone)."""
        with translated_errors():
            ids = cast(
                "list[str]",
                self.redis.zrange(
                    f"{ROOT}:expiring", "-inf", str(self.now_us()), byscore=True, offset=0, num=limit
                ),
            )
            keys = [cast("str | None", self.redis.hget(job_key(job_id), "result_key")) for job_id in ids]
        return [(job_id, key or "") for job_id, key in zip(ids, keys, strict=True)]

    def expire_result(self, job_id: str, *, sweep_seconds: float) -> bool:
        """Mark a result as expired whose object was removed; if the job's record is gone, order a sweep.

        Args:
            job_id: whose.
            sweep_seconds: in which time what no record points to is swept.
        """
        with translated_errors():
            return bool(self._scripts.run("expire_result", job_id, int(sweep_seconds * SECOND_US)))

    def put_off_result(self, job_id: str) -> None:
        """A result's object could not be removed: look at it again in `EVERY_SECONDS`, after the others."""
        self._put_off(f"{ROOT}:expiring", job_id)

    def _put_off(self, entries: str, entry: str) -> None:
        due_us = self.now_us() + EVERY_SECONDS * SECOND_US
        with translated_errors():
            self.redis.zadd(entries, {entry: due_us}, xx=True)

    def expired_shared(self, limit: int) -> list[str]:
        """Keys of shared results with which a job's time is over, or which nobody points to any more."""
        with translated_errors():
            return cast(
                "list[str]",
                self.redis.zrange(
                    f"{ROOT}:shared", "-inf", str(self.now_us()), byscore=True, offset=0, num=limit
                ),
            )

    def expire_shared(self, key: str, limit: int) -> tuple[int, bool]:
        """Mark jobs as expired whose time with a shared result is over.

        Returns:
            how many, and whether nobody points to the result any more and nobody will: its object can go.
        """
        with translated_errors():
            expired, removable = self._scripts.run("expire_shared", key, limit)
        return int(expired), bool(removable)

    def forget_shared(self, key: str) -> None:
        """A shared result's object was removed."""
        with translated_errors():
            self.redis.zrem(f"{ROOT}:shared", key)

    def put_off_shared(self, key: str) -> None:
        """A shared result's object could not be removed: the same."""
        self._put_off(f"{ROOT}:shared", key)

    def leave_result(self, job_id: str) -> bool:
        """End a job's time with a result that it shares; False if it shares none."""
        with translated_errors():
            return bool(self._scripts.run("leave_result", job_id))

    def uploads(self) -> list[str]:
        """The keys of objects whose uploads were begun, and are not known to have ended."""
        with translated_errors():
            return cast("list[str]", self.redis.hkeys(f"{ROOT}:uploads"))

    def forget_upload(self, key: str) -> None:
        """What there was of it is gone."""
        with translated_errors():
            self.redis.hdel(f"{ROOT}:uploads", key)

    def attempted(self, attempts: Sequence[tuple[str, str, str]]) -> list[Attempted]:
        """What jobs say of attempts at them, given as job id, token and the key the attempt writes."""
        with translated_errors():
            pipeline = self.redis.pipeline(transaction=False)
            for job_id, _, _ in attempts:
                pipeline.hmget(job_key(job_id), "state", "token", "result_key")
            rows = cast("list[list[str | None]]", pipeline.execute())
        return [
            Attempted(known=row[0] is not None, current=row[1] == token, published=row[2] == key)
            for (_, token, key), row in zip(attempts, rows, strict=True)
        ]

    def attempted_shared(self, attempts: Sequence[tuple[str, str, str]]) -> list[Attempted]:
        """The same of attempts whose results can be shared, given as digest, token and key."""
        flat = [part for attempt in attempts for part in attempt]
        with translated_errors():
            reply = [bool(said) for said in self._scripts.run("shared_said", *flat)]
        return [
            Attempted(known, current, published)
            for known, current, published in zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        ]

    def done(self, task: Job, *, again_seconds: float | None, when_first_in: str = "") -> None:
        """End a maintenance task.

        Args:
            task: as it was leased.
            again_seconds: when it is due again at the earliest; None for not before it is asked for.
            when_first_in: the set whose first entry says when there is work again.

        Raises:
            LeaseLostError: another worker has taken it over.
        """
        wait = -1 if again_seconds is None else int(again_seconds * SECOND_US)
        with translated_errors():
            accepted = self._scripts.run("maintenance_done", task.job_id, task.token, wait, when_first_in)
        if not accepted:
            raise LeaseLostError(task.job_id, "its token is no longer the current one")
