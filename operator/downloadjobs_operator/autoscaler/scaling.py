"""The autoscaler at work: looks, decides, and makes it true.

Each job that comes wakes it, and so does each change of the Deployment and its pods; looking every few
seconds is only the net. More pods are asked for at once. Fewer, by a removal that goes on beside it, and that
is given up as soon as more are needed. It changes nothing while it is blind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from downloadjobs_core import logs
from downloadjobs_core.counts import Counts
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.fences import FenceStore
from downloadjobs_core.leases import SECOND_US
from downloadjobs_operator.announcements import Announcement, event_about
from downloadjobs_operator.autoscaler.decision import (
    Decision,
    Direction,
    Limits,
    Memory,
    Mode,
    Pod,
    Reason,
    Snapshot,
    decide,
)
from downloadjobs_operator.autoscaler.history import History, Outcome, expected
from downloadjobs_operator.autoscaler.limits import LimitsFile
from downloadjobs_operator.autoscaler.removal import SETTLE_SECONDS, Removal, RemovalRefusedError
from downloadjobs_operator.autoscaler.workers import (
    DELETION_COST,
    VICTIMS_COST,
    Deployment,
    View,
    Workers,
    is_to_stay,
    pods_of,
    templates_of,
    without_room,
)
from downloadjobs_operator.kube_client import REQUEST_SECONDS, ConflictError, KubernetesError
from downloadjobs_operator.metrics import AutoscalerMetrics

POLL_SECONDS: Final = 5.0
"""Between two looks that nothing asks for."""

PAUSE_SECONDS: Final = 0.1
"""Between two looks at least: a thousand jobs a second wake it ten times."""

GATHER_SECONDS: Final = 0.02
"""From the first news to the look: jobs seldom come alone, and one patch shall do for all of them."""

READ_SECONDS: Final = 2.0
"""After which an answer of Redis is not waited for; it takes milliseconds."""

TRIES: Final = 5
"""Of a patch, whose Deployment changes as its pods do."""

FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 15.0

REFUSED_SECONDS: Final = 2.0
"""After a removal was refused: what refused it does not pass in an instant."""

RECOVER_SECONDS: Final = REQUEST_SECONDS + 1
"""After which no patch of an operator that was lost can come any more, but for a stuck API server's."""

HELD: Final = {
    Reason.STALE_SIGNAL: "stale",
    Reason.ROLLING_OUT: "rollout",
    Reason.BUSY_NOT_READY: "not-ready",
}
"""The reasons because of which nothing is changed, as the metric names them."""

UNREACHABLE: Final = "unreachable"
MISSING: Final = "missing"

log = logs.logger(__name__)


class Autoscaler:
    """Scales the workers' Deployment.

    Args:
        workers: changes it.
        view: makes what shows it, given what is to be called after each change.
        fences: the queue's side.
        limits: the settings: a file that is read again, or fixed ones.
        metrics: told of everything.
        exported: given the counts, for the queue's own metrics.
        instance: which of several operators this is, for Events.
        settle_seconds: see `removal`.
    """

    def __init__(
        self,
        *,
        workers: Workers,
        view: Callable[[Callable[[], None]], View],
        fences: FenceStore,
        limits: LimitsFile | Limits,
        metrics: AutoscalerMetrics,
        exported: Callable[[Counts], None],
        instance: str,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._workers = workers
        self._woken = asyncio.Event()
        self._view = view(self._woken.set)
        self._fences = fences
        self._limits = limits
        self._metrics = metrics
        self._exported = exported
        self._instance = instance
        self._settle_seconds = settle_seconds
        self.history = History()
        self._memory = Memory()
        self._counts: Counts | None = None
        self._holders: dict[str, int] = {}
        self._read_at: float | None = None
        self._reading: asyncio.Future[tuple[Counts, dict[str, int]]] | None = None
        self._asked_at = 0.0
        self._clock_ahead = 0.0
        self._removing: tuple[Removal, asyncio.Task[None]] | None = None
        self._began_at = time.monotonic()
        self._growing: tuple[float, int] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._no_removal_before = 0.0
        self._recommended: tuple[int, int] | None = None
        self._fault: str | None = None
        self._told = ""
        self._held: str | None = None
        self._concurrency_told: int | None = None
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=100)
        metrics.signal(self._signal_age)

    def wake(self) -> None:
        """Something changed in the queue."""
        self._woken.set()

    async def run(self) -> None:
        """Scale, until cancelled. Redis and the API server may come and go meanwhile."""
        self._began_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._view.run(), name="WorkersView")
            group.create_task(self._tell_events(), name="Events")
            group.create_task(self._recover(), name="recovery")
            try:
                await self._look_for_ever(group.create_task)
            finally:
                if self._removing is not None:
                    self._removing[1].cancel()
                if self._reading is not None:
                    self._reading.cancel()

    async def _look_for_ever(self, begin: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        while True:
            self._woken.clear()
            next_look = await self._look(begin)
            await asyncio.sleep(PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_look - PAUSE_SECONDS)):
                    await self._woken.wait()
                    await asyncio.sleep(GATHER_SECONDS)

    async def _look(self, begin: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> float:
        """Decide once, and act; in how many seconds to look again at the latest."""
        limits = self._current_limits()
        looked_at = time.monotonic()
        seen = await self._read()
        if not self._view.synced or (deployment := self._view.deployment) is None:
            self._hold(MISSING if self._view.missing else UNREACHABLE)
            return POLL_SECONDS
        self._compare_concurrency(deployment, limits)
        snapshot = self._snapshot(deployment, 0.0 if seen else self._blind_seconds())
        if not seen and snapshot.signal_age_seconds <= limits.stale_seconds:
            return FIRST_DELAY_SECONDS  # nothing new is known, and it is too early to call it old
        decision, self._memory = decide(snapshot, limits, self._memory)
        self._show(decision, limits)
        await self._act(decision, deployment, looked_at, begin)
        left = POLL_SECONDS
        if decision.wake_at is not None:
            left = min(left, max(0.0, decision.wake_at - snapshot.now))
        again = max(self._not_before, self._no_removal_before) - time.monotonic()
        return min(left, again) if again > 0 else left

    # What is seen.

    def _current_limits(self) -> Limits:
        if isinstance(self._limits, Limits):
            return self._limits
        self._limits.look()
        if self._limits.fault != self._fault:
            self._fault = self._limits.fault
            if self._fault:
                self._tell("SettingsRefused", f"The last good ones hold: {self._fault}", warning=True)
        return self._limits.limits

    def _blind_seconds(self) -> float:
        return time.monotonic() - (self._began_at if self._read_at is None else self._read_at)

    def _signal_age(self) -> float | None:
        return None if self._read_at is None else time.monotonic() - self._read_at

    async def _read(self) -> bool:
        """Read the queue; whether that was possible."""
        # A Redis that hangs must not make this hang: the question stays open, and is waited for again.
        if self._reading is None:
            self._asked_at = time.monotonic()
            self._reading = asyncio.ensure_future(
                asyncio.gather(self._fences.counts(), self._fences.holders())
            )
        reading = self._reading
        await asyncio.wait([reading], timeout=READ_SECONDS)
        if not reading.done():
            return False
        self._reading = None
        try:
            counts, holders = reading.result()
        except DownloadJobsError:
            return False  # whoever follows the queue's events says so in the log
        self._counts, self._holders, self._read_at = counts, holders, self._asked_at
        self._clock_ahead = counts.now_us / SECOND_US - time.time()
        self._exported(counts)
        return True

    def _snapshot(self, deployment: Deployment, age_seconds: float) -> Snapshot:
        counts, objects = self._counts, self._view.pods
        pods = pods_of(objects, self._holders)
        ending = {pod.uid for pod in pods if pod.terminating}
        now = time.time() + self._clock_ahead
        rolling_out = deployment.replacing or len(templates_of(objects)) > 1
        stalled = rolling_out and (deployment.stalled or without_room(objects))
        if counts is None:
            return Snapshot(
                now=now,
                pods=pods,
                replicas=deployment.replicas,
                signal_age_seconds=age_seconds,
                rolling_out=rolling_out,
                stalled=stalled,
            )
        return Snapshot(
            now=now,
            queued=counts.ready,
            due_retries=counts.due,
            expired_leases=counts.expired,
            due_maintenance=counts.maintenance,
            running=sum(leases for uid, leases in self._holders.items() if uid not in ending),
            service_seconds=counts.service_us / SECOND_US,
            pods=pods,
            replicas=deployment.replicas,
            signal_age_seconds=age_seconds,
            rolling_out=rolling_out,
            stalled=stalled,
            next_due_at=counts.next_due_us / SECOND_US if counts.next_due_us > counts.now_us else None,
            parked=counts.parked,
        )

    def _pods_now(self) -> tuple[Deployment | None, tuple[Pod, ...]]:
        return self._view.deployment, pods_of(self._view.pods, {})

    def _compare_concurrency(self, deployment: Deployment, limits: Limits) -> None:
        real = deployment.concurrency
        if real is not None and real not in {limits.concurrency, self._concurrency_told}:
            log.warning(
                "the workers have other slots than the autoscaler counts with: make them the same",
                workers=real,
                autoscaler=limits.concurrency,
            )
        self._concurrency_told = real

    # What is done.

    async def _act(
        self,
        decision: Decision,
        deployment: Deployment,
        looked_at: float,
        begin: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        if self._removing is not None:
            removal, task = self._removing
            if not removal.committed and decision.desired > removal.target:
                removal.give_up()
                task.cancel()
                await asyncio.wait([task])
                self._note(removal.decision, Outcome.REFUSED, error=f"given up: {decision.message}")
        if decision.direction is Direction.NONE or decision.limits.mode is Mode.RECOMMEND:
            self._note(decision)
            wanted = decision.current, decision.desired
            if decision.direction is not Direction.NONE and wanted != self._recommended:
                self._tell("ScaleRecommended", decision.message)
            self._recommended = wanted
            return
        if time.monotonic() < self._not_before:
            return
        if decision.direction is Direction.UP:
            await self._grow(decision, deployment, looked_at)
        elif self._removing is None and time.monotonic() >= self._no_removal_before:
            removal = Removal(
                decision,
                workers=self._workers,
                fences=self._fences,
                seen=self._pods_now,
                victim=lambda busy: self._metrics.victim(busy=busy),
                may=lambda: self._current_limits().mode is not Mode.RECOMMEND,
                settle_seconds=self._settle_seconds,
            )
            self._removing = removal, begin(self._shrink(removal, decision, looked_at))

    async def _grow(self, decision: Decision, deployment: Deployment, looked_at: float) -> None:
        try:
            changed = await self._patch(decision, deployment)
        except KubernetesError as error:
            self._failed(decision, str(error))
            return
        if not changed:
            self._note(decision, Outcome.REFUSED, error="the Deployment's replicas were changed meanwhile")
            return
        took = time.monotonic() - looked_at
        self._metrics.took("patch", took)
        ready = sum(pod.ready for pod in decision.snapshot.pods)
        self._growing = time.monotonic(), ready
        self._succeeded(decision, "ScaledUp", decision.message, took)

    async def _patch(self, decision: Decision, deployment: Deployment) -> bool:
        """Ask for more replicas; False if somebody else changed them."""
        for left in reversed(range(TRIES)):
            try:
                await self._workers.scale(deployment, decision.desired)
            except ConflictError:
                # Its status changes with each pod. What counts is that its replicas are still the same.
                deployment = await self._workers.deployment()
                if deployment.replicas != decision.current or not left:
                    return False
            else:
                return True
        return False

    async def _shrink(self, removal: Removal, decision: Decision, looked_at: float) -> None:
        """Remove pods; this goes on while the loop looks and decides."""
        try:
            try:
                reached = await removal.commit()
            except RemovalRefusedError as refused:
                self._note(decision, Outcome.REFUSED, error=str(refused))
                self._no_removal_before = time.monotonic() + REFUSED_SECONDS
                return
            except (KubernetesError, DownloadJobsError) as error:
                self._failed(decision, str(error))
                if not removal.committed:
                    return
            else:
                took = time.monotonic() - looked_at
                self._metrics.took("fence", took)
                message = decision.message
                if reached != decision.desired:
                    why = f"; {removal.spared}" if removal.spared else ""
                    message += f" {decision.current - reached} of them could be removed{why}."
                self._succeeded(replace(decision, desired=reached), "ScaledDown", message, took)
            await removal.follow()
            self._metrics.took("remove", time.monotonic() - looked_at)
        finally:
            self._removing = None
            self._woken.set()

    async def _recover(self) -> None:
        """Let pods free that an operator fenced which was lost meanwhile."""
        await asyncio.sleep(RECOVER_SECONDS)
        while True:
            deployment = self._view.deployment
            if self._removing is None and deployment is not None and deployment.settled:
                with suppress(DownloadJobsError):
                    left = await self._fences.fenced()
                    if self._removing is None:
                        await self._fences.unfence(left)
                        break
            await asyncio.sleep(1)
        for found in self._view.pods:
            cost = found["metadata"].get("annotations", {}).get(DELETION_COST)
            if cost == VICTIMS_COST and is_to_stay(found) and not self._removing:
                with suppress(KubernetesError):
                    await self._workers.price(pods_of([found], {})[0], None)

    # What is told.

    def _show(self, decision: Decision, limits: Limits) -> None:
        self._metrics.replicas(
            current=decision.current,
            raw=decision.raw,
            desired=decision.desired,
            minimum=limits.min,
            maximum=limits.max,
        )
        self._metrics.rollout(under_way=decision.snapshot.rolling_out)
        reason = HELD.get(decision.reason)
        if reason is None and self._view.blind_seconds > limits.stale_seconds:
            reason = UNREACHABLE
        self._hold(reason, decision.message)
        if self._growing is not None:
            since, before = self._growing
            if sum(pod.ready for pod in decision.snapshot.pods) > before:
                self._metrics.took("ready", time.monotonic() - since)
                self._growing = None

    def _hold(self, reason: str | None, message: str = "") -> None:
        self._metrics.held(reason)
        if reason == self._held:
            return
        if reason is None:
            log.info("scaling again", was=self._held)
        else:
            log.warning("not scaling", reason=reason, decision=message)
            if reason == HELD[Reason.STALE_SIGNAL]:
                self._tell("ScalingHeld", message, warning=True)
        self._held = reason

    def _note(self, decision: Decision, outcome: Outcome | None = None, *, error: str = "") -> None:
        if self.history.add(decision, outcome, error=error):
            self._metrics.decided(decision.direction.value, decision.reason.value)
            if error:
                log.info("scaling was refused", error=error, decision=decision.message)

    def _succeeded(self, decision: Decision, reason: str, message: str, took: float) -> None:
        self._failures, self._not_before = 0, 0.0
        self.history.add(decision, expected(decision), latency_seconds=took)
        self._metrics.decided(decision.direction.value, decision.reason.value)
        log.info(
            "scaled",
            current=decision.current,
            desired=decision.desired,
            reason=decision.reason.value,
            decision=message,
            seconds=round(took, 3),
        )
        self._told = ""
        self._tell(reason, message)

    def _failed(self, decision: Decision, error: str) -> None:
        self._failures += 1
        delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(10, self._failures - 1))
        self._not_before = time.monotonic() + delay
        if self.history.add(decision, Outcome.FAILED, error=error):
            self._metrics.decided(decision.direction.value, decision.reason.value)
            log.warning("scaling failed; it is tried again", error=error, decision=decision.message)
            self._tell("ScalingFailed", error, warning=True)

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """An Event on the Deployment; one that says what the last one said is left out."""
        deployment = self._view.deployment
        if deployment is None or (said := f"{reason} {message}") == self._told:
            return
        self._told = said
        now = time.time()
        told = Announcement(reason, message, warning=warning, occasion=f"{now:.6f}")
        with suppress(asyncio.QueueFull):
            self._events.put_nowait(event_about(deployment.regarding, told, now, self._instance))

    async def _tell_events(self) -> None:
        while True:
            event = await self._events.get()
            try:
                await self._workers.announce(event)
            except KubernetesError as error:
                log.warning("an Event could not be told", reason=event["reason"], error=str(error))
