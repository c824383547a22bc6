"""What kopf is used for: what of the watch is handed on, and that nothing in an object is for kopf."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import kopf
import pytest

from downloadjobs_operator.downloadjob import FINALIZER
from downloadjobs_operator.handlers import Services, create_registry, kopf_settings
from downloadjobs_operator.kube import PAGE
from downloadjobs_operator.tracking import Tracking
from support_operator import body


def handed_on(kind: str | None) -> list[str]:
    """What is called with an object after one event of the watch."""
    called: list[str] = []
    services = Services(
        tracking=Tracking(None),
        seen=lambda _: called.append("seen"),
        listed=lambda _: called.append("listed"),
        gone=lambda _: called.append("gone"),
    )
    registry = create_registry(services, login=lambda: cast("Any", None))
    (handler,) = registry._watching.get_all_handlers()
    asyncio.run(cast("Any", handler.fn)(event={"type": kind, "object": body()}))
    return called


@pytest.mark.parametrize(
    ("kind", "called"),
    [
        (None, ["seen", "listed"]),
        ("ADDED", ["seen"]),
        ("MODIFIED", ["seen"]),
        ("DELETED", ["gone"]),
    ],
)
def test_what_is_handed_on(kind: str | None, called: list[str]) -> None:
    """Each event is; of what the watch began with, events of its job may have been missed."""
    assert handed_on(kind) == called


def test_kopf_has_no_handlers_of_changes() -> None:
    """Nothing depends on what kopf takes for a change, nor on what it noted of the last one."""
    services = Services(Tracking(None), *[lambda _: None] * 3)
    registry = create_registry(services, login=lambda: cast("Any", None))
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last-handled-configuration", "{not json"),
        ("withdraw", "{not json"),
        ("withdraw", json.dumps({"delayed": "2099-01-01T00:00:00.000000+00:00", "retries": 1})),
        ("withdraw", json.dumps({"success": True, "failure": False, "purpose": "delete"})),
    ],
    ids=["no JSON", "no progress", "delayed", "done"],
)
def test_annotations_as_kopfs_are_not_read(name: str, value: str) -> None:
    """Whoever writes what kopf would have written changes nothing: it is not read, and cannot be an error."""
    settings = kopf_settings(peering_name=None, peering_priority=0)
    seen = kopf.Body(cast("Any", body(annotations={f"kopf.downloadjobs.dev/{name}": value})))
    assert settings.persistence.diffbase_storage.fetch(body=seen) is None
    assert settings.persistence.progress_storage.fetch(key=cast("Any", name), body=seen) is None
    assert settings.persistence.diffbase_storage.build(body=seen) == {}


def test_kopf_leaves_the_finalizer_alone() -> None:
    """Kopf removes its own finalizer from what it has no handler for; ours must be another."""
    assert kopf_settings(peering_name=None, peering_priority=0).persistence.finalizer != FINALIZER


def test_few_objects_are_read_at_a_time() -> None:
    """A page of the largest objects that etcd takes fits into the operator's memory several times."""
    assert kopf_settings(peering_name=None, peering_priority=0).watching.chunk_size == PAGE <= 50
