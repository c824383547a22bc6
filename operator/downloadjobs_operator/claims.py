"""Takes in claims: who writes a nonce's hash into a DownloadJob proves that they may change it.

The claim goes to Redis, where the API finds it for five minutes, and its
annotation goes away again: otherwise an operator that is restarted would renew it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.claims import ClaimStore, valid_digest
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_operator.announcements import Announcement
from downloadjobs_operator.downloadjob import CLAIM
from downloadjobs_operator.kube import DownloadJobs
from downloadjobs_operator.kube_client import KubernetesError, ObjectGoneError
from downloadjobs_operator.tracking import Tracked, Tracking

RETRY_SECONDS: Final = 2.0

NO_DIGEST: Final = (
    f"The annotation {CLAIM} held no SHA-256 (64 lower-case hexadecimal digits), so it is no claim"
    " and was removed. `kubectl downloadjobs get dj/NAME` writes a right one."
)

Tell = Callable[[Tracked, Announcement], None]
"""Has an Event written."""

log = logs.logger(__name__)


class Claims:
    """One task takes claims in, in the order they were seen."""

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
        self._seen: asyncio.Queue[str] = asyncio.Queue()

    def see(self, tracked: Tracked) -> None:
        """Take in a claim that an object carries, if it does."""
        if tracked.dj.claim:
            self._seen.put_nowait(tracked.dj.uid)

    async def run(self) -> None:
        """Take claims in, until cancelled."""
        while True:
            tracked = self._tracking.get(await self._seen.get())
            if tracked is None or not tracked.dj.claim:
                continue
            try:
                await self._take_in(tracked)
            except ObjectGoneError:
                continue
            except (DownloadJobsError, KubernetesError) as error:
                log.warning("a claim could not be taken in; it is tried again", error=str(error))
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._seen.put_nowait, tracked.dj.uid)
            except Exception:
                log.exception("a claim could not be taken in", name=tracked.dj.name)

    async def _take_in(self, tracked: Tracked) -> None:
        claim = tracked.dj.claim
        if not tracked.job_id:  # a mirror, perhaps, that this process has only just seen
            async with tracked.lock:
                await self._identify(tracked)
        if not valid_digest(claim):
            log.warning("a claim is no digest", namespace=tracked.dj.namespace, name=tracked.dj.name)
            self._tell(tracked, Announcement("ClaimRefused", NO_DIGEST, warning=True, occasion=claim))
        elif tracked.job_id:
            await self._store.keep(tracked.job_id, claim)
            log.info("claim taken in", job_id=tracked.job_id, name=tracked.dj.name)
        await self._cluster.remove_annotation(tracked.dj, CLAIM, claim)
