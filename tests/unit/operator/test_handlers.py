"""kopf's handlers: what of the watch they hand on, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import kopf
import pytest

from downloadjobs_operator.downloadjob import moment_of
from downloadjobs_operator.handlers import HANDLED, Services, create_registry, kopf_settings
from downloadjobs_operator.tracking import Tracking
from support_operator import NOW, body


def listed(kind: str | None, shown: Mapping[str, Any]) -> list[str]:
    """The names of the objects of which something may have been missed, after one event of the watch."""
    found: list[str] = []
    services = Services(
        tracking=Tracking(None),
        reconciler=cast("Any", None),
        seen=lambda _: None,
        listed=lambda tracked: found.append(tracked.dj.name),
        gone=lambda _: None,
        finalizer_give_up_seconds=600,
        gave_up=lambda: None,
        tell=lambda *_: None,
    )
    registry = create_registry(services, login=lambda: cast("Any", None))
    (handler,) = registry._watching.get_all_handlers()
    asyncio.run(cast("Any", handler.fn)(event={"type": kind, "object": shown}))
    return found


COPIED = {HANDLED: "{}"}


def test_what_was_there_before_may_have_been_missed() -> None:
    """Of an object that the watch began with, nobody knows what happened before."""
    assert listed(None, body()) == ["one"]
    assert listed("ADDED", body()) == []


def test_a_copy_may_have_been_missed() -> None:
    """A new object that says that it was handled is a copy of one that was: kopf does not call for it."""
    assert listed("ADDED", body(annotations=COPIED)) == ["one"]


@pytest.mark.parametrize(
    "shown",
    [
        body(annotations=COPIED, status={"jobId": "uid-of-one"}),
        body(annotations=COPIED, status={"conditions": [{"type": "Finished", "status": "True"}]}),
        body(annotations=COPIED, deletionTimestamp=moment_of(NOW)),
        body(annotations={"kopf.downloadjobs.dev/touch-dummy": "x"}),
    ],
    ids=["is a job", "finished", "being deleted", "never handled"],
)
def test_what_is_no_copy_is_kopfs(shown: Mapping[str, Any]) -> None:
    """An object that is a job, has ended, goes, or was never handled, is not asked for a second time."""
    assert listed("ADDED", shown) == []


def test_a_change_of_a_handled_object_is_kopfs() -> None:
    """Between kopf's annotation and the first status, an object looks like a copy: only new ones are."""
    assert listed("MODIFIED", body(annotations=COPIED)) == []


def test_the_annotation_is_kopfs_own() -> None:
    """A copy is known by the very annotation that kopf reads."""
    storage = cast("Any", kopf_settings(peering_name=None, peering_priority=0).persistence.diffbase_storage)
    assert HANDLED in storage.make_keys(storage.key, body=kopf.Body(cast("Any", body())))
