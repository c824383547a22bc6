"""What decides in a simulation: the autoscaler itself, and what it is compared with."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from downloadjobs_operator.autoscaler.decision import Decision, Limits, Memory, Snapshot, decide

POLL_SECONDS: Final = 5.0
"""The autoscaler's own polling; it is the net, as each job that comes wakes it."""

DRAIN_SECONDS: Final = 100.0
"""How long a worker that is told to stop goes on with its jobs, whoever tells it."""

HPA_SECONDS: Final = 15.0
"""`--horizontal-pod-autoscaler-sync-period`."""

HPA_TOLERANCE: Final = 0.1
"""`--horizontal-pod-autoscaler-tolerance`: nearer to the target nothing is changed."""

HPA_UP_PODS: Final = 4
"""By default an HPA adds in 15 s this many pods, or as many as there are, whichever is more."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a policy wants.

    Attributes:
        replicas: how many pods.
        victims: uids of those to remove; None to leave the choice to the ReplicaSet.
        look_at: when it looks again by itself.
    """

    replicas: int
    victims: tuple[str, ...] | None
    look_at: float


class Policy(Protocol):
    """Who says how many pods there are.

    Attributes:
        name: for tables.
        first: how many pods there are at the begin.
        woken: whether each job that comes wakes it.
        grace_seconds: how long a pod that is removed may go on with its jobs.
    """

    name: str
    first: int
    woken: bool
    grace_seconds: float

    def look(self, snapshot: Snapshot) -> Order:
        """Say what it wants now."""
        ...


class Ours:
    """The autoscaler of this project: the very function that the operator calls."""

    woken = True
    grace_seconds = DRAIN_SECONDS

    def __init__(self, limits: Limits, name: str = "downloadjobs") -> None:
        self.name = name
        self.first = limits.min
        self._limits = limits
        self._memory = Memory(last=limits.min)
        self.last: Decision | None = None

    def look(self, snapshot: Snapshot) -> Order:
        """Decide, and look again when the decision says so, or at the next poll."""
        decision, self._memory = decide(snapshot, self._limits, self._memory)
        self.last = decision
        look_at = snapshot.now + POLL_SECONDS
        if decision.wake_at is not None:
            look_at = min(look_at, max(decision.wake_at, snapshot.now + 0.001))
        return Order(decision.desired, decision.victims, look_at)


class Keda:
    """KEDA with its Redis list scaler, and the HPA that it makes, as their documentation says.

    KEDA looks every `pollingInterval`: a list that is not empty wakes the first pod, and one that was empty
    for `cooldownPeriod` sends all away. In between the HPA looks every 15 s: as many pods as the length of
    the list over `listLength`, at most doubled (or four more) each time. For fewer it takes the largest
    number of the last 300 s. Neither sees jobs that run, and the ReplicaSet removes the youngest pods.
    """

    woken = False

    def __init__(
        self,
        limits: Limits,
        *,
        list_length: int = 5,
        poll_seconds: float = 30.0,
        cooldown_seconds: float = 300.0,
        stabilization_seconds: float = 300.0,
        grace_seconds: float = DRAIN_SECONDS,
        name: str = "KEDA",
    ) -> None:
        self.name = name
        self.first = limits.min
        self.grace_seconds = grace_seconds
        self._limits = limits
        self._list_length = list_length
        self._poll = poll_seconds
        self._cooldown = cooldown_seconds
        self._stabilization = stabilization_seconds
        self._active_at = -math.inf
        # Not at the same moment: the two loops are in two processes.
        self._next_poll, self._next_hpa = 0.0, 7.0
        self._wanted: deque[tuple[float, int]] = deque()

    def look(self, snapshot: Snapshot) -> Order:
        """Do what is due: KEDA's poll, the HPA's round, or both."""
        now, replicas = snapshot.now, snapshot.replicas
        if now >= self._next_poll:
            self._next_poll = now + self._poll
            replicas = self._polled(now, snapshot.queued, replicas)
        if now >= self._next_hpa:
            self._next_hpa = now + HPA_SECONDS
            if replicas:
                replicas = self._scaled(now, snapshot.queued, replicas)
        return Order(replicas, None, min(self._next_poll, self._next_hpa))

    def _polled(self, now: float, length: int, replicas: int) -> int:
        if length:
            self._active_at = now
            return max(replicas, 1, self._limits.min)
        if not self._limits.min and now - self._active_at >= self._cooldown:
            self._wanted.clear()
            return 0
        return max(replicas, self._limits.min)

    def _scaled(self, now: float, length: int, replicas: int) -> int:
        wanted = math.ceil(length / self._list_length)
        if abs(length / (self._list_length * replicas) - 1) <= HPA_TOLERANCE:
            wanted = replicas
        self._wanted.append((now, wanted))
        while now - self._wanted[0][0] > self._stabilization:
            self._wanted.popleft()
        if wanted > replicas:
            wanted = min(wanted, max(2 * replicas, replicas + HPA_UP_PODS))
        else:
            wanted = min(replicas, max(number for _, number in self._wanted))
        return max(1, self._limits.min, min(wanted, self._limits.max))


class Fixed:
    """As many pods all the time."""

    woken = False
    grace_seconds = 0.0

    def __init__(self, pods: int, name: str | None = None) -> None:
        self.name = name or f"{pods} pods"
        self.first = pods

    def look(self, snapshot: Snapshot) -> Order:
        """Never again."""
        return Order(snapshot.replicas, None, math.inf)
