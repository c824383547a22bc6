"""Requests to the API server beyond kopf's, with errors of our own.

Answers to writes are asked for as metadata alone (PartialObjectMetadata): an
object of 1,000 file ids would otherwise come back whole with every status.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from downloadjobs_operator.clocks import ServerClock

REQUEST_SECONDS: Final = 15.0
"""Longer than a busy API server takes; shorter than a leader's Lease lasts would be better, but a write that
was given up may still be done, and then is done twice."""

WATCH_SECONDS: Final = 120
"""After which the API server ends a watch, and another begins. An int, as the API server wants it."""

WATCH_SILENT_SECONDS: Final = 150.0
"""After which a connection is dead. A watch of what does not change is silent to its end, for the API server
sends no bookmark that is not newer than the watch's beginning. So its end must come first, with a margin."""

WHOLE: Final = "application/json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"

NOT_FOUND: Final = 404
CONFLICT: Final = 409
UNPROCESSABLE: Final = 422
TOO_MANY_REQUESTS: Final = 429
SERVER_ERROR: Final = 500

ALREADY_EXISTS: Final = "AlreadyExists"
"""The reason of a 409 whose name is taken. That of others is `Conflict`."""


class KubernetesError(Exception):
    """The API server refused a request; trying it again as it is does not help."""


class KubernetesUnavailableError(KubernetesError):
    """The API server cannot be reached, or cannot answer now."""


class NotServedError(KubernetesUnavailableError):
    """The API server does not know the path: what is asked for is not defined, or not yet served."""


class ObjectGoneError(KubernetesError):
    """The object is not there (any more), or another stands under its name."""


class AlreadyExistsError(KubernetesError):
    """An object of the name that one was to be created under is there."""


class ConflictError(KubernetesError):
    """The object, or one that its creation changes, such as a quota, was changed meanwhile."""


class InvalidError(KubernetesError):
    """The object would not be valid, or a patch does not fit it."""


class KubernetesClient:
    """Requests by one set of credentials."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self.clock = ServerClock("kubernetes")
        """The API server's, as its last answer told it."""

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

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Whether a resource is defined and served. Raises `KubernetesError`."""
        try:
            found = await self.request("GET", f"/apis/{group}/{version}")
        except (ObjectGoneError, NotServedError):
            return False
        return any(one.get("name") == plural for one in found.get("resources", []))

    async def exists(self, path: str) -> bool:
        """Whether there is an object at a path. Raises `KubernetesError`."""
        try:
            await self.request("GET", path)
        except ObjectGoneError:
            return False
        return True

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        content_type: str = "application/json",
        *,
        query: Mapping[str, str] | None = None,
        accept: str = "",
    ) -> dict[str, Any]:
        """One request; the answer's JSON.

        Raises:
            KubernetesUnavailableError, ObjectGoneError, AlreadyExistsError, ConflictError, InvalidError,
            KubernetesError
        """
        accept = accept or (WHOLE if method == "GET" else METADATA_ONLY)
        headers = {"Accept": accept, "Content-Type": content_type}
        with _translated():
            response = await self._send(method, path, headers, body, query=query, timeout=REQUEST_SECONDS)
            text = cast("bytes", await response.read())
        self.clock.heard_date(response.getheader("Date"))
        if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's success
            if response.status == NOT_FOUND and not _is_status(text):
                raise NotServedError(f"the API server does not know {path}: {_message(text)}")
            raise _error(response.status, _message(text), _reason(text))
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise KubernetesUnavailableError(
                f"what answers for the API server sends no JSON: {_message(text)!r}. Is a proxy in between?"
            )
        return answer

    async def list_objects(
        self, path: str, *, field_selector: str = "", label_selector: str = ""
    ) -> dict[str, Any]:
        """The objects of a path, as they are now, and the version to watch from. Raises `KubernetesError`."""
        query = {"fieldSelector": field_selector, "labelSelector": label_selector}
        return await self.request("GET", path, query=query)

    async def watch(
        self, path: str, *, version: str, field_selector: str = "", label_selector: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """Changes after a resourceVersion as they come, bookmarks too, until the API server ends it in order.

        Raises:
            KubernetesUnavailableError: it broke, or was silent beyond its end.
            KubernetesError: it was refused; such as because the version is too old.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": version,
            "fieldSelector": field_selector,
            "labelSelector": label_selector,
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=REQUEST_SECONDS, sock_read=WATCH_SILENT_SECONDS
        )
        with _translated():
            response = await self._send(
                "GET", path, {"Accept": "application/json"}, query=query, timeout=timeout
            )
            if response.status != 200:  # noqa: PLR2004 - HTTP's OK
                raise _error(response.status, _message(await response.read()))
            stream = cast("aiohttp.ClientResponse", response.response)
            try:
                async for line in stream.content:
                    event: dict[str, Any] = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise _error(int(status.get("code", SERVER_ERROR)), str(status.get("message", "")))
                    yield event
            finally:
                stream.close()

    async def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float | aiohttp.ClientTimeout,  # noqa: ASYNC109 - the client's own
    ) -> Any:  # noqa: ANN401 - the client has no types here
        prepared = await self._api.param_serialize(
            method,
            path,
            header_params={**headers, "User-Agent": "downloadjobs-operator"},
            body=body,
            auth_settings=["BearerToken"],
            query_params=[(name, value) for name, value in (query or {}).items() if value],
        )
        return await self._api.call_api(*prepared, _request_timeout=timeout)


@contextmanager
def _translated() -> Iterator[None]:
    """Faults of the client as ours."""
    try:
        yield
    except ApiException as error:
        raise _error(error.status or SERVER_ERROR, str(error.reason)) from error
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        raise KubernetesUnavailableError(
            f"the API server cannot be reached: {str(error) or type(error).__name__}"
        ) from error


def _error(status: int, message: str, reason: str = "") -> KubernetesError:
    if status == NOT_FOUND:
        return ObjectGoneError(message)
    if status == CONFLICT:
        return AlreadyExistsError(message) if reason == ALREADY_EXISTS else ConflictError(message)
    if status == UNPROCESSABLE:
        return InvalidError(f"the API server answered {status}: {message}")
    if status == TOO_MANY_REQUESTS or status >= SERVER_ERROR:
        return KubernetesUnavailableError(f"the API server answered {status}: {message}")
    return KubernetesError(f"the API server answered {status}: {message}")


def _is_status(text: bytes) -> bool:
    """Whether an answer is a Status, as of what is served; else the server has plain text."""
    return (_document(text) or {}).get("kind") == "Status"


def _reason(text: bytes) -> str:
    """Why a Status object refuses: one HTTP status has several reasons. Empty without one."""
    return str((_document(text) or {}).get("reason", ""))


def _message(text: bytes) -> str:
    """What a Status object says, or the beginning of what a proxy answered in its stead."""
    document = _document(text)
    return text[:200].decode(errors="replace") if document is None else str(document.get("message", ""))


def _document(text: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
