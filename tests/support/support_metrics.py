"""Metrics as Prometheus reads them, for tests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from downloadjobs_cli.children import Child
from support_worker import eventually


@dataclass(frozen=True, slots=True)
class Metrics:
    """One answer of `/metrics`; metrics by the names that `docs/metrics.md` has."""

    text: str

    @property
    def families(self) -> dict[str, Metric]:
        """Each metric. The parser leaves out a counter's `_total`, which is part of its name."""
        found = text_string_to_metric_families(self.text)
        return {
            f"{family.name}_total" if family.type == "counter" else family.name: family for family in found
        }

    def value(self, name: str, **labels: str) -> float | None:
        """A sample's value, with these labels and no other, or None."""
        for family in self.families.values():
            for sample in family.samples:
                if sample.name == f"downloadjobs_{name}" and sample.labels == labels:
                    return float(sample.value)
        return None


def metrics_of(registry: Collector) -> Metrics:
    """What a registry would tell."""
    return Metrics(generate_latest(registry).decode())


def side_port(log: Path) -> str:
    """Where a process serves its metrics, as its log says since the last start; without the path."""

    def told() -> list[str]:
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        return re.findall(r'"address": "(http://[^"]+)/metrics"', text)

    eventually(lambda: bool(told()), 20, "the port of metrics")
    return told()[-1]


def scrape(process: Child | str) -> Metrics:
    """What a process tells, given itself or the address of its pages."""
    address = process if isinstance(process, str) else side_port(process.log_path)
    answer = httpx.get(f"{address}/metrics", trust_env=False, timeout=10)
    assert answer.status_code == httpx.codes.OK, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Metrics(answer.text)
