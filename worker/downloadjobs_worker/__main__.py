"""The worker process: `downloadjobs-worker`, or `python -m downloadjobs_worker`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from downloadjobs_core import fault_reports, logs, trace_export
from downloadjobs_core.errors import DownloadJobsError, ObjectStoreError
from downloadjobs_core.huey_queue import LeasedHuey
from downloadjobs_core.leases import LeaseStore
from downloadjobs_core.listening import listen_or_end, url_of
from downloadjobs_core.metrics import metrics_page, new_registry
from downloadjobs_core.objectstore.factory import Stores, open_stores
from downloadjobs_core.objectstore.measured import MeasuredObjectStore
from downloadjobs_core.objectstore.protocol import ObjectStore
from downloadjobs_core.objectstore.traced import TracedObjectStore
from downloadjobs_core.redis_client import connect
from downloadjobs_core.settings import load, refuse, refuse_arguments
from downloadjobs_core.side_port import SidePort
from downloadjobs_core.tasks import bind_bundle, bind_maintain
from downloadjobs_core.trace_export import TraceExport
from downloadjobs_core.upkeep import UpkeepStore
from downloadjobs_core.webhook_keys import Signer, read_signer
from downloadjobs_core.webhooks import WebhookStore
from downloadjobs_worker.attempt import AttemptRunner, Delay
from downloadjobs_worker.bundling import PLAN_THREADS, Bundler, BundlingLimits
from downloadjobs_worker.consumer import DrainingConsumer
from downloadjobs_worker.couriers import Couriers, RetryPlan
from downloadjobs_worker.health import Health
from downloadjobs_worker.keeper import Keeper
from downloadjobs_worker.maintenance import Maintenance
from downloadjobs_worker.metrics import MeasuredLeases, WorkerMetrics
from downloadjobs_worker.settings import WorkerSettings
from downloadjobs_worker.single_flight import SingleFlight
from downloadjobs_worker.storage_watch import StorageWatch
from downloadjobs_worker.tracing import TracedAttempts
from downloadjobs_worker.webhook_sending import WebhookSender, proxy_of, tls_context

PROCESS: Final = "downloadjobs-worker"

CHECK_SECONDS: Final = 15.0
"""How often storage is asked at the start until it answers; the worker runs meanwhile."""

log = logs.logger("downloadjobs_worker")


def create_consumer(
    settings: WorkerSettings, stores: Stores, metrics: WorkerMetrics, traces: TraceExport | None = None
) -> tuple[DrainingConsumer, Keeper]:
    """Wire the worker: everything it consists of is built here."""
    redis = connect(settings.redis)
    leases = MeasuredLeases(redis, settings.policy, metrics)
    name = settings.worker_name or socket.gethostname()
    holder = settings.pod_uid or name
    keeper = Keeper(leases, worker=holder, slots=settings.worker_concurrency)
    metrics.watch_slots(lambda: keeper.slots, lambda: len(keeper.held()))
    bundler = Bundler(
        files=stores.files,
        results=stores.results,
        limits=BundlingLimits(
            settings.part_bytes,
            settings.upload_threads,
            settings.upload_memory,
            settings.read_ahead_files,
            settings.read_ahead_bytes,
        ),
        files_prefix=settings.s3_key_prefix,
        results_prefix=settings.s3_results_prefix,
    )
    delay = (
        Delay(settings.download_delay_min_ms, settings.download_delay_max_ms)
        if settings.download_delay_enabled
        else Delay()
    )
    flights = (
        SingleFlight(
            leases,
            stores.results,
            settings.s3_results_prefix,
            source=(stores.files.bucket, settings.s3_key_prefix),
        )
        if settings.deduplicate_results
        else None
    )
    storage = StorageWatch((stores.files, stores.results), settings.storage_patience_seconds)
    runner = AttemptRunner(leases, keeper, bundler, settings.retry, delay, metrics, flights, storage)
    maintenance = Maintenance(
        UpkeepStore(redis),
        keeper,
        stores.results,
        settings.s3_results_prefix,
        result_ttl_seconds=settings.result_ttl_seconds,
        orphan_grace_seconds=settings.orphan_grace_seconds,
    )
    huey = LeasedHuey(leases, worker=name, holder=holder)
    bind_bundle(huey, runner.run if traces is None else TracedAttempts(runner.run, traces).run)
    bind_maintain(huey, maintenance.run)
    consumer = DrainingConsumer(
        huey,
        leases=leases,
        keeper=keeper,
        workers=settings.worker_concurrency,
        drain_seconds=settings.drain_seconds,
    )
    return consumer, keeper


def create_couriers(settings: WorkerSettings, signer: Signer | None, metrics: WorkerMetrics) -> Couriers:
    """Wire what sends webhooks; without a key it sends none."""
    sender = WebhookSender(
        settings.address_rules,
        settings.webhook_timeout_seconds,
        tls_context(str(settings.webhook_ca_file) if settings.webhook_ca_file else None),
        proxy_of(settings.webhook_proxy),
    )
    return Couriers(
        WebhookStore(connect(settings.redis)),
        sender,
        signer,
        RetryPlan(settings.webhook_retry_seconds),
        holder=settings.pod_uid or settings.worker_name or socket.gethostname(),
        threads=settings.webhook_concurrency,
        told=metrics.webhook_tried,
    )


def wrapped(stores: Stores, wrap: Callable[[ObjectStore], ObjectStore]) -> Stores:
    """Both stores within another; one that is both stays one, so that an outage asks it once."""
    files = wrap(stores.files)
    return replace(
        stores, files=files, results=files if stores.results is stores.files else wrap(stores.results)
    )


def _check_servers(leases: LeaseStore, stores: Stores) -> None:
    """Say in the log what cannot be reached, until each was reached once."""
    checks = {"redis": leases.ping, "files": stores.files.check, "results": stores.results.check}
    while checks:
        for name, check in list(checks.items()):
            try:
                check()
            except DownloadJobsError as error:
                log.warning("not ready", server=name, error=str(error))
            else:
                del checks[name]
        if checks:
            time.sleep(CHECK_SECONDS)
    log.info("servers reached")


def main() -> None:
    """Run until a signal, then drain. Exits with 2 if settings are wrong."""
    refuse_arguments(PROCESS)
    settings = load(WorkerSettings, PROCESS)
    logs.configure(level=settings.log_level, log_format=settings.log_format)
    per_slot = settings.read_ahead_files + settings.upload_threads + PLAN_THREADS
    try:
        stores = open_stores(settings, connections=settings.worker_concurrency * per_slot)
    except ObjectStoreError as error:
        raise SystemExit(refuse(PROCESS, [str(error)])) from None
    if stores.mock:
        log.warning(
            "mock storage: files are generated, results lie in a folder", folder=str(settings.mock_dir)
        )
    signer = read_signer(settings.webhook_signing_key_file) if settings.webhook_signing_key_file else None
    listener = listen_or_end(PROCESS, settings.host, settings.metrics_port, setting="METRICS_PORT")
    traces = trace_export.start(settings, PROCESS)
    flush_faults = fault_reports.start(settings, PROCESS)
    if traces is not None:
        stores = wrapped(stores, partial(TracedObjectStore, tracer=traces.tracer))
    registry = new_registry(settings.build_commit)
    metrics = WorkerMetrics(registry)
    stores = wrapped(stores, partial(MeasuredObjectStore, observe=metrics.storage_called))
    consumer, keeper = create_consumer(settings, stores, metrics, traces)
    health = Health(keeper, consumer.started, consumer.huey.closing)
    pages = {
        "/metrics": lambda accept: metrics_page(registry, accept),
        "/livez": health.alive,
        "/readyz": health.ready,
    }
    couriers = create_couriers(settings, signer, metrics)
    SidePort(listener, pages).start()
    log.info("serving metrics", address=f"{url_of(listener)}/metrics")
    threading.Thread(target=_check_servers, args=(keeper.leases, stores), name="checks", daemon=True).start()
    keeper.start()
    couriers.start()
    log.info("worker started", slots=settings.worker_concurrency, lease_seconds=settings.lease_seconds)
    try:
        consumer.run()
    finally:
        couriers.close()  # after the drain, so that the last jobs' webhooks still go out
        keeper.close()
        flush_faults()
        if traces is not None:
            traces.close()


if __name__ == "__main__":
    main()
