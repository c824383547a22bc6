"""What the API server's refusals of a watch lead to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import pytest
from structlog.testing import capture_logs
from yarl import URL

from downloadjobs_operator import connection
from downloadjobs_operator.connection import NamespaceRefusedError, WatchClock, _BearRefusals

TEAM = "/apis/downloadjobs.dev/v1/namespaces/team/downloadjobs"
EVERYWHERE = "/apis/downloadjobs.dev/v1/downloadjobs"


@dataclass
class Response:
    """An answer of the API server."""

    status: int

    async def json(self, **_: object) -> dict[str, Any]:
        return {"kind": "Status", "message": f"because {self.status}"}


@dataclass
class Request:
    """A request of kopf's."""

    url: URL
    method: str = "GET"


def ask(bearing: _BearRefusals, status: int, path: str = TEAM, method: str = "GET") -> int:
    """Send a request that is answered like this; the status that kopf gets to see."""

    async def answer(_: object) -> Response:
        return Response(status)

    request = Request(URL(f"https://cluster{path}?watch=true"), method)
    return asyncio.run(bearing(cast("Any", request), cast("Any", answer))).status


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LONGEST_REFUSAL_SECONDS", 0.0)


@pytest.mark.parametrize("status", [403, 404])
def test_a_refused_namespace_is_a_broken_connection(status: int) -> None:
    """For kopf a refused watch is one that broke, which it begins anew; a refusal would end it."""
    clock = WatchClock()
    with pytest.raises(NamespaceRefusedError) as caught:
        ask(_BearRefusals(clock), status)
    assert isinstance(caught.value, aiohttp.ClientPayloadError)
    assert clock.refused == {"team": f"because {status}"}


def test_a_refusal_is_told_once() -> None:
    """However often it is tried, the log has one line for a namespace, and one when it is served again."""
    clock = WatchClock()
    bearing = _BearRefusals(clock)
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(NamespaceRefusedError):
                ask(bearing, 403)
        assert ask(bearing, 200) == 200
        assert ask(bearing, 200) == 200
    assert [(one["log_level"], one["namespace"]) for one in logs] == [("warning", "team"), ("info", "team")]
    assert clock.refused == {}


def test_a_watch_of_everything_is_borne_too() -> None:
    """An operator of all namespaces lives through a refusal as well, as when its rights are applied anew."""
    clock = WatchClock()
    with pytest.raises(NamespaceRefusedError):
        ask(_BearRefusals(clock), 403, EVERYWHERE)
    assert list(clock.refused) == ["all namespaces"]


@pytest.mark.parametrize(
    ("status", "path", "method"),
    [
        (403, TEAM, "PATCH"),
        (404, f"{TEAM}/one", "GET"),
        (403, "/apis/kopf.dev/v1/x", "GET"),
        (500, TEAM, "GET"),
    ],
)
def test_other_answers_are_kopfs(status: int, path: str, method: str) -> None:
    """Only refusals to list or watch DownloadJobs are borne."""
    assert ask(_BearRefusals(WatchClock()), status, path, method) == status
