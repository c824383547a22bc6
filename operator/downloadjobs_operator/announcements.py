"""The Events of a DownloadJob: one for each transition, derived from two statuses.

A job may pass through several states between two looks at it; what must have
happened in between is told as well. An Event's name is made of what it tells, so
that an operator that was restarted tells nothing twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from downloadjobs_operator.conditions import Type, is_true, reason_of
from downloadjobs_operator.downloadjob import API_VERSION, KIND, DownloadJob, moment_of
from downloadjobs_operator.status import is_finished

COMPONENT: Final = "downloadjobs-operator"

QUEUE_UNAVAILABLE: Final = "QueueUnavailable"
"""The reason of a verdict that holds while Redis cannot be reached."""

NOT_YET: Final = frozenset({"QuotaExceeded", QUEUE_UNAVAILABLE})
"""Why an object is not a job yet, although it is tried again and again."""

_NAME_LENGTH: Final = 253
_MESSAGE_BYTES: Final = 1024
"""The API server refuses longer ones, where `eventTime` is set."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One Event: its reason, its text, and what tells it from others of the same reason."""

    reason: str
    message: str
    warning: bool = False
    occasion: str = ""


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object that an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


def announcements(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Announcement]:
    """What happened between two statuses of one object, in order."""
    told: list[Announcement] = []
    if new.get("jobId") and not old.get("jobId"):
        told.append(Announcement("Queued", f"Queued as job {new['jobId']}."))
    attempts, before = _attempts(new), _attempts(old)
    # After a wipe of Redis the job begins again at none; then there is nothing to tell but that.
    if attempts > before:
        worker = f" by {new['worker']}" if new.get("worker") else ""
        told.append(Announcement("Started", f"Attempt {attempts} was begun{worker}.", occasion=str(attempts)))
    message = str(new.get("message", ""))
    if new.get("phase") == "Retrying" and (old.get("phase") != "Retrying" or attempts > before):
        told.append(Announcement("Retrying", message, warning=True, occasion=str(attempts)))
    waiting = reason_of(new, Type.QUEUED)
    if waiting in NOT_YET and reason_of(old, Type.QUEUED) != waiting:
        told.append(Announcement(waiting, message, warning=True, occasion=str(new.get("observedGeneration"))))
    if is_finished(new) and not is_finished(old):
        told.append(_ending(new, message))
    if new.get("phase") == "Expired" and old.get("phase") != "Expired":
        told.append(Announcement("ResultExpired", message))
    return told


def held_up(dj: DownloadJob, *, give_up_seconds: float) -> Announcement:
    """What is told of an object that cannot go, because the queue cannot be asked to end its job."""
    until = (
        "" if dj.deleted_at is None else f", at the latest at {moment_of(dj.deleted_at + give_up_seconds)}"
    )
    return Announcement(
        QUEUE_UNAVAILABLE,
        "The queue cannot be reached, so the job cannot be ended. It is tried again by itself; the"
        f" DownloadJob goes when the job is ended{until}.",
        warning=True,
        occasion=f"deleted {dj.deleted_at}",
    )


def _ending(new: Mapping[str, Any], message: str) -> Announcement:
    occasion = str(new.get("completionTime"))
    outcome = reason_of(new, Type.FINISHED)
    if is_true(new, Type.FAILED):
        return Announcement("Failed", message, warning=True, occasion=occasion)
    if outcome == "Cancelled":
        return Announcement("Cancelled", message, occasion=occasion)
    # An expired one completed before; its message is about the expiry.
    text = "Completed." if new.get("phase") == "Expired" else message
    return Announcement("Completed", text, warning=outcome == "CompletedWithErrors", occasion=occasion)


def event_body(dj: DownloadJob, told: Announcement, *, now: float, instance: str) -> dict[str, Any]:
    """An Event (core/v1) about a DownloadJob, as the API server takes it."""
    return event_about(Regarding(API_VERSION, KIND, dj.namespace, dj.name, dj.uid), told, now, instance)


def event_about(about: Regarding, told: Announcement, now: float, instance: str) -> dict[str, Any]:
    """An Event (core/v1) about any object.

    Args:
        about: the object.
        told: what happened. The Event's name is made of it: the same again is the same Event.
        now: seconds since 1970.
        instance: which of several operators tells it.
    """
    unique = hashlib.sha256(f"{about.uid}/{told.reason}/{told.occasion}".encode()).hexdigest()[:16]
    to_the_second = moment_of(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            # Cut where a name may end, too.
            "name": f"{about.name[: _NAME_LENGTH - len(unique) - 1].rstrip('-.')}.{unique}",
            "namespace": about.namespace,
        },
        "involvedObject": {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "namespace": about.namespace,
            "uid": about.uid,
        },
        "reason": told.reason,
        "message": told.message.encode()[:_MESSAGE_BYTES].decode(errors="ignore"),
        "type": "Warning" if told.warning else "Normal",
        "reportingComponent": COMPONENT,
        "reportingInstance": instance[:128],
        "eventTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        # `kubectl describe` reads only these older ones; without them it shows neither age nor order.
        "firstTimestamp": to_the_second,
        "lastTimestamp": to_the_second,
        "count": 1,
        "action": told.reason,
    }


def _attempts(status: Mapping[str, Any]) -> int:
    attempts = status.get("attempts")
    return attempts if isinstance(attempts, int) else 0
