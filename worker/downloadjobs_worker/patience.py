"""Trying one call to storage again after a passing fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from downloadjobs_core import logs
from downloadjobs_core.errors import ObjectStoreError
from downloadjobs_worker.hold import Hold

DELAYS_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits between tries. Together under eight seconds: a longer outage is the job's retry to bridge."""

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
