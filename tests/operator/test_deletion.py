"""A deletion always comes to its end, whatever Redis does meanwhile."""

from __future__ import annotations

import pytest

from support_operator_process import Kube, Site, manifest, team
from support_worker import eventually

pytestmark = pytest.mark.cluster


def namespace_there(kube: Kube, namespace: str) -> bool:
    """Whether a namespace is there, going or not."""
    return kube.ask("GET", f"/api/v1/namespaces/{namespace}") is not None


def test_a_namespace_ends_without_redis(site: Site) -> None:
    """A namespace can be deleted although Redis is down for good: finalizers are given up, and told."""
    site.settings["FINALIZER_GIVE_UP_SECONDS"] = "3"
    with team(site, cluster_wide=True) as there:
        site.start_operator()
        for number in range(3):
            made = site.kube.ask("POST", site.path(namespace=there), manifest(f"film-{number}"))
            assert made is not None
        for number in range(3):
            site.until_phase(f"film-{number}", "Queued", namespace=there)
        site.system.valkey.kill()
        site.cluster.kubectl("delete", "namespace", there, "--wait=false")
        eventually(lambda: not namespace_there(site.kube, there), 60, "the namespace's end")
        gave_up = site.told("let go without its job")
        assert {line["name"] for line in gave_up} == {f"film-{number}" for number in range(3)}
        assert all(line["namespace"] == there and line["waited_seconds"] >= 3 for line in gave_up)
        assert all(line["level"] == "warning" for line in gave_up)


def test_a_namespace_ends_with_redis(site: Site) -> None:
    """Deleting a namespace with Redis at hand cancels its jobs, and no Event is tried in what terminates."""
    with team(site, cluster_wide=True) as there:
        site.start_operator()
        made = site.kube.ask("POST", site.path(namespace=there), manifest("films"))
        assert made is not None
        site.until_phase("films", "Queued", namespace=there)
        site.cluster.kubectl("delete", "namespace", there, "--wait=false")
        eventually(lambda: not namespace_there(site.kube, there), 60, "the namespace's end")
        assert site.record(made["metadata"]["uid"])["state"] == "cancelled"
        assert site.told("let go without its job") == []
        assert site.told("an Event could not be written") == []


@pytest.mark.xfail(
    strict=True,
    reason="the RoleBinding in the namespace is deleted before the finalizers, and the operator is refused",
)
def test_a_namespace_with_its_own_rolebinding_ends(site: Site) -> None:
    """The same where the operator's rights are a RoleBinding in the namespace, which goes with it."""
    site.settings["FINALIZER_GIVE_UP_SECONDS"] = "1"
    with team(site) as there:
        site.start_operator()
        for number in range(3):
            assert site.kube.ask("POST", site.path(namespace=there), manifest(f"film-{number}"))
        for number in range(3):
            site.until_phase(f"film-{number}", "Queued", namespace=there)
        site.system.valkey.kill()  # so that the RoleBinding is gone first for sure, not by chance
        site.cluster.kubectl("delete", "namespace", there, "--wait=false")
        eventually(lambda: not namespace_there(site.kube, there), 15, "the namespace's end")


def test_a_deletion_waits_for_redis_for_a_while(site: Site) -> None:
    """While Redis is down the object stays; when it is back the job is withdrawn, and the object gone."""
    site.start_operator()
    uid = site.create("films")
    site.until_phase("films", "Queued")
    site.system.valkey.kill()
    site.delete("films")
    site.create("other")
    site.until_condition("other", "Queued", "False", "QueueUnavailable")  # the deletion was tried before it
    body = site.get("films")
    assert body is not None
    assert body["metadata"]["deletionTimestamp"]
    site.until_told("films", "Queued", "QueueUnavailable")
    site.system.valkey.start()  # with what it held: it has an append-only file
    site.until_gone("films", 60)
    assert site.record(uid)["state"] == "cancelled"
    assert site.told("let go without its job") == []


def test_a_deletion_with_an_empty_redis(site: Site) -> None:
    """A job whose record is gone needs no withdrawal: the object goes at once."""
    site.start_operator()
    site.create("films")
    site.until_phase("films", "Queued")
    site.operators[0].kill()
    site.redis.flushall()
    site.delete("films")
    site.start_operator()
    site.until_gone("films", 10)
    assert site.record(site.uids["films"]) == {}


def test_a_creation_waits_for_redis(site: Site) -> None:
    """What is created while Redis is down says QueueUnavailable, and is submitted once it is back."""
    site.start_operator()
    valkey = site.system.valkey
    valkey.kill()
    site.create("films")
    status = site.until_condition("films", "Queued", "False", "QueueUnavailable")
    assert not any(one["type"] == "Stalled" and one["status"] == "True" for one in status["conditions"])
    assert status["phase"] == "Pending"
    site.until_told("films", "QueueUnavailable")
    valkey.start()
    site.until_phase("films", "Queued", 60)
    site.system.start_worker()
    site.until_phase("films", "Completed", 60)
    site.until_told("films", "QueueUnavailable", "Queued", "Started", "Completed")
