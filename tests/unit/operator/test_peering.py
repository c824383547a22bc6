"""Whether kopf's peering can begin."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from downloadjobs_operator.kube_client import KubernetesError, KubernetesUnavailableError
from downloadjobs_operator.peering import peering_objects, peering_problem

A = "/apis/kopf.dev/v1/namespaces/a/kopfpeerings/dev"
B = "/apis/kopf.dev/v1/namespaces/b/kopfpeerings/dev"
ALL = "/apis/kopf.dev/v1/clusterkopfpeerings/dev"


class Cluster:
    """An API server that has some kinds and some objects."""

    def __init__(self, kinds: Collection[str], *paths: str, fault: Exception | None = None) -> None:
        self._kinds = kinds
        self._paths = paths
        self._fault = fault

    async def serves(self, group: str, version: str, plural: str) -> bool:
        return f"{plural}.{group}/{version}" in self._kinds

    async def exists(self, path: str) -> bool:
        if self._fault is not None:
            raise self._fault
        return path in self._paths


KINDS = ("kopfpeerings.kopf.dev/v1", "clusterkopfpeerings.kopf.dev/v1")


def problem(cluster: Cluster, *served: str) -> str:
    """What is missing for the peering `dev`."""
    return asyncio.run(peering_problem(cluster, peering_objects("dev", served)))


def test_nothing_is_missing() -> None:
    """With its object in each served namespace, or that of the cluster for all of them, kopf can begin."""
    assert problem(Cluster(KINDS, A, B), "a", "b") == ""
    assert problem(Cluster(KINDS, ALL)) == ""


@pytest.mark.parametrize(
    ("served", "name"), [(("a",), "KopfPeering dev in the namespace a"), ((), "ClusterKopfPeering dev")]
)
def test_without_the_definition(served: tuple[str, ...], name: str) -> None:
    """Where the kind is unknown, kind, name and place are told, and that two things are to be applied."""
    told = problem(Cluster(()), *served)
    assert f"needs the {name}, but" in told
    assert "apply kopf's CustomResourceDefinitions, and then this object" in told


def test_each_namespace_needs_one() -> None:
    """One that is missing in one namespace is named with it."""
    assert "needs the KopfPeering dev in the namespace b, which is not there: apply one (kopf.dev/v1)" in (
        problem(Cluster(KINDS, A), "a", "b")
    )


def test_the_other_kind_does_not_do() -> None:
    """Served namespaces do not see the cluster's peering, nor the other way round."""
    assert "KopfPeering dev in the namespace a" in problem(Cluster(KINDS, ALL), "a")
    assert "ClusterKopfPeering dev" in problem(Cluster(KINDS, A))


def test_without_the_right_to_read_it() -> None:
    """What is forbidden is told with the rights that are needed."""
    told = problem(Cluster(KINDS, fault=KubernetesError("forbidden")), "a")
    assert "KopfPeering dev in the namespace a" in told
    assert "get, list, watch and patch kopfpeerings.kopf.dev" in told


def test_an_api_server_that_is_away() -> None:
    """That the API server cannot be reached says nothing about the peering."""
    with pytest.raises(KubernetesUnavailableError):
        problem(Cluster(KINDS, fault=KubernetesUnavailableError("away")), "a")
