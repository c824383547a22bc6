"""Where traces and faults are reported; nowhere by default.

The names are OpenTelemetry's own. What is not here (`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`,
time-outs, certificates, `OTEL_BSP_*`) its SDK reads itself, since it needs no check of ours.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr

from downloadjobs_core.settings import CommonSettings

TRACE_ID_PLACE: Final = "{trace_id}"
"""Where a trace's id goes in `TRACE_URL_TEMPLATE`."""

_TEMPLATE: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%{}-]+")
"""Characters of a URL (RFC 3986, 2) and braces; no quotes, blanks or angle brackets, as it becomes a link."""


def _endpoint(value: str) -> str:
    """A collector's URL. The base has no signal's path, the other is used as it is."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL such as http://collector:4318")
    _ = parts.port  # raises ValueError for a port that is none
    return value


def _dsn(value: str) -> str:
    """`https://<public key>@<host>/<project>`."""
    parts = urlsplit(value)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or not parts.username
        or not parts.path.rpartition("/")[2].isdecimal()
    ):
        raise ValueError("must be a DSN such as https://key@sentry.example.com/1")
    _ = parts.port
    return value


def _trace_url(value: str) -> str:
    """A link's address, with one place for the trace's id."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise ValueError("must be a URL such as https://jaeger.example.com/trace/{trace_id}")
    if value.count(TRACE_ID_PLACE) != 1 or TRACE_ID_PLACE in parts.netloc:
        raise ValueError(f"must have {TRACE_ID_PLACE} once, after the host")
    if not _TEMPLATE.fullmatch(value) or re.search(r"[{}]", value.replace(TRACE_ID_PLACE, "")):
        raise ValueError(f"may hold only characters of a URL, beside {TRACE_ID_PLACE}")
    _ = parts.port
    return value


Endpoint = Annotated[str, BeforeValidator(_endpoint)]
TraceUrl = Annotated[str, BeforeValidator(_trace_url)]


class TelemetrySettings(CommonSettings):
    """Traces by OpenTelemetry, and faults to Sentry, each of them only where it is asked for."""

    sentry_dsn: Annotated[SecretStr, BeforeValidator(_dsn)] | None = Field(
        None, description="where unexpected faults are reported"
    )
    otel_sdk_disabled: bool = False
    otel_exporter_otlp_endpoint: Endpoint | None = Field(
        None, description="the base of a collector's URL; traces go to v1/traces below it"
    )
    otel_exporter_otlp_traces_endpoint: Endpoint | None = Field(
        None, description="the whole URL that traces are sent to"
    )
    otel_traces_exporter: Literal["otlp", "none"] = "otlp"
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    otel_exporter_otlp_traces_protocol: Literal["http/protobuf"] = "http/protobuf"
    otel_service_name: str | None = None
    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"
    otel_traces_sampler_arg: float | None = Field(
        None, ge=0, le=1, description="the part of traces that a ratio's sampler keeps"
    )

    @property
    def traced(self) -> bool:
        """Whether spans are made and sent."""
        endpoint = self.otel_exporter_otlp_traces_endpoint or self.otel_exporter_otlp_endpoint
        return endpoint is not None and not self.otel_sdk_disabled and self.otel_traces_exporter == "otlp"
