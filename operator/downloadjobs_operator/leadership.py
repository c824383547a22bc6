"""One operator works at a time: who holds a Lease (coordination.k8s.io) does, the others stand by.

The election is the Kubernetes client's own; what it lacks is here: a broken
connection counts as a renewal that failed, and a leader that ends on purpose
gives its Lease back, so that the next one need not wait until it runs out.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Self

import aiohttp
from kubernetes.aio.client.api.coordination_v1_api import CoordinationV1Api
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.client.models.v1_lease import V1Lease
from kubernetes.aio.client.models.v1_object_meta import V1ObjectMeta
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from downloadjobs_core import logs

RENEW_SHARE: Final = 2 / 3
"""Of a Lease's time, after which a leader that could not renew it stops: before another can take it."""

PATIENCE_SHARE: Final = 1 / 5
"""Of a Lease's time, that one request may take: a second one still fits before a leader must stop."""

RETRY_SHARE: Final = 2 / 15
"""Of a Lease's time, between two tries: five of them before a leader stops. As client-go's 15, 10 and 2 s."""

FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
CONFLICT: Final = 409

log = logs.logger(__name__)


class LeadershipLostError(Exception):
    """The Lease could not be renewed in time; another operator may be at work."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by two clocks: one is never set back, the other goes on while the machine sleeps."""

    monotonic: float
    wall: float

    @classmethod
    def now(cls) -> Self:
        """This moment."""
        return cls(time.monotonic(), time.time())

    @property
    def ago(self) -> float:
        """Seconds since then, by the clock that counted more."""
        return max(time.monotonic() - self.monotonic, time.time() - self.wall)


class _Lock(LeaseLock):
    """A Lease whose requests fail like refused ones where the API server is away, or does not answer.

    Without a time-out of its own, one request on a dead connection would outlast the Lease.
    """

    def __init__(
        self,
        name: str,
        namespace: str,
        identity: str,
        api_client: ApiClient,
        *,
        patience: float,
        renewed: Callable[[Moment], None],
    ) -> None:
        super().__init__(name, namespace, identity, api_client)
        self._patience = patience
        self._told: dict[str, str] = {}
        self._renewed = renewed

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        try:
            async with asyncio.timeout(self._patience):
                found = await super().get(name, namespace)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            found = False, ApiException(status=0, reason=str(error) or type(error).__name__)
        # One that is not there is created next.
        if isinstance(found[1], ApiException) and found[1].status != NOT_FOUND:
            self._tell("get", found[1])
        else:
            self._told.pop("get", None)
        return found

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        # Not the client's own: it passes `pretty=True`, which its generated half refuses (kubernetes 37.0.0).
        lease = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        began = Moment.now()
        try:
            async with asyncio.timeout(self._patience):
                await self.api_instance.create_namespaced_lease(namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            self._tell("create", error)
            return False
        self._told.pop("create", None)
        self._renewed(began)
        return True

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        # Not the client's own: it logs a fault each time, and keeps it to itself.
        lease = self.lease_reference
        if lease is None:
            return False
        lease.spec = self.update_lease(updated_record, lease.spec)
        began = Moment.now()
        try:
            async with asyncio.timeout(self._patience):
                await self.api_instance.replace_namespaced_lease(name, namespace, lease)
        except (ApiException, TimeoutError, aiohttp.ClientError, OSError) as error:
            self._tell("update", error)
            return False
        self._told.pop("update", None)
        self._renewed(began)
        return True

    def _tell(self, verb: str, error: Exception) -> None:
        """Say once why the Lease cannot be had, and what it takes."""
        status = error.status if isinstance(error, ApiException) else 0
        if status == CONFLICT or (status == NOT_FOUND and verb == "update"):
            return  # another operator took it at the same moment, or somebody deleted it: it is created next
        if status == FORBIDDEN:
            problem = (
                f"The operator may not {verb} this Lease. In the namespace {self.namespace} it"
                " needs the right to create leases (coordination.k8s.io), and to get and update this one."
                " If another namespace is meant, correct OPERATOR_NAMESPACE."
            )
        elif status == NOT_FOUND:
            problem = f"There is no namespace {self.namespace}. Create it, or correct OPERATOR_NAMESPACE."
        else:
            reason = error.reason if isinstance(error, ApiException) else str(error)
            problem = f"The API server does not answer as it should: {reason or type(error).__name__}."
        if problem != self._told.get(verb):
            log.warning(
                "the Lease cannot be had; it is tried again",
                lease=self.name,
                namespace=self.namespace,
                error=problem,
            )
        self._told[verb] = problem


class Leadership:
    """The Lease, and whether this process holds it.

    Args:
        connect: a client for the thread of the election alone.
        name: the Lease's.
        namespace: the Lease's.
        identity: by which the Lease names this process.
        seconds: how long the Lease lasts without a renewal.
    """

    def __init__(
        self, connect: Callable[[], ApiClient], *, name: str, namespace: str, identity: str, seconds: int
    ) -> None:
        self._connect = connect
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._seconds = seconds
        self.held = False
        self._renewed: Moment | None = None

    @property
    def current(self) -> bool:
        """Whether the Lease is held for sure: another operator cannot have it yet.

        After a pause of the process or its machine `held` may be old, before the election notices.
        """
        return self.held and self._renewed is not None and self._renewed.ago < self._seconds

    def _note_renewal(self, began: Moment) -> None:
        self._renewed = began

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, and do `work` while it is held.

        The Lease is renewed in a thread of its own: on the event loop of the work, a backlog of objects would
        have renewals wait for their turn until it is too late.

        Returns when the work ends; the Lease is given back then, and when this is cancelled.

        Raises:
            LeadershipLostError: the Lease was lost; the work was cancelled, and has ended.
        """
        loop = asyncio.get_running_loop()
        began = asyncio.Event()
        stop: Future[None] = Future()
        log.info("waiting for the Lease", lease=self._name, namespace=self._namespace)
        running = asyncio.ensure_future(
            asyncio.to_thread(
                lambda: asyncio.run(self._elect(lambda: loop.call_soon_threadsafe(began.set), stop))
            )
        )
        beginning = asyncio.create_task(began.wait(), name="the Lease")
        working: asyncio.Task[None] | None = None
        try:
            await asyncio.wait([running, beginning], return_when=asyncio.FIRST_COMPLETED)
            if beginning.done():
                log.info("leading", lease=self._name, identity=self._identity)
                working = asyncio.ensure_future(work())
                await asyncio.wait([running, working], return_when=asyncio.FIRST_COMPLETED)
            lost = running.done() and not (working is not None and working.done())
        finally:
            beginning.cancel()
            if working is not None and not working.done():
                working.cancel()
                await asyncio.wait([working])
            stop.cancel()  # what comes of `running` is the end of the election, and of the Lease
            await asyncio.wait([running])
        running.result()  # a fault of the election itself
        if lost:
            raise LeadershipLostError(f"The Lease {self._name} could not be renewed in time.")
        if working is not None:
            working.result()

    async def _elect(self, began: Callable[[], object], stop: Future[None]) -> None:
        """Have the Lease, and renew it, until it is lost or `stop` is cancelled; then it is given back.

        Args:
            began: called when the Lease is held.
            stop: cancelled by another thread.
        """

        async def begin() -> None:
            self.held = True
            began()

        async def end() -> None:
            self.held = False

        async with self._connect() as api:
            lock = _Lock(
                self._name,
                self._namespace,
                self._identity,
                api,
                patience=self._seconds * PATIENCE_SHARE,
                renewed=self._note_renewal,
            )
            config = Config(
                lock,
                lease_duration=self._seconds,
                renew_deadline=self._seconds * RENEW_SHARE,
                retry_period=max(1.0, self._seconds * RETRY_SHARE),
                onstarted_leading=begin,
                onstopped_leading=end,
            )
            election = asyncio.create_task(LeaderElection(config).run(), name="leader election")
            await asyncio.wait([election, asyncio.wrap_future(stop)], return_when=asyncio.FIRST_COMPLETED)
            election.cancel()
            await asyncio.wait([election])  # or a renewal under way would take the Lease again
            if self.held:
                await self._give_back(api)
            if not election.cancelled():
                election.result()

    async def _give_back(self, api: ApiClient) -> None:
        """Take our name off the Lease, if it is still there."""
        self.held = False
        leases = CoordinationV1Api(api)
        try:
            async with asyncio.timeout(self._seconds * PATIENCE_SHARE):
                lease = await leases.read_namespaced_lease(self._name, self._namespace)
                if lease.spec is None or lease.spec.holder_identity != self._identity:
                    return
                lease.spec.holder_identity = ""
                lease.spec.lease_duration_seconds = 1
                lease.spec.renew_time = dt.datetime.now(dt.UTC)
                await leases.replace_namespaced_lease(self._name, self._namespace, lease)
        except (TimeoutError, ApiException, aiohttp.ClientError, OSError) as error:
            log.warning("the Lease could not be given back; it runs out by itself", error=str(error))
