"""The operator is stopped or killed, and started again: nothing is lost, and nothing told twice."""

from __future__ import annotations

import signal

import pytest

from support_operator_process import FILES, RUNS_ON, Site
from support_worker import eventually

pytestmark = pytest.mark.cluster

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])


def stop(site: Site, number: signal.Signals) -> None:
    """End the operator by a signal."""
    operator = site.operators[0]
    operator.send(number)
    assert operator.wait(10), operator.log_tail()
    if number is signal.SIGTERM:
        assert operator.exit_code == 0


@SIGNALS
def test_jobs_go_on_without_the_operator(site: Site, number: signal.Signals) -> None:
    """Jobs are begun and ended while no operator runs; the next one catches up, and tells each thing once."""
    site.start_operator()
    site.create("films")
    site.create("other")
    for name in ("films", "other"):
        site.until_phase(name, "Queued")
        site.until_told(name, "Queued")
    stop(site, number)
    site.system.start_worker()
    uid = site.uids["films"]
    eventually(lambda: site.record(uid).get("state") == "completed", 30, "the job's end")
    assert site.status("films")["phase"] == "Queued"
    site.start_operator()
    for name in ("films", "other"):
        site.until_phase(name, "Completed", 10)
        site.until_told(name, "Queued", "Started", "Completed")
        assert site.status(name)["attempts"] == 1


@SIGNALS
def test_a_restart_tells_nothing_twice(site: Site, number: signal.Signals) -> None:
    """After a restart objects that did not change keep their status as it is, and get no new Events."""
    site.start_operator()
    site.system.start_worker()
    site.create("films")
    site.until_phase("films", "Completed")
    site.until_told("films", "Queued", "Started", "Completed")
    before = site.get("films")
    assert before is not None
    stop(site, number)
    site.start_operator()
    site.create("later")
    site.until_phase("later", "Completed")
    site.until_told("later", "Queued", "Started", "Completed")
    after = site.get("films")
    assert after is not None
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    site.until_told("films", "Queued", "Started", "Completed")


def test_what_happened_while_it_was_down_is_dealt_with(site: Site) -> None:
    """What is created, held, let go, cancelled and deleted while no operator runs, the next one does."""
    site.start_operator()
    for name in ("held", "cancelled", "deleted", "running"):
        site.create(name)
        site.until_phase(name, "Queued")
    resumed = site.create("resumed", suspend=True)
    site.until_condition("resumed", "Suspended", "True", "Suspended")
    stop(site, signal.SIGKILL)
    site.create("created")
    site.create("brief")
    site.delete("brief")  # it has no finalizer yet
    site.until_gone("brief")
    site.change("held", suspend=True)
    site.change("resumed", suspend=False)
    site.change("cancelled", cancel=True)
    site.delete("deleted")
    assert site.get("deleted") is not None  # its finalizer keeps it
    site.start_operator()
    site.until_phase("created", "Queued")
    site.until_condition("held", "Suspended", "True", "Suspended")
    site.until_condition("resumed", "Suspended", "False", "Resumed")
    site.until_phase("cancelled", "Cancelled")
    site.until_gone("deleted")
    assert site.record(site.uids["deleted"])["state"] == "cancelled"
    assert site.record(site.uids["brief"]) == {}
    assert site.record(resumed)["place"] == "ready"
    assert site.status("running")["phase"] == "Queued"


@SIGNALS
def test_a_running_job_is_not_disturbed(site: Site, number: signal.Signals) -> None:
    """A restart leaves a running job with its worker: one attempt, and its phase all the time Processing."""
    site.start_operator()
    site.system.start_worker(**RUNS_ON)
    uid = site.create("films")
    worker = site.until_phase("films", "Processing")["worker"]
    site.until_told("films", "Queued", "Started")  # after the status: a kill in between would take them along
    token = site.record(uid)["token"]
    stop(site, number)
    site.start_operator()
    assert site.status("films")["worker"] == worker
    assert site.record(uid)["token"] == token
    site.change("films", cancel=True)
    site.until_phase("films", "Cancelled")
    site.until_told("films", "Queued", "Started", "Cancelled")


def test_jobs_that_ended_meanwhile_are_told_by_the_resync(site: Site) -> None:
    """What an operator missed while it was down it finds at the next resync at the latest."""
    site.start_operator()
    site.create("films")
    site.until_phase("films", "Queued")
    stop(site, signal.SIGKILL)
    site.system.start_worker()
    uid = site.uids["films"]
    eventually(lambda: site.record(uid).get("state") == "completed", 30, "the job's end")
    site.start_operator(RESYNC_SECONDS="1")
    site.until_phase("films", "Completed", 10)
    site.until_told("films", "Queued", "Started", "Completed")


def test_a_signal_during_the_start(site: Site) -> None:
    """SIGTERM right after the Lease was taken ends the operator in order, with 0, and soon."""
    operator = site.start_operator(wait=False)
    eventually(lambda: bool(site.told("operator started")), 20, "the start")
    eventually(lambda: bool(site.told("authentication has finished")), 20, "kopf's start")
    operator.send(signal.SIGTERM)
    assert operator.wait(10)
    assert operator.exit_code == 0


def test_killed_at_any_time(site: Site) -> None:
    """Killed six times while jobs come and go, it ends with every job finished once and told once."""
    site.settings["RESYNC_SECONDS"] = "2"
    site.system.start_worker()
    names = [f"film-{number}" for number in range(30)]
    for part in range(6):
        operator = site.start_operator(wait=False)  # as soon as the last was killed
        for name in names[part * 5 : part * 5 + 5]:
            site.create(name, [*FILES])
        # Each time at another moment of its work.
        wanted = names[part * 5]
        eventually(lambda wanted=wanted: bool(site.status(wanted)), 30, "a status")  # type: ignore[misc]
        operator.send(signal.SIGKILL)
        operator.wait(10)
    site.start_operator(wait=False)
    for name in names:
        site.until_phase(name, "Completed", 60)
    for name in names:
        assert site.record(site.uids[name])["attempt"] == "1"
        told = site.reasons(name)
        # An Event that was due when it was killed is not told later: never twice is what is promised.
        assert len(told) == len(set(told)), told
