"""The operator's metrics, the autoscaler's among them. `docs/metrics.md` says what each means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.metrics import PREFIX, REQUEST_BUCKETS
from downloadjobs_operator.kube_client import KubernetesError

LAG_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
"""Seconds from a change to what shows it: from one round trip to an outage of ten minutes."""

SCALE_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Seconds of a stage of scaling: from a patch to the start of a pod on a new node."""

DOWNLOADJOBS: Final = "downloadjobs"
"""The resource that is watched."""

HANDLERS: Final = ("submit", "follow", "withdraw")
RECONCILED: Final = ("ok", "retried", "failed")


class OperatorMetrics:
    """What one operator process counts.

    Args:
        registry: where the metrics are to be found.
        now: Redis' time, in seconds since 1970.
    """

    def __init__(self, registry: CollectorRegistry, *, now: Callable[[], float]) -> None:
        self.registry = registry
        self._now = now
        self.autoscaler = AutoscalerMetrics(registry)
        self._reconciled = Counter(
            f"{PREFIX}reconcile_total",
            "Calls of a handler of DownloadJobs, by how they ended.",
            ("handler", "result"),
            registry=registry,
        )
        self._reconcile_seconds = Histogram(
            f"{PREFIX}reconcile_duration_seconds",
            "What a call of a handler took, in seconds.",
            ("handler",),
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._lag = Histogram(
            f"{PREFIX}status_lag_seconds",
            "From a job's change of phase to its DownloadJob's status, in seconds.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self._gave_up = Counter(
            f"{PREFIX}finalizers_gave_up_total",
            "DownloadJobs that were let go although their jobs could not be withdrawn.",
            registry=registry,
        )
        self._leader = Gauge(
            f"{PREFIX}leader", "1 while this process does the operator's work, else 0.", registry=registry
        )
        for handler in HANDLERS:
            self._reconcile_seconds.labels(handler)
            for result in RECONCILED:
                self._reconciled.labels(handler, result)

    def watch(self, last_event_at: Callable[[], float]) -> None:
        """Ask this when the watch was last heard, in seconds since 1970; 0 for not yet."""
        self.registry.register(
            SometimesGauge(
                f"{PREFIX}watch_last_event_timestamp_seconds",
                "When the watch last brought an event or a bookmark, in seconds since 1970.",
                lambda: last_event_at() or None,
                label=("resource", DOWNLOADJOBS),
            )
        )

    def lead(self, leading: Callable[[], bool]) -> None:
        """Ask this whether the process leads."""
        self._leader.set_function(lambda: float(leading()))

    @contextmanager
    def reconciling(self, handler: str) -> Iterator[None]:
        """Around one call of a handler."""
        began = time.monotonic()
        result = ""  # stays so where the process ends in the middle
        try:
            yield
            result = "ok"
        except (DownloadJobsError, KubernetesError):
            result = "retried"
            raise
        except Exception:
            result = "failed"
            raise
        finally:
            if result:
                self._reconciled.labels(handler, result).inc()
                self._reconcile_seconds.labels(handler).observe(time.monotonic() - began)

    def status_written(self, changed_at: float) -> None:
        """A status now shows a change of phase of this time, in seconds since 1970 by Redis' clock."""
        self._lag.observe(max(0.0, self._now() - changed_at))

    def gave_up(self) -> None:
        """A finalizer was taken off although Redis could not be told."""
        self._gave_up.inc()


class AutoscalerMetrics:
    """What the autoscaler decides, and how quickly it becomes true."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._replicas = Gauge(
            f"{PREFIX}autoscaler_replicas",
            "Worker pods: there now, as the formula says, as decided, and the bounds.",
            ("kind",),
            registry=registry,
        )
        self._decisions = Counter(
            f"{PREFIX}autoscaler_decisions_total",
            "Decisions, by direction and reason.",
            ("direction", "reason"),
            registry=registry,
        )
        self._held = Gauge(
            f"{PREFIX}autoscaler_held",
            "1 for the reason because of which the replicas are left as they are, else 0.",
            ("reason",),
            registry=registry,
        )
        self._rolling_out = Gauge(
            f"{PREFIX}autoscaler_rolling_out",
            "1 while the workers' Deployment replaces its pods, else 0.",
            registry=registry,
        )
        self._latency = Histogram(
            f"{PREFIX}autoscaler_scale_latency_seconds",
            "What a stage of scaling took, in seconds.",
            ("stage",),
            buckets=SCALE_BUCKETS,
            registry=registry,
        )
        self._victims = Counter(
            f"{PREFIX}autoscaler_victims_total",
            "Pods that went because of a scale-in, by what they did then. Busy must stay 0.",
            ("state",),
            registry=registry,
        )
        for state in ("idle", "busy"):
            self._victims.labels(state)
        self._held_for: set[str] = set()
        self._signal_age = SometimesGauge(
            f"{PREFIX}autoscaler_signal_age_seconds",
            "How old the numbers are that the autoscaler decides by, in seconds.",
            lambda: None,
        )
        registry.register(self._signal_age)

    def signal(self, age_seconds: Callable[[], float | None]) -> None:
        """Ask this how old the numbers are; None while there are none."""
        self._signal_age.read = age_seconds

    def replicas(self, *, current: int, raw: int, desired: int, minimum: int, maximum: int) -> None:
        """What was seen and decided last."""
        kinds = {"current": current, "raw": raw, "desired": desired, "min": minimum, "max": maximum}
        for kind, number in kinds.items():
            self._replicas.labels(kind).set(number)

    def decided(self, direction: str, reason: str) -> None:
        """A decision was made."""
        self._decisions.labels(direction, reason).inc()

    def held(self, reason: str | None) -> None:
        """The replicas are left as they are for this reason; None if for none."""
        for before in self._held_for:
            self._held.labels(before).set(0)
        if reason is not None:
            self._held_for.add(reason)
            self._held.labels(reason).set(1)

    def rollout(self, *, under_way: bool) -> None:
        """Whether the workers' pods are being replaced."""
        self._rolling_out.set(under_way)

    def took(self, stage: str, seconds: float) -> None:
        """A stage of scaling has ended."""
        self._latency.labels(stage).observe(seconds)

    def victim(self, *, busy: bool) -> None:
        """A pod went because of a scale-in."""
        self._victims.labels("busy" if busy else "idle").inc()


class SometimesGauge(Collector):
    """A gauge that is asked for when it is read, and absent while there is nothing to tell.

    Args:
        name: with the prefix.
        documentation: one sentence.
        read: the value now, or None.
        label: its one label's name and value, if it has one.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        read: Callable[[], float | None],
        *,
        label: tuple[str, str] | None = None,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self.read = read
        self._label = label

    def collect(self) -> Iterable[Metric]:
        """One sample, or none."""
        family = GaugeMetricFamily(
            self._name, self._documentation, labels=self._label[:1] if self._label else ()
        )
        value = self.read()
        if value is not None:
            family.add_metric(self._label[1:] if self._label else (), value)
        yield family
