"""A list, then a watch: what is kept of the API server's objects, through its faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from downloadjobs_operator import reflecting
from downloadjobs_operator.kube_client import KubernetesClient, KubernetesError, KubernetesUnavailableError
from downloadjobs_operator.reflecting import Reflector
from support_operator import at_work, until


def thing(uid: str, version: int) -> dict[str, Any]:
    """An object."""
    return {"metadata": {"uid": uid, "resourceVersion": str(version)}}


class Server:
    """Lists and watches as a test says."""

    def __init__(self) -> None:
        self.lists: list[list[dict[str, Any]] | Exception] = []
        self.watched_from: list[str] = []
        self.listed = 0
        self.events: asyncio.Queue[dict[str, Any] | Exception | None] = asyncio.Queue()

    async def list_objects(self, path: str, **_: str) -> dict[str, Any]:
        """The next of the lists; the last one again and again."""
        assert path == "/things"
        found = self.lists[min(self.listed, len(self.lists) - 1)]
        self.listed += 1
        if isinstance(found, Exception):
            raise found
        return {"items": found, "metadata": {"resourceVersion": str(100 * self.listed)}}

    async def watch(self, path: str, *, version: str, **_: str) -> AsyncIterator[dict[str, Any]]:
        """Events as they come; None ends it in order."""
        assert path == "/things"
        self.watched_from.append(version)
        while (event := await self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def say(self, kind: str, found: dict[str, Any]) -> None:
        """An event of the watch."""
        self.events.put_nowait({"type": kind, "object": found})


def on(test: Callable[[Server, Reflector], Awaitable[None]]) -> None:
    """Run a test's coroutine with a reflector at work."""

    async def main() -> None:
        server = Server()
        server.lists = [[thing("a", 1)]]
        reflector = Reflector(cast("KubernetesClient", server), "/things", changed=lambda: None)
        async with at_work(reflector.run):
            await test(server, reflector)

    asyncio.run(main())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits."""
    monkeypatch.setattr(reflecting, "FIRST_DELAY_SECONDS", 0.01)


def test_changes_are_followed() -> None:
    """What was listed is there, and each event changes it; a bookmark moves only the version."""

    async def test(server: Server, reflector: Reflector) -> None:
        assert await until(lambda: reflector.synced)
        assert set(reflector.objects) == {"a"}
        server.say("ADDED", thing("b", 101))
        server.say("DELETED", thing("a", 102))
        server.say("MODIFIED", thing("b", 103))
        server.say("BOOKMARK", {"metadata": {"resourceVersion": "150"}})
        server.events.put_nowait(None)
        assert await until(lambda: len(server.watched_from) == 2)
        assert reflector.objects == {"b": thing("b", 103)}
        assert server.watched_from == ["100", "150"]
        assert server.listed == 1

    on(test)


def test_a_watch_that_brought_nothing_goes_on() -> None:
    """One that ends in order without an event is begun again where it stood: no list, and no word of it."""

    async def test(server: Server, reflector: Reflector) -> None:
        with capture_logs() as logs:
            server.events.put_nowait(None)
            assert await until(lambda: len(server.watched_from) == 2)
        assert server.watched_from == ["100", "100"]
        assert server.listed == 1
        assert reflector.blind_seconds == 0
        assert logs == []

    on(test)


@pytest.mark.parametrize("fault", [KubernetesUnavailableError("broken"), KubernetesError("version too old")])
def test_after_a_fault_all_is_listed_anew(fault: Exception) -> None:
    """What went unseen while a watch was broken is seen by another list."""

    async def test(server: Server, reflector: Reflector) -> None:
        server.lists.append([thing("c", 3)])
        assert await until(lambda: reflector.synced)
        server.events.put_nowait(fault)
        assert await until(lambda: set(reflector.objects) == {"c"})
        assert server.watched_from == ["100", "200"]

    on(test)


def test_blindness_is_timed() -> None:
    """From a fault until the next list nothing is seen, and that is told; before the first list too."""

    async def test(server: Server, reflector: Reflector) -> None:
        assert reflector.blind_seconds > 0
        assert await until(lambda: reflector.synced)
        assert reflector.blind_seconds == 0
        server.lists += [KubernetesUnavailableError("away")] * 2
        server.events.put_nowait(KubernetesUnavailableError("broken"))
        assert await until(lambda: server.listed >= 3)
        assert reflector.blind_seconds > 0
        assert set(reflector.objects) == {"a"}

    on(test)
