"""A queue whose maintenance a test runs itself, task by task, on a store in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Self

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.errors import ObjectStoreDeniedError, ObjectStoreUnavailableError
from downloadjobs_core.job import MAINTENANCE, Job, NewJob
from downloadjobs_core.leases import LeaseStore, QueuePolicy
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.upkeep import Task, UpkeepStore
from downloadjobs_worker.keeper import Keeper
from downloadjobs_worker.maintenance import Maintenance

PREFIX: Final = "results/"
RESULT_TTL_SECONDS: Final = 1_000
GRACE_SECONDS: Final = 100


class Storage(MemoryObjectStore):
    """A store in memory that can go away or keep what should go, and tells of each removal before it is made.

    Attributes:
        kept: keys with such a part cannot be removed, nor their uploads aborted.
    """

    def __init__(self) -> None:
        super().__init__(min_part_bytes=1)
        self.away = False
        self.kept = "/kept/"
        self.before_delete: Callable[[str], None] = lambda _key: None

    def delete(self, key: str) -> None:
        """Remove an object, if the store is there."""
        self.check()
        self.before_delete(key)
        if self.kept in key:
            raise ObjectStoreDeniedError("a legal hold")
        super().delete(key)

    def check(self) -> None:
        """Whether the store is there."""
        if self.away:
            raise ObjectStoreUnavailableError("the store went away")

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload."""
        if self.kept in key:
            raise ObjectStoreDeniedError("a policy")
        super().abort_upload(key, upload_id)

    def keys(self) -> list[str]:
        """All there are."""
        return [found.key for found in self.list("")]


@dataclass
class MaintainedQueue:
    """A queue and a store, and the maintenance of one worker, whose keeper does not run."""

    leases: LeaseStore
    store: Storage = field(default_factory=Storage)

    @classmethod
    @contextmanager
    def on(cls, valkey: ValkeyServer) -> Iterator[Self]:
        """One on an empty Redis that was never wiped, so that no sweep is ordered for its beginning."""
        redis = connect(RedisConfig(valkey.url))
        policy = QueuePolicy(
            lease_seconds=30, result_ttl_seconds=RESULT_TTL_SECONDS, orphan_grace_seconds=GRACE_SECONDS
        )
        redis.hset(f"{ROOT}:queue", "epoch", "1")
        try:
            yield cls(LeaseStore(redis, policy))
        finally:
            redis.close()

    @property
    def upkeep(self) -> UpkeepStore:
        """What maintenance asks Redis."""
        return UpkeepStore(self.leases.redis)

    def maintenance(self) -> Maintenance:
        """One worker's."""
        return Maintenance(
            self.upkeep,
            Keeper(self.leases, worker="w", slots=1),
            self.store,
            PREFIX,
            result_ttl_seconds=RESULT_TTL_SECONDS,
            orphan_grace_seconds=GRACE_SECONDS,
        )

    def lease(self, worker: str = "w") -> Job:
        """The next job or task, which must be there."""
        job = self.leases.lease(worker)
        assert job is not None
        return job

    def started(self, job_id: str) -> Job:
        """A job that runs."""
        new = NewJob(job_id=job_id, user="u", file_ids=(10_000,), total_file_ids=1, max_attempts=3)
        assert self.leases.submit(new)
        job = self.lease()
        assert job.job_id == job_id
        return job

    def due(self, task: Task) -> float | None:
        """When a task is due, in microseconds since 1970; None if it is not scheduled."""
        return self.leases.redis.zscore(f"{ROOT}:maintenance", task)

    def make_due(self, task: Task) -> Job:
        """As if a task's time had come; its lease."""
        self.leases.redis.zadd(f"{ROOT}:maintenance", {task: 1})
        leased = self.lease()
        assert (leased.job_id, leased.kind) == (task, MAINTENANCE)
        return leased

    def maintain(self, task: Task) -> None:
        """One run of a task."""
        self.maintenance().run(self.make_due(task))
