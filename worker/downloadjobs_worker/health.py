"""The worker's probes. Neither depends on Redis or storage.

Pods that are not ready are the first to be removed when there are too many of them, and
one that is not alive is killed: an outage of a server must lead to neither.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from downloadjobs_core.side_port import Answer, probe
from downloadjobs_worker.keeper import Keeper

KEEPER_SILENT_SECONDS: Final = 60.0
"""The keeper goes round twice a second; a Redis that does not answer holds it up for some seconds a round."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is looked at.

    Attributes:
        started: set when jobs are taken.
        closing: set when the process drains.
    """

    keeper: Keeper
    started: threading.Event
    closing: threading.Event

    def alive(self, _accept: str = "") -> Answer:
        """Whether leases are kept: a process whose keeper is stuck loses every job it works on."""
        silent = self.keeper.silent_seconds
        if silent > KEEPER_SILENT_SECONDS:
            return probe(good=False, message=f"The keeper of leases is silent for {silent:.0f} seconds.")
        return probe(good=True, message="ok")

    def ready(self, _accept: str = "") -> Answer:
        """Whether jobs are taken."""
        if self.closing.is_set():
            return probe(good=False, message="draining")
        return probe(good=self.started.is_set(), message="ok" if self.started.is_set() else "starting")
