"""What one operator process consists of, wired together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from downloadjobs_core.claims import ClaimStore
from downloadjobs_core.event_stream import EventStream, JobEvent
from downloadjobs_core.fences import FenceStore
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.metrics import new_registry
from downloadjobs_operator.admission import OWNER_PREFIX, AdmissionRules
from downloadjobs_operator.alarms import Alarms
from downloadjobs_operator.autoscaler.decision import Limits
from downloadjobs_operator.autoscaler.limits import LimitsFile
from downloadjobs_operator.autoscaler.scaling import Autoscaler
from downloadjobs_operator.autoscaler.workers import KubernetesWorkers, WorkersView
from downloadjobs_operator.claims import Claims
from downloadjobs_operator.clocks import QueueClock
from downloadjobs_operator.connection import WatchClock, kopf_session
from downloadjobs_operator.controller import Controller, GivingUp
from downloadjobs_operator.handlers import Services, create_registry
from downloadjobs_operator.kube import KubernetesDownloadJobs
from downloadjobs_operator.listening import Listener
from downloadjobs_operator.metrics import OperatorMetrics
from downloadjobs_operator.mirroring import StatusMirror
from downloadjobs_operator.mirrors import Mirrors
from downloadjobs_operator.orphans import Orphans
from downloadjobs_operator.queue_metrics import QueueExporter
from downloadjobs_operator.rationing import TokenBucket
from downloadjobs_operator.reconciling import Reconciler
from downloadjobs_operator.repairing import Repairs
from downloadjobs_operator.settings import OperatorSettings
from downloadjobs_operator.tracking import Tracked, Tracking

if TYPE_CHECKING:
    import kopf
    from kubernetes.aio.client.configuration import Configuration
    from redis.asyncio import Redis

MAKES_ROOM: Final = frozenset({"started", "cancelled"})
"""Events after which one job less of its user waits."""


class Operator:
    """The services of one process, wired together.

    kopf's watch feeds it (`registry`), and `follow` does the work.
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
        self.leads: Callable[[], bool] = lambda: True
        """Whether this process holds the Lease for sure."""
        self.tracking = Tracking(settings.mirrors_in)
        jobs = JobStore(redis, settings.policy)
        redis_clock = QueueClock(jobs)
        self.metrics = OperatorMetrics(new_registry(settings.build_commit), now=redis_clock.now)
        self.metrics.watch(lambda: self.clock.last_event_at)
        rules = AdmissionRules(
            settings.user_id_namespaces,
            settings.priority_ceilings,
            settings.mirrors_in,
            webhooks=settings.webhooks_enabled,
            addresses=settings.address_rules,
        )
        self.mirror = StatusMirror(
            jobs,
            cluster,
            self.tracking,
            TokenBucket(settings.status_patches_per_second),
            results_bucket=settings.results_bucket,
            instance=settings.identity,
            now=redis_clock.now,
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
        )
        self._controller = Controller(
            self.tracking,
            self._reconciler,
            cluster,
            may=self._may_act,
            giving_up=GivingUp(settings.finalizer_give_up_seconds, cluster.clock.now, self.metrics.gave_up),
            tell=self.mirror.tell,
            forgotten=self._forgotten,
            around=self.metrics.reconciling,
        )
        self._repairs = Repairs(
            self.tracking,
            self.mirror,
            look_at=self._controller.look_at,
            turned_away=self._reconciler.turned_away,
            every_seconds=settings.resync_seconds,
        )
        self._orphans = Orphans(
            jobs,
            cluster,
            self.tracking,
            served=settings.served,
            every_seconds=settings.resync_seconds,
            may=self._may_act,
        )
        self._alarms = Alarms(
            self.tracking,
            cluster,
            self._reconciler,
            redis_clock,
            may=self._may_act,
            gone=self._controller.gone,
        )
        self._claims = Claims(
            ClaimStore(redis), cluster, self.tracking, tell=self.mirror.tell, identify=self._mirrors.verify
        )
        self.listener = Listener(
            EventStream(redis), jobs, on_event=self._on_event, missed=self._missed, clock=redis_clock
        )
        self.queue = QueueExporter(jobs.counts)
        self.metrics.registry.register(self.queue)
        self.autoscaler = self._create_autoscaler(cluster, redis)
        self.mirror.phase_written = self.metrics.status_written
        self.mirror.missing = self._controller.look_at
        self.mirror.settled = self._alarms.set
        self.mirror.gone = self._controller.gone
        self.mirror.watching = self._may_act

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

    def _may_act(self) -> bool:
        """Whether what is known of objects is new, and nobody else can be at work."""
        return self.clock.open > 0 and self.leads()

    def _seen(self, tracked: Tracked) -> None:
        self._controller.look_at(tracked)
        self._alarms.set(tracked)
        self._claims.see(tracked)
        if tracked.verdict is not None or tracked.overwritten:
            self.mirror.mark(tracked)

    def _listed(self, tracked: Tracked) -> None:
        self.mirror.mark(tracked)

    def _forgotten(self, uid: str) -> None:
        tracked = self.tracking.get(uid)
        if tracked is not None:
            self._reconciler.forget(tracked)
        self.tracking.forget(uid)
        self._alarms.forget(uid)

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

    def registry(self) -> kopf.OperatorRegistry:
        """What kopf is to call."""
        return create_registry(
            Services(
                tracking=self.tracking, seen=self._seen, listed=self._listed, gone=self._controller.gone
            ),
            login=lambda: kopf_session(self._configuration, self.clock),
        )

    async def follow(self) -> None:
        """Follow Redis, the watch and the clock, until cancelled."""
        services = (
            self._controller,
            self.mirror,
            self._repairs,
            self._alarms,
            self._claims,
            self._mirrors,
            self._orphans,
            self.listener,
            self.autoscaler or self.queue,  # it reads the same, and hands it on
        )
        async with asyncio.TaskGroup() as group:
            for service in services:
                group.create_task(service.run(), name=type(service).__name__)
