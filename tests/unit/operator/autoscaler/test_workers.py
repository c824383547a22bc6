"""The Deployment and its pods, out of what the API server says of them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from downloadjobs_operator.autoscaler.decision import Pod
from downloadjobs_operator.autoscaler.workers import (
    DELETION_COST,
    KubernetesWorkers,
    deployment_of,
    pods_of,
    templates_of,
    without_room,
)
from downloadjobs_operator.kube_client import KubernetesClient, ObjectGoneError


def deployment(
    *, replicas: int | None = 3, env: list[dict[str, Any]] | None = None, generation: int = 2, **status: int
) -> dict[str, Any]:
    """A Deployment as the API server gives it; one that has come to rest."""
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"b": "2", "a": "1"}},
        "template": {"spec": {"containers": [{"env": env or []}]}},
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "metadata": {
            "namespace": "team", "name": "worker", "uid": "u", "resourceVersion": "7",
            "generation": generation,
        },
        "spec": spec,
        "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, **status},
    }  # fmt: skip


def pod(
    name: str = "one", *, ready: bool = True, phase: str = "Running", **metadata: object
) -> dict[str, Any]:
    """A pod as the API server gives it."""
    return {
        "metadata": {
            "uid": f"uid-of-{name}",
            "name": name,
            "creationTimestamp": "2026-11-24T10:00:00Z",
            "labels": {"pod-template-hash": "t1"},
            **metadata,
        },
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def test_a_deployment_at_rest() -> None:
    """One whose controller has seen all, and made it true, is settled and replaces nothing."""
    found = deployment_of(deployment())
    assert (found.replicas, found.observed, found.replacing, found.settled) == (3, True, False, True)
    assert found.label_selector == "a=1,b=2"


def test_replicas_are_one_by_default() -> None:
    """As the API server's own default is."""
    assert deployment_of(deployment(replicas=None)).replicas == 1


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (deployment(generation=3), (False, False, False)),
        (deployment(updatedReplicas=1), (True, True, True)),
        (deployment(replicas=2), (True, False, False)),
        (deployment(replicas=4), (True, False, False)),
    ],
)
def test_a_deployment_in_motion(found: dict[str, Any], wanted: tuple[bool, ...]) -> None:
    """A change unseen, pods of an older template, and pods too many or too few are told apart."""
    seen = deployment_of(found)
    assert (seen.observed, seen.replacing, seen.settled) == wanted


@pytest.mark.parametrize(
    ("env", "slots"),
    [
        ([{"name": "WORKER_CONCURRENCY", "value": "4"}], 4),
        ([{"name": "WORKER_CONCURRENCY", "valueFrom": {"configMapKeyRef": {}}}], None),
        ([{"name": "WORKER_CONCURRENCY", "value": "many"}], None),
        ([], None),
    ],
)
def test_the_template_tells_the_slots(env: list[dict[str, Any]], slots: int | None) -> None:
    """How many slots a worker has stands in its template, where it does."""
    assert deployment_of(deployment(env=env)).concurrency == slots


def test_a_pod() -> None:
    """A pod has its worker's leases, by its uid."""
    (found,) = pods_of([pod()], {"uid-of-one": 2, "elsewhere": 1})
    assert found == Pod(
        "uid-of-one", "one", ready=True, terminating=False, leases=2, created_at=1_795_514_400, template="t1"
    )


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_pods_that_ended_are_none(phase: str) -> None:
    """An evicted pod stays as an object; it is no worker."""
    assert pods_of([pod(phase=phase)], {}) == ()


def test_a_terminating_pod() -> None:
    """One that was told to end is terminating, and its template is no reason to see a rollout."""
    ending = pod("two", deletionTimestamp="2026-11-24T10:00:00Z", labels={"pod-template-hash": "t0"})
    assert [one.terminating for one in pods_of([pod(), ending], {})] == [False, True]
    assert templates_of([pod(), ending]) == {"t1"}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_an_ended_pod_is_no_rollout(phase: str) -> None:
    """A pod of an older template that ended, such as by an eviction, is no reason to see a rollout."""
    evicted = pod("two", phase=phase, labels={"pod-template-hash": "t0"})
    assert templates_of([pod(), evicted]) == {"t1"}


def test_a_rollout_past_its_deadline() -> None:
    """A Deployment whose controller says that it gets no further is stalled."""
    found = deployment(updatedReplicas=1)
    assert not deployment_of(found).stalled
    for status in ("True", "False"):
        found["status"]["conditions"] = [
            {"type": "Available", "status": "False"},
            {"type": "Progressing", "status": status, "reason": "told"},
        ]
        assert deployment_of(found).stalled is (status == "False")


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}, True),
        ({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}, False),
        ({"type": "PodScheduled", "status": "True"}, False),
    ],
)
def test_a_pod_without_room(condition: dict[str, str], wanted: bool) -> None:  # noqa: FBT001
    """A pod that no node has room for is told, unless it ends or has ended."""
    waiting = pod(phase="Pending")
    waiting["status"]["conditions"] = [condition]
    assert without_room([pod("other"), waiting]) is wanted
    ended = waiting | {"status": waiting["status"] | {"phase": "Failed"}}
    assert not without_room([ended])
    waiting["metadata"]["deletionTimestamp"] = "2026-11-24T10:00:00Z"
    assert not without_room([waiting])


def test_a_pod_that_says_nothing_is_not_ready() -> None:
    """A pod that was just created has no conditions."""
    new = pod()
    new["status"] = {"phase": "Pending"}
    assert not pods_of([new], {})[0].ready


class Client:
    """Keeps what is asked."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.asked: list[tuple[Any, ...]] = []

    async def request(self, *asked: object) -> dict[str, Any]:
        """Answer nothing."""
        self.asked.append(asked)
        if self.fault:
            raise self.fault
        return {}


def test_a_patch_names_the_version_that_was_read() -> None:
    """The scale is patched only if the Deployment is still as it was read."""
    client = Client()
    workers = KubernetesWorkers(cast("KubernetesClient", client), "team", "worker")
    asyncio.run(workers.scale(deployment_of(deployment()), 5))
    ((method, path, patch, kind),) = client.asked
    assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/team/deployments/worker/scale")
    assert patch == {"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 5}}
    assert kind == "application/merge-patch+json"


@pytest.mark.parametrize(("fault", "there"), [(None, True), (ObjectGoneError("gone"), False)])
def test_a_price_is_that_pods_own(fault: Exception | None, there: bool) -> None:  # noqa: FBT001
    """The deletion cost goes to the pod with that uid; one that is gone is told."""
    client = Client(fault)
    workers = KubernetesWorkers(cast("KubernetesClient", client), "team", "worker")
    assert asyncio.run(workers.price(pods_of([pod()], {})[0], "-1")) is there
    ((_, path, patch, _),) = client.asked
    assert path == "/api/v1/namespaces/team/pods/one"
    assert patch == {"metadata": {"uid": "uid-of-one", "annotations": {DELETION_COST: "-1"}}}
