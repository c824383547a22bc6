"""Removes idle pods, and none that works: the protocol of scaling in.

Kubernetes chooses which pods go when a Deployment gets smaller, and asks nobody. So the choice is made first,
and no victim can begin a job until it is gone:

1. The victims, and every pod that is not ready, are fenced in Redis, each only if it holds no lease. From
   then on they get none, for the pop asks for the fence in its own script.
2. The victims get the least deletion cost there is. A ReplicaSet removes pods that are not ready first, then
   those of the least cost; so it takes only fenced ones.
3. Some time passes, in which its controller sees that. (That it can be read back proves nothing.)
4. All is looked at again. If it is still so, the fences are renewed for longer than any request can last, and
   the Deployment is patched, if it is still as it was read.
5. The fences are renewed until the victims terminate. Whatever survives is let free.

In a rollout the Deployment chooses, too, of which template pods go, and so all idle pods of all templates are
victims; as many go as whichever it chooses are idle. The others are let free as soon as it has done so.

Before the patch it can be given up at any time. After it nothing is undone; if the process dies, the fences
run out by themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.fences import FenceStore
from downloadjobs_operator.autoscaler.decision import Decision, Pod, least_in_rollout
from downloadjobs_operator.autoscaler.workers import (
    VICTIMS_COST,
    Deployment,
    Workers,
    pods_of,
    templates_of,
)
from downloadjobs_operator.kube_client import ConflictError, KubernetesError, KubernetesUnavailableError

FENCE_SECONDS: Final = 90.0
"""Longer than a patch can be under way: an API server gives up a request after 60 s (--request-timeout)."""

RENEW_SECONDS: Final = 10.0

UNKNOWN_SECONDS: Final = 70.0
"""For so long a patch that was not answered may still be done."""

SETTLE_SECONDS: Final = 3.0
"""In which a controller sees a change of a pod: its watch is behind by milliseconds, rarely by a second."""

LOOK_SECONDS: Final = 0.25

LONGEST_SECONDS: Final = 600.0
"""After which pods that still do not go are let free: their Deployment's controller is not at work."""

log = logs.logger(__name__)


class RemovalRefusedError(Exception):
    """No pod can be removed now without a risk for one that works; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The Deployment and its pods at one moment."""

    deployment: Deployment
    alive: tuple[Pod, ...]

    def of(self, uids: Collection[str]) -> list[Pod]:
        """The pods with these uids that are still to stay."""
        return [pod for pod in self.alive if pod.uid in uids]


class Removal:
    """One scale-in.

    Args:
        decision: says how many pods there should be, and which may go.
        workers: the cluster.
        fences: the queue's side.
        seen: what the watches show of the Deployment and its pods, terminating ones too.
        victim: told of each pod that went because of this, and whether it worked.
        may: whether pods may be removed at all, which is asked again before the patch.
        settle_seconds: see `SETTLE_SECONDS`.

    Attributes:
        decision: as given.
        target: the replicas that it makes, at least.
        spared: why fewer pods go than the decision wants, for people; empty where no pod is the reason.
        committed: whether the patch may have been sent: then it must not be cancelled any more.
    """

    def __init__(
        self,
        decision: Decision,
        *,
        workers: Workers,
        fences: FenceStore,
        seen: Callable[[], tuple[Deployment | None, tuple[Pod, ...]]],
        victim: Callable[[bool], None],
        may: Callable[[], bool],
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self.decision = decision
        self._workers = workers
        self._fences = fences
        self._seen = seen
        self._victim = victim
        self._may = may
        self._settle_seconds = settle_seconds
        self._fenced: set[str] = set()
        self._priced: dict[str, Pod] = {}
        self._before: set[str] = set()
        self.target = decision.desired
        self.spared = ""
        self.committed = False
        self._given_up = False

    def give_up(self) -> None:
        """Send no patch any more. Its task is to be cancelled too, but a library may swallow that."""
        self._given_up = True

    async def commit(self) -> int:
        """All until the patch; the replicas that were asked for.

        Raises:
            RemovalRefusedError: a pod took a job first, the Deployment changed, or it may not any more. All
                fences are gone again.
            KubernetesError, DownloadJobsError: a server failed. The same as far as it could be; unless it is
                `committed`: then the patch may have been done, and must be followed.
        """
        try:
            before = await self._look()
            alive = len(before.alive)
            victims = before.of(self.decision.victims)
            if not self._in_rollout:
                victims = victims[: max(0, alive - self.decision.desired)]
            chosen = len(victims)
            victims = await self._fence(victims, before)
            self.spared = self._why_spared(before, took=chosen - len(victims))
            self._still_wanted()
            self.target = max(self.decision.desired, self._least(before, victims))
            self._check_target(before)
            await self._price(victims)
            await asyncio.sleep(self._settle_seconds)
            self._still_wanted()
            deployment = await self._check(victims, before)
            self._still_wanted()
            await self._patch(deployment)
        except BaseException:
            if not self.committed:
                await asyncio.shield(self._let_free(self._fenced))
            raise
        return self.target

    async def follow(self) -> None:
        """Keep the fences until the victims terminate; then let free what survives."""
        went: dict[str, bool | None] = {}
        began = renewed = time.monotonic()
        settled_since: float | None = None
        while time.monotonic() - began < LONGEST_SECONDS:
            deployment, pods = self._seen()
            staying = {pod.uid for pod in pods if not pod.terminating}
            gone = self._before - staying - went.keys()
            if gone:
                went |= await self._worked(gone)
            if not self._priced.keys() - went.keys():
                break
            # A rollout comes to rest much later; its controller removes what is too much in the same go.
            if deployment is None or not (deployment.observed if self._in_rollout else deployment.settled):
                settled_since = None
            elif settled_since is None:
                settled_since = time.monotonic()
            elif time.monotonic() - settled_since > self._settle_seconds:
                break  # there are as many pods as are wanted, and so none of them will go
            if time.monotonic() - renewed > RENEW_SECONDS:
                renewed = time.monotonic()
                with suppress(DownloadJobsError):
                    await self._fences.fence(sorted(self._fenced - went.keys()), seconds=FENCE_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)
        self._count(went)
        await self._let_free(self._fenced - went.keys())

    @property
    def _in_rollout(self) -> bool:
        return self.decision.snapshot.rolling_out

    def _least(self, seen: Seen, victims: list[Pod]) -> int:
        """How many replicas there must be, so that only fenced pods go."""
        if self._in_rollout:
            return least_in_rollout(seen.alive, {pod.uid for pod in victims})
        return len(seen.alive) - len(victims)

    def _why_spared(self, seen: Seen, *, took: int) -> str:
        known = {pod.uid for pod in self.decision.snapshot.pods}
        new = sum(pod.uid not in known for pod in seen.alive)
        if took and new:
            return f"{took:,} took jobs, and {new:,} had only just come"
        if new:
            return "the others had only just come"
        return "the others took jobs" if took else ""

    def _check_target(self, before: Seen) -> None:
        if self.target >= before.deployment.replicas:
            raise RemovalRefusedError("every pod that could go took a job first")

    def _still_wanted(self) -> None:
        if self._given_up:
            raise RemovalRefusedError("more pods are needed again")
        if not self._may():
            raise RemovalRefusedError("the mode became Recommend")

    async def _look(self) -> Seen:
        deployment = await self._workers.deployment()
        found = await self._workers.pods(deployment)
        if not deployment.observed:
            raise RemovalRefusedError("the Deployment's controller has yet to see its last change")
        if not self._in_rollout and (deployment.replacing or len(templates_of(found)) > 1):
            raise RemovalRefusedError("a rollout has begun")
        if deployment.replicas != self.decision.current:
            raise RemovalRefusedError(f"the Deployment's replicas were changed to {deployment.replicas}")
        return Seen(deployment, tuple(pod for pod in pods_of(found, {}) if not pod.terminating))

    async def _fence(self, victims: list[Pod], seen: Seen) -> list[Pod]:
        """Fence the victims, and all pods that would go before them; the victims that are fenced."""
        unready = {pod.uid for pod in seen.alive if not pod.ready}
        wanted = [*(pod.uid for pod in victims), *sorted(unready - {pod.uid for pod in victims})]
        self._fenced = set(wanted)  # also of a call that fails: it may have been done
        fenced = set(await self._fences.fence(wanted, seconds=FENCE_SECONDS))
        self._fenced = fenced
        if unready - fenced:
            raise RemovalRefusedError("a pod that is not ready works, and would be the first to go")
        return [pod for pod in victims if pod.uid in fenced]

    async def _price(self, victims: list[Pod]) -> None:
        self._priced = {pod.uid: pod for pod in victims}
        await asyncio.gather(*(self._workers.price(pod, VICTIMS_COST) for pod in victims))

    async def _check(self, victims: list[Pod], before: Seen) -> Deployment:
        """Look again, and renew the fences. Raises `RemovalRefusedError`."""
        after = await self._look()
        staying = after.of({pod.uid for pod in victims})
        if len(after.alive) - len(staying) != len(before.alive) - len(victims):
            raise RemovalRefusedError("pods came or went meanwhile")
        # One victim less is one pod less all the same.
        risky = [pod.name for pod in after.alive if not pod.ready and pod.uid not in self._fenced]
        if risky:
            raise RemovalRefusedError(
                f"{', '.join(sorted(risky))} is not ready, and would be the first to go"
            )
        if self._in_rollout and self._least(after, staying) > self.target:
            raise RemovalRefusedError("the rollout went on meanwhile")
        held = self._fenced & {pod.uid for pod in after.alive}
        self._before = {pod.uid for pod in after.alive}
        self._priced = {pod.uid: pod for pod in staying}
        lost = held - set(await self._fences.fence(sorted(held), seconds=FENCE_SECONDS))
        if lost:
            raise RemovalRefusedError("a pod took a job after its fence was lost")
        return after.deployment

    async def _patch(self, deployment: Deployment) -> None:
        self.committed = True
        try:
            await self._workers.scale(deployment, self.target)
        except ConflictError as error:
            self.committed = False
            raise RemovalRefusedError("the Deployment was changed meanwhile") from error
        except KubernetesUnavailableError:
            self._settle_seconds = max(self._settle_seconds, UNKNOWN_SECONDS)
            raise
        except KubernetesError:
            self.committed = False
            raise

    async def _worked(self, uids: set[str]) -> dict[str, bool | None]:
        """Whether these hold leases; None if it cannot be told."""
        try:
            holders = await self._fences.holders()
        except DownloadJobsError:
            # A fenced one cannot have.
            return {uid: False if uid in self._fenced else None for uid in uids}
        return {uid: holders.get(uid, 0) > 0 for uid in uids}

    def _count(self, went: dict[str, bool | None]) -> None:
        """Tell of the pods that went because of this: the victims, and others that went in their place.

        Not every pod that goes meanwhile is ours: a node may be drained. But as many as victims survive are.
        """
        ours = [uid for uid in self._priced if uid in went]
        expected = min(len(self._priced), len(self._before) - self.target)
        instead = max(0, expected - len(ours))
        others = [uid for uid in went if uid not in self._priced]
        others.sort(key=lambda uid: not went[uid])
        for uid in [*ours, *others[:instead]]:
            if went[uid]:
                log.error("a pod that worked was removed", pod_uid=uid)
            self._victim(bool(went[uid]))

    async def _let_free(self, uids: Collection[str]) -> None:
        """Take fences and costs away again. What fails here runs out by itself, or does no harm."""
        with suppress(DownloadJobsError):
            await self._fences.unfence(sorted(uids))
        survivors = [pod for uid, pod in self._priced.items() if uid in uids]
        for result in await asyncio.gather(
            *(self._workers.price(pod, None) for pod in survivors), return_exceptions=True
        ):
            if isinstance(result, KubernetesError):
                log.warning("a pod's deletion cost could not be taken away", error=str(result))
