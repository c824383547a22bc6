"""The last decisions as JSON documents: what `GET /autoscaler` answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from downloadjobs_core.job import rfc3339
from downloadjobs_operator.autoscaler.decision import Decision, Direction

KEPT: Final = 100
"""Decisions. Those that repeat the one before are one with it, so a quiet night pushes out nothing."""


class Outcome(StrEnum):
    """What became of a decision."""

    UNCHANGED = "Unchanged"
    """There was nothing to change."""
    SCALED = "Scaled"
    RECOMMENDED = "Recommended"
    """`mode` is Recommend: it was told only."""
    REFUSED = "Refused"
    """A pod took a job before it could be fenced, or the Deployment changed: it is decided again."""
    FAILED = "Failed"
    """The API server or Redis could not be reached."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision and what became of it.

    Attributes:
        decision: as it was made last: the same as at first, with newer numbers.
        since: when it was made first, by the clock of its snapshot.
        until: when it was last made again, by the same clock.
        times: how often it was made.
        error: why it failed or was refused; empty if it did not.
        latency_seconds: from the counts to the patched `/scale`; None without a patch.
    """

    decision: Decision
    since: float
    until: float
    outcome: Outcome
    times: int = 1
    error: str = ""
    latency_seconds: float | None = None


class History:
    """A ring of the last decisions."""

    def __init__(self, size: int = KEPT) -> None:
        self._entries: deque[Entry] = deque(maxlen=size)

    def add(
        self,
        decision: Decision,
        outcome: Outcome | None = None,
        *,
        error: str = "",
        latency_seconds: float | None = None,
    ) -> bool:
        """Keep a decision.

        Args:
            decision: the decision.
            outcome: what became of it; by default what follows from it if all went well.
            error: why it failed or was refused.
            latency_seconds: from the counts to the patched `/scale`.

        Returns:
            Whether it is another than the one before: one that repeats it only moves its end, and brings
            newer numbers.
        """
        if outcome is None:
            outcome = expected(decision)
        now = decision.snapshot.now
        entry = Entry(decision, now, now, outcome, error=error, latency_seconds=latency_seconds)
        if self._entries and _alike(self._entries[-1], entry):
            before = self._entries[-1]
            self._entries[-1] = replace(
                before, decision=decision, until=max(before.until, now), times=before.times + 1
            )
            return False
        self._entries.append(entry)
        return True

    def document(self, limit: int = KEPT) -> dict[str, Any]:
        """The answer of `GET /autoscaler`, the newest first."""
        newest = list(reversed(self._entries))[: max(0, limit)]
        return {"items": [entry_document(entry) for entry in newest], "nextCursor": None}


def expected(decision: Decision) -> Outcome:
    """What becomes of a decision if nothing goes wrong."""
    if decision.direction is Direction.NONE:
        return Outcome.UNCHANGED
    return Outcome.RECOMMENDED if decision.limits.mode == "Recommend" else Outcome.SCALED


def _alike(one: Entry, other: Entry) -> bool:
    def key(entry: Entry) -> tuple[object, ...]:
        found = entry.decision
        return (
            found.current,
            found.desired,
            found.clamps,
            found.reason,
            found.limits,
            entry.outcome,
            entry.error,
        )

    # Two changes in a row are two, even if they are the same: something else has changed it back.
    return key(one) == key(other) and other.outcome is not Outcome.SCALED


def entry_document(entry: Entry) -> dict[str, Any]:
    """One decision: its inputs, the steps of the formula, what clamped it, and what became of it."""
    decision, snapshot = entry.decision, entry.decision.snapshot
    names = {pod.uid: pod.name for pod in snapshot.pods}
    formula = decision.formula
    return {
        "at": moment(entry.since),
        "until": moment(entry.until),
        "times": entry.times,
        "message": decision.message,
        "direction": decision.direction.value,
        "reason": decision.reason.value,
        "current": decision.current,
        "raw": decision.raw,
        "desired": decision.desired,
        "clamps": [clamp.value for clamp in decision.clamps],
        "victims": [names[uid] for uid in decision.victims],
        "cooldownEndsAt": moment(decision.cooldown_ends_at),
        "wakeAt": moment(decision.wake_at),
        "outcome": entry.outcome.value,
        "error": entry.error or None,
        "latencySeconds": None if entry.latency_seconds is None else round(entry.latency_seconds, 3),
        "inputs": {
            "queued": snapshot.queued,
            "dueRetries": snapshot.due_retries,
            "expiredLeases": snapshot.expired_leases,
            "dueMaintenance": snapshot.due_maintenance,
            "parked": snapshot.parked,
            "running": snapshot.running,
            "serviceSeconds": round(snapshot.service_seconds, 3),
            "replicas": snapshot.replicas,
            "signalAgeSeconds": round(snapshot.signal_age_seconds, 3),
            "rollingOut": snapshot.rolling_out,
            "nextDueAt": moment(snapshot.next_due_at),
            "pods": {
                "ready": sum(pod.ready and not pod.terminating for pod in snapshot.pods),
                "notReady": sum(not pod.ready and not pod.terminating for pod in snapshot.pods),
                "terminating": sum(pod.terminating for pod in snapshot.pods),
                "busy": formula.busy_pods,
            },
        },
        "formula": camel(asdict(formula)),
        "limits": camel(asdict(decision.limits)),
    }


def moment(seconds: float | None) -> str | None:
    """A time as RFC 3339 in UTC, with milliseconds."""
    return None if seconds is None else rfc3339(round(seconds * 1_000_000))


def camel(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same with names as JSON has them."""
    return {
        name.split("_")[0] + "".join(part.capitalize() for part in name.split("_")[1:]): value
        for name, value in document.items()
    }
