"""The worker's metrics and probes, without any server."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from prometheus_client import CollectorRegistry

from downloadjobs_core.errors import LeaseLostError
from downloadjobs_core.leases import Outcome, QueuePolicy
from downloadjobs_core.sharing import Shared, Sharing
from downloadjobs_core.states import JobState
from downloadjobs_worker import keeper as keeper_module
from downloadjobs_worker.health import KEEPER_SILENT_SECONDS, Health
from downloadjobs_worker.hold import Hold
from downloadjobs_worker.keeper import Keeper
from downloadjobs_worker.metrics import Cause, MeasuredLeases, WorkerMetrics
from support_metrics import Metrics, metrics_of
from support_worker import leased

if TYPE_CHECKING:
    from downloadjobs_core.leases import LeaseStore

SECOND_US = 1_000_000


@pytest.fixture
def metrics() -> WorkerMetrics:
    """The worker's metrics, in a registry of their own."""
    return WorkerMetrics(CollectorRegistry())


def told(metrics: WorkerMetrics) -> Metrics:
    """What they tell now."""
    return metrics_of(metrics.registry)


def hold_of(*, waited: float = 3, again: bool = False) -> Hold:
    """A job that waited so many seconds for its first lease; `again`: it is leased a second time."""
    job = leased(10_003).job
    started = job.created_us + int(waited * SECOND_US)
    return Hold(replace(job, started_us=started, leased_us=started + again * 60 * SECOND_US))


def test_only_the_first_lease_ends_the_wait(metrics: WorkerMetrics) -> None:
    """The wait is from submission to the first lease; later leases of the same job are none."""
    metrics.attempt_began(hold_of(waited=3))
    metrics.attempt_began(hold_of(waited=3, again=True))
    assert told(metrics).value("job_queue_wait_seconds_count") == 1
    assert told(metrics).value("job_queue_wait_seconds_sum") == 3


def test_a_job_that_ends_is_told_whole(metrics: WorkerMetrics) -> None:
    """Its outcome, its size, the attempt's time, and the time since its submission."""
    outcome = Outcome(JobState.COMPLETED, result_key="results/x.zip", result_bytes=2_000_000)
    metrics.finished(hold_of(waited=3, again=True).job, outcome, run_seconds=2)
    now = told(metrics)
    assert now.value("jobs_finished_total", outcome="completed", reason="none") == 1
    assert (now.value("job_run_seconds_sum"), now.value("job_end_to_end_seconds_sum")) == (2, 65)
    assert now.value("result_bytes_sum") == 2_000_000


def test_a_result_that_was_made_for_another_is_counted(metrics: WorkerMetrics) -> None:
    """Jobs that were answered from a result that was there, and the bytes that were not made again."""
    outcome = Outcome(JobState.COMPLETED, result_key="results/x.zip", result_bytes=2_000_000)
    job = hold_of().job
    metrics.finished(job, outcome, run_seconds=2)
    metrics.finished(job, replace(outcome, shared=Shared(Sharing.OFFERED, "d")), run_seconds=2)
    assert told(metrics).value("deduplicated_results_total") == 0
    metrics.finished(job, replace(outcome, shared=Shared(Sharing.REUSED, "d")), run_seconds=0)
    assert told(metrics).value("deduplicated_results_total") == 1
    assert told(metrics).value("deduplicated_bytes_total") == 2_000_000


def test_a_job_that_fails_has_no_size(metrics: WorkerMetrics) -> None:
    """A failure has the code that users see as its reason, and is no result of 0 bytes."""
    outcome = Outcome(JobState.FAILED, error_code="no-file-found")
    metrics.finished(hold_of().job, outcome, run_seconds=2)
    now = told(metrics)
    assert now.value("jobs_finished_total", outcome="failed", reason="no-file-found") == 1
    assert now.value("result_bytes_count") == 0


def test_bytes_are_told_while_they_are_bundled(metrics: WorkerMetrics) -> None:
    """The counter has running attempts' bytes as they go, and never goes back when one ends."""
    one, other = hold_of(), hold_of()
    metrics.attempt_began(one)
    metrics.attempt_began(other)
    one.progress.bytes_done, other.progress.bytes_done = 100, 20
    assert told(metrics).value("bundled_bytes_total", method="stream") == 120
    metrics.attempt_ended(one)
    other.progress.bytes_done = 30
    assert told(metrics).value("bundled_bytes_total", method="stream") == 130
    metrics.attempt_ended(one)
    assert told(metrics).value("bundled_bytes_total", method="stream") == 130


def test_leases_that_ran_out_are_counted(metrics: WorkerMetrics) -> None:
    """A lease that ran out counts, whether its job is ready again or a dead letter, which has also ended."""
    metrics.reaped(3, 1)
    metrics.reaped(0, 0)
    now = told(metrics)
    assert now.value("leases_expired_total") == 4
    assert now.value("jobs_finished_total", outcome="failed", reason="dead-letter") == 1


def test_every_cause_is_there_from_the_start(metrics: WorkerMetrics) -> None:
    """Interruptions begin at 0 for each cause, so that the first of them is an increase."""
    metrics.interrupted(Cause.DRAIN)
    values = {cause: told(metrics).value("interrupted_jobs_total", cause=cause.value) for cause in Cause}
    assert values == dict.fromkeys(Cause, 0) | {Cause.DRAIN: 1}


def test_refused_tokens_are_counted(metrics: WorkerMetrics) -> None:
    """A write that the scripts refuse raises as ever, and counts."""
    leases = MeasuredLeases(cast("Any", None), QueuePolicy(), metrics)
    leases._scripts = cast("Any", SimpleNamespace(run=lambda script, *_: script == "check"))
    leases.check(hold_of().job)
    with pytest.raises(LeaseLostError):
        leases.hand_back(hold_of().job)
    assert told(metrics).value("fenced_writes_refused_total") == 1


def test_slots_are_asked_for_when_they_are_read(metrics: WorkerMetrics) -> None:
    """Slots and busy slots are those of the moment; one that drains has no slots."""
    keeper = Keeper(cast("LeaseStore", None), worker="w", slots=4)
    metrics.watch_slots(lambda: keeper.slots, lambda: len(keeper.held()))
    keeper.hold(hold_of().job)
    assert (told(metrics).value("worker_slots"), told(metrics).value("worker_busy_slots")) == (4, 1)
    keeper.retire()
    assert (told(metrics).value("worker_slots"), told(metrics).value("worker_busy_slots")) == (0, 1)


def test_a_worker_is_ready_from_its_start_to_its_drain() -> None:
    """It is ready when it takes jobs: not while it starts, and not once it drains."""
    keeper = Keeper(cast("LeaseStore", None), worker="w", slots=4)
    health = Health(keeper, started=threading.Event(), closing=threading.Event())
    assert (health.ready().status, health.ready().body) == (503, b"starting\n")
    health.started.set()
    assert health.ready().status == 200
    health.closing.set()
    assert (health.ready().status, health.ready().body) == (503, b"draining\n")
    assert health.alive().status == 200


def test_a_worker_whose_keeper_is_stuck_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is alive as long as the keeper of its leases goes round."""
    keeper = Keeper(cast("LeaseStore", None), worker="w", slots=4)
    health = Health(keeper, started=threading.Event(), closing=threading.Event())
    assert health.alive().status == 200
    later = time.monotonic() + KEEPER_SILENT_SECONDS + 1
    monkeypatch.setattr(keeper_module, "time", SimpleNamespace(monotonic=lambda: later))
    assert health.alive().status == 503
    assert b"silent for 61 seconds" in health.alive().body
