"""The Kubernetes API as the operator uses it beyond kopf: a handful of requests, with errors of our own.

Answers to writes are asked for as metadata alone (PartialObjectMetadata): an
object of 1,000 file ids would otherwise come back whole with every status.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, cast

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from downloadjobs_operator.downloadjob import GROUP, PLURAL, VERSION, DownloadJob

REQUEST_SECONDS: Final = 15.0
"""Longer than a busy API server takes; shorter than a leader's Lease lasts would be better, but a write that
was given up may still be done, and then is done twice."""

METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
JSON_PATCH: Final = "application/json-patch+json"

NOT_FOUND: Final = 404
CONFLICT: Final = 409
UNPROCESSABLE: Final = 422
TOO_MANY_REQUESTS: Final = 429
SERVER_ERROR: Final = 500


class KubernetesError(Exception):
    """The API server refused a request; trying it again as it is does not help."""


class KubernetesUnavailableError(KubernetesError):
    """The API server cannot be reached, or cannot answer now."""


class ObjectGoneError(KubernetesError):
    """The object is not there (any more), or another stands under its name."""


class AlreadyExistsError(KubernetesError):
    """An object of this name is there, or it was changed meanwhile."""


class InvalidError(KubernetesError):
    """The object would not be valid, or a patch does not fit it."""


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

    async def create(self, body: Mapping[str, Any]) -> str:
        """Create an object in its namespace; its uid. Raises `AlreadyExistsError`."""

    async def delete(self, dj: DownloadJob) -> None:
        """Delete it, and no other of its name. Raises `ObjectGoneError`."""

    async def announce(self, event: Mapping[str, Any]) -> None:
        """Create an Event; one that is there already is left as it is."""


class KubernetesDownloadJobs:
    """`DownloadJobs` by the API server."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

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

    async def create(self, body: Mapping[str, Any]) -> str:
        """Create an object in its namespace; its uid. Raises `AlreadyExistsError`."""
        answer = await self.request("POST", _path(body["metadata"]["namespace"]), body)
        return str(answer["metadata"]["uid"])

    async def delete(self, dj: DownloadJob) -> None:
        """Delete it, and no other of its name. Raises `ObjectGoneError`."""
        body = {"preconditions": {"uid": dj.uid}, "propagationPolicy": "Background"}
        try:
            await self.request("DELETE", _path(dj.namespace, dj.name), body)
        except AlreadyExistsError as error:
            raise ObjectGoneError(str(error)) from error

    async def announce(self, event: Mapping[str, Any]) -> None:
        """Create an Event; one that is there already is left as it is."""
        namespace = event["metadata"]["namespace"]
        try:
            await self.request("POST", f"/api/v1/namespaces/{namespace}/events", event)
        except AlreadyExistsError:
            return

    async def reachable(self) -> bool:
        """Whether the API server answers at all."""
        try:
            await self.request("GET", "/version")
        except KubernetesUnavailableError:
            return False
        except KubernetesError:
            return True
        return True

    async def serves_downloadjobs(self) -> bool:
        """Whether the CustomResourceDefinition is there and served."""
        try:
            found = await self.request("GET", f"/apis/{GROUP}/{VERSION}")
        except ObjectGoneError:
            return False
        return any(one.get("name") == PLURAL for one in found.get("resources", []))

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """One request; the answer's JSON.

        Raises:
            KubernetesUnavailableError, ObjectGoneError, AlreadyExistsError, KubernetesError
        """
        accept = "application/json" if method == "GET" else METADATA_ONLY
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "downloadjobs-operator"}
        prepared = await self._api.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"], query_params=[]
        )
        try:
            response = await self._api.call_api(*prepared, _request_timeout=REQUEST_SECONDS)
            text = cast("bytes", await response.read())  # type: ignore[no-untyped-call]
        except ApiException as error:
            raise _error(error.status or SERVER_ERROR, str(error.reason)) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise KubernetesUnavailableError(
                f"the API server cannot be reached: {str(error) or type(error).__name__}"
            ) from error
        if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's success
            raise _error(response.status, _message(text))
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise KubernetesUnavailableError(
                f"what answers for the API server sends no JSON: {_message(text)!r}. Is a proxy in between?"
            )
        return answer


def _path(namespace: str, name: str = "") -> str:
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
    return f"{path}/{name}" if name else path


def _error(status: int, message: str) -> KubernetesError:
    if status == NOT_FOUND:
        return ObjectGoneError(message)
    if status == CONFLICT:
        return AlreadyExistsError(message)
    if status == UNPROCESSABLE:
        return InvalidError(f"the API server answered {status}: {message}")
    if status == TOO_MANY_REQUESTS or status >= SERVER_ERROR:
        return KubernetesUnavailableError(f"the API server answered {status}: {message}")
    return KubernetesError(f"the API server answered {status}: {message}")


def _message(text: bytes) -> str:
    """What a Status object says, or the beginning of what a proxy answered in its stead."""
    try:
        return str(json.loads(text).get("message", ""))
    except (ValueError, AttributeError):
        return text[:200].decode(errors="replace")
