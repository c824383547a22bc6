"""Which difference between two statuses is worth a patch."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

PROGRESS_POINTS: Final = 5
"""Percent of a job that are worth a patch by themselves."""

PROGRESS_SECONDS: Final = 10.0
"""After which any progress is. REST and its streams have the fine one; a status patch of a large object
costs etcd as much as the whole object."""

POSITION_SHARE: Final = 0.2
"""How much a place in the queue must change to be worth a patch: so the number of them grows with the
logarithm of the place."""

PERCENT_DIGITS: Final = 3
"""Of a percentage, at most."""

_GRADUAL: Final = frozenset({"progress", "queuePosition", "eta"})
"""What changes all the time; everything else is a transition."""


class Urgency(IntEnum):
    """How soon a status must be written."""

    NOT_YET = 0
    SOON = 1
    """When there is room among all jobs' patches."""
    NOW = 2


def urgency(old: Mapping[str, Any], new: Mapping[str, Any], *, seconds_since_patch: float) -> Urgency:
    """How soon `new` must be written over `old`, given when the last patch of this object was."""
    if _without(old) != _without(new):
        return Urgency.NOW
    if all(old.get(name) == new.get(name) for name in _GRADUAL):
        return Urgency.NOT_YET
    moved = abs(_percent(new) - _percent(old)) >= PROGRESS_POINTS
    if moved or (seconds_since_patch >= PROGRESS_SECONDS and _worth_telling(old, new)):
        return Urgency.SOON
    return Urgency.NOT_YET


def _without(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in _GRADUAL}


def _worth_telling(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether more than an estimate changed: an `eta` alone moves with every look."""
    if old.get("progress") != new.get("progress"):
        return True
    before, after = old.get("queuePosition"), new.get("queuePosition")
    if not isinstance(before, int) or not isinstance(after, int):
        return before != after
    return abs(before - after) > POSITION_SHARE * before


def _percent(status: Mapping[str, Any]) -> int:
    progress = status.get("progress")
    text = progress.get("percent", "0%") if isinstance(progress, Mapping) else "0%"
    digits = text.removesuffix("%") if isinstance(text, str) else ""
    # Somebody may have written it by hand, and Python reads no number of thousands of digits.
    return int(digits) if digits.isdecimal() and len(digits) <= PERCENT_DIGITS else 0
