"""Writes jobs' states into their DownloadJobs: what changed is marked, what is marked is brought up to date.

Marks coalesce: however often a job changes, its status is computed from its
record as it is when its turn comes. Transitions are written at once, progress by
a token bucket for all jobs, so that 10,000 objects cost what their changes cost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.job import Job
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.leases import SECOND_US
from downloadjobs_core.states import JobState
from downloadjobs_operator.announcements import QUEUE_UNAVAILABLE, Announcement, announcements, event_body
from downloadjobs_operator.downloadjob import DownloadJob
from downloadjobs_operator.kube import DownloadJobs
from downloadjobs_operator.kube_client import (
    InvalidError,
    KubernetesError,
    KubernetesUnavailableError,
    ObjectGoneError,
)
from downloadjobs_operator.patching import Urgency, urgency
from downloadjobs_operator.rationing import TokenBucket
from downloadjobs_operator.refusals import Refusals
from downloadjobs_operator.status import (
    Surroundings,
    Verdict,
    status_of,
    status_of_verdict,
    status_without_record,
)
from downloadjobs_operator.tracking import OWN_PATCH_SECONDS, Tracked, Tracking

BATCH: Final = 200
"""Records read in one round trip."""

AT_ONCE: Final = 16
"""Requests to the API server under way."""

EVENTS_AT_ONCE: Final = 4
"""The same for Events, whose number is about that of the statuses."""

AGAIN_SECONDS: Final = 1.0
"""When what could not be written is looked at again. Of one status it doubles with each failure."""

LONGEST_AGAIN_SECONDS: Final = 10.0
"""At the most: thousands of statuses a second would not help an API server that is overloaded."""

REFUSED_SECONDS: Final = 15.0
"""The same for what the API server refused: the operator's rights may have been away. From the second time
on it is twice as long: they may be gone for good."""

PLACE_SECONDS: Final = 15.0
"""How old the place in the queue may be that a status tells."""

RECORD_LOST: Final = Verdict(
    final=True,
    reason="RecordLost",
    message="The job's record is gone from the queue, and jobs that came by REST cannot be submitted again."
    " Ask for the files again.",
)

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class MirrorHooks:
    """What a mirror asks of others, and tells them.

    Attributes:
        watching: whether what is known of objects is new; statuses wait while it is not.
        missing: called with an unfinished object whose job has no record: it is to be submitted (again).
        settled: called with each object whose status was brought up to date, for its deadlines.
        gone: called with each object that turns out to be gone.
        phase_written: called when a status shows another phase, with when its job changed, in seconds since
            1970 by Redis' clock.
    """

    watching: Callable[[], bool]
    missing: Callable[[Tracked], None]
    settled: Callable[[Tracked], None]
    gone: Callable[[Tracked], None]
    phase_written: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class _Written:
    tracked: Tracked
    status: dict[str, Any]
    changed_us: int
    """When the job changed whose record this shows; 0 without one."""


class StatusMirror:
    """Keeps statuses up to date. One task runs it; `mark` may be called by any other of the event loop."""

    def __init__(
        self,
        jobs: JobStore,
        cluster: DownloadJobs,
        tracking: Tracking,
        bucket: TokenBucket,
        hooks: MirrorHooks,
        *,
        around: Surroundings,
        instance: str,
        now: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._cluster = cluster
        self._tracking = tracking
        self._bucket = bucket
        self._hooks = hooks
        self._around = around
        self._instance = instance
        self._now = now
        self._marked: dict[str, None] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._awake = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._news: asyncio.Queue[tuple[DownloadJob, Announcement, float]] = asyncio.Queue()
        self._service_seconds = 0.0
        self._trouble = False
        self._refusals = Refusals()

    def mark(self, tracked: Tracked) -> None:
        """Have an object's status brought up to date."""
        self._marked[tracked.dj.uid] = None
        self._awake.set()

    def tell(self, tracked: Tracked, told: Announcement) -> None:
        """Have an Event written that no status gives rise to."""
        self._news.put_nowait((tracked.dj, told, time.time()))

    @property
    def busy(self) -> bool:
        """Whether anything is marked or being written."""
        return bool(self._marked or self._writing)

    async def run(self) -> None:
        """Bring marked objects up to date, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(EVENTS_AT_ONCE):
                group.create_task(self._announce(), name="Events")
            try:
                while True:
                    await self._awake.wait()
                    self._awake.clear()
                    await self._round()
            finally:
                for task in self._writing.values():
                    task.cancel()

    async def _round(self) -> None:
        uids = [uid for uid in self._marked if uid not in self._writing][:BATCH]
        if not uids:
            return
        for uid in uids:
            del self._marked[uid]
        known = [tracked for uid in uids if (tracked := self._tracking.get(uid)) is not None]
        batch = [tracked for tracked in known if not tracked.gone]
        if not self._hooks.watching():
            self._again(batch)
            return
        try:
            await self._look_at(batch)
        except DownloadJobsError as error:
            self._note_trouble(str(error))
            self._tell_without_queue(batch)
            self._again(batch)
        else:
            self._trouble = False
        if self._marked:
            self._awake.set()

    async def _look_at(self, batch: list[Tracked]) -> None:
        records = await self._jobs.records([one.job_id for one in batch if one.job_id])
        await self._look_up_places([one for one in batch if _waits(records.get(one.job_id))])
        for tracked in batch:
            if tracked.job_id and tracked.job_id not in records:
                continue  # damaged, or of a newer release, which mirrors it itself
            with _alone(tracked):
                self._bring_up_to_date(tracked, records.get(tracked.job_id))

    def _bring_up_to_date(self, tracked: Tracked, job: Job | None) -> None:
        if job is not None and tracked.verdict is not None and tracked.verdict.reason == QUEUE_UNAVAILABLE:
            tracked.verdict = None
        if job is None and self._submitted(tracked):
            return
        self._settle(tracked, self._status(tracked, job), changed_us=job.updated_us if job else 0)

    def _tell_without_queue(self, batch: list[Tracked]) -> None:
        """Say so in the statuses of those that are not submitted yet; all others stay as they are."""
        for tracked in batch:
            with _alone(tracked):
                if tracked.verdict is not None and not tracked.finished and not tracked.status.get("jobId"):
                    self._settle(tracked, self._status(tracked, None))

    def _settle(self, tracked: Tracked, status: dict[str, Any] | None, *, changed_us: int = 0) -> None:
        """Write a status, at once or when there is room, if it says anything new."""
        self._hooks.settled(tracked)
        if status is None or tracked.dj.uid in self._writing:
            return
        since = time.monotonic() - tracked.patched_at
        match urgency(tracked.status, status, seconds_since_patch=since):
            case Urgency.NOW:
                self._bucket.owe()
                self._start(_Written(tracked, status, changed_us))
            case Urgency.SOON if self._bucket.take():
                self._start(_Written(tracked, status, changed_us))
            case Urgency.SOON:
                self._again([tracked])
            case Urgency.NOT_YET:
                pass

    def _submitted(self, tracked: Tracked) -> bool:
        """Whether an object without a record is on its way to one, which will mark it again."""
        if tracked.finished or tracked.verdict is not None or tracked.is_mirror or tracked.going:
            return False
        if tracked.job_id:
            self._hooks.missing(tracked)
        return True

    def _status(self, tracked: Tracked, job: Job | None) -> dict[str, Any] | None:
        """The object's status as it should be, or None if there is nothing to say."""
        now = self._now()
        if job is not None:
            place = tracked.place if _waits(job) else None
            around = replace(self._around, place=place, service_seconds=self._service_seconds)
            return status_of(tracked.dj, job, tracked.status, around, now=now)
        if tracked.finished:
            return status_without_record(tracked.dj, tracked.status, now=now)
        verdict = tracked.verdict or (RECORD_LOST if tracked.is_mirror else None)
        return None if verdict is None else status_of_verdict(tracked.dj, verdict, tracked.status, now=now)

    async def _look_up_places(self, waiting: list[Tracked]) -> None:
        now = time.monotonic()
        old = [one for one in waiting if now - one.placed_at > PLACE_SECONDS]
        if not old:
            return
        places = await asyncio.gather(*(self._jobs.place(one.job_id) for one in old))
        for tracked, place in zip(old, places, strict=True):
            tracked.place, tracked.placed_at = place, now
        self._service_seconds = (await self._jobs.counts()).service_us / 1_000_000

    def _start(self, written: _Written) -> None:
        uid = written.tracked.dj.uid
        task = asyncio.create_task(self._write(written), name=f"status of {uid}")
        self._writing[uid] = task
        task.add_done_callback(lambda _: self._written(uid))

    def _written(self, uid: str) -> None:
        del self._writing[uid]
        if uid in self._marked:
            self._awake.set()

    async def _write(self, written: _Written) -> None:
        tracked, status = written.tracked, written.status
        before = tracked.status
        async with self._slots:
            try:
                with tracked.noting_versions() as noted:
                    version = await self._cluster.patch_status(tracked.dj, status)
            except ObjectGoneError:
                self._hooks.gone(tracked)
                return
            except KubernetesUnavailableError as error:
                self._note_trouble(str(error))
                seconds = min(AGAIN_SECONDS * 2.0 ** min(tracked.failures, 16), LONGEST_AGAIN_SECONDS)
                tracked.failures += 1
                self._again([tracked], seconds)
                return
            except KubernetesError as error:
                self._refused(tracked, error)
                return
        self._refusals.over(tracked.dj.namespace)
        tracked.refusals = tracked.failures = 0
        tracked.wrote(status, version, noted)
        asyncio.get_running_loop().call_later(OWN_PATCH_SECONDS, self._look_back, tracked, version)
        self._hooks.settled(tracked)
        # Of other changes, such as a place in the queue, the record does not say when they came.
        if written.changed_us and before.get("phase") != status.get("phase"):
            self._hooks.phase_written(written.changed_us / SECOND_US)
        if not tracked.going:  # its namespace may be going as well, and takes no Events then
            for told in announcements(before, status):
                self.tell(tracked, told)

    def _look_back(self, tracked: Tracked, version: str) -> None:
        if tracked.look_back(version):
            self.mark(tracked)

    def _refused(self, tracked: Tracked, error: KubernetesError) -> None:
        level = log.warning if self._refusals.news(tracked.dj, error) else log.debug
        level("a status was refused", namespace=tracked.dj.namespace, name=tracked.dj.name, error=str(error))
        tracked.patched_at = time.monotonic()
        tracked.refusals += 1
        # Its rights may come back; but the namespace of one that goes may be going as well, and they do not.
        if not isinstance(error, InvalidError) and not tracked.going:
            self._again([tracked], REFUSED_SECONDS * min(tracked.refusals, 2))

    async def _announce(self) -> None:
        """Write Events, after statuses: they may be late, and a status that waits for them must not."""
        while True:
            dj, told, now = await self._news.get()
            try:
                await self._cluster.announce(event_body(dj, told, now=now, instance=self._instance))
            except KubernetesError as error:
                # The namespace of one that is deleted may be going as well, and takes no Events then.
                level = log.debug if dj.deleted_at is not None else log.warning
                level("an Event could not be written", name=dj.name, error=str(error))

    def _again(self, batch: list[Tracked], seconds: float = AGAIN_SECONDS) -> None:
        at = asyncio.get_running_loop().time() + seconds
        for uid in (one.dj.uid for one in batch):
            # One timer for each: else every change of an object that waits would begin another row of tries.
            waiting = self._timers.pop(uid, None)
            if waiting is not None:
                waiting.cancel()
            self._timers[uid] = asyncio.get_running_loop().call_at(at, self._mark_again, uid)

    def _mark_again(self, uid: str) -> None:
        del self._timers[uid]
        self._marked[uid] = None
        self._awake.set()

    def _note_trouble(self, error: str) -> None:
        if not self._trouble:
            log.warning("statuses cannot be brought up to date; it is tried again", error=error)
        self._trouble = True


@contextmanager
def _alone(tracked: Tracked) -> Iterator[None]:
    """Whatever is wrong with one object's status, which others may write as well, the others' go on."""
    try:
        yield
    except Exception:
        log.exception("a status could not be computed", namespace=tracked.dj.namespace, name=tracked.dj.name)


def _waits(job: Job | None) -> bool:
    return job is not None and job.state is JobState.QUEUED
