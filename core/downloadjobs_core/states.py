"""The states of a job, and the one table of allowed transitions.

The Lua scripts get this table from here (`scripts.py`) and refuse every other change.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from downloadjobs_core.errors import PriorityTooHighError


class JobState(StrEnum):
    """Where a job stands; the values are those on the wire of `/v1/jobs` and in Redis."""

    QUEUED = "queued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Priority(StrEnum):
    """Strict classes: while a higher one has a job ready, no lower one is begun."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def highest_priority(owner: str, ceilings: Mapping[str, Priority]) -> Priority:
    """The highest class that an owner may have; `*` names everybody else's."""
    return ceilings.get(owner, ceilings.get("*", Priority.NORMAL))


def allowed_priority(owner: str, asked: Priority | None, ceilings: Mapping[str, Priority]) -> Priority:
    """The class that a job gets: the one asked for, or normal, or lower where its owner may have no more.

    Args:
        owner: a user, or a namespace.
        asked: None for no wish.
        ceilings: the highest class by owner; `*` for everybody else.

    Raises:
        PriorityTooHighError: more was asked for than the owner may have.
    """
    ceiling = highest_priority(owner, ceilings)
    order = list(Priority)  # from the highest
    if asked is None:
        return max(ceiling, Priority.NORMAL, key=order.index)
    if order.index(asked) < order.index(ceiling):
        raise PriorityTooHighError(asked.value, ceiling.value)
    return asked


def lower_priority(one: Priority, other: Priority) -> Priority:
    """The lower of two classes."""
    return max(one, other, key=list(Priority).index)


TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.PROCESSING, JobState.CANCELLED}),
        JobState.PROCESSING: frozenset(
            {
                JobState.QUEUED,  # handed back, or its lease expired
                JobState.RETRYING,
                JobState.COMPLETED,
                JobState.COMPLETED_WITH_ERRORS,
                JobState.FAILED,
                JobState.CANCELLED,
            }
        ),
        JobState.RETRYING: frozenset({JobState.PROCESSING, JobState.CANCELLED}),
        JobState.COMPLETED: frozenset({JobState.EXPIRED}),
        JobState.COMPLETED_WITH_ERRORS: frozenset({JobState.EXPIRED}),
        JobState.FAILED: frozenset({JobState.QUEUED}),  # `dead retry`
        JobState.CANCELLED: frozenset(),
        JobState.EXPIRED: frozenset(),
    }
)

WITH_RESULT: Final = frozenset({JobState.COMPLETED, JobState.COMPLETED_WITH_ERRORS})
"""States in which a result can be fetched."""

FINISHED: Final = WITH_RESULT | {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
"""States that a job leaves only by hand, or for `expired`."""


def can_move(current: JobState, to: JobState) -> bool:
    """Whether the table allows a job to go from `current` to `to`."""
    return to in TRANSITIONS[current]
