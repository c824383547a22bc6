"""A Deployment and its pods in memory, whose controller removes pods in the order of a real one.

That order is the ReplicaSet controller's (k8s.io/kubernetes pkg/controller, ActivePodsWithRanks): pods that
are not ready first, then those of the least deletion cost, then the youngest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from prometheus_client import CollectorRegistry

from downloadjobs_core.counts import Counts
from downloadjobs_core.fences import FenceStore
from downloadjobs_core.job import Job, NewJob
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect, connect_async
from downloadjobs_core.states import JobState
from downloadjobs_operator.autoscaler.decision import Limits, Pod
from downloadjobs_operator.autoscaler.scaling import Autoscaler
from downloadjobs_operator.autoscaler.workers import (
    DELETION_COST,
    TEMPLATE_HASH,
    Deployment,
    View,
    deployment_of,
    is_to_stay,
)
from downloadjobs_operator.downloadjob import moment_of
from downloadjobs_operator.kube_client import ConflictError
from downloadjobs_operator.metrics import AutoscalerMetrics
from support_operator import NOW, at_work

SETTLE_SECONDS = 0.2

Object = dict[str, Any]


class InMemoryWorkers:
    """`Workers` and `View` in one.

    Attributes:
        pods_there: by uid; terminating ones stay.
        scaled: the replicas of each patch.
        fault: raised by the next calls of methods with this name.
        controlled: whether the Deployment's controller is at work.
        at_once: whether it is quicker than anybody can see; else it takes a moment.
        before: called before each method with this name does its work.
        takes_from: the template whose pods it removes first; it may choose any.
    """

    def __init__(self, replicas: int = 0) -> None:
        self.replicas = replicas
        self.version = 1
        self.pods_there: dict[str, Object] = {}
        self.scaled: list[int] = []
        self.events: list[Object] = []
        self.fault: dict[str, Exception] = {}
        self.before: dict[str, Callable[[], None]] = {}
        self.controlled = True
        self.at_once = False
        self.takes_from = ""
        self.synced = True
        self.changed: Callable[[], None] = lambda: None
        self.control()

    # Workers.

    async def deployment(self) -> Deployment:
        self._called("deployment")
        return deployment_of(self._object())

    async def pods(self, deployment: Deployment) -> list[Mapping[str, Any]]:
        assert deployment.label_selector == "app=worker"
        self._called("pods")
        return list(self.pods_there.values())

    async def scale(self, deployment: Deployment, replicas: int) -> None:
        self._called("scale")
        if deployment.version != str(self.version):
            raise ConflictError("the object has been modified")
        self.replicas = replicas
        self.scaled.append(replicas)
        self.touch()
        if self.at_once:
            self.control()
        else:
            asyncio.get_running_loop().call_later(0.05, self.control)

    async def price(self, pod: Pod, cost: str | None) -> bool:
        self._called("price")
        found = self.pods_there.get(pod.uid)
        if found is None:
            return False
        annotations = found["metadata"]["annotations"]
        if cost is None:
            annotations.pop(DELETION_COST, None)
        else:
            annotations[DELETION_COST] = cost
        return True

    async def announce(self, event: Mapping[str, Any]) -> None:
        self._called("announce")
        self.events.append(dict(event))

    # What happens in the cluster.

    def touch(self) -> None:
        """The Deployment changes, be it its status alone."""
        self.version += 1
        self.changed()

    def control(self) -> None:
        """The controllers see all that was changed, and make it true."""
        if not self.controlled:
            return
        while len(self.alive()) < self.replicas:
            self.add()
        surplus = len(self.alive()) - self.replicas
        ordered = sorted(self.alive(), key=lambda uid: self._rank(self.pods_there[uid]))
        for uid in ordered[: max(0, surplus)]:
            self.terminate(uid)
        self.touch()

    def add(self, *, ready: bool = True, template: str = "t1", room: bool = True) -> str:
        """A pod comes, for which there may be no room; its uid."""
        uid = f"pod-{len(self.pods_there)}"
        self.pods_there[uid] = {
            "metadata": {
                "uid": uid,
                "name": f"worker-{uid}",
                "creationTimestamp": moment_of(NOW + len(self.pods_there)),
                "labels": {TEMPLATE_HASH: template},
                "annotations": {},
            },
            "status": {"phase": "Running", "conditions": []},
        }
        self.ready(uid, ready=ready and room)
        if not room:
            self.pods_there[uid]["status"]["conditions"].append(
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            )
            self.changed()
        return uid

    def ready(self, uid: str, *, ready: bool) -> None:
        """A pod becomes ready, or ceases to be."""
        status = "True" if ready else "False"
        self.pods_there[uid]["status"]["conditions"] = [{"type": "Ready", "status": status}]
        self.changed()

    def terminate(self, uid: str) -> None:
        """A pod is told to end."""
        self.pods_there[uid]["metadata"]["deletionTimestamp"] = moment_of(NOW)
        self.changed()

    def evict(self, uid: str) -> None:
        """The kubelet ends a pod, which stays as an object."""
        self.pods_there[uid]["status"]["phase"] = "Failed"
        self.ready(uid, ready=False)

    def alive(self) -> list[str]:
        """The pods that are to stay."""
        return [uid for uid, pod in self.pods_there.items() if is_to_stay(pod)]

    def gone(self) -> set[str]:
        """Those that were told to end, or were evicted."""
        return set(self.pods_there) - set(self.alive())

    def reasons(self) -> list[str]:
        """Of the Events."""
        return [event["reason"] for event in self.events]

    def _rank(self, pod: Object) -> tuple[bool, bool, int, str]:
        later = pod["metadata"]["labels"][TEMPLATE_HASH] != self.takes_from
        ready = pod["status"]["conditions"][0]["status"] == "True"
        cost = int(pod["metadata"]["annotations"].get(DELETION_COST, 0))
        # The youngest first: times of this form sort as texts.
        return (
            later,
            ready,
            cost,
            "".join(chr(255 - ord(one)) for one in pod["metadata"]["creationTimestamp"]),
        )

    def _called(self, method: str) -> None:
        if (before := self.before.get(method)) is not None:
            before()
        if (fault := self.fault.get(method)) is not None:
            raise fault

    def _object(self) -> Object:
        alive = len(self.alive())
        return {
            "metadata": {
                "namespace": "team",
                "name": "worker",
                "uid": "deployment",
                "resourceVersion": str(self.version),
                "generation": 1,
            },
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": "worker"}},
                "template": {"spec": {"containers": []}},
            },
            "status": {"observedGeneration": 1, "replicas": alive, "updatedReplicas": alive},
        }


@dataclass
class InMemoryView:
    """What the watches show: all, at once."""

    workers: InMemoryWorkers
    missing: bool = False
    blind_seconds: float = 0.0

    @property
    def synced(self) -> bool:
        return self.workers.synced

    @property
    def deployment(self) -> Deployment | None:
        return deployment_of(self.workers._object())

    @property
    def pods(self) -> list[Mapping[str, Any]]:
        return list(self.workers.pods_there.values())

    async def run(self) -> None:
        await asyncio.Event().wait()


@dataclass
class Scene:
    """An autoscaler at work, its queue, and its workers."""

    autoscaler: Autoscaler
    workers: InMemoryWorkers
    leases: LeaseStore
    registry: CollectorRegistry
    counts: list[Counts] = field(default_factory=list)

    def submit(self, number: int = 1) -> None:
        """So many jobs come, each of a user of its own, and the stream tells it."""
        for _ in range(number):
            name = f"job-{self.leases.redis.incr('number')}"
            self.leases.submit(
                NewJob(job_id=name, user=name, file_ids=(10_000,), total_file_ids=1, max_attempts=3)
            )
        self.autoscaler.wake()

    def take(self, uid: str) -> Job | None:
        """A pod's worker asks for a job."""
        values = self.leases.pop(uid, holder=uid)
        return None if values is None else Job.from_hash(values)

    def end(self, job: Job) -> None:
        """A job is done."""
        self.leases.finish(job, Outcome(JobState.COMPLETED, result_key="k", result_bytes=1))
        self.autoscaler.wake()

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value; 0 if there is none."""
        return self.registry.get_sample_value(f"downloadjobs_autoscaler_{name}", labels) or 0.0

    def outcomes(self) -> list[str]:
        """Of its last decisions, the oldest first."""
        return [item["outcome"] for item in reversed(self.autoscaler.history.document()["items"])]


@asynccontextmanager
async def scaling(
    url: str,
    workers: InMemoryWorkers,
    limits: Limits,
    *,
    fences: type[FenceStore] = FenceStore,
    settle_seconds: float = SETTLE_SECONDS,
    running: bool = True,
) -> AsyncIterator[Scene]:
    """An autoscaler over the Redis at this address."""
    redis = connect_async(RedisConfig(url), max_connections=8)
    leases = LeaseStore(connect(RedisConfig(url)), QueuePolicy())
    registry = CollectorRegistry()
    counts: list[Counts] = []

    def view(changed: Callable[[], None]) -> View:
        workers.changed = changed
        return cast("View", InMemoryView(workers))

    autoscaler = Autoscaler(
        workers=workers,
        view=view,
        fences=fences(redis),
        limits=limits,
        metrics=AutoscalerMetrics(registry),
        exported=counts.append,
        instance="operator-1",
        settle_seconds=settle_seconds,
    )
    scene = Scene(autoscaler, workers, leases, registry, counts)
    try:
        async with at_work(*([autoscaler.run] if running else [])):
            yield scene
    finally:
        await redis.aclose()
        leases.redis.close()
