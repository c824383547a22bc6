"""The operator's composition root: everything it consists of is built and started here."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Final

import kopf
from aiohttp import web

from downloadjobs_core import logs
from downloadjobs_core.redis_client import connect_async
from downloadjobs_operator.connection import api_client, load_configuration
from downloadjobs_operator.handlers import kopf_settings
from downloadjobs_operator.health import Health, create_app
from downloadjobs_operator.kube import KubernetesDownloadJobs
from downloadjobs_operator.kube_client import KubernetesError, KubernetesUnavailableError
from downloadjobs_operator.leadership import Leadership
from downloadjobs_operator.peering import peering_objects, peering_problem
from downloadjobs_operator.settings import OperatorSettings
from downloadjobs_operator.wiring import Operator

REDIS_CONNECTIONS: Final = 32

SIGNALS_TAKEN_SECONDS: Final = 0.5
"""After which kopf has begun, and with that installed its signal handlers."""

STOP_SECONDS: Final = 10.0
"""How long its tasks may take to end; then the process ends all the same."""

LOOK_SECONDS: Final = 5.0
"""Between two looks for what must be in the cluster, or a way to it, at the start."""

log = logs.logger("downloadjobs_operator")


class EndedError(Exception):
    """What runs until it is stopped has ended: something in it has failed."""


async def run(settings: OperatorSettings) -> None:
    """Run the operator until a signal.

    Raises:
        NoClusterError: there is no way to a cluster.
        LeadershipLostError: the Lease was lost; the process must end, and be started again.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    take_signals()
    configuration = await load_configuration()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(api_client(configuration))
        redis = connect_async(settings.redis, max_connections=REDIS_CONNECTIONS)
        stack.push_async_callback(redis.aclose)
        cluster = KubernetesDownloadJobs(api)
        leadership = (
            Leadership(
                lambda: api_client(configuration),
                name=settings.leader_lease_name,
                namespace=settings.own_namespace,
                identity=settings.identity,
                seconds=settings.leader_lease_seconds,
            )
            if settings.leader_election
            else None
        )
        operator = Operator(
            settings,
            configuration,
            cluster,
            redis,
            leads=lambda: leadership is None or leadership.current,
        )
        await _serve_health(settings, operator, cluster, leadership, stack)
        if not await _wait_until_there(lambda: _resource_problem(cluster), stop):
            return
        if settings.peering_name is not None:
            wanted = peering_objects(settings.peering_name, settings.served)
            if not await _wait_until_there(lambda: peering_problem(cluster, wanted), stop):
                return

        async def work() -> None:
            await _work(operator, settings, stop, take_signals)

        leading = asyncio.create_task(leadership.lead(work) if leadership else work(), name="leading")
        stopped = asyncio.create_task(stop.wait(), name="signal")
        await asyncio.wait([leading, stopped], return_when=asyncio.FIRST_COMPLETED)
        if leadership is not None and not leadership.held:
            leading.cancel()  # it only waits for its turn
        with suppress(asyncio.CancelledError):
            await leading
        stopped.cancel()
        log.info("operator stopped")


async def _work(
    operator: Operator, settings: OperatorSettings, stop: asyncio.Event, take_signals: Callable[[], None]
) -> None:
    """Do what the leader does, until `stop` is set.

    Args:
        operator: what is to be done.
        settings: where, and how.
        stop: set by a signal.
        take_signals: kopf installs signal handlers of its own; this takes them back.

    Raises:
        EndedError: kopf ended by itself.
    """
    served = settings.served
    kopf_stop = asyncio.Event()
    watching = asyncio.create_task(
        kopf.operator(
            registry=operator.registry(),
            settings=kopf_settings(
                peering_name=settings.peering_name, peering_priority=settings.peering_priority
            ),
            clusterwide=not served,
            namespaces=served,
            stop_flag=kopf_stop,
        ),
        name="kopf",
    )
    log.info("operator started", namespaces=list(served) or "all", mirrors=settings.mirrors_in or "none")
    following = asyncio.create_task(operator.follow(), name="services")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    signalled = False
    try:
        await asyncio.sleep(SIGNALS_TAKEN_SECONDS)
        take_signals()
        await asyncio.wait([watching, following, stopping], return_when=asyncio.FIRST_COMPLETED)
        # In its first moments a signal is still kopf's; it returns in order for nothing else.
        signalled = watching.done() and not watching.cancelled() and watching.exception() is None
    finally:
        # Ours before kopf's end: it would wait for every task that it did not begin itself. But without
        # the Lease nothing may go on, so kopf is told at the same time.
        stopping.cancel()
        following.cancel()
        if not stop.is_set():
            watching.cancel()
        await asyncio.wait([following], timeout=STOP_SECONDS)  # a library may swallow a cancellation
        kopf_stop.set()
        await asyncio.wait([watching], timeout=STOP_SECONDS)
    if not stop.is_set() and not signalled:
        faults = [one.exception() for one in (watching, following) if one.done() and not one.cancelled()]
        fault = next(filter(None, faults), None)
        raise EndedError(f"a task of the operator has ended by itself: {fault!r}") from fault


async def _serve_health(
    settings: OperatorSettings,
    operator: Operator,
    cluster: KubernetesDownloadJobs,
    leadership: Leadership | None,
    stack: AsyncExitStack,
) -> None:
    def queue_silent() -> float | None:
        heard_at = operator.listener.heard_at
        return time.monotonic() - heard_at if heard_at else None

    health = Health(
        clock=operator.clock,
        cluster=cluster,
        leadership=leadership,
        queue_silent_seconds=queue_silent,
        objects=lambda: len(operator.tracking),
    )
    operator.metrics.lead(lambda: health.leading)
    decisions = None if operator.autoscaler is None else operator.autoscaler.history.document
    runner = web.AppRunner(create_app(health, operator.metrics.registry, decisions), access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, settings.host, settings.port)
    await site.start()
    host, port = runner.addresses[0][:2]
    log.info("listening", address=f"{host}:{port}")


async def _resource_problem(cluster: KubernetesDownloadJobs) -> str:
    """What is wrong if the API server does not serve DownloadJobs; empty if it does."""
    if await cluster.serves_downloadjobs():
        return ""
    return "The cluster does not know DownloadJobs: apply the CustomResourceDefinition."


async def _wait_until_there(problem_of: Callable[[], Awaitable[str]], stop: asyncio.Event) -> bool:
    """Wait until the API server answers and has what is needed; False if a signal came before.

    Args:
        problem_of: what is missing; empty if nothing is.
        stop: set by a signal.
    """
    told = ""
    while not stop.is_set():
        try:
            problem = await problem_of()
        except KubernetesUnavailableError as error:
            problem = str(error)
        except KubernetesError as error:
            problem = f"{error}. Check the operator's credentials."
        if not problem:
            return True
        if problem != told:
            log.warning("not ready", server="kubernetes", error=problem)
            told = problem
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await stop.wait()
    return False
