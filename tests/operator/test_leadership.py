"""Two operators: one works, the other stands by, and the work passes on."""

from __future__ import annotations

import signal
import time

import pytest

from support_operator_process import Site
from support_worker import eventually

pytestmark = pytest.mark.cluster

LEASE_SECONDS = 5


def holder(site: Site) -> str:
    """Who holds the Lease."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{site.namespace}/leases/downloadjobs-operator"
    lease = site.kube.ask("GET", path)
    return "" if lease is None else str(lease["spec"].get("holderIdentity", ""))


def start_two(site: Site) -> None:
    """One that leads, and one that stands by."""
    site.start_operator("first")
    site.start_operator("second", wait=False)
    eventually(lambda: site.health("readyz", "second")["code"] == 200, 20, "the second's standing by")
    eventually(lambda: bool(site.told("waiting for the Lease", "second")), 10, "its wait")


def test_only_one_leads(site: Site) -> None:
    """The first holds the Lease and does the work; the second is alive and ready, and does nothing."""
    start_two(site)
    assert holder(site) == "first"
    site.create("films")
    site.until_phase("films", "Queued")
    for page in ("livez", "readyz"):
        assert site.health(page, "first")["leading"] is True
        standby = site.health(page, "second")
        assert (standby["code"], standby["leading"]) == (200, False)
    assert site.health("readyz", "second")["watching"] is False
    assert site.told("job submitted", "first")
    assert site.told("job submitted", "second") == []
    assert holder(site) == "first"


def test_a_leader_that_ends_hands_over(site: Site) -> None:
    """SIGTERM of the leader: it gives the Lease back, and the other leads before it would have run out."""
    site.settings["LEADER_LEASE_SECONDS"] = "30"
    start_two(site)
    leader = site.operators[0]
    leader.ask_to_end()
    began = time.monotonic()
    assert leader.wait(10)
    assert leader.exit_code == 0
    eventually(lambda: site.health("readyz", "second")["leading"], 15, "the second's lead")
    assert time.monotonic() - began < 15
    assert holder(site) == "second"
    site.create("films")
    site.until_phase("films", "Queued")


def test_a_leader_that_is_killed_is_replaced(site: Site) -> None:
    """SIGKILL of the leader: the other leads once the Lease has run out, and goes on with its jobs."""
    start_two(site)
    site.create("films")
    site.until_phase("films", "Queued")
    site.until_told("films", "Queued")  # after the status: a kill in between would take it along
    site.operators[0].send(signal.SIGKILL)
    site.change("films", suspend=True)
    eventually(lambda: site.health("readyz", "second")["leading"], LEASE_SECONDS * 3, "the second's lead")
    assert holder(site) == "second"
    site.until_condition("films", "Suspended", "True", "Suspended")
    site.until_told("films", "Queued")


def test_one_that_stands_by_ends_at_once(site: Site) -> None:
    """SIGTERM of the standby ends it with 0, and the leader is not disturbed."""
    start_two(site)
    standby = site.operators[1]
    standby.ask_to_end()
    assert standby.wait(5)
    assert standby.exit_code == 0
    assert holder(site) == "first"
    site.create("films")
    site.until_phase("films", "Queued")


def test_a_leader_whose_lease_was_taken_ends(site: Site) -> None:
    """A leader that finds another's name in the Lease stops its work and exits with 1."""
    operator = site.start_operator()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{site.namespace}/leases/downloadjobs-operator"

    def taken() -> bool:
        # Renewed at the same moment, the Lease is the leader's again: so it is taken until that gives in.
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        spec = {"holderIdentity": "another", "renewTime": now, "leaseDurationSeconds": LEASE_SECONDS}
        headers = {"Content-Type": "application/merge-patch+json"}
        site.kube.client.patch(path, json={"spec": spec}, headers=headers)
        return operator.exit_code is not None

    eventually(taken, 20, "the leader's end")
    assert operator.exit_code == 1
    assert site.told("leadership lost")


def test_without_leader_election(site: Site) -> None:
    """`LEADER_ELECTION=false`: it works at once, and no Lease is there."""
    site.start_operator(LEADER_ELECTION="false")
    site.create("films")
    site.until_phase("films", "Queued")
    assert holder(site) == ""
