"""Claims are taken in once, however often their annotations cannot be removed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from downloadjobs_core.claims import ClaimStore, digest_of
from downloadjobs_operator.announcements import Announcement
from downloadjobs_operator.claims import Claims
from downloadjobs_operator.downloadjob import CLAIM, DownloadJob
from downloadjobs_operator.kube_client import KubernetesError
from downloadjobs_operator.tracking import Tracked, Tracking
from support_operator import InMemoryDownloadJobs, at_work, body, until

NEVER = 60.0
"""Seconds of a backoff that no test waits for."""


class Kept:
    """A store that notes what it keeps."""

    def __init__(self) -> None:
        self.claims: list[tuple[str, str]] = []

    async def keep(self, job_id: str, digest: str) -> None:
        self.claims.append((job_id, digest))


class Site:
    """Claims over a cluster in memory that refuses to have annotations removed, and counts the tries."""

    def __init__(self, *objects: dict[str, Any], backoff_seconds: float) -> None:
        self.cluster = InMemoryDownloadJobs(*objects)
        self.cluster.faults["remove_annotation"] = KubernetesError("forbidden")
        self.tracking = Tracking(None)
        self.kept = Kept()
        self.told: list[Announcement] = []
        self.tries = 0
        self.claims = Claims(
            cast("ClaimStore", self.kept),
            self.cluster,
            self.tracking,
            tell=lambda _, told: self.told.append(told),
            identify=self._identify,
        )
        self.claims._queue._first = self.claims._queue._longest = backoff_seconds
        removing = self.cluster.remove_annotation

        async def counted(dj: DownloadJob, name: str, value: str) -> None:
            self.tries += 1
            await removing(dj, name, value)

        self.cluster.remove_annotation = counted  # type: ignore[method-assign]

    async def _identify(self, _: Tracked) -> None:
        raise AssertionError

    def see(self, name: str = "one") -> None:
        """The watch shows an object as it is."""
        self.claims.see(self.tracking.see(self.cluster.objects["team", name]))


def claimed(name: str = "one", claim: str = digest_of("nonce")) -> dict[str, Any]:
    """An object that carries a claim."""
    return body(name, annotations={CLAIM: claim})


def on(site: Site, test: Callable[[], Awaitable[None]]) -> None:
    """Run a test while claims are taken in."""

    async def main() -> None:
        async with at_work(site.claims.run):
            await test()

    asyncio.run(main())


def test_a_change_of_an_object_begins_no_other_try() -> None:
    """However often an object changes while its refused claim waits, the claim has one try at a time."""
    site = Site(claimed(), backoff_seconds=NEVER)

    async def test() -> None:
        for _ in range(50):
            site.see()
            await asyncio.sleep(0.002)
        assert site.tries == 1

    on(site, test)


@pytest.mark.parametrize(("claim", "kept", "told"), [(digest_of("nonce"), 1, 0), ("no digest", 0, 1)])
def test_a_claim_is_kept_once(claim: str, kept: int, told: int) -> None:
    """A claim whose annotation cannot be removed is kept, or told to be none, once."""
    site = Site(claimed(claim=claim), backoff_seconds=0.01)

    async def test() -> None:
        site.see()
        assert await until(lambda: site.tries >= 4)
        assert (len(site.kept.claims), len(site.told)) == (kept, told)
        del site.cluster.faults["remove_annotation"]
        assert await until(lambda: not site.cluster.objects["team", "one"]["metadata"]["annotations"])

    on(site, test)


def test_another_claim_is_taken_in_at_once() -> None:
    """A claim that replaces one which waits does not wait with it."""
    site = Site(claimed(), backoff_seconds=NEVER)

    async def test() -> None:
        site.see()
        assert await until(lambda: site.tries == 1)
        site.cluster.objects["team", "one"]["metadata"]["annotations"][CLAIM] = digest_of("other")
        site.see()
        assert await until(lambda: site.tries == 2)
        assert site.kept.claims[-1] == ("uid-of-one", digest_of("other"))

    on(site, test)


def test_refused_claims_of_a_namespace_are_told_once() -> None:
    """What the API server refuses for many claims of a namespace, again and again, is one warning."""
    site = Site(*(claimed(f"n{number}") for number in range(5)), backoff_seconds=0.01)

    async def test() -> None:
        for number in range(5):
            site.see(f"n{number}")
        assert await until(lambda: site.tries >= 20)

    with capture_logs() as logs:
        on(site, test)
    told = [line for line in logs if "could not be taken in" in line["event"]]
    assert [line["namespace"] for line in told if line["log_level"] == "warning"] == ["team"]


def test_of_an_object_that_is_gone_no_claim_stays() -> None:
    """An object that is gone, or carries no claim, is not remembered."""
    site = Site(claimed(), claimed("two"), backoff_seconds=NEVER)

    async def test() -> None:
        site.see()
        site.see("two")
        assert await until(lambda: site.tries == 2)
        site.claims.forget("uid-of-one")
        site.cluster.objects["team", "two"]["metadata"]["annotations"].clear()
        site.see("two")
        assert (site.claims._judged, site.claims._waiting) == ({}, {})

    on(site, test)
