"""What is done about an object next: a function of how it was last seen, and of what was done for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from downloadjobs_core.errors import QueueUnavailableError, UnknownStateError
from downloadjobs_operator.announcements import Announcement
from downloadjobs_operator.controller import Controller, GivingUp, Step, handler_of, next_step
from downloadjobs_operator.downloadjob import FINALIZER, moment_of
from downloadjobs_operator.kube_client import InvalidError, KubernetesError
from downloadjobs_operator.reconciling import Reconciler
from downloadjobs_operator.tracking import Tracked, Tracking
from downloadjobs_operator.workqueue import RetryError
from support_operator import NOW, InMemoryDownloadJobs, body

GOING: dict[str, Any] = {"deletionTimestamp": moment_of(NOW)}


def tracked(*, gone: bool = False, withdrawn: bool = False, followed: int = 0, **found: Any) -> Tracked:  # noqa: ANN401 - whatever `body` takes
    """An object as it was seen, and what was done for it."""
    one = Tracking(None).see(body(**found))
    one.gone, one.withdrawn, one.followed = gone, withdrawn, followed
    return one


@pytest.mark.parametrize(
    ("one", "step"),
    [
        (tracked(), Step.FOLLOW),
        (tracked(finalizers=[FINALIZER]), Step.FOLLOW),
        (tracked(finalizers=[FINALIZER], **GOING), Step.WITHDRAW),
        (tracked(finalizers=[FINALIZER], withdrawn=True, **GOING), Step.RELEASE),
        (tracked(finalizers=["a/b", FINALIZER], withdrawn=True, **GOING), Step.RELEASE),
        (tracked(finalizers=["a/b"], **GOING), Step.WITHDRAW),
        (tracked(finalizers=["a/b"], withdrawn=True, **GOING), Step.NOTHING),
        (tracked(gone=True), Step.WITHDRAW),
        (tracked(gone=True, finalizers=[FINALIZER]), Step.WITHDRAW),
        (tracked(gone=True, withdrawn=True, **GOING), Step.FORGET),
    ],
)
def test_the_next_step(one: Tracked, step: Step) -> None:
    """What goes is withdrawn first, then let go; what is gone is withdrawn as well, however it went."""
    assert next_step(one) is step


@pytest.mark.parametrize(
    ("one", "handler"),
    [
        (tracked(), "submit"),
        (tracked(followed=1), None),
        (tracked(followed=1, generation=2), "follow"),
        (tracked(status={"jobId": "x", "observedGeneration": 1}), None),
        (tracked(status={"jobId": "x", "observedGeneration": 1}, generation=2), "follow"),
        (tracked(status={"conditions": [{"type": "Finished", "status": "True"}]}, generation=2), "follow"),
    ],
)
def test_what_a_turn_counts_as(one: Tracked, handler: str | None) -> None:
    """A first turn is a submission, one of a changed spec follows it, and others are not counted."""
    assert handler_of(one) == handler


class Jobs:
    """A reconciler that notes what it is asked for, or cannot do it."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.asked: list[str] = []
        self._fault = fault

    async def reconcile(self, tracked: Tracked, body: Mapping[str, Any] | None) -> None:
        assert body is None or body["metadata"]["finalizers"]
        await self._do(f"follow {tracked.dj.name}")

    async def withdraw(self, tracked: Tracked) -> None:
        await self._do(f"withdraw {tracked.dj.name}")

    async def _do(self, what: str) -> None:
        self.asked.append(what)
        if self._fault is not None:
            raise self._fault


class Site:
    """A controller over a cluster in memory, at a fixed time."""

    def __init__(self, *objects: dict[str, Any], fault: Exception | None = None, now: float = NOW) -> None:
        self.cluster = InMemoryDownloadJobs(*objects)
        self.tracking = Tracking(None)
        self.jobs = Jobs(fault)
        self.gave_up = 0
        self.told: list[Announcement] = []
        self.forgotten: list[str] = []
        self.controller = Controller(
            self.tracking,
            cast("Reconciler", self.jobs),
            self.cluster,
            may=lambda: True,
            giving_up=GivingUp(600, lambda: now, self._gave_up),
            tell=lambda _, told: self.told.append(told),
            forgotten=self.forgotten.append,
        )

    def _gave_up(self) -> None:
        self.gave_up += 1

    def bring(self, seen: Mapping[str, Any]) -> Tracked:
        """The turn of an object that was last seen like this."""
        one = self.tracking.see(seen)
        asyncio.run(self.controller.bring(one))
        return one

    def finalizers(self, name: str = "one") -> list[str]:
        """An object's."""
        found: list[str] = self.cluster.objects["team", name]["metadata"].get("finalizers", [])
        return found


@pytest.mark.parametrize("others", [[], ["a/b"]])
def test_the_finalizer_comes_before_the_job(others: list[str]) -> None:
    """An object gets our finalizer beside those that it has, and then its job."""
    site = Site(body(finalizers=others))
    site.bring(body(finalizers=others))
    assert site.finalizers() == [*others, FINALIZER]
    assert site.jobs.asked == ["follow one"]


def test_without_a_finalizer_there_is_no_job() -> None:
    """Where the finalizer cannot be added nothing is submitted: it could not be withdrawn for sure."""
    site = Site(body())
    site.cluster.faults["add_finalizer"] = KubernetesError("forbidden")
    with pytest.raises(KubernetesError):
        site.bring(body())
    assert site.jobs.asked == []


def test_an_object_goes_when_its_job_is_withdrawn() -> None:
    """Our finalizer goes, and no other."""
    one = body(finalizers=["a/b", FINALIZER], **GOING)
    site = Site(one)
    site.bring(one)
    assert site.jobs.asked == ["withdraw one"]
    assert site.finalizers() == ["a/b"]


def test_what_was_changed_meanwhile_is_read_again() -> None:
    """Where the finalizers are not those that were seen, the same turn goes on with those that there are."""
    site = Site(body(finalizers=["a/b"], resourceVersion="2"))
    site.bring(body())
    assert site.finalizers() == ["a/b", FINALIZER]
    assert site.jobs.asked == ["follow one"]


def test_what_is_refused_as_it_is_comes_later() -> None:
    """Where the object is as it was seen, and its patch is refused all the same, the turn fails."""
    site = Site(body())
    site.cluster.faults["add_finalizer"] = InvalidError("spec: no longer valid")
    with pytest.raises(InvalidError):
        site.bring(body())


@pytest.mark.parametrize("there", [[], [body(uid="another")]], ids=["none", "another"])
def test_what_is_gone_is_withdrawn(there: list[dict[str, Any]]) -> None:
    """An object that is not there any more when it is to be changed is gone: its job is withdrawn."""
    site = Site(*there)
    site.bring(body())
    assert site.jobs.asked == ["withdraw one"]
    assert site.forgotten == ["uid-of-one"]


@pytest.mark.parametrize(
    "fault", [QueueUnavailableError("away"), UnknownStateError("x", "archived")], ids=str
)
def test_a_withdrawal_is_given_up(fault: Exception) -> None:
    """An object whose job cannot be withdrawn stays for a while by the API server's clock, and then goes."""
    one = body(finalizers=[FINALIZER], **GOING)
    early = Site(one, fault=fault, now=NOW + 599)
    with pytest.raises(type(fault)):
        early.bring(one)
    assert early.finalizers() == [FINALIZER]
    late = Site(one, fault=fault, now=NOW + 601)
    late.bring(one)
    assert (late.finalizers(), late.gave_up) == ([], 1)


def test_that_it_is_held_up_is_told_once() -> None:
    """While an object waits for the queue to come back, one Event says so."""
    one = body(finalizers=[FINALIZER], **GOING)
    site = Site(one, fault=QueueUnavailableError("away"), now=NOW + 1)
    for _ in range(3):
        with pytest.raises(QueueUnavailableError):
            site.bring(one)
    assert [told.reason for told in site.told] == ["QueueUnavailable"]


def test_how_to_let_refused_objects_go_is_told_once() -> None:
    """Where the rights are gone with which objects would be let go, one line a namespace says what to do."""
    ours = [body(f"n{number}", finalizers=[FINALIZER], **GOING) for number in range(3)]
    site = Site(*ours)
    site.cluster.faults["remove_finalizer"] = KubernetesError("forbidden")
    with capture_logs() as logs:
        for one in ours * 2:
            seen = site.tracking.see(one)
            with pytest.raises(RetryError) as raised:
                asyncio.run(site.controller._turn(seen.dj.uid))
            assert raised.value.refused
    (told,) = [line["remove"] for line in logs if "cannot be let go" in line["event"]]
    assert "kubectl patch dj/n0 -n team" in told
    assert len(site.tracking) == 3
