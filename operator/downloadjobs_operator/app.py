"""The operator's composition root: everything it consists of is built and started here."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final

import kopf
from aiohttp import web

from downloadjobs_core import logs
from downloadjobs_core.claims import ClaimStore
from downloadjobs_core.event_stream import EventStream, JobEvent
from downloadjobs_core.fences import FenceStore
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.metrics import new_registry
from downloadjobs_core.redis_client import connect_async
from downloadjobs_operator.admission import OWNER_PREFIX, AdmissionRules
from downloadjobs_operator.alarms import Alarms
from downloadjobs_operator.autoscaler.decision import Limits
from downloadjobs_operator.autoscaler.limits import LimitsFile
from downloadjobs_operator.autoscaler.scaling import Autoscaler
from downloadjobs_operator.autoscaler.workers import KubernetesWorkers, WorkersView
from downloadjobs_operator.claims import Claims
from downloadjobs_operator.connection import WatchClock, api_client, kopf_session, load_configuration
from downloadjobs_operator.handlers import Services, create_registry, kopf_settings
from downloadjobs_operator.health import Health, create_app
from downloadjobs_operator.kube import KubernetesDownloadJobs
from downloadjobs_operator.kube_client import KubernetesError, KubernetesUnavailableError
from downloadjobs_operator.leadership import Leadership
from downloadjobs_operator.listening import Listener
from downloadjobs_operator.metrics import OperatorMetrics
from downloadjobs_operator.mirroring import StatusMirror
from downloadjobs_operator.mirrors import Mirrors
from downloadjobs_operator.peering import peering_objects, peering_problem
from downloadjobs_operator.queue_metrics import QueueExporter
from downloadjobs_operator.rationing import TokenBucket
from downloadjobs_operator.reconciling import Reconciler
from downloadjobs_operator.repairing import Repairs
from downloadjobs_operator.settings import OperatorSettings
from downloadjobs_operator.tracking import Tracked, Tracking

if TYPE_CHECKING:
    from kubernetes.aio.client.configuration import Configuration
    from redis.asyncio import Redis

REDIS_CONNECTIONS: Final = 32

SIGNALS_TAKEN_SECONDS: Final = 0.5
"""After which kopf has begun, and with that installed its signal handlers."""

STOP_SECONDS: Final = 10.0
"""How long its tasks may take to end; then the process ends all the same."""

LOOK_SECONDS: Final = 5.0
"""Between two looks for what must be in the cluster, or a way to it, at the start."""

MAKES_ROOM: Final = frozenset({"started", "cancelled"})
"""Events after which one job less of its user waits."""

log = logs.logger("downloadjobs_operator")


class Operator:
    """The services of one process, wired together.

    `work` is what the leader does: kopf's watch and handlers, and the tasks that follow Redis and the clock.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        configuration: Configuration,
        cluster: KubernetesDownloadJobs,
        redis: Redis,
    ) -> None:
        self._settings = settings
        self._configuration = configuration
        self.clock = WatchClock()
        self.tracking = Tracking(settings.mirrors_in)
        self.gave_up = 0
        self.metrics = OperatorMetrics(new_registry(settings.build_commit))
        self.metrics.watch(lambda: self.clock.last_event_at)
        jobs = JobStore(redis, settings.policy)
        rules = AdmissionRules(settings.user_id_namespaces, settings.priority_ceilings, settings.mirrors_in)
        self.mirror = StatusMirror(
            jobs,
            cluster,
            self.tracking,
            TokenBucket(settings.status_patches_per_second),
            results_bucket=settings.results_bucket,
            instance=settings.identity,
        )
        self._mirrors = Mirrors(
            jobs,
            cluster,
            self.tracking,
            mode=settings.mirror_api_jobs,
            namespace=settings.mirror_namespace,
            record_ttl_seconds=settings.record_ttl_seconds,
        )
        self._reconciler = Reconciler(
            jobs,
            cluster,
            rules,
            identify=self._mirrors.verify,
            changed=self.mirror.mark,
            gone=self.tracking.forget,
        )
        self._repairs = Repairs(
            self.tracking, self._reconciler, self.mirror, every_seconds=settings.resync_seconds
        )
        self._alarms = Alarms(self.tracking, cluster, self._reconciler)
        self._claims = Claims(ClaimStore(redis), cluster, self.tracking, tell=self.mirror.tell)
        self.listener = Listener(EventStream(redis), jobs, on_event=self._on_event, missed=self._missed)
        self.queue = QueueExporter(jobs.counts)
        self.metrics.registry.register(self.queue)
        self.autoscaler = self._create_autoscaler(cluster, redis)
        self.mirror.phase_written = self.metrics.status_written
        self.mirror.missing = self._repairs.ask
        self.mirror.settled = self._alarms.set
        self.mirror.watching = lambda: self.clock.open > 0

    def _create_autoscaler(self, cluster: KubernetesDownloadJobs, redis: Redis) -> Autoscaler | None:
        settings = self._settings
        if settings.worker_deployment is None:
            return None
        workers = KubernetesWorkers(cluster, settings.own_namespace, settings.worker_deployment)
        return Autoscaler(
            workers=workers,
            view=lambda changed: WorkersView(workers, changed),
            fences=FenceStore(redis),
            limits=LimitsFile(settings.autoscaler_file) if settings.autoscaler_file else Limits(),
            metrics=self.metrics.autoscaler,
            exported=self.queue.update,
            instance=settings.identity,
        )

    def _seen(self, tracked: Tracked) -> None:
        self._alarms.set(tracked)
        self._claims.see(tracked)
        if tracked.verdict is not None:
            self.mirror.mark(tracked)

    def _listed(self, tracked: Tracked) -> None:
        self.mirror.mark(tracked)
        if not (tracked.finished and tracked.job_id):
            self._repairs.ask(tracked)

    def _forgotten(self, uid: str) -> None:
        tracked = self.tracking.get(uid)
        if tracked is not None:
            self._reconciler.forget(tracked)
        self.tracking.forget(uid)
        self._alarms.forget(uid)

    def _count_gave_up(self) -> None:
        self.gave_up += 1
        self.metrics.gave_up()

    async def _on_event(self, event: JobEvent) -> None:
        if self.autoscaler is not None and event.kind != "progress":
            self.autoscaler.wake()
        tracked = self.tracking.showing(event.job_id)
        if tracked is not None:
            self.mirror.mark(tracked)
        elif event.kind not in {"progress", "expired", "dropped"}:
            self._mirrors.want(event.job_id, event.user)
        if event.kind in MAKES_ROOM and event.user.startswith(OWNER_PREFIX):
            self._repairs.made_room(event.user.removeprefix(OWNER_PREFIX))

    def _missed(self) -> None:
        self._repairs.look_at_all()
        if self._mirrors.on:
            self._mirrors.look_at_all()

    async def work(self, stop: asyncio.Event, take_signals: Callable[[], None]) -> None:
        """Do what the leader does, until `stop` is set.

        Args:
            stop: set by a signal.
            take_signals: kopf installs signal handlers of its own; this takes them back.

        Raises:
            EndedError: kopf ended by itself.
        """
        settings = self._settings
        registry = create_registry(
            Services(
                tracking=self.tracking,
                reconciler=self._reconciler,
                seen=self._seen,
                listed=self._listed,
                gone=self._forgotten,
                finalizer_give_up_seconds=settings.finalizer_give_up_seconds,
                gave_up=self._count_gave_up,
                tell=self.mirror.tell,
                reconciling=self.metrics.reconciling,
            ),
            login=lambda: kopf_session(self._configuration, self.clock),
        )
        served = settings.served
        kopf_stop = asyncio.Event()
        watching = asyncio.create_task(
            kopf.operator(
                registry=registry,
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
        following = asyncio.create_task(self._follow(), name="services")
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

    async def _follow(self) -> None:
        services = (
            self.mirror,
            self._repairs,
            self._alarms,
            self._claims,
            self._mirrors,
            self.listener,
            self.autoscaler or self.queue,  # it reads the same, and hands it on
        )
        async with asyncio.TaskGroup() as group:
            for service in services:
                group.create_task(service.run(), name=type(service).__name__)


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
        operator = Operator(settings, configuration, cluster, redis)
        leadership = (
            Leadership(
                api,
                name=settings.leader_lease_name,
                namespace=settings.own_namespace,
                identity=settings.identity,
                seconds=settings.leader_lease_seconds,
            )
            if settings.leader_election
            else None
        )
        await _serve_health(settings, operator, cluster, leadership, stack)
        if not await _wait_until_there(lambda: _resource_problem(cluster), stop):
            return
        if settings.peering_name is not None:
            wanted = peering_objects(settings.peering_name, settings.served)
            if not await _wait_until_there(lambda: peering_problem(cluster, wanted), stop):
                return

        async def work() -> None:
            await operator.work(stop, take_signals)

        leading = asyncio.create_task(leadership.lead(work) if leadership else work(), name="leading")
        stopped = asyncio.create_task(stop.wait(), name="signal")
        await asyncio.wait([leading, stopped], return_when=asyncio.FIRST_COMPLETED)
        if leadership is not None and not leadership.held:
            leading.cancel()  # it only waits for its turn
        with suppress(asyncio.CancelledError):
            await leading
        stopped.cancel()
        log.info("operator stopped")


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
