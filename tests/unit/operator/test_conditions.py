"""Conditions, as Kubernetes' API conventions have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_operator.conditions import ALWAYS, Condition, Type, is_true, not_so, reason_of, so, written
from downloadjobs_operator.downloadjob import moment_of
from support_operator import JSON, NOW, faults_of

LISTS = st.lists(
    st.builds(Condition, st.sampled_from(Type), st.booleans(), st.sampled_from(["Waiting", "Started"])),
    unique_by=lambda one: one.type,
)


def status_with(conditions: list[Condition], before: Mapping[str, Any], now: float) -> dict[str, Any]:
    """A status of nothing but these conditions."""
    return {"conditions": written(conditions, before, generation=1, now=now)}


@given(first=LISTS, second=LISTS)
def test_the_time_is_of_the_last_transition(first: list[Condition], second: list[Condition]) -> None:
    """A condition's lastTransitionTime changes only when its status does, not with its reason or message."""
    before = status_with(first, {}, NOW)
    after = status_with(second, before, NOW + 60)
    was = {one["type"]: one for one in before["conditions"]}
    for one in after["conditions"]:
        same = one["type"] in was and was[one["type"]]["status"] == one["status"]
        assert one["lastTransitionTime"] == moment_of(NOW if same else NOW + 60)


@given(LISTS)
def test_conditions_obey_the_schema(conditions: list[Condition]) -> None:
    """Whatever is so, the API server takes the list."""
    assert faults_of(status_with(conditions, {}, NOW)) == []


@given(first=LISTS, second=LISTS)
def test_conditions_stand_in_one_order(first: list[Condition], second: list[Condition]) -> None:
    """A list is in the order of the types, however it is given: else an equal one would be written anew."""
    after = status_with(second, status_with(first, {}, NOW), NOW)
    order = [list(Type).index(Type(one["type"])) for one in after["conditions"]]
    assert order == sorted(order)


@pytest.mark.parametrize("kind", Type)
def test_what_was_never_so_is_left_out(kind: Type) -> None:
    """A false condition appears once it was true; `Queued` and `Finished` stand there always."""
    assert bool(written([not_so(kind, "Waiting")], {}, generation=1, now=NOW)) == (kind in ALWAYS)


@pytest.mark.parametrize("kind", Type)
def test_what_was_so_stays_as_false(kind: Type) -> None:
    """A condition that was true is told to be false, not dropped: a watcher sees its end."""
    before = status_with([so(kind, "Waiting")], {}, NOW)
    (row,) = written([not_so(kind, "Started")], before, generation=2, now=NOW)
    assert (row["status"], row["reason"], row["observedGeneration"]) == ("False", "Started", 2)


@given(JSON)
def test_conditions_written_by_hand_are_read_with_care(value: object) -> None:
    """Whatever stands in `conditions`, it is read as something or nothing, and never a fault."""
    status = {"conditions": value}
    assert is_true(status, Type.FINISHED) in {True, False}
    assert isinstance(reason_of(status, Type.FINISHED), str)
    assert written([so(Type.FINISHED, "Succeeded")], status, generation=1, now=NOW)


def test_only_true_is_true() -> None:
    """`Unknown` is not so, nor is `true` in small letters."""
    for value in ("Unknown", "true", "False"):
        assert not is_true({"conditions": [{"type": "Finished", "status": value}]}, Type.FINISHED)
    assert is_true({"conditions": [{"type": "Finished", "status": "True"}]}, Type.FINISHED)
