"""Trying one call to storage, or to Redis, again after a passing fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from downloadjobs_core import logs
from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    QueueUnavailableError,
)
from downloadjobs_worker.hold import Hold
from downloadjobs_worker.storage_watch import StorageWatch

DELAYS_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits between tries, together under eight seconds. Then it counts whether storage as a whole is away."""

OUTAGE_PAUSE_SECONDS: Final = 5.0
"""Between two looks whether storage has come back."""

QUEUE_PATIENCE_SECONDS: Final = 120.0
"""How long a finished archive waits for Redis to come back, before the job is left to its next delivery."""

QUEUE_PAUSE_SECONDS: Final = 1.0

REFUSALS: Final = (ObjectStoreDeniedError, BucketNotFoundError)
"""No try mends them, unless storage refuses everything: credentials are being renewed, or were mistyped. Most
answers do not tell which it is (that to HEAD has no body)."""

LAST_REFUSAL: Final = 2
"""The refusal that counts: storage was found usable after each, so this is no moment's fault."""

Result = TypeVar("Result")

log = logs.logger(__name__)


class Tries:
    """The tries of one call to storage, or of one read that goes on from where it broke.

    A fault that concerns one call is met by a few tries. While storage as a whole is away, so that no call
    could succeed, they go on for the hold's patience: an outage is not the job's fault, and costs it neither
    an attempt nor what it has uploaded.

    Args:
        watch: tells whether storage is away; without it nothing waits for it.
    """

    def __init__(self, watch: StorageWatch | None) -> None:
        self._watch = watch
        self._made = 0
        self._refused = 0
        self._outage: float | None = None

    def succeeded(self) -> None:
        """What fails from now on is another fault."""
        self._made = 0
        self._refused = 0
        self._outage = None

    def delay_after(self, error: ObjectStoreError) -> float:
        """How many seconds to wait until the next try.

        Args:
            error: what the last one met.

        Raises:
            ObjectStoreDeniedError: that error: this call alone is denied, since storage was found usable
                after it, and after the try that followed.
            CredentialsRefusedError: everything was denied, and patience is at its end.
            ObjectStoreError: that error, when another try cannot help, or none is left.
        """
        if isinstance(error, REFUSALS):
            return self._delay_after_refusal(error)
        if not error.retryable:
            raise error
        if self._made < len(DELAYS_SECONDS):
            self._made += 1
            return DELAYS_SECONDS[self._made - 1]
        if self._is_outage(error):
            return OUTAGE_PAUSE_SECONDS
        if self._outage is None:
            raise error
        # It is back, and may not be quite: the few tries begin anew.
        self._outage = None
        self._made = 1
        return DELAYS_SECONDS[0]

    def _delay_after_refusal(self, error: ObjectStoreError) -> float:
        # What was known before the refusal says nothing of it.
        if self._is_outage(error, since=time.monotonic()):
            self._refused = 0
            return OUTAGE_PAUSE_SECONDS
        self._refused += 1
        if self._refused == LAST_REFUSAL:
            raise error
        return DELAYS_SECONDS[0]

    def _is_outage(self, error: ObjectStoreError, since: float = float("-inf")) -> bool:
        watch = self._watch
        if watch is None or watch.fault(since) is None:
            return False
        now = time.monotonic()
        if self._outage is None:
            self._outage = now
        if now - self._outage >= watch.patience_seconds:
            if isinstance(error, ObjectStoreDeniedError):
                raise CredentialsRefusedError(str(error)) from error
            raise error
        return True


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
    tries = Tries(hold.storage)
    while True:
        hold.raise_if_stopped()
        try:
            return call()
        except ObjectStoreError as error:
            delay = tries.delay_after(error)
            log.warning("storage failed, trying again", operation=what, error=str(error), delay_seconds=delay)
        hold.sleep(delay)


def waited_for_storage(hold: Hold, check: Callable[[], None]) -> bool:
    """Wait while storage refuses everything, for the hold's patience. False if there was nothing to wait for.

    Args:
        hold: the attempt; it is asked to stop between tries.
        check: proves that storage can be used.

    Raises:
        ObjectStoreError: the last fault, when patience is at its end.
        LeaseLostError, HandBackRequested: the attempt must stop.
    """
    until = time.monotonic() + (hold.storage.patience_seconds if hold.storage is not None else 0)
    waited = False
    while True:
        hold.raise_if_stopped()
        try:
            check()
        except ObjectStoreError as error:
            if time.monotonic() >= until:
                raise
            log.warning("the job waits for storage", error=str(error), delay_seconds=OUTAGE_PAUSE_SECONDS)
        else:
            return waited
        waited = True
        hold.sleep(OUTAGE_PAUSE_SECONDS)


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
