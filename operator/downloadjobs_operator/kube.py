"""DownloadJobs by the API server, as the operator uses it beyond kopf: a handful of requests."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Protocol

from downloadjobs_operator.downloadjob import GROUP, PLURAL, VERSION, DownloadJob
from downloadjobs_operator.kube_client import (
    JSON_PATCH,
    METADATA_LIST,
    WHOLE,
    InvalidError,
    KubernetesClient,
    ObjectGoneError,
)

FINALIZERS: Final = "/metadata/finalizers"

PAGE: Final = 25
"""Objects listed in one request. Whoever may create them may make each as large as etcd takes, 1.5 MB, also
in its metadata alone; and a page is in memory as text, as bytes and as what it says, all at once."""


class DownloadJobs(Protocol):
    """DownloadJobs in the cluster, and Events about them.

    Methods raise `KubernetesUnavailableError`, and `KubernetesError` for what is refused.
    """

    async def get(self, namespace: str, name: str) -> dict[str, Any]:
        """The whole object. Raises `ObjectGoneError`."""

    async def patch_status(self, dj: DownloadJob, status: Mapping[str, Any]) -> str:
        """Replace its status; the object's new resourceVersion. Raises `ObjectGoneError`."""

    async def remove_annotation(self, dj: DownloadJob, name: str, value: str) -> None:
        """Remove an annotation, if it still has this value. Raises `ObjectGoneError`."""

    async def add_finalizer(self, dj: DownloadJob, name: str) -> dict[str, Any]:
        """Add a finalizer to those it was seen with; the whole object.

        Raises:
            ObjectGoneError
            InvalidError: it has others by now, is going, or another stands under its name.
        """

    async def remove_finalizer(self, dj: DownloadJob, name: str) -> None:
        """Remove a finalizer from those it was seen with. Raises the same."""

    async def create(self, body: Mapping[str, Any]) -> str:
        """Create an object in its namespace; its uid. Raises `AlreadyExistsError`."""

    async def delete(self, dj: DownloadJob) -> None:
        """Delete it as it was seen. Raises `ObjectGoneError`, and `ConflictError` if it was changed."""

    async def uids(self, namespace: str) -> set[str]:
        """The uids of all that are there now."""

    async def announce(self, event: Mapping[str, Any]) -> None:
        """Create an Event; one that is there already is left as it is."""


class KubernetesDownloadJobs(KubernetesClient):
    """`DownloadJobs` by the API server."""

    async def get(self, namespace: str, name: str) -> dict[str, Any]:
        """The whole object. Raises `ObjectGoneError`."""
        return await self.request("GET", _path(namespace, name))

    async def patch_status(self, dj: DownloadJob, status: Mapping[str, Any]) -> str:
        """Replace its status; the object's new resourceVersion. Raises `ObjectGoneError`."""
        # Not a merge patch: of one of the status alone, the API server ignores the uid, and another object
        # that was created under the same name meanwhile would get this one's status.
        patch: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/uid", "value": dj.uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        try:
            answer = await self.request("PATCH", f"{_path(dj.namespace, dj.name)}/status", patch, JSON_PATCH)
        except InvalidError as error:
            found = await self.get(dj.namespace, dj.name)
            if found["metadata"]["uid"] != dj.uid:
                raise ObjectGoneError(str(error)) from error
            raise
        return str(answer["metadata"]["resourceVersion"])

    async def remove_annotation(self, dj: DownloadJob, name: str, value: str) -> None:
        """Remove an annotation, if it still has this value. Raises `ObjectGoneError`."""
        pointer = f"/metadata/annotations/{name.replace('~', '~0').replace('/', '~1')}"
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": dj.uid},
            {"op": "test", "path": pointer, "value": value},
            {"op": "remove", "path": pointer},
        ]
        with suppress(InvalidError):  # another value was written meanwhile, which the watch will show
            await self.request("PATCH", _path(dj.namespace, dj.name), patch, JSON_PATCH)

    async def add_finalizer(self, dj: DownloadJob, name: str) -> dict[str, Any]:
        """Add a finalizer to those it was seen with; the whole object."""
        # A request of its own, without anything else: one that also wrote an annotation would be refused for
        # an object whose annotations are as large as they may be.
        dj = await self._with_all_finalizers(dj)
        if name in dj.finalizers:
            return await self.get(dj.namespace, dj.name)
        adding: dict[str, Any] = (
            {"op": "add", "path": f"{FINALIZERS}/-", "value": name}
            if dj.finalizers
            else {"op": "add", "path": FINALIZERS, "value": [name]}
        )
        patch = [*_as_seen(dj), adding]
        return await self.request("PATCH", _path(dj.namespace, dj.name), patch, JSON_PATCH, accept=WHOLE)

    async def remove_finalizer(self, dj: DownloadJob, name: str) -> None:
        """Remove a finalizer from those it was seen with."""
        dj = await self._with_all_finalizers(dj)
        if name not in dj.finalizers:
            return
        removing = {"op": "remove", "path": f"{FINALIZERS}/{dj.finalizers.index(name)}"}
        await self.request("PATCH", _path(dj.namespace, dj.name), [*_as_seen(dj), removing], JSON_PATCH)

    async def _with_all_finalizers(self, dj: DownloadJob) -> DownloadJob:
        """An object with the finalizers that a patch must test: read anew where they were not all kept."""
        if not dj.finalizers_cut:
            return dj
        metadata = (await self.get(dj.namespace, dj.name))["metadata"]
        if metadata["uid"] != dj.uid:
            raise ObjectGoneError(dj.name)
        return replace(dj, finalizers=tuple(metadata.get("finalizers", ())), finalizers_cut=False)

    async def create(self, body: Mapping[str, Any]) -> str:
        """Create an object in its namespace; its uid. Raises `AlreadyExistsError`."""
        answer = await self.request("POST", _path(body["metadata"]["namespace"]), body)
        return str(answer["metadata"]["uid"])

    async def delete(self, dj: DownloadJob) -> None:
        """Delete it as it was seen. Raises `ObjectGoneError`, and `ConflictError` if it was changed."""
        seen = {"uid": dj.uid, "resourceVersion": dj.version}
        body = {"preconditions": seen, "propagationPolicy": "Background"}
        await self.request("DELETE", _path(dj.namespace, dj.name), body)

    async def uids(self, namespace: str) -> set[str]:
        """The uids of all that are there now."""
        found: set[str] = set()
        query = {"limit": str(PAGE)}
        while True:
            page = await self.request("GET", _path(namespace), query=query, accept=METADATA_LIST)
            found.update(one["metadata"]["uid"] for one in page.get("items", []))
            following = page.get("metadata", {}).get("continue")
            if not following:
                return found
            query["continue"] = following

    async def serves_downloadjobs(self) -> bool:
        """Whether the CustomResourceDefinition is there and served."""
        return await self.serves(GROUP, VERSION, PLURAL)


def _as_seen(dj: DownloadJob) -> list[dict[str, Any]]:
    """That this very object still has the finalizers that it was seen with; without any, there is no list."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": dj.uid},
        {"op": "test", "path": FINALIZERS, "value": list(dj.finalizers) or None},
    ]


def _path(namespace: str, name: str = "") -> str:
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
    return f"{path}/{name}" if name else path
