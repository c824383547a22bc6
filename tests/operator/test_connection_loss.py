"""The way to the API server is cut or stalls: what happened meanwhile is caught up with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from downloadjobs_core.leases import Outcome
from downloadjobs_core.states import JobState
from support_chaos_proxy import Mode, Proxy
from support_cluster import LOOPBACK
from support_operator_process import Site
from support_worker import eventually

pytestmark = pytest.mark.cluster

DONE = Outcome(JobState.COMPLETED, result_key="results/x/1.zip", result_bytes=10, files_done=3)


@contextmanager
def stalled(proxy: Proxy) -> Iterator[None]:
    """Nothing passes, and nothing is refused: a black hole, as a lost route is one."""
    go_on = threading.Event()
    proxy._loop.call_soon_threadsafe(go_on.wait)
    try:
        yield
    finally:
        go_on.set()


@contextmanager
def cut(proxy: Proxy) -> Iterator[None]:
    """Every connection is reset at once."""
    proxy.set_mode(Mode.CUT)
    try:
        yield
    finally:
        proxy.set_mode(Mode.OPEN)


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    """The site's operators reach the API server by this proxy alone."""
    host, port = site.cluster.server
    if host != LOOPBACK:
        pytest.skip("needs a cluster on 127.0.0.1, where the proxy connects")
    with Proxy(port) as proxy:
        site.settings["KUBECONFIG"] = str(site.cluster.kubeconfig_through(proxy.port, site.kubeconfig))
        yield proxy
        for operator in site.operators:
            operator.kill()


def much_happens(site: Site) -> None:
    """What people and workers do while the operator cannot know of it."""
    site.change("held", suspend=True)
    site.change("cancelled", cancel=True)
    site.delete("deleted")
    site.create("created")
    uid = site.uids["ended"]
    while (job := site.leases.lease("by hand")) is not None:
        if job.job_id == uid:
            site.leases.finish(job, DONE)
        else:
            site.leases.hand_back(job)
            if site.record(uid)["state"] == "completed":
                break


def before_it(site: Site) -> None:
    """Jobs that wait."""
    for name in ("ended", "held", "cancelled", "deleted"):  # the first is leased first
        site.create(name)
        site.until_phase(name, "Queued")


def all_is_caught_up(site: Site) -> None:
    """Everything that happened meanwhile is in the statuses, soon."""
    site.until_condition("held", "Suspended", "True", "Suspended", 30)
    site.until_phase("cancelled", "Cancelled")
    site.until_phase("created", "Queued")
    site.until_phase("ended", "Completed")
    site.until_gone("deleted")
    assert site.record(site.uids["deleted"])["state"] == "cancelled"
    site.until_told("ended", "Queued", "Started", "Completed")
    site.create("later")
    site.until_phase("later", "Queued", 10)


def test_connections_are_reset(site: Site, proxy: Proxy) -> None:
    """While no connection holds, the operator waits; afterwards its watch goes on, and nothing was missed."""
    site.settings["LEADER_LEASE_SECONDS"] = "60"  # longer than this lasts: it stays the leader
    operator = site.start_operator()
    before_it(site)
    with cut(proxy):
        eventually(lambda: not site.watches(), 10, "the end of the watch")
        much_happens(site)
        assert site.status("ended")["phase"] == "Queued"
    all_is_caught_up(site)
    assert operator.exit_code is None


def test_connections_stall(site: Site, proxy: Proxy) -> None:
    """A black hole of some seconds is outlived, and nothing was missed."""
    site.settings["LEADER_LEASE_SECONDS"] = "60"
    operator = site.start_operator()
    before_it(site)
    with stalled(proxy):
        much_happens(site)
        assert site.status("ended")["phase"] == "Queued"
    all_is_caught_up(site)
    assert operator.exit_code is None


@pytest.mark.timeout(300)
def test_resets_in_the_middle_of_answers(site: Site, proxy: Proxy) -> None:
    """Answers that never come, though the request was done: no job, Event or attempt is doubled."""
    # A Lease that half of the answers renew may well be lost, and its leader ends.
    site.settings["LEADER_ELECTION"] = "false"
    site.start_operator()
    site.system.start_worker()
    proxy.set_mode(Mode.DEAF)
    names = [f"film-{number}" for number in range(8)]
    for name in names:
        site.create(name)
    for name in names:
        eventually(lambda name=name: site.record(site.uids[name]).get("state") == "completed", 120, name)  # type: ignore[misc]
    assert proxy.resets > 0
    proxy.set_mode(Mode.OPEN)
    for name in names:
        assert site.until_phase(name, "Completed", 60)["attempts"] == 1
        told = site.reasons(name)
        assert len(told) == len(set(told)), told


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(cut, id="reset"),
        pytest.param(stalled, id="black hole"),
    ],
)
def test_a_leader_without_the_api_server_ends(site: Site, proxy: Proxy, loss: object) -> None:
    """A leader that cannot renew its Lease stops its work and exits with 1, before another can take over."""
    operator = site.start_operator()
    before_it(site)
    with loss(proxy):  # type: ignore[operator]
        assert operator.wait(12), operator.log_tail()
        assert operator.exit_code == 1
        assert site.told("leadership lost")
        # Nobody mirrors or submits any more.
        site.create("created")
        assert site.status("created") == {}
    site.start_operator()
    site.until_phase("created", "Queued")


def test_another_takes_over_from_one_that_is_cut_off(site: Site, proxy: Proxy) -> None:
    """An operator with a way to the API server takes the Lease of one without, and does the work."""
    first = site.start_operator("first")
    second = site.start_operator("second", wait=False, KUBECONFIG=str(site.kubeconfig))
    eventually(lambda: site.health("readyz", "second")["code"] == 200, 20, "the second's standing by")
    with cut(proxy):
        site.create("films")
        site.until_phase("films", "Queued", 30)
        assert first.wait(20)
        assert first.exit_code == 1
    assert site.health("readyz", "second")["leading"]
    assert second.exit_code is None


def test_started_without_a_way_to_the_api_server(site: Site, proxy: Proxy) -> None:
    """An operator that starts while the API server is away waits for it, says so, and then works."""
    proxy.set_mode(Mode.CUT)
    operator = site.start_operator(wait=False)
    eventually(lambda: bool(site.told("not ready")), 20, "a line about it")
    assert "cannot be reached" in site.told("not ready")[0]["error"]
    assert operator.exit_code is None
    proxy.set_mode(Mode.OPEN)
    site.create("films")
    site.until_phase("films", "Queued")
