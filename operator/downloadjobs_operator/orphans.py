"""Withdraws jobs whose DownloadJob is gone without a trace.

An object can go past its finalizer: somebody removed that by hand while no operator ran, or the API server
let a deletion overtake it. What the watch shows of this is dealt with at once; this finds the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError, JobNotFoundError
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.states import FINISHED
from downloadjobs_operator.admission import OWNER_PREFIX, SOURCE
from downloadjobs_operator.kube import DownloadJobs
from downloadjobs_operator.kube_client import KubernetesError
from downloadjobs_operator.reconciling import CANCELLED
from downloadjobs_operator.tracking import Tracking

FIRST_SECONDS: Final = 5.0
"""After the watch began: by then most objects were listed, and need not be asked for."""

LOOK_SECONDS: Final = 1.0
BATCH: Final = 500
"""Records read in one round trip."""

log = logs.logger(__name__)


class Orphans:
    """Looks for them now and then.

    Args:
        jobs: the queue.
        cluster: where objects are.
        tracking: those that the watch has shown.
        served: the namespaces that this operator serves; empty for all. Jobs of others are left alone.
        every_seconds: between two looks.
        may: whether this process may act, and its watch is under way.
    """

    def __init__(
        self,
        jobs: JobStore,
        cluster: DownloadJobs,
        tracking: Tracking,
        *,
        served: Collection[str],
        every_seconds: float,
        may: Callable[[], bool],
    ) -> None:
        self._jobs = jobs
        self._cluster = cluster
        self._tracking = tracking
        self._served = served
        self._every_seconds = every_seconds
        self._may = may

    async def run(self) -> None:
        """Look, until cancelled."""
        while not self._may():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            if self._may():
                try:
                    await self.look()
                except DownloadJobsError as error:
                    log.debug("jobs without an object could not be looked for", error=str(error))
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> None:
        """Withdraw what has no object any more. Raises `QueueUnavailableError`."""
        for namespace, job_ids in (await self._without_object()).items():
            try:
                # After the jobs were read: an object is there before its job is, so one that is missing
                # now is gone.
                there = await self._cluster.uids(namespace)
            except KubernetesError as error:
                log.debug("objects could not be asked for", namespace=namespace, error=str(error))
                continue
            for job_id in job_ids:
                if job_id not in there and self._tracking.showing(job_id) is None and self._may():
                    await self._withdraw(namespace, job_id)

    async def _without_object(self) -> dict[str, list[str]]:
        """Unfinished jobs of DownloadJobs that the watch has not shown, by namespace."""
        unknown = [one for one in await self._jobs.unfinished() if self._tracking.showing(one) is None]
        found: dict[str, list[str]] = {}
        for first in range(0, len(unknown), BATCH):
            records = await self._jobs.records(unknown[first : first + BATCH])
            for job in records.values():
                if job is None or job.source != SOURCE or job.is_maintenance or job.state in FINISHED:
                    continue
                namespace = job.user.removeprefix(OWNER_PREFIX)
                if job.user.startswith(OWNER_PREFIX) and (not self._served or namespace in self._served):
                    found.setdefault(namespace, []).append(job.job_id)
        return found

    async def _withdraw(self, namespace: str, job_id: str) -> None:
        try:
            await self._jobs.withdraw(
                job_id, code=CANCELLED, message="Its DownloadJob was deleted.", remove_result=False
            )
        except JobNotFoundError:
            return
        log.warning("a job without its DownloadJob was withdrawn", namespace=namespace, job_id=job_id)
