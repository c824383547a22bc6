"""Chaos in its short form, and the test of the test. `make chaos` is the long form."""

from __future__ import annotations

import sys

import pytest

from support_chaos import Report, run_chaos
from support_chaos_plan import SHARING, Fault, draw_plan
from support_chaos_report import render
from support_chaos_stock import StockHuey
from support_chaos_subject import SHARED_FACT

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SEED = 12


def show(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the report, also of a run that is good: its figures say how much was tried."""
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(render(report)) + "\n")


def test_no_job_is_lost_and_none_is_published_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """Through ten faults, one of each kind, each job ends once, its result is whole, and nothing is left."""
    report = run_chaos(draw_plan(SEED, jobs=60, faults=10))
    show(report, capsys)
    assert set(report.told.faults) == set(Fault)
    assert report.good, "\n".join(render(report))


def test_shared_results_are_lost_by_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """The same, while groups ask for the same: few results are made, each is whole, and nothing is left."""
    report = run_chaos(draw_plan(SEED, jobs=90, faults=10, wishes=12), settings=SHARING)
    show(report, capsys)
    assert set(report.told.faults) == set(Fault)
    assert report.good, "\n".join(render(report))
    made, taken = map(int, report.findings.facts[SHARED_FACT].split(", "))
    assert made < taken
    assert report.findings.events["joined"] > 0


def test_the_same_chaos_with_stock_huey_loses_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    """The run notices a queue that loses jobs: Huey's own, whose workers are killed."""
    plan = draw_plan(SEED, jobs=60, faults=6, kinds=[Fault.WORKER_KILL])
    report = run_chaos(plan, make_subject=StockHuey, module=StockHuey.module, quiet_seconds=15)
    show(report, capsys)
    assert report.findings.states["done"] > 0
    assert len(report.findings.lost) > 0


def test_a_seed_replays_its_schedule() -> None:
    """The same seed is the same jobs, faults, victims, durations and offsets; another one is another."""
    plan = draw_plan(7, jobs=500, faults=50)
    assert plan == draw_plan(7, jobs=500, faults=50)
    assert plan.digest == draw_plan(7, jobs=500, faults=50).digest
    assert plan.digest != draw_plan(8, jobs=500, faults=50).digest
    # Replayed with fewer jobs, the faults are the same: that is how a failure is made small.
    assert plan.faults == draw_plan(7, jobs=10, faults=50).faults
    assert plan.faults[:10] == draw_plan(7, jobs=10, faults=10).faults
    assert {fault.kind for fault in plan.faults[: len(Fault)]} == set(Fault)
