"""Tells a fault of one object, or one call, from an outage of storage as a whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from downloadjobs_core.errors import ObjectStoreError
from downloadjobs_core.objectstore.protocol import ObjectStore

FRESH_SECONDS: Final = 1.0
"""How long an answer holds: many threads ask at once when storage goes away."""


class StorageWatch:
    """Asks whether storage can be used at all. One for the process, safe for its threads.

    Args:
        stores: all that jobs need; one that stands here twice is asked once.
        patience_seconds: how long a job waits for them, each time they are away.
    """

    def __init__(self, stores: Sequence[ObjectStore], patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        self._stores = list({id(store): store for store in stores}.values())
        self._lock = threading.Lock()
        self._began = self._ended = float("-inf")
        self._fault: ObjectStoreError | None = None

    def fault(self, since: float = float("-inf")) -> ObjectStoreError | None:
        """Why storage cannot be used now; None if it can.

        Args:
            since: the answer must be to a question that was asked later (`time.monotonic`).
        """
        with self._lock:
            if self._began <= since or time.monotonic() - self._ended >= FRESH_SECONDS:
                self._began = time.monotonic()
                self._fault = self._ask()
                self._ended = time.monotonic()
            return self._fault

    def _ask(self) -> ObjectStoreError | None:
        try:
            for store in self._stores:
                store.check()
        except ObjectStoreError as error:
            return error.with_traceback(None)  # which would hold the buffers of whoever asked
        return None
