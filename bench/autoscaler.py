"""What the autoscaler gives, and what it costs: on a real cluster, and over simulated days of traffic.

    TEST_KUBECONFIG=… HELM=… .venv/bin/python bench/autoscaler.py [--rounds 60] [--pods 5] [--seeds 5]

Patch: from the first job of a burst of one to five in Redis to the patched replicas as a watch shows them, on
a real API server; `one_step` is the share of bursts that one patch was enough for. Pods: from a job's
submission while there is no worker to its begin, on real pods, and in the same run what a bare pod of the
workers takes to become ready. `busy_kills` are pods that worked when these rounds removed them. Without
TEST_KUBECONFIG a cluster is taken as the tests do; pods take one with nodes, the images, and Helm. What there
is no cluster for is left out, and null in the JSON.

Simulation: days of some 20,000 jobs (bursts, an idle night), each replayed against the operator's own
decision, KEDA as its documentation has it (30 s and 1 s polls, the HPA's 15 s rounds and 300 s windows), and
a fixed pool. All have the same workers, which need five seconds to start and drain for 100 s. The fixed pool
is the smallest whose p95 wait is no longer than the autoscaler's on the first day. Medians over the days;
kills are sums, and the longest wait is that of all.
"""

from __future__ import annotations

import os
import sys

# This folder has files named like modules of the standard library; what they share is in `support`.
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib may import them
sys.path[0] = os.path.join(HERE, "support")  # noqa: PTH118
sys.path.insert(1, os.path.join(HERE, "..", "tests", "support"))  # noqa: PTH118

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support_bench import median, result, table
from support_scaling import patches, pods

from downloadjobs_operator.autoscaler.decision import Limits
from downloadjobs_operator.autoscaler.policies import Fixed, Keda, Ours, Policy
from downloadjobs_operator.autoscaler.simulation import Report, simulate
from downloadjobs_operator.autoscaler.traces import GENERATED, Trace
from support_cluster import Cluster, NoClusterError, find_source
from support_e2e import Installer, require_nodes


def replayed(trace: Trace, policy: Policy, limits: Limits) -> Report:
    """One run."""
    run = simulate(trace, policy, concurrency=limits.concurrency, pod_start_seconds=limits.pod_start_seconds)
    return run.report


def fitting_pool(trace: Trace, limits: Limits) -> int:
    """The smallest fixed pool whose p95 wait is no longer than the autoscaler's."""
    longest = replayed(trace, Ours(limits), limits).wait_p95_seconds
    return next(
        pods
        for pods in range(1, 10 * limits.max)
        if replayed(trace, Fixed(pods), limits).wait_p95_seconds <= longest
    )


def figures(reports: Sequence[Report]) -> dict[str, float | int]:
    """Of one policy, over all days."""
    return {
        "pod_hours": round(median([report.pod_hours for report in reports]), 1),
        "wait_p50_s": round(median([report.wait_p50_seconds for report in reports]), 1),
        "wait_p95_s": round(median([report.wait_p95_seconds for report in reports]), 1),
        "wait_max_s": round(max(report.wait_max_seconds for report in reports), 1),
        "busy_kills": sum(report.busy_kills for report in reports),
        "restarted_jobs": sum(report.restarted_jobs for report in reports),
        "given_up_jobs": sum(report.given_up_jobs for report in reports),
    }


def simulation(most: int, seeds: int) -> dict[str, Any]:
    """All policies on all days."""
    limits = Limits(max=most)
    days = [GENERATED["day"](seed) for seed in range(1, seeds + 1)]
    pool = fitting_pool(days[0], limits)
    policies: dict[str, Callable[[], Policy]] = {
        "downloadjobs": lambda: Ours(limits),
        "keda": lambda: Keda(limits),
        "keda_1s": lambda: Keda(limits, poll_seconds=1),
        "fixed": lambda: Fixed(pool),
    }
    found: dict[str, Any] = {
        name: figures([replayed(day, make(), limits) for day in days]) for name, make in policies.items()
    }
    found["fixed"]["pods"] = pool
    found |= {"days": seeds, "jobs_per_day": round(median([len(day.arrivals) for day in days]))}
    names = list(found["downloadjobs"])
    table(
        f"{seeds} simulated days of {found['jobs_per_day']:,} jobs, {most} pods of {limits.concurrency}",
        ["", *names],
        [[name, *(f"{found[name][figure]:,}" for figure in names)] for name in policies],
    )
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share lies below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def live(rounds: int, pod_rounds: int) -> dict[str, Any]:
    """What real servers did."""
    found: dict[str, Any] = dict.fromkeys(
        ("patch_p50_s", "patch_p99_s", "one_step", "first_job_p50_s", "bare_pod_p50_s", "busy_kills")
    )
    with tempfile.TemporaryDirectory(prefix="downloadjobs-bench-") as name:
        folder = Path(name)
        try:
            source = find_source()
            source.prepare(print)
            with source.running(folder) as cluster:
                if rounds:
                    lags = patches(cluster, rounds, folder)
                    found["patch_p50_s"] = round(median(lags["lags"]), 3)
                    found["patch_p99_s"] = round(percentile(lags["lags"], 0.99), 3)
                    found["one_step"] = round(lags["one_step"], 3)
                if pod_rounds:
                    found |= on_pods(cluster, pod_rounds, folder)
        except NoClusterError as error:
            print(f"Left out: {error}", file=sys.stderr)
    rows = [[figure, "left out" if value is None else f"{value:,}"] for figure, value in found.items()]
    table("On a cluster", ["figure", "value"], rows)
    return found


def on_pods(cluster: Cluster, rounds: int, folder: Path) -> dict[str, Any]:
    """An installation of the chart, whose workers come and go. Raises `NoClusterError`."""
    helm = shutil.which(os.environ.get("HELM") or "helm")
    if helm is None:
        raise NoClusterError("no Helm: set HELM")
    require_nodes(cluster, "dev")
    installer = Installer(cluster, helm, "dev", folder)
    installer.prepare()
    seen = pods(installer, rounds)
    return {
        "first_job_p50_s": round(median(seen["first_job"]), 2),
        "bare_pod_p50_s": round(median(seen["bare_pod"]), 2),
        "busy_kills": seen["victims"]["busy"],
        "idle_removed": seen["victims"]["idle"],
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60, help="bursts on the API server; 0 leaves them out")
    parser.add_argument("--pods", type=int, default=5, help="rounds with real pods; 0 leaves them out")
    parser.add_argument("--max", type=int, default=20, help="pods, at most")
    parser.add_argument("--seeds", type=int, default=5, help="how many days")
    arguments = parser.parse_args()
    found = live(arguments.rounds, arguments.pods)
    result(**found, simulation=simulation(arguments.max, arguments.seeds))


if __name__ == "__main__":
    main()
