"""The worker's metrics. `docs/metrics.md` says what each means."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from downloadjobs_core.errors import LeaseLostError, QueueUnavailableError
from downloadjobs_core.job import Job, job_key
from downloadjobs_core.leases import SECOND_US, LeaseStore, Outcome, QueuePolicy, translated_errors
from downloadjobs_core.metrics import JOB_BUCKETS, PREFIX, REQUEST_BUCKETS, SIZE_BUCKETS
from downloadjobs_core.states import JobState
from downloadjobs_core.webhooks import Verdict
from downloadjobs_worker.hold import Hold

if TYPE_CHECKING:
    from redis import Redis

STREAM: Final = "stream"
"""How files come into a result: read, and uploaded again."""

NO_REASON: Final = "none"
"""The reason of a job that ended well."""

DEAD_LETTER: Final = "dead-letter"
"""The reason of a job whose workers were lost too often; `reap.lua` writes it as its error code."""


class Cause(StrEnum):
    """Why an attempt ended without an outcome."""

    DRAIN = "drain"
    """The process stops, and handed the job back."""

    CANCELLED = "cancelled"
    """The job was cancelled."""

    LEASE_LOST = "lease_lost"
    """It could not renew in time, and the job is another's."""

    JOINED = "joined"
    """Another attempt makes the same result, and the job waits for it."""

    QUEUE_UNAVAILABLE = "queue_unavailable"
    """Redis could not be told of the outcome; the lease runs out."""


class WorkerMetrics:
    """What one worker process counts.

    Args:
        registry: where the metrics are to be found.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._bundled = _Bundled()
        registry.register(self._bundled)
        self._finished = Counter(
            f"{PREFIX}jobs_finished_total",
            "Jobs that this process ended, by how they ended and why.",
            ("outcome", "reason"),
            registry=registry,
        )
        self._queue_wait = Histogram(
            f"{PREFIX}job_queue_wait_seconds",
            "From a job's submission to its first lease, in seconds.",
            buckets=JOB_BUCKETS,
            registry=registry,
        )
        self._run = Histogram(
            f"{PREFIX}job_run_seconds",
            "What an attempt took that ended with an outcome or a retry, in seconds.",
            buckets=JOB_BUCKETS,
            registry=registry,
        )
        self._end_to_end = Histogram(
            f"{PREFIX}job_end_to_end_seconds",
            "From a job's submission to its end, in seconds.",
            buckets=JOB_BUCKETS,
            registry=registry,
        )
        self._retries = Counter(
            f"{PREFIX}job_retries_total",
            "Attempts that failed and are followed by another.",
            registry=registry,
        )
        self._expired = Counter(
            f"{PREFIX}leases_expired_total",
            "Leases of lost workers that ran out and that this process took back.",
            registry=registry,
        )
        self._refused = Counter(
            f"{PREFIX}fenced_writes_refused_total",
            "Writes of this process that were refused because the job was no longer its own.",
            registry=registry,
        )
        self._result_bytes = Histogram(
            f"{PREFIX}result_bytes", "The size of results, in bytes.", buckets=SIZE_BUCKETS, registry=registry
        )
        self._slots = Gauge(
            f"{PREFIX}worker_slots", "Jobs that this process takes at once.", registry=registry
        )
        self._busy = Gauge(
            f"{PREFIX}worker_busy_slots",
            "Jobs and maintenance tasks that it works on now.",
            registry=registry,
        )
        self._interrupted = Counter(
            f"{PREFIX}interrupted_jobs_total",
            "Attempts that ended without an outcome, by cause.",
            ("cause",),
            registry=registry,
        )
        for cause in Cause:
            self._interrupted.labels(cause.value)
        self._webhooks = Histogram(
            f"{PREFIX}webhook_duration_seconds",
            "What a try to send a webhook took, in seconds, by what came of it.",
            ("result",),
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        for verdict in Verdict:
            self._webhooks.labels(verdict.value)
        self._deduplicated = Counter(
            f"{PREFIX}deduplicated_results_total",
            "Jobs that ended with a result that another had made.",
            registry=registry,
        )
        self._deduplicated_bytes = Counter(
            f"{PREFIX}deduplicated_bytes_total",
            "Bytes of results that were not made again.",
            registry=registry,
        )
        self._storage = Histogram(
            f"{PREFIX}storage_operation_duration_seconds",
            "What a request to storage took, in seconds.",
            ("operation", "result"),
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )

    def watch_slots(self, slots: Callable[[], int], busy: Callable[[], int]) -> None:
        """Ask these for the numbers of slots whenever somebody wants to know."""
        self._slots.set_function(slots)
        self._busy.set_function(busy)

    def attempt_began(self, hold: Hold) -> None:
        """A job was leased and is being worked on."""
        self._bundled.begin(hold)
        job = hold.job
        if job.leased_us and job.started_us == job.leased_us:
            self._queue_wait.observe(_seconds_between(job.created_us, job.leased_us))

    def attempt_ended(self, hold: Hold) -> None:
        """It is being worked on no longer."""
        self._bundled.end(hold)

    def finished(self, job: Job, outcome: Outcome, run_seconds: float) -> None:
        """A job was ended by its attempt, which took so long."""
        self._finished.labels(outcome.state.value, outcome.error_code or NO_REASON).inc()
        self._run.observe(run_seconds)
        # From Redis' clock to Redis' clock, and from there by our own: two clocks are never compared.
        self._end_to_end.observe(_seconds_between(job.created_us, job.leased_us) + run_seconds)
        if outcome.result_key:
            self._result_bytes.observe(outcome.result_bytes)
        if outcome.deduplicated:
            self._deduplicated.inc()
            self._deduplicated_bytes.inc(outcome.result_bytes)

    def retried(self, run_seconds: float) -> None:
        """An attempt failed, and another will follow."""
        self._retries.inc()
        self._run.observe(run_seconds)

    def interrupted(self, cause: Cause) -> None:
        """An attempt ended without an outcome."""
        self._interrupted.labels(cause.value).inc()

    def reaped(self, back: int, dead: int) -> None:
        """Leases ran out: so many jobs are ready again, and so many are dead letters."""
        if back or dead:
            self._expired.inc(back + dead)
        if dead:
            self._finished.labels(JobState.FAILED.value, DEAD_LETTER).inc(dead)

    def refused(self) -> None:
        """A token was refused."""
        self._refused.inc()

    def webhook_tried(self, verdict: Verdict, seconds: float) -> None:
        """A try to send a webhook ended."""
        self._webhooks.labels(verdict.value).observe(seconds)

    def storage_called(self, operation: str, result: str, seconds: float) -> None:
        """A request to storage ended."""
        self._storage.labels(operation, result).observe(seconds)


def _seconds_between(earlier_us: int, later_us: int) -> float:
    return max(0, later_us - earlier_us) / SECOND_US


class _Bundled(Collector):
    """`bundled_bytes_total`: read from the attempts' own progress when asked, so bundling pays nothing."""

    def __init__(self) -> None:
        self._ended = 0
        self._running: dict[int, Hold] = {}
        self._lock = threading.Lock()

    def begin(self, hold: Hold) -> None:
        with self._lock:
            self._running[id(hold)] = hold

    def end(self, hold: Hold) -> None:
        with self._lock:
            if self._running.pop(id(hold), None) is not None:
                self._ended += hold.progress.bytes_done

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            number = self._ended + sum(hold.progress.bytes_done for hold in self._running.values())
        family = CounterMetricFamily(
            f"{PREFIX}bundled_bytes_total",
            "Bytes of files that went into results, those of failed attempts included.",
            labels=("method",),
        )
        family.add_metric((STREAM,), number)
        yield family


class MeasuredLeases(LeaseStore):
    """The queue as a worker sees it; leases that ran out and refused tokens are counted."""

    def __init__(self, redis: Redis, policy: QueuePolicy, metrics: WorkerMetrics) -> None:
        super().__init__(redis, policy)
        self._metrics = metrics

    def reap(self) -> tuple[int, int]:
        """See `LeaseStore`."""
        back, dead = super().reap()
        self._metrics.reaped(back, dead)
        return back, dead

    def _fenced(self, script: str, job: Job, *args: str | float) -> Any:  # noqa: ANN401 - see `LeaseStore`
        try:
            return super()._fenced(script, job, *args)
        except LeaseLostError:
            self._metrics.refused()
            raise


def why_lost(leases: LeaseStore, job: Job) -> Cause:
    """Whether a lease was lost because the job was cancelled, which its record says."""
    try:
        with translated_errors():
            state = leases.redis.hget(job_key(job.job_id), "state")
    except QueueUnavailableError:
        return Cause.LEASE_LOST
    return Cause.CANCELLED if state == JobState.CANCELLED.value else Cause.LEASE_LOST
