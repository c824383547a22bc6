"""Brings a job to what its DownloadJob asks for: submits, holds, resumes, cancels or withdraws it.

Which of these is due is a function of the object and its job's record alone
(`due`), so it does not matter which changes were seen, how often, or by whom.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from typing import Any, Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError, JobNotFoundError, TooManyQueuedError
from downloadjobs_core.job import Job
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.states import FINISHED, JobState
from downloadjobs_operator.admission import AdmissionRules, admit
from downloadjobs_operator.announcements import QUEUE_UNAVAILABLE
from downloadjobs_operator.downloadjob import DownloadJob, RefusedError, file_ids_of
from downloadjobs_operator.explaining import DEADLINE_EXCEEDED
from downloadjobs_operator.kube import DownloadJobs
from downloadjobs_operator.kube_client import ObjectGoneError
from downloadjobs_operator.status import Verdict
from downloadjobs_operator.tracking import Tracked

CANCELLED: Final = "cancelled"
"""The error code of a job that somebody cancelled."""

UNREACHED: Final = Verdict(
    final=False,
    reason=QUEUE_UNAVAILABLE,
    message="The queue cannot be reached. It is tried again by itself, and goes on as soon as that succeeds.",
)

log = logs.logger(__name__)


class Action(Enum):
    """What is to be done about a job."""

    NOTHING = auto()
    SUBMIT = auto()
    NEVER_SUBMIT = auto()
    """It was cancelled before it became a job."""
    CANCEL = auto()
    HOLD = auto()
    GO_ON = auto()


def due(dj: DownloadJob, job: Job | None) -> Action:
    """What is to be done, given the object and its job's record."""
    if job is None:
        return Action.NEVER_SUBMIT if dj.cancel else Action.SUBMIT
    if job.state in FINISHED:
        return Action.NOTHING
    if dj.cancel:
        return Action.CANCEL
    if dj.suspend != job.suspended:
        return Action.HOLD if dj.suspend else Action.GO_ON
    return Action.NOTHING


class Reconciler:
    """Does what is due. Methods raise `QueueUnavailableError`, `KubernetesError` and `ObjectGoneError`."""

    def __init__(
        self,
        jobs: JobStore,
        cluster: DownloadJobs,
        rules: AdmissionRules,
        *,
        identify: Callable[[Tracked], Awaitable[object]],
        changed: Callable[[Tracked], None],
    ) -> None:
        self._jobs = jobs
        self._cluster = cluster
        self._rules = rules
        self._identify = identify
        self._changed = changed
        self._turned_away: dict[str, dict[str, None]] = {}

    def forget(self, tracked: Tracked) -> None:
        """The object is gone."""
        waiting = self._turned_away.get(tracked.dj.namespace, {})
        waiting.pop(tracked.dj.uid, None)
        if not waiting:
            self._turned_away.pop(tracked.dj.namespace, None)

    def turned_away(self, namespace: str) -> list[str]:
        """The uids of objects whose submission was refused because too many jobs of their namespace wait."""
        return list(self._turned_away.get(namespace, ()))

    async def reconcile(self, tracked: Tracked, body: Mapping[str, Any] | None = None) -> None:
        """Do what is due about one object.

        Args:
            tracked: the object.
            body: all of it, if it is at hand; else it is read when a submission needs its file ids.
        """
        try:
            async with tracked.lock:
                if not tracked.job_id:
                    await self._identify(tracked)
                if tracked.going:
                    return
                refused = tracked.verdict is not None and tracked.verdict.final
                if tracked.job_id and not (tracked.finished or refused):
                    await self._do(tracked, body)
        except DownloadJobsError:
            if tracked.verdict is None and not (
                tracked.finished or tracked.going or tracked.status.get("jobId")
            ):
                tracked.verdict = UNREACHED
                self._changed(tracked)
            raise
        self._changed(tracked)

    async def _do(self, tracked: Tracked, body: Mapping[str, Any] | None) -> None:
        records = await self._jobs.records([tracked.job_id])
        if tracked.job_id not in records:
            return  # damaged, or of a newer release, which looks after it itself
        job = records[tracked.job_id]
        if job is not None or not tracked.is_mirror:
            action = due(tracked.dj, job)
            with logs.context(job_id=tracked.job_id, namespace=tracked.dj.namespace, name=tracked.dj.name):
                await self._act(tracked, action, body)

    async def _act(self, tracked: Tracked, action: Action, body: Mapping[str, Any] | None) -> None:
        job_id = tracked.job_id
        match action:
            case Action.SUBMIT:
                await self._submit(tracked, body)
            case Action.NEVER_SUBMIT:
                tracked.verdict = Verdict(
                    final=True,
                    reason="Cancelled",
                    message="It was cancelled before it was queued.",
                    state=JobState.CANCELLED,
                )
            case Action.CANCEL:
                await self._jobs.cancel(job_id, code=CANCELLED, message="It was cancelled by spec.cancel.")
                log.info("job cancelled")
            case Action.HOLD:
                await self._jobs.suspend(job_id)
                log.info("job suspended")
            case Action.GO_ON:
                await self._jobs.resume(job_id)
                log.info("job resumed")
            case Action.NOTHING:
                return

    async def _submit(self, tracked: Tracked, body: Mapping[str, Any] | None) -> None:
        dj = tracked.dj
        self.forget(tracked)
        try:
            whole = body if body is not None else await self._cluster.get(dj.namespace, dj.name)
            if whole["metadata"]["uid"] != dj.uid:
                raise ObjectGoneError(dj.name)
            if whole["metadata"].get("deletionTimestamp"):
                return  # as the watch will show
            job = admit(dj, file_ids_of(whole), self._rules)
            accepted = await self._jobs.submit(job)
        except RefusedError as error:
            tracked.verdict = Verdict(final=True, reason=error.reason, message=str(error))
            log.warning("refused", reason=error.reason)
        except TooManyQueuedError as error:
            message = (
                f"As many jobs of this namespace wait as may ({error.waiting}). It is tried again by itself."
            )
            tracked.verdict = Verdict(final=False, reason="QuotaExceeded", message=message)
            self._turned_away.setdefault(dj.namespace, {})[dj.uid] = None
        else:
            tracked.verdict = None
            if accepted.created:
                log.info("job submitted", files=len(job.file_ids))

    async def expire(self, tracked: Tracked) -> None:
        """Cancel a job whose deadline has passed."""
        async with tracked.lock:
            seconds = tracked.dj.deadline_seconds
            message = f"It was cancelled: spec.activeDeadlineSeconds ({seconds}) had passed."
            try:
                await self._jobs.cancel(tracked.job_id, code=DEADLINE_EXCEEDED, message=message)
            except JobNotFoundError:
                return
            log.info("deadline exceeded", job_id=tracked.job_id, seconds=seconds)
        self._changed(tracked)

    async def withdraw(self, tracked: Tracked) -> None:
        """End what a job still wants, because its object goes."""
        async with tracked.lock:
            self.forget(tracked)
            if not tracked.job_id:
                await self._identify(tracked)
            if not tracked.job_id:
                return
            remove = not tracked.dj.retain and not tracked.is_mirror
            message = "Its DownloadJob was deleted."
            try:
                changed = await self._jobs.withdraw(
                    tracked.job_id, code=CANCELLED, message=message, remove_result=remove
                )
            except JobNotFoundError:
                return
            log.info(
                "job withdrawn",
                job_id=tracked.job_id,
                namespace=tracked.dj.namespace,
                name=tracked.dj.name,
                state=changed.state.value,
                changed=changed.done,
            )
