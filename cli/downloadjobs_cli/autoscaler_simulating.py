"""What `autoscaler simulate` does: reads a trace and settings, replays, and tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from downloadjobs_cli.autoscaler_picture import draw
from downloadjobs_cli.errors import SettingsError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.output import Output, aligned, counted, duration
from downloadjobs_operator.autoscaler import policies
from downloadjobs_operator.autoscaler.decision import Limits
from downloadjobs_operator.autoscaler.history import camel
from downloadjobs_operator.autoscaler.limits import LimitsError, decode, parse
from downloadjobs_operator.autoscaler.simulation import Report, Run, SimulationError, simulate
from downloadjobs_operator.autoscaler.traces import GENERATED, Trace, TraceError, read

HEADER: Final = (
    "", "POD-HOURS", "MOST PODS", "WAIT P50", "P95", "P99", "LONGEST", "QUEUE", "UP", "DOWN",
    "BUSY KILLS", "BEGUN AGAIN", "GIVEN UP",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line says."""

    trace: str
    limits_file: Path | None
    settings: Sequence[str]
    pod_start_seconds: float | None
    service_seconds: float
    bytes_per_second: float
    seed: int
    against: Sequence[str]
    picture: Path | None


def run_simulation(output: Output, request: Request) -> ExitCode:
    """Replay, print the table, and draw the picture.

    Raises:
        SettingsError: the trace, the settings or a policy's name are wrong, or the picture cannot be written.
    """
    limits = limits_of(request)
    compared = [policy_of(name, limits) for name in request.against]
    try:
        trace = trace_of(request)
        runs = [
            simulate(
                trace,
                policy,
                concurrency=limits.concurrency,
                pod_start_seconds=limits.pod_start_seconds,
            )
            for policy in (policies.Ours(limits), *compared)
        ]
    except (TraceError, SimulationError) as error:
        raise SettingsError(str(error)) from None
    if request.picture is not None:
        try:
            request.picture.write_text(draw(trace.name, runs), encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"{request.picture} cannot be written: {error.strerror}.") from None
    if output.as_json:
        output.document(document(trace, limits, runs))
    else:
        for line in told(trace, limits, runs):
            output.say(line)
    return ExitCode.DONE


def trace_of(request: Request) -> Trace:
    """The trace that is named: a file, or one that is made up.

    Raises:
        SettingsError: there is neither.
        TraceError: the file is no trace.
    """
    path = Path(request.trace)
    if request.trace in GENERATED and not path.exists():
        return GENERATED[request.trace](request.seed)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return read(
                file,
                path.name,
                service_seconds=request.service_seconds,
                bytes_per_second=request.bytes_per_second,
            )
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is no CSV: it is no UTF-8.") from None
    except OSError as error:
        names = ", ".join(GENERATED)
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}. Name a CSV file, or a trace that is made up: {names}."
        ) from None


def limits_of(request: Request) -> Limits:
    """The settings of the file, with those of the command line over them.

    Raises:
        SettingsError: they are wrong.
    """
    try:
        found: dict[str, Any] = {}
        if request.limits_file is not None:
            source = str(request.limits_file)
            text = request.limits_file.read_text(encoding="utf-8")
            document = decode(text, source)
            parse(document, source)  # so that a fault of the file is told as the file's
            found = dict(document) if isinstance(document, dict) else {}
        for setting in request.settings:
            name, equals, value = setting.partition("=")
            if not equals:
                raise click.UsageError(f"--set wants NAME=VALUE, such as max=20; it is {setting!r}.")
            found[name.strip()] = _value(value.strip())
        limits = parse(found, "These settings")
    except LimitsError as error:
        raise SettingsError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{request.limits_file} cannot be read: {error}.") from None
    if request.pod_start_seconds is not None:
        limits = replace(limits, pod_start_seconds=request.pod_start_seconds)
    return limits


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def policy_of(name: str, limits: Limits) -> policies.Policy:
    """A policy to compare with, by its name.

    Raises:
        click.UsageError: there is none of this name.
    """
    kind, _, count = name.partition(":")
    match kind:
        case "keda" if not count:
            return policies.Keda(limits)
        case "keda-1s" if not count:
            return policies.Keda(limits, poll_seconds=1, name="KEDA, 1 s")
        case "fixed" if count.isascii() and count.isdigit():
            return policies.Fixed(int(count))
        case _:
            raise click.UsageError(
                f"--against wants keda, keda-1s or fixed:N, such as fixed:5; it is {name!r}."
            )


def told(trace: Trace, limits: Limits, runs: Sequence[Run]) -> list[str]:
    """The table, for people."""
    settings = ", ".join(f"{name} {_short(value)}" for name, value in camel(_decisive(limits)).items())
    return [
        f"{trace.name}: {counted(len(trace.arrivals), 'job')} in {duration(trace.seconds)}; {settings}",
        "",
        *aligned([HEADER, *(row(run.report) for run in runs)], right=range(1, len(HEADER))),
    ]


def _decisive(limits: Limits) -> dict[str, float]:
    return {
        name: getattr(limits, name)
        for name in (
            "min", "max", "concurrency", "target_wait_seconds", "cooldown_seconds", "pod_start_seconds",
        )
    }  # fmt: skip


def _short(value: float) -> str:
    return f"{value:g}"


def row(report: Report) -> list[str]:
    """One policy's line."""
    return [
        report.policy,
        f"{report.pod_hours:,.1f}",
        str(report.max_pods),
        *(
            duration(seconds)
            for seconds in (
                report.wait_p50_seconds,
                report.wait_p95_seconds,
                report.wait_p99_seconds,
                report.wait_max_seconds,
            )
        ),
        f"{report.max_queue:,}",
        *(
            f"{count:,}"
            for count in (
                report.scale_ups,
                report.scale_downs,
                report.busy_kills,
                report.restarted_jobs,
                report.given_up_jobs,
            )
        ),
    ]


def document(trace: Trace, limits: Limits, runs: Sequence[Run]) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "trace": {"name": trace.name, "jobs": len(trace.arrivals), "seconds": round(trace.seconds, 3)},
        "limits": camel(_decisive(limits)),
        "items": [run.report.document() for run in runs],
        "nextCursor": None,
    }
