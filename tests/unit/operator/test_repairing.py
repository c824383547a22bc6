"""Repairs in the background: what is wrong with one object must not end them, nor keep them from ending."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from downloadjobs_operator.kube_client import KubernetesError
from downloadjobs_operator.mirroring import StatusMirror
from downloadjobs_operator.reconciling import Reconciler
from downloadjobs_operator.repairing import Repairs
from downloadjobs_operator.tracking import Tracked, Tracking
from support_operator import at_work, body, until


class Reconciling:
    """A reconciler that notes whom it was called for, and does what a test says."""

    def __init__(self, work: Callable[[Tracked], Awaitable[None]] | None = None) -> None:
        self.names: list[str] = []
        self._work = work

    async def reconcile(self, tracked: Tracked) -> None:
        self.names.append(tracked.dj.name)
        if self._work is not None:
            await self._work(tracked)


class Marks:
    """A mirror that only notes who was marked."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def mark(self, tracked: Tracked) -> None:
        self.names.append(tracked.dj.name)


def repairs(tracking: Tracking, reconciling: Reconciling, marks: Marks | None = None) -> Repairs:
    """Repairs that compare only when asked."""
    return Repairs(
        tracking,
        cast("Reconciler", reconciling),
        cast("StatusMirror", marks or Marks()),
        every_seconds=3600,
    )


def test_all_are_compared() -> None:
    """A comparison marks every object, and reconciles what has not ended."""
    ended = {"conditions": [{"type": "Finished", "status": "True"}]}

    async def test() -> None:
        tracking, reconciling, marks = Tracking(None), Reconciling(), Marks()
        tracking.see(body("going"))
        tracking.see(body("ended", status=ended))
        found = repairs(tracking, reconciling, marks)
        found.look_at_all()
        async with at_work(found.run):
            assert await until(lambda: len(marks.names) == 2 and bool(reconciling.names))
        assert (sorted(marks.names), reconciling.names) == (["ended", "going"], ["going"])

    asyncio.run(test())


def test_who_is_asked_for_twice_is_reconciled_once() -> None:
    """Asking again for what waits for its turn is one turn; what is gone by then is passed over."""

    async def test() -> None:
        tracking, reconciling = Tracking(None), Reconciling()
        first, second = tracking.see(body("n1")), tracking.see(body("n2"))
        found = repairs(tracking, reconciling)
        for one in (first, first, second):
            found.ask(one)
        tracking.forget(second.dj.uid)
        async with at_work(found.run):
            await until(lambda: bool(reconciling.names))
        assert reconciling.names == ["n1"]

    asyncio.run(test())


@pytest.mark.parametrize("fault", [ValueError("damaged"), KubernetesError("forbidden")], ids=repr)
def test_a_fault_of_one_object_is_survived(fault: Exception) -> None:
    """Whatever is wrong with one object, the others are reconciled."""

    async def fail_for_bad(tracked: Tracked) -> None:
        if tracked.dj.name == "bad":
            raise fault

    async def test() -> None:
        tracking, reconciling = Tracking(None), Reconciling(fail_for_bad)
        found = repairs(tracking, reconciling)
        async with at_work(found.run):
            for name in ("bad", "good"):
                found.ask(tracking.see(body(name)))
            assert await until(lambda: "good" in reconciling.names)

    asyncio.run(test())
