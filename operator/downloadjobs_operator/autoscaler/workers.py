"""The workers as Kubernetes has them: their Deployment, its pods, and what little is changed of these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from downloadjobs_core import logs
from downloadjobs_operator.announcements import Regarding
from downloadjobs_operator.autoscaler.decision import Pod
from downloadjobs_operator.downloadjob import seconds_of
from downloadjobs_operator.kube_client import MERGE_PATCH, KubernetesClient, ObjectGoneError
from downloadjobs_operator.reflecting import Reflector

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
"""Pods with less go first, among those that are ready: KEP-2255."""

VICTIMS_COST: Final = "-2147483648"
"""The least there is."""

TEMPLATE_HASH: Final = "pod-template-hash"
"""The label by which a Deployment tells the pods of its templates apart."""

CONCURRENCY_VARIABLE: Final = "WORKER_CONCURRENCY"

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The workers' Deployment.

    Attributes:
        version: its resourceVersion.
        replicas: its `spec.replicas`.
        selector: of its pods' labels.
        observed: whether its controller has seen its last change.
        replacing: whether pods of an older template are there.
        stalled: whether its controller says that a rollout got no further within its deadline.
        settled: whether its controller has seen its last change, and there are just as many pods as it wants.
        concurrency: what its template gives the workers as their slots, where it says it.
    """

    namespace: str
    name: str
    uid: str
    version: str
    replicas: int
    selector: Mapping[str, str]
    observed: bool
    replacing: bool
    stalled: bool
    settled: bool
    concurrency: int | None

    @property
    def regarding(self) -> Regarding:
        """What its Events are about."""
        return Regarding("apps/v1", "Deployment", self.namespace, self.name, self.uid)

    @property
    def label_selector(self) -> str:
        """As a query has it."""
        return ",".join(f"{name}={value}" for name, value in sorted(self.selector.items()))


def deployment_of(found: Mapping[str, Any]) -> Deployment:
    """Out of the object (apps/v1)."""
    metadata, spec, status = found["metadata"], found["spec"], found.get("status", {})
    replicas = int(spec.get("replicas", 1))
    there = int(status.get("replicas", 0))
    observed = int(status.get("observedGeneration", 0)) >= int(metadata.get("generation", 0))
    return Deployment(
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        version=str(metadata["resourceVersion"]),
        replicas=replicas,
        selector=dict(spec["selector"].get("matchLabels", {})),
        observed=observed,
        replacing=int(status.get("updatedReplicas", 0)) < there,
        stalled=any(
            one["type"] == "Progressing" and one["status"] == "False" for one in status.get("conditions", [])
        ),
        settled=observed and there == replicas,
        concurrency=_concurrency(spec["template"]["spec"]),
    )


def _concurrency(template: Mapping[str, Any]) -> int | None:
    for container in template.get("containers", []):
        for variable in container.get("env", []):
            if variable.get("name") == CONCURRENCY_VARIABLE:
                with suppress(ValueError):
                    return int(variable.get("value", ""))
    return None


def pods_of(objects: Iterable[Mapping[str, Any]], leases: Mapping[str, int]) -> tuple[Pod, ...]:
    """Pods (core/v1) with the leases that their workers hold; those that have ended are left out."""
    return tuple(
        Pod(
            uid=found["metadata"]["uid"],
            name=found["metadata"]["name"],
            ready=_is_ready(found),
            terminating="deletionTimestamp" in found["metadata"],
            leases=leases.get(found["metadata"]["uid"], 0),
            created_at=seconds_of(found["metadata"].get("creationTimestamp")) or 0.0,
            template=_template(found),
        )
        for found in objects
        if not _has_ended(found)
    )


def is_to_stay(found: Mapping[str, Any]) -> bool:
    """Whether a pod (core/v1) neither terminates nor has ended."""
    return "deletionTimestamp" not in found["metadata"] and not _has_ended(found)


def templates_of(objects: Iterable[Mapping[str, Any]]) -> set[str]:
    """The hashes of the templates of pods that are to stay."""
    return {_template(found) for found in objects if is_to_stay(found)}


def without_room(objects: Iterable[Mapping[str, Any]]) -> bool:
    """Whether there is a pod that no node has room for, and that is to stay."""
    return any(
        one["type"] == "PodScheduled" and one["status"] == "False" and one.get("reason") == "Unschedulable"
        for found in objects
        if is_to_stay(found)
        for one in found.get("status", {}).get("conditions", [])
    )


def _has_ended(found: Mapping[str, Any]) -> bool:
    # The kubelet leaves a pod that it evicted as an object, and no Deployment removes it, nor any rollout.
    return found.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _template(found: Mapping[str, Any]) -> str:
    return str(found["metadata"].get("labels", {}).get(TEMPLATE_HASH, ""))


def _is_ready(found: Mapping[str, Any]) -> bool:
    conditions = found.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


class Workers(Protocol):
    """The workers in the cluster. Methods raise `KubernetesError`."""

    async def deployment(self) -> Deployment:
        """As it is now. Raises `ObjectGoneError`."""

    async def pods(self, deployment: Deployment) -> list[Mapping[str, Any]]:
        """Its pods as they are now."""

    async def scale(self, deployment: Deployment, replicas: int) -> None:
        """Change its replicas, if it is still as it was read.

        Raises:
            ConflictError: it was changed meanwhile.
        """

    async def price(self, pod: Pod, cost: str | None) -> bool:
        """Set the cost of a pod's deletion, or take it away; whether that pod is still there."""

    async def announce(self, event: Mapping[str, Any]) -> None:
        """Create an Event."""


class View(Protocol):
    """The workers as they were seen last."""

    @property
    def deployment(self) -> Deployment | None:
        """As it was seen last; None if it is not there, or was not looked for yet."""

    @property
    def pods(self) -> list[Mapping[str, Any]]:
        """Its pods, terminating ones too."""

    @property
    def synced(self) -> bool:
        """Whether all was seen at least once."""

    @property
    def missing(self) -> bool:
        """Whether the API server says that there is no such Deployment."""

    @property
    def blind_seconds(self) -> float:
        """For how long changes can have gone unseen."""

    async def run(self) -> None:
        """Follow, until cancelled."""


class KubernetesWorkers:
    """`Workers` by the API server."""

    def __init__(self, client: KubernetesClient, namespace: str, name: str) -> None:
        self.client = client
        self.name = name
        self.deployments_path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self.pods_path = f"/api/v1/namespaces/{namespace}/pods"

    async def deployment(self) -> Deployment:
        """As it is now. Raises `ObjectGoneError`."""
        return deployment_of(await self.client.request("GET", f"{self.deployments_path}/{self.name}"))

    async def pods(self, deployment: Deployment) -> list[Mapping[str, Any]]:
        """Its pods as they are now."""
        found = await self.client.list_objects(self.pods_path, label_selector=deployment.label_selector)
        return list(found["items"])

    async def scale(self, deployment: Deployment, replicas: int) -> None:
        """Change its replicas, if it is still as it was read. Raises `ConflictError`."""
        patch = {
            "metadata": {"resourceVersion": deployment.version},
            "spec": {"replicas": replicas},
        }
        path = f"{self.deployments_path}/{self.name}/scale"
        await self.client.request("PATCH", path, patch, MERGE_PATCH)

    async def price(self, pod: Pod, cost: str | None) -> bool:
        """Set the cost of a pod's deletion, or take it away; whether that pod is still there."""
        # Names of a ReplicaSet's pods are not used twice, all but certainly; the uid makes it certain.
        patch = {"metadata": {"uid": pod.uid, "annotations": {DELETION_COST: cost}}}
        try:
            await self.client.request("PATCH", f"{self.pods_path}/{pod.name}", patch, MERGE_PATCH)
        except ObjectGoneError:
            return False
        return True

    async def announce(self, event: Mapping[str, Any]) -> None:
        """Create an Event."""
        await self.client.announce(event)


class WorkersView:
    """`View` by watches.

    Args:
        workers: what is watched.
        changed: called after each change.
    """

    def __init__(self, workers: KubernetesWorkers, changed: Callable[[], None]) -> None:
        self._workers = workers
        self._changed = changed
        self._selector = ""
        self._selectors: asyncio.Queue[str] = asyncio.Queue()
        self._deployments = Reflector(
            workers.client,
            workers.deployments_path,
            field_selector=f"metadata.name={workers.name}",
            changed=self._deployment_changed,
        )
        self._pods: Reflector | None = None
        self._deployment: Deployment | None = None

    @property
    def deployment(self) -> Deployment | None:
        """As it was seen last; None if it is not there, or was not looked for yet."""
        return self._deployment

    @property
    def pods(self) -> list[Mapping[str, Any]]:
        """Its pods, as they were seen last."""
        return [] if self._pods is None else list(self._pods.objects.values())

    @property
    def synced(self) -> bool:
        """Whether all was seen at least once."""
        return self._deployments.synced and self._pods is not None and self._pods.synced

    @property
    def missing(self) -> bool:
        """Whether the API server says that there is no such Deployment."""
        return self._deployments.synced and self._deployment is None

    @property
    def blind_seconds(self) -> float:
        """For how long changes can have gone unseen."""
        pods = self._pods.blind_seconds if self._pods is not None else 0.0
        return max(self._deployments.blind_seconds, pods)

    async def run(self) -> None:
        """Follow both, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deployments.run(), name="Deployment")
            following: asyncio.Task[None] | None = None
            while True:
                # It cannot be changed; but the Deployment may be deleted, and come back with another.
                selector = await self._selectors.get()
                if following is not None:
                    following.cancel()
                self._pods = Reflector(
                    self._workers.client,
                    self._workers.pods_path,
                    label_selector=selector,
                    changed=self._changed,
                )
                following = group.create_task(self._pods.run(), name="pods")

    def _deployment_changed(self) -> None:
        found = next(iter(self._deployments.objects.values()), None)
        self._deployment = None if found is None else deployment_of(found)
        if self._deployment is not None and self._deployment.label_selector != self._selector:
            self._selector = self._deployment.label_selector
            self._selectors.put_nowait(self._selector)
        self._changed()
