"""Requests to the API server, and what its answers mean. The server is a list of answers here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import pytest
from kubernetes.aio.client.api_client import ApiClient

from downloadjobs_operator.downloadjob import CLAIM, FINALIZER
from downloadjobs_operator.kube import KubernetesDownloadJobs
from downloadjobs_operator.kube_client import (
    REQUEST_SECONDS,
    AlreadyExistsError,
    ConflictError,
    KubernetesClient,
    KubernetesError,
    KubernetesUnavailableError,
    NotServedError,
    ObjectGoneError,
)
from support_operator import NOW, body, dj

PATH = "/apis/downloadjobs.dev/v1/namespaces/team/downloadjobs"


@dataclass
class Answer:
    """What the API server answers."""

    status: int
    text: bytes
    date: str | None = None

    async def read(self) -> bytes:
        return self.text

    def getheader(self, name: str) -> str | None:
        return self.date if name == "Date" else None


class Api:
    """A client that sends nothing, and answers what it was given."""

    def __init__(self, answer: Answer | Exception) -> None:
        self._answer = answer
        self.sent: list[tuple[str, str, dict[str, str], Any]] = []

    async def param_serialize(
        self, method: str, path: str, *, header_params: dict[str, str], body: object, **_: object
    ) -> tuple[object, ...]:
        self.sent.append((method, path, header_params, body))
        return ()

    async def call_api(self, *_: object, **__: object) -> Answer:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def answering(status: int, content: object = None) -> tuple[KubernetesDownloadJobs, Api]:
    """A cluster that answers one thing."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    api = Api(Answer(status, text))
    return KubernetesDownloadJobs(cast("ApiClient", api)), api


def broken(error: Exception) -> KubernetesDownloadJobs:
    """A cluster that cannot be reached."""
    return KubernetesDownloadJobs(cast("ApiClient", Api(error)))


METADATA = {"metadata": {"resourceVersion": "7", "uid": "u7"}}

CALLS: dict[str, Callable[[KubernetesDownloadJobs], Awaitable[object]]] = {
    "get": lambda cluster: cluster.get("team", "one"),
    "patch_status": lambda cluster: cluster.patch_status(dj(), {"phase": "Queued"}),
    "add_finalizer": lambda cluster: cluster.add_finalizer(dj(), FINALIZER),
    "remove_finalizer": lambda cluster: cluster.remove_finalizer(dj(finalizers=[FINALIZER]), FINALIZER),
    "uids": lambda cluster: cluster.uids("team"),
    "remove_annotation": lambda cluster: cluster.remove_annotation(dj(), CLAIM, "c"),
    "create": lambda cluster: cluster.create(body()),
    "delete": lambda cluster: cluster.delete(dj()),
    "announce": lambda cluster: cluster.announce({"metadata": {"namespace": "team"}}),
}


def test_a_status_goes_to_its_subresource() -> None:
    """A status patch goes to the subresource, and asks for no more than metadata back."""
    cluster, api = answering(200, METADATA)
    assert asyncio.run(cluster.patch_status(dj(), {"phase": "Queued"})) == "7"
    ((method, path, headers, _),) = api.sent
    assert (method, path) == ("PATCH", f"{PATH}/one/status")
    assert "PartialObjectMetadata" in headers["Accept"]


def test_a_status_is_of_this_very_object() -> None:
    """A status patch tests the uid: the API server ignores the metadata in a merge patch of a status."""
    cluster, api = answering(200, METADATA)
    asyncio.run(cluster.patch_status(dj(), {"phase": "Queued"}))
    assert {"op": "test", "path": "/metadata/uid", "value": "uid-of-one"} in list(api.sent[0][3])


def test_a_deletion_is_of_this_very_object() -> None:
    """A deletion is of the object as it was seen: another of its name stays, and one that was changed."""
    cluster, api = answering(200, {})
    asyncio.run(cluster.delete(dj()))
    ((method, path, _, sent),) = api.sent
    assert (method, path) == ("DELETE", f"{PATH}/one")
    assert sent["preconditions"] == {"uid": "uid-of-one", "resourceVersion": "1"}


def test_a_deletion_of_what_was_changed_is_none() -> None:
    """Where the object was changed meanwhile, or another has its name, nothing is deleted."""
    cluster, _ = answering(409, {"reason": "Conflict", "message": "the ResourceVersion does not match"})
    with pytest.raises(ConflictError):
        asyncio.run(cluster.delete(dj()))


@pytest.mark.parametrize(
    ("seen", "added"),
    [
        ([], {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}),
        (["a/b"], {"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER}),
    ],
    ids=["none", "others"],
)
def test_a_finalizer_is_added_to_those_that_were_seen(seen: list[str], added: dict[str, Any]) -> None:
    """The patch tests the uid and the finalizers, and changes nothing else; the whole object is answered."""
    cluster, api = answering(200, body())
    assert asyncio.run(cluster.add_finalizer(dj(finalizers=seen), FINALIZER)) == body()
    ((method, path, headers, sent),) = api.sent
    assert (method, path, headers["Accept"]) == ("PATCH", f"{PATH}/one", "application/json")
    assert sent == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-of-one"},
        {"op": "test", "path": "/metadata/finalizers", "value": seen or None},
        added,
    ]


def test_a_finalizer_is_removed_from_those_that_were_seen() -> None:
    """Only ours goes, and only if all stand where they stood."""
    cluster, api = answering(200, METADATA)
    seen = ["a/b", FINALIZER]
    asyncio.run(cluster.remove_finalizer(dj(finalizers=seen), FINALIZER))
    assert api.sent[0][3][1:] == [
        {"op": "test", "path": "/metadata/finalizers", "value": seen},
        {"op": "remove", "path": "/metadata/finalizers/1"},
    ]


MANY = [f"example.org/f{number}" for number in range(100)]


def test_many_finalizers_are_read_before_they_are_changed() -> None:
    """Finalizers that were too many to be kept are read anew for the patch that tests them."""
    seen = [*MANY, FINALIZER]
    cluster, api = answering(200, body(finalizers=seen))
    asyncio.run(cluster.remove_finalizer(dj(finalizers=seen), FINALIZER))
    assert [method for method, *_ in api.sent] == ["GET", "PATCH"]
    assert list(api.sent[1][3])[1:] == [
        {"op": "test", "path": "/metadata/finalizers", "value": seen},
        {"op": "remove", "path": f"/metadata/finalizers/{len(MANY)}"},
    ]


def test_many_finalizers_of_another_object_are_left() -> None:
    """Where another object stands under its name, no finalizer is changed."""
    cluster, api = answering(200, body(uid="another", finalizers=[*MANY, FINALIZER]))
    for change in (cluster.add_finalizer, cluster.remove_finalizer):
        with pytest.raises(ObjectGoneError):
            asyncio.run(change(dj(finalizers=MANY), FINALIZER))
    assert {method for method, *_ in api.sent} == {"GET"}


def test_what_is_not_served_is_not_gone() -> None:
    """404 for a path that the API server does not know says nothing about an object."""
    cluster, _ = answering(404, b"404 page not found")
    with pytest.raises(NotServedError):
        asyncio.run(cluster.get("team", "one"))


def test_an_answer_tells_the_time() -> None:
    """The API server's clock is that of its answers."""
    cluster, api = answering(200, METADATA)
    cast("Answer", api._answer).date = "Fri, 15 Jan 2027 08:00:00 GMT"
    asyncio.run(cluster.get("team", "one"))
    assert abs(cluster.clock.now() - NOW) < 5


def test_an_object_is_read_whole() -> None:
    """A read asks for the object, not for its metadata."""
    cluster, api = answering(200, body())
    assert asyncio.run(cluster.get("team", "one")) == body()
    assert api.sent[0][2]["Accept"] == "application/json"


def test_a_creation_gives_the_uid() -> None:
    """Who creates learns the uid, by which the object is known from then on."""
    cluster, _ = answering(201, METADATA)
    assert asyncio.run(cluster.create(body())) == "u7"


def test_an_event_that_is_there_is_left() -> None:
    """An Event told twice is no fault."""
    cluster, _ = answering(409, {"reason": "AlreadyExists", "message": "already exists"})
    asyncio.run(cluster.announce({"metadata": {"namespace": "team"}}))


@pytest.mark.parametrize("call", [name for name in CALLS if name != "announce"])
def test_what_is_not_there_is_gone(call: str) -> None:
    """404 is told as such for every request."""
    cluster, _ = answering(404, {"kind": "Status", "message": "not found"})
    with pytest.raises(ObjectGoneError, match="not found"):
        asyncio.run(cast("Any", CALLS[call](cluster)))


def test_what_is_there_already_is_told() -> None:
    """409 to a creation says that the name is taken, where that is its reason."""
    cluster, _ = answering(409, {"reason": "AlreadyExists", "message": "already exists"})
    with pytest.raises(AlreadyExistsError):
        asyncio.run(cluster.create(body()))


@pytest.mark.parametrize("call", ["create", "announce"])
@pytest.mark.parametrize("content", [{"reason": "Conflict", "message": "a quota was modified"}, b"conflict"])
def test_a_creation_that_conflicts_has_made_nothing(call: str, content: object) -> None:
    """409 for another reason, such as a quota that two count on at once, is not taken for an object there."""
    cluster, _ = answering(409, content)
    with pytest.raises(ConflictError):
        asyncio.run(cast("Any", CALLS[call](cluster)))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_what_passes_is_told_apart(call: str, status: int) -> None:
    """An API server that is busy or broken may be asked again."""
    cluster, _ = answering(status, {"message": "slow down"})
    with pytest.raises(KubernetesUnavailableError, match=str(status)):
        asyncio.run(cast("Any", CALLS[call](cluster)))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [400, 401, 403, 413])
def test_what_does_not_pass_is_told_apart(call: str, status: int) -> None:
    """A refusal is one, with what the API server says about it; asking again as it is does not help."""
    cluster, _ = answering(status, {"message": "forbidden by x"})
    with pytest.raises(KubernetesError, match="forbidden by x") as caught:
        asyncio.run(cast("Any", CALLS[call](cluster)))
    assert not isinstance(caught.value, KubernetesUnavailableError)


@pytest.mark.parametrize(
    "error", [TimeoutError(), aiohttp.ClientConnectionError("refused"), ConnectionResetError()]
)
def test_a_broken_connection_is_one_error(error: Exception) -> None:
    """However a connection breaks, it is the API server that cannot be reached, and the text is not empty."""
    with pytest.raises(KubernetesUnavailableError, match=r"cannot be reached: \S+"):
        asyncio.run(broken(error).get("team", "one"))


@pytest.mark.parametrize("text", [b"", b"<html>Bad gateway</html>", b"[]", b'"x"', b"\xff\xfe"])
def test_an_answer_of_a_proxy_is_survived(text: bytes) -> None:
    """A refusal that is no Status object is still told, by its beginning."""
    cluster, _ = answering(502, text)
    with pytest.raises(KubernetesUnavailableError, match="502"):
        asyncio.run(cluster.get("team", "one"))


@pytest.mark.parametrize("call", ["get", "patch_status", "create", "delete"])
@pytest.mark.parametrize("text", [b"<html>Sign in</html>", b"", b"\xff\xfe"])
def test_a_proxy_that_answers_200_is_survived(call: str, text: bytes) -> None:
    """A success that is no JSON, such as a proxy's page, is an API server that cannot be reached."""
    cluster, _ = answering(200, text)
    with pytest.raises(KubernetesUnavailableError):
        asyncio.run(cast("Any", CALLS[call](cluster)))


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (401, True), (403, True), (503, False)])
def test_reachable(status: int, *, reachable: bool) -> None:
    """An API server that answers, be it a refusal, is reachable; one that is broken is not."""
    cluster, _ = answering(status, {})
    assert asyncio.run(cluster.reachable()) is reachable


def test_a_cluster_that_knows_downloadjobs() -> None:
    """DownloadJobs are served if the group names them; a group that is not there serves none."""
    assert asyncio.run(answering(200, {"resources": [{"name": "downloadjobs"}]})[0].serves_downloadjobs())
    assert not asyncio.run(answering(200, {"resources": []})[0].serves_downloadjobs())
    assert not asyncio.run(answering(404, {})[0].serves_downloadjobs())


def test_the_server_ends_a_watch_first() -> None:
    """A watch may be silent until the API server ends it, and for a request's time beyond."""

    class Watched(Api):
        """Keeps how a watch is asked for, and refuses it."""

        query: dict[str, str]
        timeout: aiohttp.ClientTimeout

        async def param_serialize(self, *_: object, **given: Any) -> tuple[object, ...]:  # noqa: ANN401
            self.query = dict(given["query_params"])
            return ()

        async def call_api(self, *_: object, **given: Any) -> Answer:  # noqa: ANN401
            self.timeout = given["_request_timeout"]
            return await super().call_api()

    async def main() -> None:
        api = Watched(Answer(410, b"{}"))
        with pytest.raises(KubernetesError):
            await anext(KubernetesClient(cast("ApiClient", api)).watch("/things", version="1"))
        assert api.timeout.total is None
        assert api.timeout.sock_read is not None
        assert api.timeout.sock_read >= int(api.query["timeoutSeconds"]) + REQUEST_SECONDS

    asyncio.run(main())
