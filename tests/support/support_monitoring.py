"""The chart as Helm renders it, and what its alerts and its dashboard ask of the metrics."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from support_chart import CHART, SECRETS, rendered

ALERTS: Final = sorted((CHART / "files" / "alerts").glob("*.yaml"))
DASHBOARDS: Final = sorted((CHART / "files" / "dashboards").glob("*.json"))

FROM_PROMETHEUS: Final = {"namespace", "job", "le"}
"""Labels that the scrape adds, or a histogram has."""

INTERVAL: Final = "5m"
"""What stands for Grafana's `$__rate_interval`."""

_USE: Final = re.compile(r"(downloadjobs_\w+)(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_GROUPING: Final = re.compile(r"\b(?:by|on|ignoring|without) \(([^)]*)\)")


@dataclass(frozen=True)
class Query:
    """One expression.

    Attributes:
        where: the alert's name, or the panel's title.
    """

    where: str
    text: str

    @property
    def metrics(self) -> list[tuple[str, dict[str, str]]]:
        """Each time that it names a metric: the name, and what it asks of which label."""
        found = []
        for name, matchers in _USE.findall(self.text):
            labels = {label: value for label, _, value in _MATCHER.findall(matchers)}
            found.append((name, labels))
        return found

    @property
    def grouped_by(self) -> set[str]:
        """The labels that it keeps, or compares."""
        return {
            label.strip()
            for labels in _GROUPING.findall(self.text)
            for label in labels.split(",")
            if label.strip()
        }


def of_kind(kind: str, *settings: str) -> list[dict[str, Any]]:
    """Those of one kind."""
    return [one for one in rendered(*SECRETS, *settings) if one["kind"] == kind]


def alert(path: Path) -> dict[str, Any]:
    """An alert as its file has it."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def dashboard(path: Path) -> dict[str, Any]:
    """A dashboard as its file has it."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def alert_queries() -> list[Query]:
    """The expression of each alert."""
    return [Query(path.stem, str(alert(path)["expr"])) for path in ALERTS]


def panel_queries() -> list[Query]:
    """Each query of each panel, as Prometheus can read it."""
    return [
        Query(panel["title"], target["expr"].replace("$__rate_interval", INTERVAL))
        for path in DASHBOARDS
        for panel in dashboard(path)["panels"]
        for target in panel.get("targets", [])
    ]


def queries() -> list[Query]:
    """All of them."""
    return [*alert_queries(), *panel_queries()]
