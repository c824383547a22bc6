"""Takes in claims: who writes a nonce's hash into a DownloadJob proves that they may change it.

The claim goes to Redis, where the API finds it for five minutes, and its
annotation goes away again: otherwise an operator that is restarted would renew it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.claims import ClaimStore
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_operator.announcements import Announcement
from downloadjobs_operator.downloadjob import CLAIM, DownloadJob, is_marked
from downloadjobs_operator.kube import DownloadJobs
from downloadjobs_operator.kube_client import KubernetesError, ObjectGoneError
from downloadjobs_operator.refusals import Refusals, is_refusal
from downloadjobs_operator.tracking import Tracked, Tracking
from downloadjobs_operator.workqueue import RetryError, WorkQueue

AT_ONCE: Final = 4
"""Claims that are taken in at the same time: one that is refused keeps no other waiting."""

NO_DIGEST: Final = (
    f"The annotation {CLAIM} held no SHA-256 (64 lower-case hexadecimal digits), so it is no claim"
    " and was removed. `kubectl downloadjobs get dj/NAME` writes a right one."
)

Tell = Callable[[Tracked, Announcement], None]
"""Has an Event written."""

log = logs.logger(__name__)


class Claims:
    """Takes each claim in once, and tries to remove its annotation for as long as it takes."""

    def __init__(
        self,
        store: ClaimStore,
        cluster: DownloadJobs,
        tracking: Tracking,
        *,
        tell: Tell,
        identify: Callable[[Tracked], Awaitable[object]],
    ) -> None:
        self._tell = tell
        self._store = store
        self._cluster = cluster
        self._tracking = tracking
        self._identify = identify
        self._waiting: dict[str, str] = {}
        self._judged: dict[str, str] = {}
        self._refusals = Refusals()
        self._queue = WorkQueue(self._turn, at_once=AT_ONCE)

    def see(self, tracked: Tracked) -> None:
        """Take in a claim that an object carries, if it does."""
        uid, claim = tracked.dj.uid, tracked.dj.claim
        if not claim:
            self.forget(uid)
        # Another change of an object whose claim waits for its next try is no reason for one.
        elif self._waiting.get(uid) != claim:
            self._waiting[uid] = claim
            self._queue.add(uid)

    def forget(self, uid: str) -> None:
        """The object is gone, or carries no claim."""
        self._waiting.pop(uid, None)
        self._judged.pop(uid, None)
        self._queue.forget(uid)

    async def run(self) -> None:
        """Take claims in, until cancelled."""
        await self._queue.run()

    async def _turn(self, uid: str) -> None:
        tracked = self._tracking.get(uid)
        if tracked is None or not tracked.dj.claim:
            self.forget(uid)
            return
        claim = self._waiting[uid] = tracked.dj.claim
        try:
            await self._take_in(tracked, claim)
            self._refusals.over(tracked.dj.namespace)
        except ObjectGoneError:
            pass
        except (DownloadJobsError, KubernetesError) as error:
            level = log.warning if self._refusals.news(tracked.dj, error) else log.debug
            message = "a claim could not be taken in; it is tried again"
            level(message, namespace=tracked.dj.namespace, name=tracked.dj.name, error=str(error))
            raise RetryError(refused=is_refusal(error)) from error
        except Exception:
            log.exception("a claim could not be taken in", name=tracked.dj.name)
        if self._waiting.get(uid) == claim:
            del self._waiting[uid]

    async def _take_in(self, tracked: Tracked, claim: str) -> None:
        if not tracked.job_id:  # a mirror, perhaps, that this process has only just seen
            async with tracked.lock:
                await self._identify(tracked)
        # Only once: an annotation that cannot be removed must not make the claim hold for longer.
        if self._judged.get(tracked.dj.uid) != claim:
            await self._judge(tracked, claim)
            self._judged[tracked.dj.uid] = claim
        await self._remove(tracked, claim)

    async def _remove(self, tracked: Tracked, claim: str) -> None:
        if is_marked(claim):  # its text, which a removal must name, was not kept
            found = await self._cluster.get(tracked.dj.namespace, tracked.dj.name)
            text = found["metadata"].get("annotations", {}).get(CLAIM)
            if not text or DownloadJob.from_body(found).claim != claim:
                return  # it was changed meanwhile, which the watch will show
            claim = text
        await self._cluster.remove_annotation(tracked.dj, CLAIM, claim)

    async def _judge(self, tracked: Tracked, claim: str) -> None:
        if is_marked(claim):
            log.warning("a claim is no digest", namespace=tracked.dj.namespace, name=tracked.dj.name)
            self._tell(tracked, Announcement("ClaimRefused", NO_DIGEST, warning=True, occasion=claim))
        elif tracked.job_id:
            await self._store.keep(tracked.job_id, claim)
            log.info("claim taken in", job_id=tracked.job_id, name=tracked.dj.name)
