"""The operator's metrics, and the autoscaler's: what is told, and when nothing is."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_operator.metrics import OperatorMetrics
from support_metrics import Metrics, metrics_of
from support_operator import NOW


@pytest.fixture
def metrics() -> OperatorMetrics:
    """In a registry of their own."""
    return OperatorMetrics(CollectorRegistry(), now=lambda: NOW)


def told(metrics: OperatorMetrics) -> Metrics:
    """What they tell now."""
    return metrics_of(metrics.registry)


def test_a_handlers_call_is_told_by_its_end(metrics: OperatorMetrics) -> None:
    """A call is ok, or will be made again, or failed; what it raises goes on."""
    with metrics.reconciling("submit"):
        pass
    with pytest.raises(QueueUnavailableError), metrics.reconciling("submit"):
        raise QueueUnavailableError("later")
    with pytest.raises(ValueError, match="never"), metrics.reconciling("submit"):
        raise ValueError("never")
    with pytest.raises(KeyboardInterrupt), metrics.reconciling("submit"):
        raise KeyboardInterrupt
    now = told(metrics)
    for result in ("ok", "retried", "failed"):
        assert now.value("reconcile_total", handler="submit", result=result) == 1
    assert now.value("reconcile_duration_seconds_count", handler="submit") == 3


def test_the_watch_is_told_once_it_was_heard(metrics: OperatorMetrics) -> None:
    """Before the first event there is no time of it: 0 would look like one of 1970."""
    heard = [0.0]
    metrics.watch(lambda: heard[0])
    name = "watch_last_event_timestamp_seconds"
    assert told(metrics).value(name, resource="downloadjobs") is None
    heard[0] = 1_700_000_000.0
    assert told(metrics).value(name, resource="downloadjobs") == 1_700_000_000


def test_who_leads_is_asked_when_it_is_read(metrics: OperatorMetrics) -> None:
    """1 for the operator that works, 0 for one that stands by."""
    leading = [False]
    metrics.lead(lambda: leading[0])
    assert told(metrics).value("leader") == 0
    leading[0] = True
    assert told(metrics).value("leader") == 1


def test_a_lag_is_never_negative(metrics: OperatorMetrics) -> None:
    """What is known of Redis' clock may be a little behind."""
    metrics.status_written(NOW + 5)
    metrics.status_written(NOW - 2)
    assert told(metrics).value("status_lag_seconds_count") == 2
    assert told(metrics).value("status_lag_seconds_sum") == 2


def test_finalizers_that_gave_up_are_counted(metrics: OperatorMetrics) -> None:
    """0 from the start, so that the first is an increase."""
    assert told(metrics).value("finalizers_gave_up_total") == 0
    metrics.gave_up()
    assert told(metrics).value("finalizers_gave_up_total") == 1


def test_the_last_decision_is_told(metrics: OperatorMetrics) -> None:
    """Replicas are those of the last decision; decisions and stages add up."""
    autoscaler = metrics.autoscaler
    autoscaler.replicas(current=1, raw=12, desired=10, minimum=0, maximum=10)
    autoscaler.decided("up", "Demand")
    autoscaler.took("patch", 0.2)
    now = told(metrics)
    kinds = {"current": 1, "raw": 12, "desired": 10, "min": 0, "max": 10}
    assert {kind: now.value("autoscaler_replicas", kind=kind) for kind in kinds} == kinds
    assert now.value("autoscaler_decisions_total", direction="up", reason="Demand") == 1
    assert now.value("autoscaler_scale_latency_seconds_count", stage="patch") == 1


def test_one_reason_holds_at_a_time(metrics: OperatorMetrics) -> None:
    """A reason that no longer holds is 0, not gone: an alert on it resolves."""
    metrics.autoscaler.held("stale")
    assert told(metrics).value("autoscaler_held", reason="stale") == 1
    metrics.autoscaler.held("rollout")
    assert told(metrics).value("autoscaler_held", reason="stale") == 0
    assert told(metrics).value("autoscaler_held", reason="rollout") == 1
    metrics.autoscaler.held(None)
    assert told(metrics).value("autoscaler_held", reason="rollout") == 0


def test_busy_victims_are_0_from_the_start(metrics: OperatorMetrics) -> None:
    """The alert on busy victims needs a series to look at, and the first one counts."""
    assert told(metrics).value("autoscaler_victims_total", state="busy") == 0
    metrics.autoscaler.victim(busy=False)
    metrics.autoscaler.victim(busy=True)
    assert told(metrics).value("autoscaler_victims_total", state="idle") == 1
    assert told(metrics).value("autoscaler_victims_total", state="busy") == 1


def test_the_age_of_the_signal_is_absent_without_one(metrics: OperatorMetrics) -> None:
    """Before there are numbers their age is not told."""
    assert told(metrics).value("autoscaler_signal_age_seconds") is None
    metrics.autoscaler.signal(lambda: 1.5)
    assert told(metrics).value("autoscaler_signal_age_seconds") == 1.5
