"""`downloadjobs autoscaler`: why there are as many workers, and what other settings would have done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.options import ApiUrl, Options, Seconds, json_option

DEFAULT_OPERATOR: Final = "http://127.0.0.1:8080"

MOST_LISTED: Final = 100
"""The operator keeps no more."""


@click.group()
def autoscaler() -> None:
    """How many workers there are, and why; and what other settings would do."""


@autoscaler.command()
@click.option(
    "--operator", type=ApiUrl(), metavar="URL", envvar="DOWNLOADJOBS_OPERATOR", default=DEFAULT_OPERATOR,
    help=f"Where the operator's port is.  [env: DOWNLOADJOBS_OPERATOR; default: {DEFAULT_OPERATOR}]",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(1, MOST_LISTED), default=10, show_default=True, help="How many, at most."
)
@json_option
@click.pass_obj
def explain(options: Options, operator: str, limit: int) -> ExitCode:
    """Print the operator's last decisions, the newest first.

    \b
    In a cluster:  kubectl port-forward deploy/downloadjobs-operator 8080
    or:            kubectl exec deploy/downloadjobs-operator -- downloadjobs autoscaler explain
    """  # noqa: D301 - \b is click's mark for lines it must not join
    from downloadjobs_cli.autoscaler_explaining import explain_decisions

    return explain_decisions(options, operator, limit)


@autoscaler.command()
@click.argument("trace", metavar="TRACE")
@click.option(
    "--limits", "limits_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="The autoscaler's settings, as JSON or YAML; the defaults without.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE",
    help="One setting, such as max=20 or cooldownSeconds=300; over those of the file. Can be repeated.",
)  # fmt: skip
@click.option(
    "--pod-start", "pod_start_seconds", type=Seconds(), metavar="SECONDS",
    help="From a pod's creation until it works; podStartSeconds by default.",
)  # fmt: skip
@click.option(
    "--service", "service_seconds", type=Seconds(), default="10", show_default=True, metavar="SECONDS",
    help="What a job takes where the trace does not say.",
)  # fmt: skip
@click.option(
    "--bytes-per-second", type=click.FloatRange(min=1), default=50_000_000, show_default=True, metavar="N",
    help="Makes seconds of sizes, where the trace has those.",
)  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="Of a made-up trace.")
@click.option(
    "--against", multiple=True, metavar="POLICY",
    help="Compare with another: keda, keda-1s (a poll each second), or fixed:N pods. Can be repeated.",
)  # fmt: skip
@click.option(
    "--picture", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE.svg",
    help="Draw pods, queue and waits over time.",
)  # fmt: skip
@json_option
@click.pass_obj
def simulate(options: Options, /, **given: Any) -> ExitCode:  # noqa: ANN401 - one for each option above
    """Replay a trace of jobs against the autoscaler's own decisions.

    TRACE is a CSV file with a head: `seconds` since its begin, and what there is of `count`,
    `service_seconds` and `size`; or one that is made up: day, burst or night. No cluster is asked.
    """
    from downloadjobs_cli.autoscaler_simulating import Request, run_simulation

    return run_simulation(options.output, Request(**given))


COMMANDS: Final = (autoscaler,)
