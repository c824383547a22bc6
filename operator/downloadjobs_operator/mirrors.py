"""Shows jobs that came by REST as DownloadJobs, in a namespace where only the operator creates.

Whoever may change a DownloadJob may cancel its job and fetch its result, so an
object that somebody else made must never pass for a mirror. A mirror is one whose
uid the job's record names. Before it creates one, the operator writes a nonce
into the record, and the nonce's hash into the object: so it knows its own again
if it was killed before it could note the uid, and nobody could have made it before.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError, JobNotFoundError
from downloadjobs_core.job import Job
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.states import FINISHED
from downloadjobs_operator.admission import OWNER_PREFIX, USER_ID
from downloadjobs_operator.downloadjob import API_VERSION, KIND, MIRROR
from downloadjobs_operator.kube import DownloadJobs
from downloadjobs_operator.kube_client import AlreadyExistsError, KubernetesError, ObjectGoneError
from downloadjobs_operator.mirroring import RECORD_LOST
from downloadjobs_operator.settings import MirrorMode
from downloadjobs_operator.status import Verdict
from downloadjobs_operator.tracking import Tracked, Tracking

PENDING: Final = "pending:"
"""Before a nonce, in the record's field `mirror`; what else stands there is an object's uid."""

LINGER_SECONDS: Final = 60
"""How long the mirror of a job that has ended stays in the mode `active`, so that one sees its end."""

RETRY_SECONDS: Final = 5.0

NOT_OURS: Final = Verdict(
    final=True,
    reason="NotAMirror",
    message="This namespace only shows jobs that came by REST, and the operator did not create this"
    " DownloadJob. Create it in another namespace.",
)

log = logs.logger(__name__)


def mirror_body(job: Job, namespace: str, *, annotation: str, linger_seconds: int) -> dict[str, Any]:
    """The DownloadJob that shows a job. Its name is the job's id."""
    spec: dict[str, Any] = {
        "fileIds": list(job.file_ids),
        "priority": job.priority.value,
        "backoffLimit": job.max_attempts - 1,
        "suspend": job.suspended,
        "ttlSecondsAfterFinished": linger_seconds,
        "result": {"deletionPolicy": "Retain"},
    }
    if USER_ID.fullmatch(job.user):
        spec["userId"] = job.user
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": job.job_id,
            "namespace": namespace,
            "annotations": {MIRROR: annotation},
            "labels": {"app.kubernetes.io/managed-by": "downloadjobs-operator"},
        },
        "spec": spec,
    }


def hashed(nonce: str) -> str:
    """What an object shows of the nonce in its job's record."""
    return hashlib.sha256(nonce.encode()).hexdigest()


class Mirrors:
    """Creates mirrors, and tells real ones from others."""

    def __init__(
        self,
        jobs: JobStore,
        cluster: DownloadJobs,
        tracking: Tracking,
        *,
        mode: MirrorMode,
        namespace: str | None,
        record_ttl_seconds: int,
    ) -> None:
        self._jobs = jobs
        self._cluster = cluster
        self._tracking = tracking
        self._mode = mode
        self._namespace = namespace
        self._linger = LINGER_SECONDS if mode is MirrorMode.ACTIVE else record_ttl_seconds
        self._wanted: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._now = asyncio.Event()

    @property
    def on(self) -> bool:
        """Whether jobs are shown at all."""
        return self._mode is not MirrorMode.NONE and self._namespace is not None

    def want(self, job_id: str, user: str) -> None:
        """A job was heard of that no DownloadJob shows: have it shown, if it came by REST."""
        if self.on and not user.startswith(OWNER_PREFIX) and job_id not in self._queued:
            self._queued.add(job_id)
            self._wanted.put_nowait(job_id)

    def look_at_all(self) -> None:
        """Have every unfinished job shown that is not: some may have been missed."""
        self._now.set()

    async def _look_at_all(self) -> None:
        while True:
            await self._now.wait()
            self._now.clear()
            try:
                await self._want_unfinished()
            except DownloadJobsError as error:
                log.warning("jobs to be shown could not be listed; it is tried again", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                self._now.set()

    async def _want_unfinished(self) -> None:
        for job_id in await self._jobs.unfinished():
            if self._tracking.showing(job_id) is None:
                self.want(job_id, "")

    async def run(self) -> None:
        """Create what is wanted, until cancelled."""
        if not self.on:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_all(), name="jobs without a mirror")
            group.create_task(self._create_wanted(), name="mirrors")

    async def _create_wanted(self) -> None:
        while True:
            job_id = await self._wanted.get()
            self._queued.discard(job_id)
            try:
                await self._show(job_id)
            except (DownloadJobsError, KubernetesError) as error:
                log.warning("a job could not be shown; it is tried again", job_id=job_id, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                self.want(job_id, "")
            except Exception:
                log.exception("a job could not be shown", job_id=job_id)

    async def verify(self, tracked: Tracked) -> bool:
        """Find out whether an object in the namespace of mirrors is one, and have it show its job then."""
        if tracked.is_mirror or not self.on:
            return tracked.is_mirror
        job_id = tracked.dj.name
        job = await self._jobs.get(job_id)
        if job is not None and job.mirror == tracked.dj.uid:
            self._tracking.adopt(tracked, job_id)
            return True
        if job is not None and await self._is_own(job, tracked.dj.uid, tracked.dj.mirror):
            self._tracking.adopt(tracked, job_id)
            return True
        if job is None and tracked.dj.mirror and tracked.status.get("jobId") == job_id:
            # A mirror once, by what only the operator may write there. Without a record there is no job to
            # gain control over, so no more proof is needed to say what became of it.
            tracked.verdict = None if tracked.finished else RECORD_LOST
        elif not (job is None and tracked.finished):
            tracked.verdict = NOT_OURS
        return False

    async def _show(self, job_id: str) -> None:
        job = await self._jobs.get(job_id)
        if job is None or job.is_maintenance or job.user.startswith(OWNER_PREFIX) or self._namespace is None:
            return
        if job.mirror and not job.mirror.startswith(PENDING):
            return  # it was shown before; who deleted the mirror did not want it
        if job.state in FINISHED and self._mode is MirrorMode.ACTIVE:
            return
        pending = job.mirror or PENDING + secrets.token_hex(32)
        if not job.mirror and not await self._jobs.name_mirror(job_id, instead_of="", mirror=pending):
            return
        body = mirror_body(job, self._namespace, annotation=hashed(pending), linger_seconds=self._linger)
        try:
            uid = await self._cluster.create(body)
        except AlreadyExistsError:
            uid = await self._uid_of_own(job_id, pending)
        if uid:
            await self._name(job_id, pending, uid)

    async def _uid_of_own(self, job_id: str, pending: str) -> str:
        """The uid of the object of this name, if it carries the nonce's hash."""
        try:
            found: Mapping[str, Any] = await self._cluster.get(self._namespace or "", job_id)
        except ObjectGoneError:
            return ""
        if (found["metadata"].get("annotations") or {}).get(MIRROR) == hashed(pending):
            return str(found["metadata"]["uid"])
        log.warning("a DownloadJob that the operator did not create has the name of a job", job_id=job_id)
        return ""

    async def _is_own(self, job: Job, uid: str, annotation: str) -> bool:
        """Whether this operator, or one before it, created the object and did not come to note its uid."""
        if not job.mirror.startswith(PENDING) or annotation != hashed(job.mirror):
            return False
        return await self._name(job.job_id, job.mirror, uid)

    async def _name(self, job_id: str, pending: str, uid: str) -> bool:
        try:
            named = await self._jobs.name_mirror(job_id, instead_of=pending, mirror=uid)
        except JobNotFoundError:
            return False
        if not named:  # the task that created it and the watch that shows it may both come here
            job = await self._jobs.get(job_id)
            return job is not None and job.mirror == uid
        return True
