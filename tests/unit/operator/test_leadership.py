"""The Lease: why it cannot be had is told once, with names. The API server is a list of answers here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, cast

import aiohttp
import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.client.models.v1_lease import V1Lease
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from structlog.testing import capture_logs

from downloadjobs_operator.leadership import Leadership, LeadershipLostError, Moment, _Lock

MOMENT = "2026-11-24 09:00:00.000000"
RECORD = LeaderElectionRecord("me", "15", MOMENT, MOMENT)


class Leases:
    """Answers every request with the next of a list; None is no fault."""

    def __init__(self, *faults: Exception | None) -> None:
        self._faults: Iterator[Exception | None] = iter(faults)

    async def _answer(self, *_: object) -> V1Lease:
        fault = next(self._faults)
        if fault is not None:
            raise fault
        return V1Lease()

    read_namespaced_lease = create_namespaced_lease = replace_namespaced_lease = _answer


def refused(status: int) -> ApiException:
    """An answer of the API server."""
    return ApiException(status=status, reason="Because")


def told(verbs: str, *faults: Exception | None) -> list[str]:
    """The errors that are logged while a lock's methods are called in this order."""

    async def main() -> list[str]:
        async with ApiClient(Configuration()) as api:
            lock = _Lock("one-lease", "its-place", "me", api, patience=5, renewed=lambda _: None)
            lock.api_instance = cast("Any", Leases(*faults))
            lock.lease_reference = V1Lease()
            with capture_logs() as logs:
                for verb in verbs.split():
                    if verb == "get":
                        await lock.get(lock.name, lock.namespace)
                    else:
                        await getattr(lock, verb)(lock.name, lock.namespace, RECORD)
            assert all((one["lease"], one["namespace"]) == ("one-lease", "its-place") for one in logs)
            return [one["error"] for one in logs]

    return asyncio.run(main())


def test_a_missing_namespace() -> None:
    """A Lease that is not there is no fault; that it cannot be created says which namespace is missing."""
    missing = refused(404)
    assert told("get create get create", missing, missing, missing, missing) == [
        "There is no namespace its-place. Create it, or correct OPERATOR_NAMESPACE."
    ]


@pytest.mark.parametrize("verb", ["get", "create", "update"])
def test_a_missing_right(verb: str) -> None:
    """What the operator may not do is told with all rights that it needs, and where, once."""
    (error,) = told(f"{verb} {verb}", refused(403), refused(403))
    assert f"may not {verb} this Lease" in error
    assert "In the namespace its-place it needs the right to create leases (coordination.k8s.io)" in error
    assert "get and update this one" in error


def test_an_api_server_that_is_away() -> None:
    """A broken connection is told once for as long as it lasts, and again when it comes back later."""
    broken = aiohttp.ClientConnectionError("reset")
    assert len(told("update update", broken, broken)) == 1
    assert len(told("update update update", broken, None, broken)) == 2


def test_another_was_quicker() -> None:
    """That another operator took the Lease at the same moment, or that it was deleted, is no fault."""
    assert told("update create update", refused(409), refused(409), refused(404)) == []


@pytest.mark.parametrize(
    ("monotonic", "wall", "current"),
    [(0, 0, True), (14, 14, True), (16, 16, False), (1, 3600, False), (3600, 1, False)],
    ids=["just now", "in time", "too late", "a machine that slept", "a clock that was set back"],
)
def test_a_lease_that_may_have_run_out(
    monkeypatch: pytest.MonkeyPatch, monotonic: float, wall: float, *, current: bool
) -> None:
    """By either clock: after its Lease's time since the last renewal a leader must not act."""
    api = cast("Any", None)
    leadership = Leadership(lambda: api, name="one-lease", namespace="its-place", identity="me", seconds=15)
    leadership.held = True
    assert not leadership.current
    leadership._note_renewal(Moment.now())
    began_monotonic, began_wall = time.monotonic(), time.time()
    monkeypatch.setattr("time.monotonic", lambda: began_monotonic + monotonic)
    monkeypatch.setattr("time.time", lambda: began_wall + wall)
    assert leadership.current is current


def test_only_a_success_is_a_renewal() -> None:
    """A renewal counts if the API server took it, and from when it was begun."""
    renewals: list[Moment] = []

    async def main() -> None:
        async with ApiClient(Configuration()) as api:
            lock = _Lock("one-lease", "its-place", "me", api, patience=5, renewed=renewals.append)
            lock.api_instance = cast("Any", Leases(None, refused(500), None, refused(409)))
            lock.lease_reference = V1Lease()
            for verb in ("create", "create", "update", "update"):
                await getattr(lock, verb)(lock.name, lock.namespace, RECORD)

    before = Moment.now()
    asyncio.run(main())
    assert len(renewals) == 2
    assert all(one.monotonic >= before.monotonic for one in renewals)


def test_a_busy_event_loop_does_not_lose_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Lease is renewed while the work lets nothing else on its event loop, and given back after it."""
    renewals: list[float] = []
    given_back: list[bool] = []

    async def get(self: _Lock, *_: object) -> tuple[bool, LeaderElectionRecord]:
        return True, LeaderElectionRecord(self.identity, "2", MOMENT, MOMENT)

    async def update(self: _Lock, *_: object) -> bool:
        self._renewed(Moment.now())
        renewals.append(time.monotonic())
        return True

    async def give_back(self: Leadership, _: object) -> None:
        given_back.append(self.current)

    monkeypatch.setattr(_Lock, "get", get)
    monkeypatch.setattr(_Lock, "update", update)
    monkeypatch.setattr(Leadership, "_give_back", give_back)
    leadership = Leadership(
        lambda: ApiClient(Configuration()), name="one-lease", namespace="its-place", identity="me", seconds=2
    )
    during: list[int] = []

    async def work() -> None:
        before = len(renewals)
        time.sleep(3.5)  # noqa: ASYNC251 - what hinders the event loop is the point
        during.append(len(renewals) - before)
        assert leadership.current
        assert not given_back

    asyncio.run(leadership.lead(work))
    assert during[0] >= 2
    assert given_back == [True]


def test_a_lost_lease_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that cannot renew cancels its work, and gives nothing back."""
    cancelled: list[bool] = []
    answers = iter([True])

    async def get(self: _Lock, *_: object) -> tuple[bool, LeaderElectionRecord]:
        return True, LeaderElectionRecord(self.identity, "2", MOMENT, MOMENT)

    async def update(*_: object) -> bool:
        return next(answers, False)

    async def give_back(*_: object) -> None:
        pytest.fail("the Lease may be another's")

    monkeypatch.setattr(_Lock, "get", get)
    monkeypatch.setattr(_Lock, "update", update)
    monkeypatch.setattr(Leadership, "_give_back", give_back)
    leadership = Leadership(
        lambda: ApiClient(Configuration()), name="one-lease", namespace="its-place", identity="me", seconds=2
    )

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(leadership.held)
            raise

    with pytest.raises(LeadershipLostError):
        asyncio.run(leadership.lead(work))
    assert cancelled == [False]
