"""Removing objects one after another, although storage may keep some of them for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from downloadjobs_core import logs
from downloadjobs_core.errors import ObjectStoreError
from downloadjobs_core.objectstore.protocol import ObjectStore

log = logs.logger(__name__)


@dataclass(slots=True)
class Removals:
    """The removals of one run of a task.

    What storage keeps (a legal hold, an object lock, a policy on a prefix) must not hold up the rest.

    Attributes:
        store: where the objects lie.
        kept: how many it would not let go.
    """

    store: ObjectStore
    kept: int = 0
    _first_key: str = ""
    _first_error: str = ""

    def tried(self, key: str, remove: Callable[[], object]) -> bool:
        """Remove what lies under a key; whether it is gone.

        Raises:
            ObjectStoreError: storage as a whole cannot be used, so the others would fare no better.
        """
        try:
            remove()
        except ObjectStoreError as error:
            self.store.check()
            if not self.kept:
                self._first_key, self._first_error = key, str(error)
            self.kept += 1
            return False
        return True

    def report(self) -> None:
        """Say in the log what is left, if anything."""
        if self.kept:
            log.warning(
                "storage keeps what should go", kept=self.kept, key=self._first_key, error=self._first_error
            )
