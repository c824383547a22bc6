"""The DownloadJobs that the operator knows, by uid and by the job they show.

Only what decisions need is kept of each, about two kilobytes; never its file ids.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from downloadjobs_core.jobstore import Place
from downloadjobs_operator.downloadjob import DownloadJob
from downloadjobs_operator.status import Verdict, is_finished

OWN_PATCH_SECONDS: Final = 10.0
"""How long the watch may take to show a patch of our own; until then what it shows of the status is older."""


@dataclass(slots=True)
class Tracked:
    """One object, as it was last seen, and what the operator has found about it."""

    dj: DownloadJob
    job_id: str
    status: Mapping[str, Any] = field(default_factory=dict)
    """As it is, or will be once our last patch has come by."""
    is_mirror: bool = False
    """It shows a job that came by REST, and the operator itself created it."""
    verdict: Verdict | None = None
    place: Place | None = None
    """Where its job stood in the queue when that was last asked."""
    placed_at: float = -math.inf
    """When that was, by `time.monotonic`."""
    patched_at: float = 0.0
    """When its status was last patched, by `time.monotonic`."""
    overwritten: bool = False
    """The watch last showed another status than ours: by somebody else, or our patch has no answer yet."""
    refusals: int = 0
    """How often in a row the API server refused to have its status written."""
    failures: int = 0
    """How often in a row its status could not be written, for the API server could not answer."""
    expected_version: str = ""
    """The resourceVersion of that patch, until the watch shows it."""
    shown_meanwhile: Mapping[str, Any] | None = None
    """The status that was shown last while that patch was waited for: older than it, or newer."""
    noted_versions: set[str] | None = None
    """The resourceVersions that came by since a patch was sent; None while none is under way."""
    rang_at: float = 0.0
    """When its last alarm rang, in seconds since 1970."""
    gone: bool = False
    """The API server has it no more."""
    gone_at: float = 0.0
    """When that was noticed, in seconds since 1970."""
    withdrawn: bool = False
    """What its job still wanted was ended, because the object goes."""
    followed: int = 0
    """The generation whose spec its job follows; 0 before the first time."""
    held_up: bool = False
    """It was told that its deletion waits for the queue."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever changes its job, so that a deletion and a submission cannot overtake each other."""

    @property
    def finished(self) -> bool:
        """Whether its status says that it has ended."""
        return is_finished(self.status)

    @property
    def going(self) -> bool:
        """Whether somebody deleted it, or it is gone already."""
        return self.gone or self.dj.deleted_at is not None

    @contextmanager
    def noting_versions(self) -> Iterator[set[str]]:
        """Around a patch of its status: the resourceVersion before it, and all that come by meanwhile."""
        self.noted_versions = noted = {self.dj.version}
        try:
            yield noted
        finally:
            self.noted_versions = None

    def wrote(self, status: Mapping[str, Any], version: str, noted: Collection[str]) -> None:
        """Our patch was answered.

        Args:
            status: the one that was written.
            version: the object's resourceVersion by it.
            noted: what came by before the answer, by `noting_versions`.
        """
        self.patched_at = time.monotonic()
        if version in noted:
            self.expected_version, self.shown_meanwhile = "", None
            return  # what was shown since is as new, or newer
        if len(noted) == 1:
            self.shown_meanwhile = None  # it was shown before the patch, and so is older
        elif self.shown_meanwhile is None:
            self.shown_meanwhile = self.status
        self.status, self.expected_version = status, version

    def look_back(self, version: str) -> bool:
        """Take what was shown instead of our patch of this version, which was waited for long enough.

        The watch may pass over our patch, and show only what somebody else made of it. Whether that is
        another status than ours.
        """
        if self.expected_version != version or self.shown_meanwhile is None:
            return False
        changed = self.status != self.shown_meanwhile
        self.status, self.shown_meanwhile, self.expected_version = self.shown_meanwhile, None, ""
        return changed


class Tracking:
    """All objects that the watch has shown and not taken away."""

    def __init__(self, mirrors_in: str | None) -> None:
        self._mirrors_in = mirrors_in
        self._by_uid: dict[str, Tracked] = {}
        self._by_job: dict[str, Tracked] = {}

    def __len__(self) -> int:
        return len(self._by_uid)

    def __iter__(self) -> Iterator[Tracked]:
        return iter(list(self._by_uid.values()))

    def get(self, uid: str) -> Tracked | None:
        """The object with this uid, if it is known."""
        return self._by_uid.get(uid)

    def showing(self, job_id: str) -> Tracked | None:
        """The object that shows a job, if there is one."""
        return self._by_job.get(job_id)

    def see(self, body: Mapping[str, Any]) -> Tracked:
        """Take in an object as the watch shows it."""
        dj = DownloadJob.from_body(body)
        status = body.get("status")
        shown: Mapping[str, Any] = status if isinstance(status, Mapping) else {}
        tracked = self._by_uid.get(dj.uid)
        if tracked is None:
            # What a mirror shows is decided once its record is read: before, it must not stand in for a job.
            job_id = "" if dj.namespace == self._mirrors_in else dj.uid
            tracked = Tracked(dj, job_id, dict(shown))
            self._by_uid[dj.uid] = tracked
            if job_id:
                self._by_job[job_id] = tracked
            return tracked
        tracked.dj = dj
        if tracked.noted_versions is not None:
            tracked.noted_versions.add(dj.version)
        own = dj.version == tracked.expected_version
        if self._shows_own_patch(tracked, dj.version):
            tracked.overwritten = not own and tracked.status != shown
            tracked.status = dict(shown)
            tracked.shown_meanwhile = None
        else:
            tracked.shown_meanwhile = dict(shown)
        return tracked

    def adopt(self, tracked: Tracked, job_id: str) -> None:
        """Have a mirror show its job."""
        tracked.is_mirror = True
        tracked.job_id = job_id
        tracked.verdict = None
        self._by_job[job_id] = tracked

    def forget(self, uid: str) -> None:
        """It is gone."""
        tracked = self._by_uid.pop(uid, None)
        if tracked is not None and self._by_job.get(tracked.job_id) is tracked:
            del self._by_job[tracked.job_id]

    @staticmethod
    def _shows_own_patch(tracked: Tracked, version: str) -> bool:
        late = time.monotonic() - tracked.patched_at > OWN_PATCH_SECONDS
        if tracked.expected_version and version != tracked.expected_version and not late:
            return False
        tracked.expected_version = ""
        return True
