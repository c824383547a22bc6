"""Dead letters: jobs that lost their worker too often, for a person to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from downloadjobs_core.job import Job, job_key
from downloadjobs_core.leases import translated_errors
from downloadjobs_core.scripts import ROOT, Scripts

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead job, and when it died (microseconds since 1970 by Redis' clock)."""

    job: Job
    died_us: int


@dataclass(slots=True)
class DeadLetters:
    """The dead letters of a queue. Raises `QueueUnavailableError` when Redis cannot be asked."""

    redis: Redis
    _scripts: Scripts = field(init=False)

    def __post_init__(self) -> None:
        self._scripts = Scripts(self.redis)

    def list(self, limit: int) -> list[DeadLetter]:
        """The newest, newest first."""
        with translated_errors():
            entries = cast(
                "list[tuple[str, float]]",
                self.redis.zrange(f"{ROOT}:dead", 0, limit - 1, desc=True, withscores=True),
            )
            pipeline = self.redis.pipeline(transaction=False)
            for job_id, _ in entries:
                pipeline.hgetall(job_key(job_id))
            records = cast("list[dict[str, str]]", pipeline.execute())
        return [
            DeadLetter(Job.from_hash(record), int(died))
            for (_, died), record in zip(entries, records, strict=True)
            if record
        ]

    def retry(self, job_id: str) -> bool:
        """Queue one again, with its counts begun anew; False if it is no dead letter."""
        with translated_errors():
            return bool(self._scripts.run("dead_retry", job_id))

    def drop(self, job_id: str) -> bool:
        """Forget one, record and all; False if it is no dead letter."""
        with translated_errors():
            return bool(self._scripts.run("dead_drop", job_id))
