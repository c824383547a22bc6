"""The operator's services as its composition root wires them, over a real Valkey and a cluster in memory.

There is no watch: a test says what it shows, with `Site.watch`, `Site.list` and `Site.gone`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from kubernetes.aio.client.configuration import Configuration

from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.leases import LeaseStore
from downloadjobs_core.redis_client import RedisConfig, connect, connect_async
from downloadjobs_operator.downloadjob import moment_of
from downloadjobs_operator.kube import KubernetesDownloadJobs
from downloadjobs_operator.settings import OperatorSettings
from downloadjobs_operator.tracking import Tracked
from downloadjobs_operator.wiring import Operator
from support_operator import InMemoryDownloadJobs, at_work, until

CONNECTIONS = 16


@dataclass
class Site:
    """An operator, its queue, and its cluster."""

    operator: Operator
    cluster: InMemoryDownloadJobs
    jobs: JobStore
    leases: LeaseStore
    settings: OperatorSettings
    running: bool = True
    leads: bool = True
    """Whether it holds the Lease for sure."""

    @property
    def gave_up(self) -> float:
        """How many objects were let go although their jobs could not be withdrawn."""
        return self.operator.metrics.registry.get_sample_value("downloadjobs_finalizers_gave_up_total") or 0.0

    def watch(self, name: str = "one", namespace: str = "team") -> Tracked:
        """The watch shows an object as it is."""
        tracked = self.operator.tracking.see(self.cluster.objects[namespace, name])
        self.operator._seen(tracked)
        return tracked

    def list(self, name: str = "one", namespace: str = "team") -> Tracked:
        """The watch begins, and shows an object that was there before."""
        tracked = self.watch(name, namespace)
        self.operator._listed(tracked)
        return tracked

    def gone(self, name: str = "one", namespace: str = "team") -> None:
        """The object is away, and the watch shows that."""
        body = self.cluster.objects.pop((namespace, name))
        self.operator._controller.gone(self.operator.tracking.see(body))

    async def changed(self, name: str = "one", namespace: str = "team") -> Tracked:
        """The watch shows an object, which has its turn. Without running services, its failure is raised."""
        tracked = self.watch(name, namespace)
        await self.turn(tracked)
        return tracked

    async def deleted(self, name: str = "one", namespace: str = "team") -> None:
        """The watch shows that somebody deleted an object, which has its turn."""
        metadata = self.cluster.objects[namespace, name]["metadata"]
        metadata.setdefault("deletionTimestamp", moment_of(time.time()))
        await self.changed(name, namespace)

    async def turn(self, tracked: Tracked) -> None:
        """An object has its turn, and is done with unless that fails."""
        if not self.running:
            await self.operator._controller.bring(tracked)
        queue = self.operator._controller._queue
        assert not self.running or await until(lambda: not len(queue))

    async def record(self, job_id: str = "uid-of-one") -> Job | None:
        """A job's record."""
        return await self.jobs.get(job_id)

    async def damage(self, job_id: str, **fields: str) -> None:
        """Write into a record by hand."""
        for name, value in fields.items():
            await asyncio.to_thread(self.leases.redis.hset, job_key(job_id), name, value)

    async def wipe(self) -> None:
        """Redis loses everything."""
        await asyncio.to_thread(self.leases.redis.flushall)

    def lease(self) -> Job:
        """A worker takes the next job, which must be there."""
        job = self.leases.lease("worker-1")
        assert job is not None
        return job

    async def submit_by_rest(self, job_id: str, user: str = "ada") -> None:
        """A job comes by REST."""
        await self.jobs.submit(
            NewJob(job_id=job_id, user=user, file_ids=(10_000,), total_file_ids=1, max_attempts=3)
        )


@asynccontextmanager
async def operating(
    url: str,
    *objects: dict[str, Any],
    running: bool = True,
    **settings: Any,  # noqa: ANN401 - settings' own types
) -> AsyncIterator[Site]:
    """An operator over the Redis at this address; its services run, or wait for a test to run them."""
    chosen = OperatorSettings(
        **{"leader_election": False, "status_patches_per_second": 1_000, "resync_seconds": 3600} | settings
    )
    redis = connect_async(RedisConfig(url), max_connections=CONNECTIONS)
    leases = LeaseStore(connect(RedisConfig(url)), chosen.policy)
    cluster = InMemoryDownloadJobs(*objects)
    operator = Operator(
        chosen, Configuration(), cast("KubernetesDownloadJobs", cluster), redis, leads=lambda: site.leads
    )
    operator.clock.open = 1  # a watch is under way: without one, statuses wait
    site = Site(operator, cluster, JobStore(redis, chosen.policy), leases, chosen, running)
    try:
        async with at_work(*([operator.follow] if running else [])):
            yield site
    finally:
        await redis.aclose()
        leases.redis.close()
