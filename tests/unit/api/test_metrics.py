"""The API's metrics: few series whatever clients send, and exact sums."""

from __future__ import annotations

import random

import pytest
from prometheus_client import CollectorRegistry, Histogram

from downloadjobs_api.metrics import ApiMetrics
from downloadjobs_core.errors import (
    KeyReusedError,
    PriorityTooHighError,
    QueueUnavailableError,
    TooManyQueuedError,
)
from downloadjobs_core.metrics import REQUEST_BUCKETS
from support_metrics import metrics_of

SECONDS = "http_request_duration_seconds"


@pytest.fixture
def registry() -> CollectorRegistry:
    """An empty registry."""
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> ApiMetrics:
    """The API's metrics in it."""
    return ApiMetrics(registry)


def test_counting_at_once_equals_counting_one_by_one(
    metrics: ApiMetrics, registry: CollectorRegistry
) -> None:
    """What is flushed is the same histogram as prometheus-client's own, at the bounds of buckets too."""
    plain_registry = CollectorRegistry()
    plain = Histogram("downloadjobs_plain", "x", buckets=REQUEST_BUCKETS, registry=plain_registry)
    chance = random.Random(1)
    for seconds in (*REQUEST_BUCKETS, 0.0, 1e3, *(chance.expovariate(1) for _ in range(500))):
        plain.observe(seconds)
        metrics.request("GET", "/livez", 200, seconds)
        if chance.random() < 0.01:
            metrics.flush()
    metrics.flush()
    told, expected = metrics_of(registry), metrics_of(plain_registry)
    labels = {"method": "GET", "route": "/livez", "status_class": "2xx"}
    for bound in (*map(str, map(float, REQUEST_BUCKETS)), "+Inf"):
        assert told.value(f"{SECONDS}_bucket", le=bound, **labels) == expected.value("plain_bucket", le=bound)
    assert told.value(f"{SECONDS}_sum", **labels) == pytest.approx(expected.value("plain_sum"))


def test_nothing_is_counted_twice(metrics: ApiMetrics, registry: CollectorRegistry) -> None:
    """A second flush adds nothing."""
    metrics.request("GET", "/livez", 204, 0.1)
    metrics.flush()
    metrics.flush()
    labels = {"method": "GET", "route": "/livez", "status_class": "2xx"}
    assert metrics_of(registry).value(f"{SECONDS}_count", **labels) == 1


def test_clients_cannot_make_series(metrics: ApiMetrics, registry: CollectorRegistry) -> None:
    """Methods that HTTP does not know are one, and so are paths that there are not."""
    for number in range(100):
        metrics.request(f"METHOD{number}", None, 400, 0.001)
        metrics.request("GET", None, 404, 0.001)
    metrics.flush()
    told = metrics_of(registry)
    other = {"method": "other", "route": "none", "status_class": "4xx"}
    assert told.value(f"{SECONDS}_count", **other) == 100
    assert told.value(f"{SECONDS}_count", **other | {"method": "GET"}) == 100
    family = told.families[f"downloadjobs_{SECONDS}"]
    assert len([sample for sample in family.samples if sample.name.endswith("_count")]) == 2


def test_submissions_are_told_by_their_result(metrics: ApiMetrics, registry: CollectorRegistry) -> None:
    """A job is accepted, or refused for a reason that is told."""
    metrics.submitted()
    metrics.repeated()
    for fault in (
        KeyReusedError(),
        TooManyQueuedError("u", 1),
        PriorityTooHighError("high", "low"),
        QueueUnavailableError(),
        OSError(),
    ):
        metrics.submitted(fault)
    told = metrics_of(registry)
    for result in (
        "accepted", "repeated", "key_reused", "too_many_queued", "priority_too_high", "queue_unavailable",
        "error",
    ):  # fmt: skip
        assert told.value("jobs_submitted_total", source="rest", result=result) == 1


def test_urls_are_told_by_their_result(metrics: ApiMetrics, registry: CollectorRegistry) -> None:
    """A URL was made, or could not be."""
    metrics.presigned(made=True)
    metrics.presigned(made=True)
    metrics.presigned(made=False)
    told = metrics_of(registry)
    assert told.value("presigned_urls_total", result="ok") == 2
    assert told.value("presigned_urls_total", result="error") == 1
