"""Whether kopf's peering can begin: without its definition and its objects, kopf waits and says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from downloadjobs_operator.kube_client import KubernetesError, KubernetesUnavailableError

GROUP: Final = "kopf.dev"
VERSION: Final = "v1"


@dataclass(frozen=True, slots=True)
class PeeringObject:
    """The object in which operators of one peering see each other.

    Attributes:
        name: of the peering.
        namespace: None if it is the cluster's.
    """

    name: str
    namespace: str | None

    @property
    def kind(self) -> str:
        """As kopf has it: one for a namespace, or one for all of them."""
        return "ClusterKopfPeering" if self.namespace is None else "KopfPeering"

    @property
    def plural(self) -> str:
        """As it stands in paths."""
        return f"{self.kind.lower()}s"

    @property
    def path(self) -> str:
        """Where the API server has it."""
        place = "" if self.namespace is None else f"/namespaces/{self.namespace}"
        return f"/apis/{GROUP}/{VERSION}{place}/{self.plural}/{self.name}"

    def __str__(self) -> str:
        place = "" if self.namespace is None else f" in the namespace {self.namespace}"
        return f"{self.kind} {self.name}{place}"


class Cluster(Protocol):
    """What is asked of the API server."""

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Whether a resource's definition is there."""

    async def exists(self, path: str) -> bool:
        """Whether an object is there."""


def peering_objects(name: str, served: Sequence[str]) -> list[PeeringObject]:
    """What kopf looks for: one in each namespace that is served, or one of the cluster for all namespaces."""
    return [PeeringObject(name, namespace) for namespace in served or (None,)]


async def peering_problem(cluster: Cluster, wanted: Sequence[PeeringObject]) -> str:
    """What is missing, and what to do about it; empty if nothing is.

    Raises:
        KubernetesUnavailableError
    """
    for one in wanted:
        try:
            if not await cluster.serves(GROUP, VERSION, one.plural):
                return (
                    f"PEERING_NAME needs the {one}, but the cluster does not know the kind {one.kind}"
                    f" ({GROUP}/{VERSION}): apply kopf's CustomResourceDefinitions, and then this object."
                )
            if not await cluster.exists(one.path):
                return f"PEERING_NAME needs the {one}, which is not there: apply one ({GROUP}/{VERSION})."
        except KubernetesUnavailableError:
            raise
        except KubernetesError as error:
            return (
                f"PEERING_NAME needs the {one}, which cannot be read ({error}). The operator needs the rights"
                f" to get, list, watch and patch {one.plural}.{GROUP}."
            )
    return ""
