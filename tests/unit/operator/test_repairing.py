"""Which objects are looked at although nothing was heard of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from downloadjobs_operator.downloadjob import FINALIZER, moment_of
from downloadjobs_operator.mirroring import StatusMirror
from downloadjobs_operator.repairing import QUOTA_BATCH, Repairs
from downloadjobs_operator.tracking import Tracked, Tracking
from support_operator import NOW, at_work, body, until

ENDED = {"conditions": [{"type": "Finished", "status": "True"}]}


class Names:
    """Notes of whom it was told."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def mark(self, tracked: Tracked) -> None:
        self.names.append(tracked.dj.name)


def repairs(tracking: Tracking, looked: Names, marks: Names, turned_away: list[str]) -> Repairs:
    """Repairs that compare only when asked."""
    return Repairs(
        tracking,
        cast("StatusMirror", marks),
        look_at=looked.mark,
        turned_away=lambda _: turned_away,
        every_seconds=3600,
    )


@pytest.mark.parametrize(
    ("found", "looked_at"),
    [
        ({"finalizers": [FINALIZER]}, True),
        ({"finalizers": [FINALIZER], "status": ENDED}, False),
        ({"finalizers": [FINALIZER], "status": ENDED, "deletionTimestamp": moment_of(NOW)}, True),
        ({"finalizers": [], "status": ENDED}, True),
    ],
    ids=["unfinished", "finished", "going", "without its finalizer"],
)
def test_what_is_compared(found: Mapping[str, Any], *, looked_at: bool) -> None:
    """A comparison marks every object, and looks at those about which anything may be due."""

    async def test() -> None:
        tracking, looked, marks = Tracking(None), Names(), Names()
        tracking.see(body(**found))
        compared = repairs(tracking, looked, marks, [])
        compared.look_at_all()
        async with at_work(compared.run):
            assert await until(lambda: marks.names == ["one"])
        assert looked.names == (["one"] if looked_at else [])

    asyncio.run(test())


def test_room_is_for_some() -> None:
    """When there is room in the queue again, only a few of those that were refused are looked at."""
    tracking, looked = Tracking(None), Names()
    uids = [tracking.see(body(f"n{number}")).dj.uid for number in range(2 * QUOTA_BATCH)]
    repairs(tracking, looked, Names(), uids).made_room("team")
    assert looked.names == [f"n{number}" for number in range(QUOTA_BATCH)]
