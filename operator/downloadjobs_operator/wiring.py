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
from downloadjobs_operator.mirroring import MirrorHooks, StatusMirror
from downloadjobs_operator.mirrors import Mirrors
from downloadjobs_operator.orphans import Orphans
from downloadjobs_operator.queue_metrics import QueueExporter
from downloadjobs_operator.rationing import TokenBucket
from downloadjobs_operator.reconciling import Reconciler
from downloadjobs_operator.repairing import Repairs
from downloadjobs_operator.settings import OperatorSettings
from downloadjobs_operator.status import Surroundings
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

    Args:
        settings: what it is to do, and where.
        configuration: where the API server is, for kopf's watch.
        cluster: all other requests to it.
        redis: the queue.
        leads: whether this process holds the Lease for sure.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        configuration: Configuration,
        cluster: KubernetesDownloadJobs,
        redis: Redis,
        *,
        leads: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._configuration = configuration
        self._cluster = cluster
        self._leads = leads
        self._jobs = JobStore(redis, settings.policy)
        self._redis_clock = QueueClock(self._jobs)
        self.clock = WatchClock()
        self.tracking = Tracking(settings.mirrors_in)
        self.metrics = OperatorMetrics(new_registry(settings.build_commit), now=self._redis_clock.now)
        self.metrics.watch(lambda: self.clock.last_event_at)

        self.mirror = self._create_mirror()
        self._mirrors = Mirrors(
            self._jobs,
            cluster,
            self.tracking,
            mode=settings.mirror_api_jobs,
            namespace=settings.mirror_namespace,
            record_ttl_seconds=settings.record_ttl_seconds,
        )
        self._reconciler = self._create_reconciler()
        self._controller = self._create_controller()
        self._alarms = Alarms(
            self.tracking,
            cluster,
            self._reconciler,
            self._redis_clock,
            may=self._may_act,
            gone=self._gone,
        )
        self._claims = Claims(
            ClaimStore(redis), cluster, self.tracking, tell=self.mirror.tell, identify=self._mirrors.verify
        )
        self._repairs, self._orphans = self._create_comparisons()

        self.listener = Listener(
            EventStream(redis),
            self._jobs,
            on_event=self._on_event,
            missed=self._missed,
            clock=self._redis_clock,
        )
        self.queue = QueueExporter(self._jobs.counts)
        self.metrics.registry.register(self.queue)
        self.autoscaler = self._create_autoscaler(redis)

    def _create_mirror(self) -> StatusMirror:
        settings = self._settings
        hooks = MirrorHooks(
            watching=self._may_act,
            missing=self._look_at,
            settled=self._settled,
            gone=self._gone,
            phase_written=self.metrics.status_written,
        )
        return StatusMirror(
            self._jobs,
            self._cluster,
            self.tracking,
            TokenBucket(settings.status_patches_per_second),
            hooks,
            around=Surroundings(settings.results_bucket, max_running=settings.user_max_running),
            instance=settings.identity,
            now=self._redis_clock.now,
        )

    def _create_reconciler(self) -> Reconciler:
        settings = self._settings
        rules = AdmissionRules(
            settings.user_id_namespaces,
            settings.priority_ceilings,
            settings.mirrors_in,
            webhooks=settings.webhooks_enabled,
            addresses=settings.address_rules,
        )
        return Reconciler(
            self._jobs, self._cluster, rules, identify=self._mirrors.verify, changed=self.mirror.mark
        )

    def _create_controller(self) -> Controller:
        giving_up = GivingUp(
            self._settings.finalizer_give_up_seconds, self._cluster.clock.now, self.metrics.gave_up
        )
        return Controller(
            self.tracking,
            self._reconciler,
            self._cluster,
            may=self._may_act,
            giving_up=giving_up,
            tell=self.mirror.tell,
            forgotten=self._forgotten,
            around=self.metrics.reconciling,
        )

    def _create_comparisons(self) -> tuple[Repairs, Orphans]:
        """What finds objects whose jobs were missed, and jobs whose objects were."""
        settings = self._settings
        repairs = Repairs(
            self.tracking,
            self.mirror,
            look_at=self._controller.look_at,
            turned_away=self._reconciler.turned_away,
            every_seconds=settings.resync_seconds,
        )
        orphans = Orphans(
            self._jobs,
            self._cluster,
            self.tracking,
            served=settings.served,
            every_seconds=settings.resync_seconds,
            may=self._may_act,
        )
        return repairs, orphans

    def _create_autoscaler(self, redis: Redis) -> Autoscaler | None:
        settings = self._settings
        if settings.worker_deployment is None:
            return None
        workers = KubernetesWorkers(self._cluster, settings.own_namespace, settings.worker_deployment)
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
        return self.clock.open > 0 and self._leads()

    # Hooks of the mirror, looked up when they are called: whom they call is built with the mirror.

    def _look_at(self, tracked: Tracked) -> None:
        self._controller.look_at(tracked)

    def _settled(self, tracked: Tracked) -> None:
        self._alarms.set(tracked)

    def _gone(self, tracked: Tracked) -> None:
        self._controller.gone(tracked)

    # What the watch, and Redis, have to say.

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
        self._claims.forget(uid)

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
            Services(tracking=self.tracking, seen=self._seen, listed=self._listed, gone=self._gone),
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
