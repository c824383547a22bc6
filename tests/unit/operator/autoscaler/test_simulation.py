"""The simulation: small worlds whose outcome can be told by hand, and what holds for each."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downloadjobs_operator.autoscaler.decision import Limits, Snapshot
from downloadjobs_operator.autoscaler.policies import Fixed, Keda, Order, Ours, Policy
from downloadjobs_operator.autoscaler.simulation import Run, SimulationError, percentile, simulate
from downloadjobs_operator.autoscaler.traces import GENERATED, Arrival, Trace


def trace(*arrivals: tuple[float, float], seconds: float = 0) -> Trace:
    """A trace of jobs: when each comes, and what it takes."""
    found = tuple(Arrival(at, takes) for at, takes in arrivals)
    return Trace("test", found, max([seconds, *(arrival.at for arrival in found)]))


def run(jobs: Trace, policy: Policy, concurrency: int = 1, start: float = 5) -> Run:
    """Replay it on pods of one slot that take five seconds to start, if nothing else is said."""
    return simulate(jobs, policy, concurrency=concurrency, pod_start_seconds=start)


class Scripted:
    """Wants so many pods from given times on."""

    name = "scripted"
    first = 0
    woken = False

    def __init__(self, *steps: tuple[float, int], grace: float = 0) -> None:
        self._steps = steps
        self.grace_seconds = grace

    def look(self, snapshot: Snapshot) -> Order:
        wanted = [pods for at, pods in self._steps if at <= snapshot.now]
        following = [at for at, _ in self._steps if at > snapshot.now]
        return Order(wanted[-1] if wanted else 0, None, min(following, default=math.inf))


def test_jobs_wait_for_slots_in_their_order() -> None:
    """Three jobs of 10 s on one slot that is there: 0, 9 and 18 s of waiting."""
    report = run(trace((0, 10), (1, 10), (2, 10)), Fixed(1)).report
    assert (report.wait_p50_seconds, report.wait_max_seconds, report.max_queue) == (9, 18, 2)
    assert (report.pod_hours * 3_600, report.busy_share) == (30, 1)


def test_pods_take_time_to_start() -> None:
    """From none, the first job waits for the pod, and the pod costs from its creation on."""
    report = run(trace((0, 10)), Scripted((0, 1))).report
    assert (report.wait_max_seconds, report.pod_hours * 3_600) == (5, 15)


def test_a_killed_job_begins_anew() -> None:
    """A pod that goes at 8 s with a job of 10 s loses it; the next pod does it again from the begin."""
    report = run(trace((0, 10)), Scripted((0, 1), (8, 0), (9, 1))).report
    assert (report.busy_kills, report.restarted_jobs, report.given_up_jobs) == (1, 1, 0)
    assert report.wait_max_seconds == 14
    assert report.pod_hours * 3_600 == 8 + 15


def test_the_grace_lets_a_job_end() -> None:
    """With as much grace as it needs, a removed pod ends its job: a busy kill, but nothing begins anew."""
    report = run(trace((0, 10)), Scripted((0, 1), (8, 0), grace=7)).report
    assert (report.busy_kills, report.restarted_jobs, report.wait_max_seconds) == (1, 0, 5)
    assert report.pod_hours * 3_600 == 15


def test_a_job_that_is_cut_off_each_time_is_given_up() -> None:
    """After five attempts the simulation goes on without it."""
    steps = [(10.0 * number, number % 2) for number in range(1, 20)]
    report = run(trace((0, 10), seconds=200), Scripted(*steps)).report
    assert (report.given_up_jobs, report.restarted_jobs, report.busy_kills) == (1, 4, 5)


def test_a_policy_without_pods_is_told() -> None:
    """Jobs that never begin are an error, not an endless loop."""
    with pytest.raises(SimulationError, match="1 jobs never end; 1 of them wait"):
        run(trace((0, 10)), Scripted((0, 0)))


def test_ours_wakes_at_once_and_goes_back_to_none() -> None:
    """From 0 to N in one step, when the job comes; after the cooldown all are gone."""
    jobs = trace(*[(100, 1)] * 1_000, seconds=600)
    found = run(jobs, Ours(Limits(max=50, target_wait_seconds=600, concurrency=4)), concurrency=4)
    assert list(found.replicas)[:2] == [(0, 0), (100, 5)]
    assert found.replicas[-1][1] == 0
    assert found.report.busy_kills == 0


def test_keda_sees_nothing_until_its_poll() -> None:
    """A job that comes just after a poll waits for the next one, and then for the pod."""
    report = run(trace((1, 10), seconds=1_000), Keda(Limits())).report
    assert report.wait_max_seconds == 34
    assert (report.scale_ups, report.scale_downs) == (1, 1)


def test_keda_kills_a_job_that_is_longer_than_its_cooldown() -> None:
    """The list is empty while the job runs, so the pod goes after 300 s, with its drain; five times."""
    report = run(trace((1, 900)), Keda(Limits())).report
    assert (report.busy_kills, report.restarted_jobs, report.given_up_jobs) == (5, 4, 1)


def test_the_hpa_doubles_and_keeps_for_five_minutes() -> None:
    """From 1, 5, 10 pods, each round of 15 s; what was wanted within 300 s stays."""
    jobs = trace(*[(0, 20)] * 100, seconds=2_000)
    found = run(jobs, Keda(Limits(max=100), list_length=1))
    numbers = [pods for _, pods in found.replicas]
    assert numbers[:5] == [0, 1, 5, 10, 20]
    high = max(numbers)
    at = next(at for at, pods in found.replicas if pods == high)
    lower = next(when for when, pods in found.replicas if when > at and pods < high)
    assert lower - at >= 285


@st.composite
def small_traces(draw: st.DrawFn) -> Trace:
    """Up to forty jobs within an hour."""
    jobs = draw(st.lists(st.tuples(st.floats(0, 3_600), st.floats(0, 900)), min_size=1, max_size=40))
    return trace(*sorted(jobs), seconds=3_600)


@settings(max_examples=60)
@given(small_traces(), st.integers(1, 8), st.integers(0, 3), st.floats(0, 30), st.floats(0, 400))
def test_ours_never_kills_a_busy_pod(
    jobs: Trace, concurrency: int, least: int, start: float, cooldown: float
) -> None:
    """Whatever comes, no job is interrupted, all end, and the bounds hold."""
    limits = Limits(least, 5, concurrency, cooldown_seconds=cooldown, pod_start_seconds=start)
    found = run(jobs, Ours(limits), concurrency, start)
    assert (found.report.busy_kills, found.report.restarted_jobs, found.report.given_up_jobs) == (0, 0, 0)
    assert found.report.max_pods <= 5
    assert min(pods for _, pods in found.replicas) >= least
    assert len(found.waits) == len(jobs.arrivals)
    assert min(wait for _, wait in found.waits) >= 0


@settings(max_examples=60)
@given(small_traces(), st.integers(1, 8))
def test_what_is_worked_is_what_came(jobs: Trace, concurrency: int) -> None:
    """Without kills the slots' busy time is the jobs' service time."""
    found = run(jobs, Fixed(3), concurrency).report
    worked = found.busy_share * found.pod_hours * 3_600 * concurrency
    assert worked == pytest.approx(sum(arrival.service_seconds for arrival in jobs.arrivals))


@pytest.mark.parametrize("name", GENERATED)
def test_runs_are_repeatable(name: str) -> None:
    """The same trace and settings give the same figures."""
    jobs = GENERATED[name](2)
    assert run(jobs, Ours(Limits()), 4).report == run(jobs, Ours(Limits()), 4).report


def test_a_day_takes_seconds() -> None:
    """20,000 jobs are replayed in well under ten seconds, even on a busy machine."""
    began = time.process_time()
    assert run(GENERATED["day"](1), Ours(Limits(max=20)), 4).report.busy_kills == 0
    assert time.process_time() - began < 10


def test_percentiles() -> None:
    """The value below which so large a share lies; of nothing it is 0."""
    assert [percentile([1, 2, 3, 4], share) for share in (0, 0.5, 0.95, 1)] == [1, 3, 4, 4]
    assert percentile([], 0.5) == 0
