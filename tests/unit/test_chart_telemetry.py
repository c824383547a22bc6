"""The chart's `telemetry`: what reaches the processes, and what their network lets through."""

from __future__ import annotations

from typing import Any

import support_chart

OUTSIDE: dict[str, Any] = {
    "bundled": {"redis": {"enabled": False}, "objectStore": {"enabled": False}},
    "external": {"redis": {"host": "redis.example.com"}, "s3": {"bucket": "films"}},
}
TELEMETRY: dict[str, Any] = {
    "otlp": {"endpoint": "http://collector.obs:4318/base", "headersSecret": "otlp"},
    "sentry": {"existingSecret": "sentry"},
    "traceUrlTemplate": "https://jaeger.example.com/trace/{trace_id}",
}
NAMES = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "SENTRY_DSN", "TRACE_URL_TEMPLATE"}
COLLECTOR_PORT = 4318


def environment(values: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The variables of each Deployment's first container, by the component."""
    return {
        one["metadata"]["name"].rpartition("-")[2]: one["spec"]["template"]["spec"]["containers"][0]["env"]
        for one in support_chart.rendered(values={**OUTSIDE, **values})
        if one["kind"] == "Deployment"
    }


def told(variables: list[dict[str, Any]]) -> dict[str, Any]:
    """Those of telemetry: a value, or the name and key of a Secret."""
    return {
        one["name"]: one.get("value") or tuple(one["valueFrom"]["secretKeyRef"].values())
        for one in variables
        if one["name"] in NAMES
    }


def egress_ports(values: dict[str, Any], component: str) -> list[list[int]]:
    """The ports of each rule by which a component reaches something."""
    (policy,) = (
        one
        for one in support_chart.rendered(values={**OUTSIDE, **values})
        if (one["kind"], one["metadata"]["name"]) == ("NetworkPolicy", f"try-downloadjobs-{component}")
    )
    return [[port["port"] for port in rule.get("ports", [])] for rule in policy["spec"]["egress"]]


def test_nothing_is_set_by_default() -> None:
    """Without values there is no variable, and no way out for telemetry."""
    found = environment({})
    assert not any(told(variables) for variables in found.values())
    assert not [ports for ports in egress_ports({}, "api") if COLLECTOR_PORT in ports]


def test_the_processes_are_told_where() -> None:
    """API and workers get the collector, its headers and the DSN; the API alone the link."""
    found = environment({"telemetry": TELEMETRY})
    shared = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.obs:4318/base",
        "OTEL_EXPORTER_OTLP_HEADERS": ("otlp", "headers"),
        "SENTRY_DSN": ("sentry", "dsn"),
    }
    assert told(found["worker"]) == shared
    assert told(found["api"]) == shared | {"TRACE_URL_TEMPLATE": TELEMETRY["traceUrlTemplate"]}
    assert not told(found["operator"])


def test_other_settings_of_telemetry_count() -> None:
    """What the chart has no value for may stand among the settings."""
    names = [one["name"] for one in environment({"settings": {"OTEL_TRACES_SAMPLER": "always_on"}})["api"]]
    assert names.count("OTEL_TRACES_SAMPLER") == 1


def test_the_network_lets_through_what_is_set() -> None:
    """API and workers reach the collector's port and Sentry's, the operator does not."""
    for component in ("api", "worker"):
        assert [COLLECTOR_PORT, 443] in egress_ports({"telemetry": TELEMETRY}, component)
    assert not [
        ports for ports in egress_ports({"telemetry": TELEMETRY}, "operator") if COLLECTOR_PORT in ports
    ]
    otlp = {"telemetry": {"otlp": {"endpoint": "https://otlp.example.com"}}}
    assert egress_ports(otlp, "worker").count([443]) == 1
