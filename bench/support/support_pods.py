"""Workers as processes for the pods of a Deployment, on a control plane without nodes and ReplicaSets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from downloadjobs_cli.children import Child
from downloadjobs_cli.embedded import LOOPBACK, free_ports
from downloadjobs_operator.autoscaler.workers import DELETION_COST
from support_operator_process import Site

WORKER: Final = "downloadjobs-worker"
CONCURRENCY: Final = 4

LABELS: Final = {"app": WORKER}
TEMPLATE: Final = {
    "metadata": {"labels": LABELS},
    "spec": {"containers": [{"name": "worker", "image": "registry.invalid/worker"}]},
}

RUNNING: Final = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}


@dataclass
class Pod:
    """A pod, and the process that is its container."""

    child: Child
    environment: dict[str, str]
    port: int
    ready: bool = False


@dataclass
class Pods:
    """What a ReplicaSet's controller and a kubelet would do. Call `step` often, from the main thread."""

    site: Site
    pods: dict[str, Pod] = field(default_factory=dict)
    ending: list[Child] = field(default_factory=list)

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.site.namespace}/pods"

    @property
    def _deployments(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.site.namespace}/deployments"

    def deploy(self) -> None:
        """Create the Deployment, with no replicas."""
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": WORKER},
            "spec": {"replicas": 0, "selector": {"matchLabels": LABELS}, "template": TEMPLATE},
        }
        self.site.kube.ask("POST", self._deployments, body)

    def step(self) -> None:
        """Make the pods as many as is wanted, and processes of them; tell which have become ready."""
        deployment = self.site.kube.ask("GET", f"{self._deployments}/{WORKER}")
        found = self.site.kube.ask("GET", f"{self._path}?labelSelector=app%3D{WORKER}")
        assert deployment is not None
        assert found is not None
        there = {str(one["metadata"]["name"]): one for one in found["items"]}
        self._replicate(int(deployment["spec"]["replicas"]), there)
        for name in [name for name in self.pods if name not in there]:
            pod = self.pods.pop(name)
            pod.child.ask_to_end()
            self.ending.append(pod.child)
        for name, one in there.items():
            pod = self.pods.get(name) or self._begin(name, one)
            if pod.child.exit_code is not None:
                pod.child.start(pod.environment)
            if not pod.ready and self._works(pod):
                pod.ready = True
                self._patch(f"{self._path}/{name}/status", RUNNING)
        status = {
            "replicas": len(there),
            "updatedReplicas": len(there),
            "readyReplicas": sum(pod.ready for pod in self.pods.values()),
            "observedGeneration": deployment["metadata"]["generation"],
        }
        if any(deployment.get("status", {}).get(name, 0) != number for name, number in status.items()):
            self._patch(f"{self._deployments}/{WORKER}/status", {"status": status})

    def _replicate(self, replicas: int, there: dict[str, dict[str, Any]]) -> None:
        for _ in range(replicas - len(there)):
            metadata = {"generateName": f"{WORKER}-", "labels": {**LABELS, "pod-template-hash": "first"}}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": TEMPLATE["spec"]}
            made = self.site.kube.ask("POST", self._path, body)
            assert made is not None
            there[str(made["metadata"]["name"])] = made

        def order(name: str) -> tuple[bool, int]:  # in which a ReplicaSet lets pods go
            cost = there[name]["metadata"].get("annotations", {}).get(DELETION_COST, "0")
            return name in self.pods and self.pods[name].ready, int(cost)

        for name in sorted(there, key=order)[: max(0, len(there) - replicas)]:
            self.site.kube.ask("DELETE", f"{self._path}/{name}")
            del there[name]

    def _patch(self, path: str, body: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/merge-patch+json"}
        self.site.kube.client.patch(path, content=json.dumps(body), headers=headers)

    def _begin(self, name: str, one: dict[str, Any]) -> Pod:
        (port,) = free_ports(1)
        environment = {
            **self.site.system.environment(),
            "POD_UID": str(one["metadata"]["uid"]),
            "POD_NAMESPACE": self.site.namespace,
            "WORKER_NAME": name,
            "WORKER_CONCURRENCY": str(CONCURRENCY),
            "METRICS_PORT": str(port),
        }
        child = Child(name, "downloadjobs_worker", self.site.system.folder)
        child.start(environment)
        self.pods[name] = Pod(child, environment, port)
        return self.pods[name]

    def _works(self, pod: Pod) -> bool:
        try:
            return httpx.get(f"http://{LOOPBACK}:{pod.port}/readyz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """End every process."""
        for child in [*self.ending, *(pod.child for pod in self.pods.values())]:
            child.kill()
