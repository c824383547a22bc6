"""How many workers there should be: a pure function of what was seen, the limits, and what is remembered.

    waiting = queued + due retries + expired leases + due maintenance
    slots   = running + min(waiting, ceil(waiting x service time / target wait))
    desired = clamp(ceil(slots / concurrency), min, max)

Up at once. Down never below the pods that hold live leases, only after the cooldown, and not during a
rollout, unless that has no room to go on. Whatever is not known to be true counts against removing a pod.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from downloadjobs_core.counts import FIRST_SERVICE_SECONDS
from downloadjobs_operator.autoscaler import wording

ROUNDING: Final = 1e-9
"""What a quotient may lie above a whole number before it counts as more: 0.3 / 0.1 is 3, not 4."""


class Mode(StrEnum):
    """What becomes of a decision."""

    SCALE = "Scale"
    RECOMMEND = "Recommend"
    """It is told, and nothing is patched."""


class Direction(StrEnum):
    """Where the number of pods goes."""

    UP = "up"
    DOWN = "down"
    NONE = "none"


class Reason(StrEnum):
    """What made the number what it is."""

    DEMAND = "Demand"
    """More slots are needed than there are."""
    DUE_RETRIES = "DueRetries"
    """The same, for retries alone that are due, or will be when a pod has started."""
    LESS_DEMAND = "LessDemand"
    """Fewer pods were enough for a whole cooldown."""
    IDLE = "Idle"
    """Nothing waits and nothing runs."""
    STEADY = "Steady"
    """There are as many pods as are needed."""
    AT_MAXIMUM = "AtMaximum"
    AT_MINIMUM = "AtMinimum"
    COOLDOWN_RUNNING = "CooldownRunning"
    """Fewer are needed now, but more were within the cooldown."""
    BUSY_PODS = "BusyPods"
    """Fewer are needed, but these pods work."""
    BUSY_NOT_READY = "BusyNotReady"
    """Fewer are needed, but a pod that is not ready works, and Kubernetes removes those before all others."""
    ROLLING_OUT = "RollingOut"
    """Fewer are needed, but pods are being replaced: which ones go is not ours to choose."""
    STALE_SIGNAL = "StaleSignal"
    """The queue was not seen for too long; nothing is changed on ignorance."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A worker's pod.

    Attributes:
        leases: live leases that its worker holds.
        created_at: by the same clock as `Snapshot.now`, in seconds.
        template: the hash of the template it was made of.
    """

    uid: str
    name: str
    ready: bool
    terminating: bool
    leases: int
    created_at: float
    template: str = ""

    @property
    def busy(self) -> bool:
        """Whether its end would interrupt a job; one that terminates is past saving."""
        return self.leases > 0 and not self.terminating


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was seen, at one moment. Suspended jobs are not in it: no worker could take them.

    Attributes:
        now: seconds since the epoch, by Redis' clock.
        running: live leases on pods that are not terminating, and those of workers that are no known pod.
        service_seconds: the running mean of what one job takes.
        replicas: the Deployment's `spec.replicas`.
        signal_age_seconds: since the counts were read.
        rolling_out: whether the Deployment replaces its pods.
        stalled: whether that gets no further: its new pods find no room, or its deadline has passed.
        next_due_at: when the next delayed retry is due, by the same clock as `now`; None without one.
        parked: jobs whose users run as many as they may. They are told, and count for nothing: no
            worker could take them.
    """

    now: float
    queued: int = 0
    due_retries: int = 0
    expired_leases: int = 0
    due_maintenance: int = 0
    running: int = 0
    service_seconds: float = FIRST_SERVICE_SECONDS
    pods: tuple[Pod, ...] = ()
    replicas: int = 0
    signal_age_seconds: float = 0.0
    rolling_out: bool = False
    stalled: bool = False
    next_due_at: float | None = None
    parked: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the installation wants.

    Attributes:
        concurrency: slots of one pod.
        target_wait_seconds: a full queue should be worked off in about this time.
        cooldown_seconds: pods go only if fewer were enough for so long. It never delays new ones.
        stale_seconds: older counts are not acted on.
        pod_start_seconds: a retry that is due within this time counts as due, so that a pod is there for it.
    """

    min: int = 0
    max: int = 10
    concurrency: int = 4
    target_wait_seconds: float = 60.0
    cooldown_seconds: float = 120.0
    stale_seconds: float = 15.0
    pod_start_seconds: float = 5.0
    mode: Mode = Mode.SCALE


@dataclass(frozen=True, slots=True)
class Memory:
    """What a decision must know of earlier ones: how many pods were needed within the cooldown.

    Attributes:
        last: what was needed last, and so until now; None before the first decision.
        window: larger needs before that, with the time they ended, the largest first.
    """

    last: int | None = None
    window: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Formula:
    """The steps from what was seen to the number of pods.

    Attributes:
        due_soon: 1 if the next retry is due before a pod could start, else 0.
        waiting: with `due_soon`.
        needed_slots: for what waits, beside those that run.
        highest: the most pods that were needed within the cooldown, now included.
        busy_pods: those that may not go.
        idle_pods: those that may.
    """

    due_soon: int
    waiting: int
    backlog_seconds: float
    needed_slots: int
    slots: int
    highest: int
    busy_pods: int
    idle_pods: int


@dataclass(frozen=True, slots=True)
class Decision:
    """How many pods there should be, and all that led there.

    Attributes:
        desired: what `spec.replicas` should be.
        raw: what the demand alone asks for, before any clamp.
        current: what `spec.replicas` is.
        clamps: what changed the number on its way from `raw` to `desired`, in that order.
        victims: uids of the idle pods to remove, the most suitable first: those that are not ready, then the
            youngest. In a rollout all idle pods, as any of them may be the one that goes. Empty unless the
            direction is down.
        wake_at: when to look again at the latest, by the clock of `Snapshot.now`; None if only news can
            change anything.
        cooldown_ends_at: when the need that keeps pods is forgotten; None if none does.
    """

    desired: int
    raw: int
    current: int
    direction: Direction
    reason: Reason
    clamps: tuple[Reason, ...]
    victims: tuple[str, ...]
    wake_at: float | None
    cooldown_ends_at: float | None
    formula: Formula
    snapshot: Snapshot
    limits: Limits

    @property
    def message(self) -> str:
        """The numbers in one sentence, for people."""
        return wording.sentence(self)


def decide(snapshot: Snapshot, limits: Limits, memory: Memory) -> tuple[Decision, Memory]:
    """Say how many pods there should be.

    Returns:
        The decision, and what the next one has to be given as its memory.
    """
    now, current = snapshot.now, snapshot.replicas
    alive = [pod for pod in snapshot.pods if not pod.terminating]
    idle = [pod for pod in alive if not pod.leases]
    busy = len(alive) - len(idle)
    due_soon = int(
        snapshot.next_due_at is not None and snapshot.next_due_at - limits.pod_start_seconds <= now
    )
    waiting = _waiting(snapshot) + due_soon
    backlog = waiting * snapshot.service_seconds
    needed = min(waiting, max(1, _ceil(backlog / limits.target_wait_seconds)))
    slots = snapshot.running + needed
    raw = -(-slots // limits.concurrency)

    stale = snapshot.signal_age_seconds > limits.stale_seconds
    # Blind, or just begun, what there is counts as needed: so the cooldown begins when it is seen again.
    need = max(current, memory.last or 0) if stale else raw
    window = _window(memory, now, limits.cooldown_seconds, current, need)
    highest = window[0][1] if window else need
    formula = Formula(due_soon, waiting, backlog, needed, slots, highest, busy, len(idle))

    if stale:
        desired, clamps = current, [Reason.STALE_SIGNAL]
    else:
        desired, clamps = _clamped(snapshot, limits, formula, raw)
    direction = Direction.UP if desired > current else Direction.DOWN if desired < current else Direction.NONE
    removed = len(idle) if snapshot.rolling_out else len(alive) - desired
    victims = _victims(idle, removed) if direction is Direction.DOWN else ()
    cooling = not stale and bool(window) and desired > max(limits.min, raw, busy)
    ends_at = window[0][0] + limits.cooldown_seconds if cooling else None
    decision = Decision(
        desired=desired,
        raw=raw,
        current=current,
        direction=direction,
        reason=clamps[-1] if clamps else _reason(snapshot, direction, raw, due_soon),
        clamps=tuple(clamps),
        victims=victims,
        wake_at=_wake_at(snapshot, limits, ends_at, due_soon),
        cooldown_ends_at=ends_at,
        formula=formula,
        snapshot=snapshot,
        limits=limits,
    )
    return decision, Memory(need, window)


def _waiting(snapshot: Snapshot) -> int:
    return snapshot.queued + snapshot.due_retries + snapshot.expired_leases + snapshot.due_maintenance


def _ceil(number: float) -> int:
    return math.ceil(number - ROUNDING)


def _window(
    memory: Memory, now: float, cooldown: float, current: int, need: int
) -> tuple[tuple[float, int], ...]:
    """The needs above the present one that the cooldown still remembers, the largest and oldest first.

    A need holds until the next decision, however late that is: so it ends now, not when it was seen. What is
    kept are larger needs than the last, so the last joins them at their end.
    """
    last = current if memory.last is None else memory.last
    kept: list[tuple[float, int]] = []
    for ended, value in (*memory.window, (now, last)):
        ended_at = min(ended, now)  # a clock that was set back must not keep pods for longer
        if value > need and now - ended_at < cooldown:
            kept.append((ended_at, value))
    return tuple(kept)


def _clamped(snapshot: Snapshot, limits: Limits, formula: Formula, raw: int) -> tuple[int, list[Reason]]:
    """The number of pods after all limits, and which of them changed it."""
    current, clamps = snapshot.replicas, list[Reason]()
    # A rollout has more pods than replicas for a while; they are no reason to ask for more.
    floor = min(formula.busy_pods, current) if snapshot.rolling_out else formula.busy_pods

    def bounded(number: int) -> int:
        return max(limits.min, min(number, limits.max))

    wanted = bounded(raw)
    if wanted != raw:
        clamps.append(Reason.AT_MAXIMUM if wanted < raw else Reason.AT_MINIMUM)
    if max(wanted, floor) < current:
        if snapshot.rolling_out:
            alive = [pod for pod in snapshot.pods if not pod.terminating]
            floor = max(floor, least_in_rollout(alive, {pod.uid for pod in alive if not pod.leases}))
            if not snapshot.stalled or floor >= current:
                return current, [*clamps, Reason.ROLLING_OUT]
        if any(pod.busy and not pod.ready for pod in snapshot.pods):
            return current, [*clamps, Reason.BUSY_NOT_READY]
        remembered = min(current, bounded(formula.highest))
        if remembered > wanted:
            wanted = remembered
            clamps.append(Reason.COOLDOWN_RUNNING)
    if floor > wanted:
        wanted = floor
        clamps.append(Reason.BUSY_PODS)
    return wanted, clamps


def least_in_rollout(alive: Iterable[Pod], removable: Collection[str]) -> int:
    """How far replicas may be lowered in a rollout, so that none but removable pods go.

    A Deployment splits what it removes among the ReplicaSets of its templates by their sizes, and each of
    these takes its own removable pods first. However it is split, no template is asked for more than all that
    is removed: so that must be no more than what each template with other pods has of removable ones.

    Args:
        alive: the pods that are to stay, of all templates.
        removable: uids of those that may go, and are the first to go.
    """
    there, may_go = Counter[str](), Counter[str]()
    for pod in alive:
        there[pod.template] += 1
        may_go[pod.template] += pod.uid in removable
    bounds = [may_go[template] for template, count in there.items() if may_go[template] < count]
    return there.total() - min(bounds, default=there.total())


def _reason(snapshot: Snapshot, direction: Direction, raw: int, due_soon: int) -> Reason:
    """Why, where nothing but the demand made the number."""
    if direction is Direction.UP:
        retries = snapshot.due_retries + due_soon
        return Reason.DUE_RETRIES if retries and retries == _waiting(snapshot) + due_soon else Reason.DEMAND
    if raw == 0:
        return Reason.IDLE
    return Reason.LESS_DEMAND if direction is Direction.DOWN else Reason.STEADY


def _victims(idle: list[Pod], count: int) -> tuple[str, ...]:
    """The idle pods to remove: in the order in which a ReplicaSet would choose among pods of equal cost."""
    ordered = sorted(idle, key=lambda pod: (pod.ready, -pod.created_at, pod.uid))
    return tuple(pod.uid for pod in ordered[: max(0, count)])


def _wake_at(
    snapshot: Snapshot, limits: Limits, cooldown_ends_at: float | None, due_soon: int
) -> float | None:
    """When time alone would change the decision."""
    moments = [] if cooldown_ends_at is None else [cooldown_ends_at]
    if snapshot.next_due_at is not None:
        ahead = 0.0 if due_soon else limits.pod_start_seconds
        moments.append(max(snapshot.now, snapshot.next_due_at - ahead))
    return min(moments, default=None)
