"""Whatever goes wrong with one object or namespace, the others go on, and it is caught up with by itself."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from downloadjobs_core.leases import Outcome
from downloadjobs_core.states import JobState
from downloadjobs_operator.downloadjob import FINALIZER
from support_operator_process import Site, manifest, team
from support_worker import eventually

pytestmark = pytest.mark.cluster

DONE = Outcome(JobState.COMPLETED, result_key="results/x/1.zip", result_bytes=10, files_done=3)

HOSTILE = {
    "no-json": {"last-handled-configuration": "{not json"},
    "broken": {"withdraw": "{not json"},
    "done": {
        "withdraw": json.dumps(
            {
                "started": "2026-11-24T10:00:00.000000+00:00",
                "purpose": "delete",
                "retries": 1,
                "success": True,
            }
        )
    },
    "delayed": {
        "withdraw": json.dumps(
            {
                "started": "2026-11-24T10:00:00.000000+00:00",
                "delayed": "2099-01-01T00:00:00+00:00",
                "retries": 1,
            }
        )
    },
}
"""Annotations that kopf's own handlers of changes would read."""


def create(site: Site, name: str, **metadata: Any) -> str:  # noqa: ANN401 - JSON
    """Create one with more metadata; its uid."""
    body = manifest(name)
    body["metadata"] |= metadata
    made = site.kube.ask("POST", site.path(), body)
    assert made is not None
    return str(made["metadata"]["uid"])


def states(site: Site, uids: list[str]) -> set[str | None]:
    """The states of the records that there are."""
    return {site.record(uid).get("state") for uid in uids}


@pytest.mark.parametrize("finalizers", [[], [FINALIZER]], ids=["without a finalizer", "with ours"])
def test_hostile_annotations_do_nothing(waiting: Site, finalizers: list[str]) -> None:
    """What somebody writes where kopf would note its progress changes nothing: jobs come and go."""
    uids = {}
    for name, notes in HOSTILE.items():
        annotations = {f"kopf.downloadjobs.dev/{key}": value for key, value in notes.items()}
        uids[name] = create(waiting, name, annotations=annotations, finalizers=finalizers)
    for name in HOSTILE:
        waiting.until_phase(name, "Queued", 10)
        waiting.delete(name)
        waiting.until_gone(name, 10)
        assert waiting.record(uids[name])["state"] == "cancelled"


def test_annotations_as_large_as_they_may_be(waiting: Site) -> None:
    """An object to which no byte of annotations can be added is a job, is cancelled, and goes."""
    uid = create(waiting, "films", annotations={"x/y": "a" * (262_144 - 3)})
    waiting.until_phase("films", "Queued", 10)
    waiting.change("films", cancel=True)
    waiting.until_phase("films", "Cancelled", 10)
    waiting.delete("films")
    waiting.until_gone("films", 10)
    assert waiting.record(uid)["state"] == "cancelled"


def test_other_finalizers_are_left_alone(waiting: Site) -> None:
    """Ours comes and goes beside another's, whose object stays until that is removed too."""
    uid = create(waiting, "films", finalizers=["example.org/hold"])
    waiting.until_phase("films", "Queued", 10)
    found = waiting.get("films")
    assert found is not None
    assert found["metadata"]["finalizers"] == ["example.org/hold", FINALIZER]
    waiting.delete("films")

    def held_by_the_other_alone() -> bool:
        left = waiting.get("films")
        return left is not None and left["metadata"]["finalizers"] == ["example.org/hold"]

    eventually(held_by_the_other_alone, 10, "the end of our finalizer")
    assert waiting.record(uid)["state"] == "cancelled"
    waiting.patch("films", {"metadata": {"finalizers": None}})
    waiting.until_gone("films", 10)


def test_no_deletion_is_overtaken(waiting: Site) -> None:
    """However soon after its creation an object is deleted, no job of one that is gone is left."""
    uids = []
    for number in range(60):
        uids.append(waiting.create("same"))
        time.sleep(0.002 * (number % 15))
        waiting.delete("same")
        waiting.until_gone("same", 10)
    eventually(lambda: states(waiting, uids) <= {"cancelled", None}, 10, "the end of all jobs")


def test_a_finalizer_that_was_removed_by_hand(waiting: Site) -> None:
    """An object whose finalizer somebody removed, and which is deleted at once, takes its job along."""
    uids = []
    for number in range(10):
        name = f"films-{number}"
        uids.append(waiting.create(name))
        waiting.until_phase(name, "Queued")
        waiting.patch(name, {"metadata": {"finalizers": None}})
        waiting.delete(name)
    eventually(lambda: states(waiting, uids) == {"cancelled"}, 10, "the end of all jobs")


def test_what_went_while_no_operator_ran(site: Site) -> None:
    """A job whose object went without an operator is withdrawn soon after the next one's start."""
    site.start_operator()
    gone, kept = site.create("gone"), site.create("kept")
    for name in ("gone", "kept"):
        site.until_phase(name, "Queued")
    site.operators[0].kill()
    site.patch("gone", {"metadata": {"finalizers": None}})
    site.delete("gone")
    site.until_gone("gone")
    site.start_operator()
    eventually(lambda: site.record(gone)["state"] == "cancelled", 30, "the end of the orphan")
    assert site.record(kept)["state"] == "queued"
    assert [one["job_id"] for one in site.told("a job without its DownloadJob was withdrawn")] == [gone]


@contextmanager
def without(site: Site, verb: str) -> Iterator[None]:
    """Take a right on DownloadJobs from the operator, for a while."""
    role = site.cluster.get_json("role", "downloadjobs-operator", "-n", site.namespace)

    def apply(rules: list[dict[str, Any]]) -> None:
        metadata = {"name": "downloadjobs-operator", "namespace": site.namespace}
        kept = {"apiVersion": role["apiVersion"], "kind": "Role", "metadata": metadata, "rules": rules}
        site.cluster.apply(json.dumps(kept))

    apply(
        [
            rule | {"verbs": [one for one in rule["verbs"] if one != verb]}
            if rule["resources"] == ["downloadjobs"]
            else rule
            for rule in role["rules"]
        ]
    )
    try:
        yield
    finally:
        apply(role["rules"])


def test_rights_that_were_away(site: Site) -> None:
    """What could not be done for half a minute for want of a right is done soon after that is back."""
    site.start_operator()
    uids = [site.create(name) for name in ("gone", "held")]
    for name in ("gone", "held"):
        site.until_phase(name, "Queued")
    with without(site, "patch"):
        time.sleep(1)
        site.delete("gone")
        site.create("new")
        site.change("held", suspend=True)
        time.sleep(30)
        assert site.get("gone") is not None
        assert "phase" not in site.status("new")
    site.until_gone("gone", 45)
    site.until_phase("new", "Queued", 45)
    site.until_condition("held", "Suspended", "True", "Suspended")
    assert site.record(uids[0])["state"] == "cancelled"
    assert site.operators[0].exit_code is None


def test_a_namespace_that_is_deleted_ends_nothing(site: Site) -> None:
    """The other namespaces are served on, also by an operator that is started anew; the log names it once."""
    with team(site) as there:
        site.start_operator()
        site.create("before")
        site.until_phase("before", "Queued")
        site.cluster.kubectl("delete", "namespace", there, "--wait=true")
        operator = site.operators[0]
        operator.kill()
        site.start_operator()
        eventually(lambda: there in site.health("readyz")["refused"], 20, "the refusal")
        time.sleep(40)  # kopf would have ended itself after 30
        assert operator.exit_code is None
        assert site.health("readyz")["code"] == 200
        site.create("after")
        site.until_phase("after", "Queued", 10)
        told = site.told("a namespace cannot be served")
        assert [one["namespace"] for one in told] == [there]


def test_a_namespace_that_comes_later_is_served(site: Site) -> None:
    """A served namespace need not be there, nor the rights in it: it is served once they are."""
    with team(site) as there:
        role = site.cluster.get_json("rolebinding", "downloadjobs-operator", "-n", there)
        site.cluster.kubectl("delete", "rolebinding", "downloadjobs-operator", "-n", there)
        site.start_operator()
        eventually(lambda: there in site.health("readyz")["refused"], 20, "the refusal")
        assert site.kube.ask("POST", site.path(namespace=there), manifest("films"))
        role["metadata"] = {"name": "downloadjobs-operator", "namespace": there}
        site.cluster.apply(json.dumps(role))
        site.until_phase("films", "Queued", 45, namespace=there)
        assert site.health("readyz")["refused"] == {}


@pytest.mark.parametrize("two", [False, True], ids=["alone", "with another that takes over"])
def test_a_frozen_operator_does_not_act_on_what_it_knew(site: Site, *, two: bool) -> None:
    """After a pause of its process an operator ends nothing whose time was made longer meanwhile."""
    site.start_operator("first")
    if two:
        site.start_operator("second", wait=False)
    for number in range(3):
        site.create(f"ended-{number}", ttlSecondsAfterFinished=12)
        job = site.leases.lease("by hand")
        while job is None:
            job = site.leases.lease("by hand")
        site.leases.finish(job, DONE)
        site.until_phase(f"ended-{number}", "Completed")
        site.create(f"waits-{number}", activeDeadlineSeconds=12, suspend=True)
        site.change(f"waits-{number}", suspend=False)
        held = site.leases.lease("by hand")
        while held is None:
            held = site.leases.lease("by hand")
        site.until_phase(f"waits-{number}", "Processing")
    site.operators[0].send(signal.SIGSTOP)
    if two:
        eventually(lambda: site.health("readyz", "second").get("leading", False), 30, "the second's lead")
        eventually(lambda: site.watches("second"), 10, "its watch")
    for number in range(3):
        site.change(f"ended-{number}", ttlSecondsAfterFinished=3600)
        site.change(f"waits-{number}", activeDeadlineSeconds=3600)
    time.sleep(14)
    site.operators[0].send(signal.SIGCONT)
    time.sleep(5)
    for number in range(3):
        assert site.status(f"ended-{number}")["phase"] == "Completed"
        assert site.status(f"waits-{number}")["phase"] == "Processing"


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_clock_that_is_wrong(site: Site, ahead: int) -> None:
    """On a machine whose clock is an hour off, deadlines, lives and deletions take as long as they say."""
    folder = site.system.folder / "skewed"
    folder.mkdir()
    text = f"import time\nreal = time.time\ntime.time = lambda: real() + {ahead}\n"
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    site.settings["FINALIZER_GIVE_UP_SECONDS"] = "20"
    site.start_operator(PYTHONPATH=str(folder))
    site.create("short", activeDeadlineSeconds=3)
    site.create("long", activeDeadlineSeconds=1800)
    site.until_condition("short", "Failed", "True", "DeadlineExceeded", 15)
    assert site.status("long")["phase"] == "Queued"
    assert {one["server"] for one in site.told("clock and the server's differ")} == {"redis", "kubernetes"}
    site.system.valkey.kill()
    site.delete("long")
    time.sleep(5)
    assert site.get("long") is not None
    site.until_gone("long", 60)
