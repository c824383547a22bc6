"""What happens to a DownloadJob because time passes: its deadline, and its end of life after it has finished.

One task and one heap serve all objects. When an alarm is due is a function of the
object (`next_alarm`), asked again when it rings: an entry that is out of date does nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_operator.clocks import QueueClock
from downloadjobs_operator.conditions import Type, is_true
from downloadjobs_operator.downloadjob import DownloadJob, seconds_of
from downloadjobs_operator.kube import DownloadJobs
from downloadjobs_operator.kube_client import ConflictError, KubernetesError, ObjectGoneError
from downloadjobs_operator.reconciling import Reconciler
from downloadjobs_operator.refusals import Refusals, is_refusal
from downloadjobs_operator.status import is_finished
from downloadjobs_operator.tracking import Tracked, Tracking
from downloadjobs_operator.workqueue import RetryError, WorkQueue

RETRY_SECONDS: Final = 5.0
"""When an alarm that rang may ring again, for what it did may have been lost."""

SMALL_HEAP: Final = 1_000
"""Entries that are not worth tidying up."""

LONGEST_SLEEP: Final = 60.0
"""The clocks may be set meanwhile."""

AT_ONCE: Final = 4
"""Alarms that ring at the same time: after an outage there may be thousands."""

log = logs.logger(__name__)


class Alarm(Enum):
    """What is due."""

    DEADLINE = auto()
    """`activeDeadlineSeconds` after its start, the job is cancelled."""
    END_OF_LIFE = auto()
    """`ttlSecondsAfterFinished` after its end, the object is deleted."""


def next_alarm(dj: DownloadJob, status: Mapping[str, Any]) -> tuple[float, Alarm] | None:
    """When the next thing happens to an object by itself, in seconds since 1970, and what; None for never."""
    if dj.deleted_at is not None:
        return None
    if is_finished(status):
        ended = seconds_of(status.get("completionTime"))
        if ended is None or dj.ttl_seconds is None:
            return None
        return ended + dj.ttl_seconds, Alarm.END_OF_LIFE
    started = seconds_of(status.get("startTime"))
    if started is None or dj.deadline_seconds is None or is_true(status, Type.SUSPENDED):
        return None
    return started + dj.deadline_seconds, Alarm.DEADLINE


class Alarms:
    """Rings when something is due. `set` may be called as often as an object changes.

    What is known of an object only says when to look. An alarm acts on the object as the API server has it
    then, and by Redis' clock: what is known may be old, after a pause of the process above all.

    Args:
        tracking: the objects.
        cluster: where they are.
        reconciler: cancels jobs.
        clock: by which jobs begin and end.
        may: whether this process may act, now.
        gone: called with each object that turns out to be gone.
    """

    def __init__(
        self,
        tracking: Tracking,
        cluster: DownloadJobs,
        reconciler: Reconciler,
        clock: QueueClock,
        *,
        may: Callable[[], bool],
        gone: Callable[[Tracked], None],
    ) -> None:
        self._tracking = tracking
        self._cluster = cluster
        self._reconciler = reconciler
        self._clock = clock
        self._may = may
        self._gone = gone
        self._heap: list[tuple[float, str]] = []
        self._at: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._failed: set[str] = set()
        self._refusals = Refusals()
        self._due = WorkQueue(self._ring, at_once=AT_ONCE, may=may)

    def set(self, tracked: Tracked) -> None:
        """Note when an object's next alarm is due."""
        alarm = next_alarm(tracked.dj, tracked.status)
        uid = tracked.dj.uid
        # A status may still be written when its object is gone: what is forgotten stays so.
        if alarm is None or self._tracking.get(uid) is not tracked:
            self._at.pop(uid, None)
            return
        if uid in self._failed:  # it has its next try, later and later, and finds then what is due
            return
        # One that has rung rings again, for what it did may have been lost; but not all the time.
        at = max(alarm[0], tracked.rang_at + RETRY_SECONDS)
        if self._at.get(uid) != at:
            self._at[uid] = at
            heapq.heappush(self._heap, (at, uid))
            self._prune()
            self._changed.set()

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._at.pop(uid, None)
        self._failed.discard(uid)
        self._due.forget(uid)

    def _prune(self) -> None:
        """Drop entries that are out of date, when they are most of the heap."""
        if len(self._heap) > 2 * len(self._at) + SMALL_HEAP:
            self._heap = [entry for entry in self._heap if self._at.get(entry[1]) == entry[0]]
            heapq.heapify(self._heap)

    async def run(self) -> None:
        """Ring, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._due.run(), name="what is due")
            group.create_task(self._wait(), name="alarms")

    async def _wait(self) -> None:
        while True:
            wait = self._heap[0][0] - self._clock.now() if self._heap else LONGEST_SLEEP
            if wait > 0:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(wait, LONGEST_SLEEP)):
                        await self._changed.wait()
                continue
            at, uid = heapq.heappop(self._heap)
            if self._at.get(uid) == at:
                del self._at[uid]
                self._due.add(uid)

    async def _ring(self, uid: str) -> None:
        tracked = self._tracking.get(uid)
        if tracked is None or tracked.going:
            self._failed.discard(uid)
            return
        tracked.rang_at = self._clock.now()
        try:
            await self._act(tracked)
            self._refusals.over(tracked.dj.namespace)
        except ObjectGoneError:
            self._failed.discard(uid)
            self._gone(tracked)
            return
        except ConflictError:
            log.debug("an object was changed as its alarm rang; it is looked at again", name=tracked.dj.name)
        except (DownloadJobsError, KubernetesError) as error:
            self._failed.add(uid)
            self._at.pop(uid, None)  # set while this was under way
            level = log.warning if self._refusals.news(tracked.dj, error) else log.debug
            message = "an alarm could not be carried out; it is tried again"
            level(message, namespace=tracked.dj.namespace, name=tracked.dj.name, error=str(error))
            raise RetryError(refused=is_refusal(error)) from error
        except Exception:
            log.exception("an alarm could not be carried out", name=tracked.dj.name)
        self._failed.discard(uid)
        self.set(tracked)

    async def _act(self, tracked: Tracked) -> None:
        """Do what is due about an object as it is now, which may be nothing."""
        found = await self._cluster.get(tracked.dj.namespace, tracked.dj.name)
        dj = DownloadJob.from_body(found)
        if dj.uid != tracked.dj.uid:
            raise ObjectGoneError(dj.name)
        self._tracking.see(found)
        alarm = next_alarm(dj, found.get("status") or {})
        now = await self._clock.measure()
        if alarm is None or alarm[0] > now or not self._may():
            return
        if alarm[1] is Alarm.DEADLINE:
            await self._reconciler.expire(tracked)
        else:
            await self._cluster.delete(dj)
            log.info("deleted after its time", namespace=dj.namespace, name=dj.name)
