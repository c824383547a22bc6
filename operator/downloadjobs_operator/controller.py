"""Brings objects to where they are to be, one turn at a time: by levels, so that no missed change matters.

What is due is a function of the object as it was last seen, of what was done for it, and of
its job's record (`next_step`, `reconciling.due`), never of which change led there. Nothing is
noted in the object but the finalizer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError, QueueUnavailableError
from downloadjobs_operator.announcements import Announcement, held_up
from downloadjobs_operator.downloadjob import FINALIZER
from downloadjobs_operator.kube import DownloadJobs
from downloadjobs_operator.kube_client import InvalidError, KubernetesError, ObjectGoneError
from downloadjobs_operator.reconciling import Reconciler
from downloadjobs_operator.refusals import Refusals, is_refusal
from downloadjobs_operator.tracking import Tracked, Tracking
from downloadjobs_operator.workqueue import RetryError, WorkQueue

AT_ONCE: Final = 16
"""Objects under way at the same time: as many requests to the API server or to Redis."""

NO_FINALIZERS: Final = '{"metadata":{"finalizers":null}}'
"""A merge patch that lets an object go."""

log = logs.logger(__name__)

Around = Callable[[str], AbstractContextManager[None]]
"""What is put around a call of `submit`, `follow` or `withdraw`, given this name."""


class Step(Enum):
    """What is to be done about an object next."""

    FOLLOW = auto()
    """Add the finalizer, if it is not there, and bring its job to what the spec says."""
    WITHDRAW = auto()
    """End what its job still wants, because it goes, or is gone."""
    RELEASE = auto()
    """Remove the finalizer."""
    FORGET = auto()
    NOTHING = auto()


def next_step(tracked: Tracked) -> Step:
    """What is to be done about an object next."""
    if not tracked.going:
        return Step.FOLLOW
    if not tracked.withdrawn:
        return Step.WITHDRAW
    if tracked.gone:
        return Step.FORGET
    return Step.RELEASE if FINALIZER in tracked.dj.finalizers else Step.NOTHING


def handler_of(tracked: Tracked) -> str | None:
    """What following its spec is called: `submit`, `follow`, or None where the spec was followed before."""
    if not tracked.followed and not tracked.status.get("jobId") and not tracked.finished:
        return "submit"
    seen = tracked.followed or tracked.status.get("observedGeneration")
    return None if seen == tracked.dj.generation else "follow"


@dataclass(frozen=True, slots=True)
class GivingUp:
    """When an object is let go although its job could not be withdrawn, so that a namespace can be deleted.

    Attributes:
        seconds: after its deletion.
        now: the API server's time, in seconds since 1970.
        happened: called each time.
    """

    seconds: float
    now: Callable[[], float]
    happened: Callable[[], None]


class Controller:
    """Gives objects their turns.

    Args:
        tracking: the objects.
        reconciler: changes their jobs.
        cluster: where the finalizer is added and removed.
        may: whether turns may begin.
        giving_up: for how long a withdrawal is tried.
        tell: called with what is to be told by an Event.
        forgotten: called with the uid of each object that is gone, when its job was withdrawn.
        around: put around each call of a handler, given its name.
    """

    def __init__(
        self,
        tracking: Tracking,
        reconciler: Reconciler,
        cluster: DownloadJobs,
        *,
        may: Callable[[], bool],
        giving_up: GivingUp,
        tell: Callable[[Tracked, Announcement], None],
        forgotten: Callable[[str], None],
        around: Around = lambda _: nullcontext(),
    ) -> None:
        self._tracking = tracking
        self._reconciler = reconciler
        self._cluster = cluster
        self._giving_up = giving_up
        self._tell = tell
        self._forgotten = forgotten
        self._around = around
        self._told: dict[str, tuple[str, int]] = {}
        self._refusals = Refusals()
        self._stuck: set[str] = set()
        self._queue = WorkQueue(self._turn, at_once=AT_ONCE, may=may)

    def look_at(self, tracked: Tracked) -> None:
        """Give an object a turn soon."""
        self._queue.add(tracked.dj.uid)

    def gone(self, tracked: Tracked) -> None:
        """The API server has an object no more: whatever took it away, its job must not stay."""
        tracked.gone = True
        tracked.gone_at = tracked.gone_at or self._giving_up.now()
        self._queue.add(tracked.dj.uid)

    async def run(self) -> None:
        """Give turns, until cancelled."""
        await self._queue.run()

    async def _turn(self, uid: str) -> None:
        tracked = self._tracking.get(uid)
        if tracked is None:
            self._told.pop(uid, None)
            return
        try:
            await self.bring(tracked)
            self._refusals.over(tracked.dj.namespace)
        except (DownloadJobsError, KubernetesError) as error:
            self._note(tracked, error)
            raise RetryError(refused=is_refusal(error)) from error
        self._told.pop(uid, None)

    async def bring(self, tracked: Tracked) -> None:
        """Do all that is due about an object now. Raises `DownloadJobsError` and `KubernetesError`."""
        while (step := next_step(tracked)) is not Step.NOTHING:
            try:
                await self._take(step, tracked)
            except ObjectGoneError:
                self.gone(tracked)
                continue
            except InvalidError:
                # The object is not as it was seen (as after an answer that was lost), or not as it may be.
                seen = tracked.dj
                await self._look_again(tracked)
                if tracked.dj == seen and not tracked.gone:
                    raise
                continue
            if step in {Step.FOLLOW, Step.FORGET}:
                return

    async def _take(self, step: Step, tracked: Tracked) -> None:
        match step:
            case Step.FOLLOW:
                handler = handler_of(tracked)
                with nullcontext() if handler is None else self._around(handler):
                    await self._follow(tracked)
            case Step.WITHDRAW:
                with self._around("withdraw"):
                    await self._withdraw(tracked)
            case Step.RELEASE:
                await self._cluster.remove_finalizer(tracked.dj, FINALIZER)
                self._stuck.discard(tracked.dj.namespace)
                left = tuple(one for one in tracked.dj.finalizers if one != FINALIZER)
                tracked.dj = replace(tracked.dj, finalizers=left)
            case Step.FORGET:
                self._queue.forget(tracked.dj.uid)
                self._forgotten(tracked.dj.uid)
            case Step.NOTHING:
                pass

    async def _follow(self, tracked: Tracked) -> None:
        body = None
        if FINALIZER not in tracked.dj.finalizers:
            body = await self._cluster.add_finalizer(tracked.dj, FINALIZER)
            self._tracking.see(body)
        generation = tracked.dj.generation
        await self._reconciler.reconcile(tracked, body)
        tracked.followed = generation

    async def _withdraw(self, tracked: Tracked) -> None:
        """End what a job still wants, or let its object go when that took too long."""
        try:
            await self._reconciler.withdraw(tracked)
        except DownloadJobsError as error:
            now, longest = self._giving_up.now(), self._giving_up.seconds
            waited = now - (tracked.dj.deleted_at or tracked.gone_at or now)
            if waited < longest:
                if isinstance(error, QueueUnavailableError) and not (tracked.held_up or tracked.gone):
                    tracked.held_up = True
                    self._tell(tracked, held_up(tracked.dj, give_up_seconds=longest))
                raise
            self._giving_up.happened()
            log.warning(
                "let go without its job: it may still run, and its result goes only with its time",
                namespace=tracked.dj.namespace,
                name=tracked.dj.name,
                job_id=tracked.job_id,
                waited_seconds=round(waited),
                error=str(error),
            )
        tracked.withdrawn = True

    async def _look_again(self, tracked: Tracked) -> None:
        try:
            found = await self._cluster.get(tracked.dj.namespace, tracked.dj.name)
        except ObjectGoneError:
            self.gone(tracked)
            return
        if found["metadata"]["uid"] == tracked.dj.uid:
            self._tracking.see(found)
        else:
            self.gone(tracked)

    def _note(self, tracked: Tracked, error: Exception) -> None:
        """Say once what keeps an object from being reconciled, and what is refused once for its namespace."""
        self._note_stuck(tracked, error)
        told = str(error)
        before, times = self._told.get(tracked.dj.uid, ("", 0))
        times = times + 1 if before == told else 1
        self._told[tracked.dj.uid] = told, times
        # Of the queue the listener tells. That an object was changed meanwhile is nothing to tell, once.
        telling = not isinstance(error, QueueUnavailableError) and times == (
            1 + isinstance(error, InvalidError)
        )
        if telling and isinstance(error, KubernetesError):
            telling = self._refusals.news(tracked.dj, error)
        level = log.warning if telling else log.debug
        level(
            "an object could not be reconciled; it is tried again",
            namespace=tracked.dj.namespace,
            name=tracked.dj.name,
            error=told,
        )

    def _note_stuck(self, tracked: Tracked, error: Exception) -> None:
        """Say once for a namespace what to do about objects that cannot be let go for want of rights.

        With its rights the operator loses sight of them, so they are not forgotten: nothing says that they
        are gone, and their jobs may still have to be ended.
        """
        dj = tracked.dj
        if not tracked.going or not is_refusal(error) or dj.namespace in self._stuck:
            return
        self._stuck.add(dj.namespace)
        remove = f"kubectl patch dj/{dj.name} -n {dj.namespace} --type=merge -p '{NO_FINALIZERS}'"
        log.warning(
            "its DownloadJobs cannot be let go: give the rights back, or remove the finalizer",
            namespace=dj.namespace,
            remove=remove,
            name=dj.name,
        )
