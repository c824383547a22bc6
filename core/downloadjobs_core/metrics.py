"""What the metrics of all processes share: their prefix, buckets, build, and page.

Labels never name a job, a user, a file or a URL: each value of a label is a time series
that Prometheus keeps. `docs/metrics.md` lists every metric.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from downloadjobs_core import __version__
from downloadjobs_core.side_port import Answer

PREFIX: Final = "downloadjobs_"

UNKNOWN_COMMIT: Final = "unknown"

REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds of one request or call: from a status answer to the longest time-out."""

JOB_BUCKETS: Final = (
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    120,
    300,
    600,
    1_800,
    3_600,
    7_200,
    21_600,
    86_400,
)
"""Seconds of a job's life: from a job of one small file to a day of waiting."""

SIZE_BUCKETS: Final = (
    1e5, 1e6, 5e6, 1e7, 5e7, 1e8, 2.5e8, 5e8, 1e9, 2.5e9, 5e9, 1e10, 2.5e10, 5e10, 1e11,
)  # fmt: skip
"""Bytes of a result: from 100 kB to 100 GB."""

# When a series began would be one more series for each of them; Prometheus sees a reset without it.
disable_created_metrics()  # type: ignore[no-untyped-call]


class BuildInfo(Collector):
    """`build_info`: 1, with the release and the commit that it was built from."""

    def __init__(self, commit: str | None) -> None:
        self._commit = commit or UNKNOWN_COMMIT

    def collect(self) -> Iterable[Metric]:
        """The one sample."""
        family = GaugeMetricFamily(
            f"{PREFIX}build_info", "The release that runs; always 1.", labels=("version", "commit")
        )
        family.add_metric((__version__, self._commit), 1)
        yield family


def new_registry(commit: str | None) -> CollectorRegistry:
    """A registry that has `build_info`, and nothing of the process-wide one."""
    registry = CollectorRegistry()
    registry.register(BuildInfo(commit))
    return registry


def metrics_page(registry: Collector, accept: str) -> Answer:
    """All metrics of a registry, in the format that the `Accept` header prefers."""
    encode, content_type = choose_encoder(accept)
    return Answer(encode(registry), content_type=content_type)
