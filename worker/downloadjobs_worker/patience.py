"""Trying one call to storage, or to Redis, again after a passing fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from downloadjobs_core import logs
from downloadjobs_core.errors import ObjectStoreError, QueueUnavailableError
from downloadjobs_worker.hold import Hold

DELAYS_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits between tries. Together under eight seconds: a longer outage is the job's retry to bridge."""

QUEUE_PATIENCE_SECONDS: Final = 120.0
"""How long a finished archive waits for Redis to come back, before the job is left to its next delivery."""

QUEUE_PAUSE_SECONDS: Final = 1.0

Result = TypeVar("Result")

log = logs.logger(__name__)


def patiently(hold: Hold, what: str, call: Callable[[], Result]) -> Result:
    """Call storage, and again after a fault that may pass.

    Args:
        hold: the attempt; it is asked to stop between tries.
        what: the operation, for the log.
        call: may be called several times.

    Raises:
        ObjectStoreError: the last fault, when the tries are used up or another cannot help.
        LeaseLostError, HandBackRequested: the attempt must stop.
    """
    for delay in DELAYS_SECONDS:
        hold.raise_if_stopped()
        try:
            return call()
        except ObjectStoreError as error:
            if not error.retryable:
                raise
            log.warning("storage failed, trying again", operation=what, error=str(error), delay_seconds=delay)
            hold.sleep(delay)
    return call()


def until_redis_answers(call: Callable[[], Result], between: Callable[[], None] | None = None) -> Result:
    """Call Redis, and again for `QUEUE_PATIENCE_SECONDS` while it is away.

    Args:
        call: a script that accepts a call twice: the answer to the first may have been lost.
        between: called between tries; may raise what stops the attempt.

    Raises:
        QueueUnavailableError: it stayed away.
    """
    until = time.monotonic() + QUEUE_PATIENCE_SECONDS
    while True:
        try:
            return call()
        except QueueUnavailableError:
            if time.monotonic() >= until:
                raise
            time.sleep(QUEUE_PAUSE_SECONDS)
            if between is not None:
                between()
