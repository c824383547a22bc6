"""Stock Huey under the same chaos, to show that the run notices a queue that loses jobs.

Huey's own consumer and Redis storage as they come, and a task that copies a job's files into one object.
The task is as careful as a task can be: it retries, and it says that it is done only when it is. What is
lost is lost by the queue.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, cast

from huey import PriorityRedisHuey

from downloadjobs_core.leases import translated_errors
from downloadjobs_core.objectstore.factory import open_stores
from downloadjobs_core.objectstore.protocol import ObjectStore
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_worker.settings import WorkerSettings
from support_chaos_audit import RESULTS_PREFIX, StoredFiles
from support_chaos_plan import PlannedJob
from support_chaos_subject import Findings
from support_worker import PREFIX, read_object

if TYPE_CHECKING:
    from redis import Redis

DONE: Final = "stock:done"
"""A hash: how often each job was done."""

RETRIES: Final = 100
RETRY_SECONDS: Final = 1


class StockHuey:
    """Huey's own queue.

    Args:
        url: of Valkey.
        jobs: that will be submitted.
    """

    module: ClassVar[str] = "support_chaos_stock_worker"

    def __init__(self, url: str, jobs: Sequence[PlannedJob]) -> None:
        self._redis: Redis = connect(RedisConfig(url))
        self._copy = tasks_of(url, None).copy
        self._jobs = jobs
        self._changed_at = time.monotonic()
        self._done: dict[str, str] = {}
        self._submitted: set[str] = set()

    def submit(self, job: PlannedJob) -> None:
        """See `Subject.submit`. Huey knows no idempotent submission, so a second one is left out."""
        if job.job_id in self._submitted:
            return
        with translated_errors():
            self._copy(job.job_id, list(job.file_ids))
        self._submitted.add(job.job_id)

    def cancel(self, job: PlannedJob) -> None:
        """See `Subject.cancel`. Nothing is cancelled: it would only hide what is lost."""

    def look(self) -> None:
        """See `Subject.look`."""
        with translated_errors():
            done = cast("dict[str, str]", self._redis.hgetall(DONE))
        if done != self._done:
            self._done, self._changed_at = done, time.monotonic()

    def unended(self, accepted: Collection[str]) -> set[str]:
        """See `Subject.unended`."""
        self.look()
        return set(accepted) - set(self._done)

    def changed_at(self) -> float:
        """See `Subject.changed_at`."""
        return self._changed_at

    def settle(self, store: ObjectStore) -> None:
        """See `Subject.settle`. There is nothing to clean up."""

    def examine(
        self,
        jobs: Sequence[PlannedJob],
        store: ObjectStore,  # noqa: ARG002 - a subject's signature
        files: StoredFiles,  # noqa: ARG002 - the same
        folder: Path,  # noqa: ARG002 - the same
    ) -> Findings:
        """See `Subject.examine`."""
        unended = self.unended([job.job_id for job in jobs])
        found = Findings(lost=[f"{job_id} was accepted and never done." for job_id in sorted(unended)])
        found.published_twice = [
            f"{job_id} was done {n} times." for job_id, n in self._done.items() if n != "1"
        ]
        found.states["done"] = len(self._done)
        return found

    def close(self) -> None:
        """See `Subject.close`."""
        self._redis.close()


class Tasks:
    """A Huey with the one task there is.

    Args:
        huey: where it is registered.
        settings: of the worker; None where tasks are only submitted.
    """

    def __init__(self, huey: PriorityRedisHuey, settings: WorkerSettings | None) -> None:
        self.huey = huey
        self._settings = settings
        self._store = open_stores(settings, connections=4).files if settings else None
        self._redis: Redis | None = connect(settings.redis) if settings else None
        self.copy = huey.task(retries=RETRIES, retry_delay=RETRY_SECONDS, name="copy")(self._copy)

    def _copy(self, job_id: str, file_ids: list[int]) -> None:
        if self._settings is None or self._store is None or self._redis is None:
            raise RuntimeError("this process only submits")
        shortest, longest = self._settings.download_delay_min_ms, self._settings.download_delay_max_ms
        time.sleep(random.uniform(shortest, longest) / 1000)
        content = b"".join(read_object(self._store, f"{PREFIX}{file_id}.zip") for file_id in file_ids)
        self._store.put(f"{RESULTS_PREFIX}{job_id}/stock", content)
        self._redis.hincrby(DONE, job_id, 1)


def tasks_of(url: str, settings: WorkerSettings | None) -> Tasks:
    """Huey as its documentation has it."""
    return Tasks(PriorityRedisHuey("stock", url=url, results=False), settings)
