"""Conditions as Kubernetes' API conventions have them, safe for tools that read every resource alike.

kstatus (Flux, `kubectl wait`, Argo CD's fallback) takes `Stalled=True` for a
failure that needs somebody; so it is true only for what will not go on by itself.
Source: github.com/kubernetes-sigs/cli-utils, pkg/kstatus/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from downloadjobs_operator.downloadjob import moment_of


class Type(StrEnum):
    """The conditions of a DownloadJob."""

    QUEUED = "Queued"
    FINISHED = "Finished"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    RESULT_AVAILABLE = "ResultAvailable"
    STALLED = "Stalled"


MESSAGE_CHARACTERS: Final = 32_768
"""Of a message at most, as the schema has it: a longer one would have the whole status refused."""

ALWAYS = (Type.QUEUED, Type.FINISHED)
"""These stand in every status; the others appear when they are first true."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What is so, and why."""

    type: Type
    true: bool
    reason: str
    message: str = ""


def so(kind: Type, reason: str, message: str = "") -> Condition:
    """It is so."""
    return Condition(kind, True, reason, message)  # noqa: FBT003 - what these two functions are for


def not_so(kind: Type, reason: str, message: str = "") -> Condition:
    """It is not so."""
    return Condition(kind, False, reason, message)  # noqa: FBT003


def is_true(status: Mapping[str, Any], kind: Type) -> bool:
    """Whether a status says that a condition is so."""
    return any(one.get("type") == kind.value and one.get("status") == "True" for one in _listed(status))


def reason_of(status: Mapping[str, Any], kind: Type) -> str:
    """The reason a status gives for a condition; empty without one."""
    return next((str(one.get("reason", "")) for one in _listed(status) if one.get("type") == kind.value), "")


def written(
    conditions: Iterable[Condition], before: Mapping[str, Any], *, generation: int, now: float
) -> list[dict[str, Any]]:
    """Conditions as a status holds them, in the order of `Type`.

    Args:
        conditions: what is so now.
        before: the status before; a condition that did not change keeps the time of its last transition.
        generation: of the spec that they are about.
        now: seconds since 1970.
    """
    old = {str(one.get("type")): one for one in _listed(before)}
    rows = []
    for condition in sorted(conditions, key=lambda one: list(Type).index(one.type)):
        last = old.get(condition.type.value)
        if not condition.true and last is None and condition.type not in ALWAYS:
            continue
        status = "True" if condition.true else "False"
        since = last.get("lastTransitionTime") if last and last.get("status") == status else None
        rows.append(
            {
                "type": condition.type.value,
                "status": status,
                "observedGeneration": generation,
                "lastTransitionTime": since or moment_of(now),
                "reason": condition.reason,
                "message": condition.message[:MESSAGE_CHARACTERS],
            }
        )
    return rows


def kept(before: Mapping[str, Any], *, generation: int) -> list[dict[str, Any]]:
    """A status' conditions as they are, ours as being about this generation; others' are left alone.

    `kubectl wait` and kstatus go by a condition's own generation before the status'.
    """
    ours = {kind.value for kind in Type}
    return [
        {**one, "observedGeneration": generation} if one.get("type") in ours else dict(one)
        for one in _listed(before)
    ]


def _listed(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = status.get("conditions")
    return [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
