"""Jobs that came by REST, shown as DownloadJobs in a namespace of their own."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer
from downloadjobs_core.claims import digest_of
from support_operator_process import (
    FILES,
    RUNS_ON,
    Kube,
    Object,
    Site,
    condition_of,
    free,
    installed,
    manifest,
    rights,
)
from support_worker import eventually, members

pytestmark = pytest.mark.cluster

MIRROR = "downloadjobs.dev/mirror-sha256"
CLAIM = "downloadjobs.dev/claim-sha256"


@dataclass
class Shown:
    """A site whose operator shows the jobs of REST in a namespace beside its own."""

    site: Site
    mirrors: str

    def get(self, name: str) -> Object | None:
        """A mirror, or None."""
        return self.site.get(name, self.mirrors)

    def until_phase(self, name: str, phase: str, seconds: float = 30) -> Object:
        """Wait for a mirror, and its phase; its status."""
        eventually(lambda: self.get(name) is not None, seconds, f"the mirror of {name}")
        return self.site.until_phase(name, phase, seconds, self.mirrors)

    def until_claimable(self, job_id: str) -> None:
        """Wait until the record names the mirror."""
        body = self.get(job_id)
        assert body is not None
        uid = body["metadata"]["uid"]
        eventually(
            lambda: self.site.record(job_id).get("mirror") == uid, 10, "the mirror's name in the record"
        )

    def make(self, name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> str:  # noqa: ANN401
        """Create one there as its administrator may, whom no policy stops; its uid."""
        body = manifest(name, **spec)
        body["metadata"]["annotations"] = annotations or {}
        made = self.site.kube.ask("POST", self.site.path(namespace=self.mirrors), body)
        assert made is not None
        return str(made["metadata"]["uid"])

    def names(self) -> list[str]:
        """Of all mirrors."""
        found = self.site.kube.ask("GET", self.site.path(namespace=self.mirrors))
        assert found is not None
        return sorted(one["metadata"]["name"] for one in found["items"])

    def clear(self) -> None:
        """Delete all, and wait for their end."""
        self.site.kube.ask("DELETE", self.site.path(namespace=self.mirrors))
        eventually(lambda: not self.names(), 30, "the end of all mirrors")


@pytest.fixture
def shown(site: Site) -> Iterator[Shown]:
    """A namespace for mirrors, and an API; no operator yet. The mode is `all` if a test does not say."""
    with site.cluster.namespace("operator-mirrors") as mirrors:
        site.cluster.apply(rights(mirrors, mirrors_of=site.namespace))
        site.settings.update(MIRROR_API_JOBS="all", MIRROR_NAMESPACE=mirrors)
        site.system.start_api()
        yield Shown(site, mirrors)
        for operator in site.operators:
            operator.kill()
        free(site.kube, mirrors)


@pytest.fixture(scope="module")
def _showing(
    kube: Kube, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    with (
        kube.cluster.namespace("operator-mirrors") as mirrors,
        installed(kube, seaweedfs, tmp_path_factory.mktemp("showing")) as site,
    ):
        site.cluster.apply(rights(mirrors, mirrors_of=site.namespace))
        site.settings.update(MIRROR_API_JOBS="all", MIRROR_NAMESPACE=mirrors)
        site.system.start_api()
        site.start_operator()
        yield Shown(site, mirrors)
        for operator in site.operators:
            operator.kill()
        free(kube, mirrors)


@pytest.fixture
def showing(_showing: Shown) -> Iterator[Shown]:
    """The module's site with an operator that shows all jobs, and an API; a test starts its worker."""
    yield _showing
    _showing.clear()
    for child in _showing.site.system.children[1:]:
        child.kill()
    del _showing.site.system.children[1:]


def submitted(shown: Shown, user: str = "ada") -> str:
    """A job that came by REST."""
    return shown.site.system.submit(list(FILES), user)


def test_a_job_of_rest_is_shown(showing: Shown) -> None:
    """It is an object with the job's id for its name; it progresses and finishes as the job does."""
    job_id = submitted(showing)
    status = showing.until_phase(job_id, "Queued")
    assert status["jobId"] == job_id
    body = showing.get(job_id)
    assert body is not None
    assert body["spec"]["fileIds"] == list(FILES)
    assert body["spec"]["userId"] == "ada"
    assert body["spec"]["result"]["deletionPolicy"] == "Retain"
    showing.site.system.start_worker()
    status = showing.until_phase(job_id, "Completed")
    assert condition_of(status, "Finished") == ("True", "Succeeded")
    assert showing.site.record(job_id)["attempt"] == "1"
    assert "://" not in json.dumps(showing.get(job_id))
    showing.site.until_told(job_id, "Queued", "Started", "Completed", namespace=showing.mirrors)


def test_a_mirror_is_no_new_job(showing: Shown) -> None:
    """The object's own uid never becomes a job: there is one job, charged to its user."""
    job_id = submitted(showing)
    showing.until_phase(job_id, "Queued")
    showing.until_claimable(job_id)
    body = showing.get(job_id)
    assert body is not None
    assert showing.site.record(body["metadata"]["uid"]) == {}
    assert showing.site.record(job_id)["user"] == "ada"
    assert showing.site.redis.hgetall("{downloadjobs}:waiting_by_user") == {"ada": "1"}


def test_a_job_of_a_downloadjob_has_no_mirror(showing: Shown) -> None:
    """What came by a DownloadJob is shown by that alone."""
    showing.site.create("films")
    showing.site.until_phase("films", "Queued")
    job_id = submitted(showing)
    showing.until_phase(job_id, "Queued")  # it came later, and is there
    assert showing.names() == [job_id]
    showing.site.clear()


def test_cancelling_a_mirror_cancels_its_job(showing: Shown) -> None:
    """`cancel` of an active mirror cancels the job."""
    job_id = submitted(showing)
    showing.until_phase(job_id, "Queued")
    showing.site.patch(job_id, {"spec": {"cancel": True}}, showing.mirrors)
    showing.until_phase(job_id, "Cancelled")
    assert showing.site.system.status(job_id)["status"] == "cancelled"


def test_suspending_a_mirror_holds_its_job(showing: Shown) -> None:
    """`suspend` of a mirror holds its job, and lets it go on."""
    job_id = submitted(showing)
    showing.until_phase(job_id, "Queued")
    for suspend, place in ((True, "suspended"), (False, "ready")):
        showing.site.patch(job_id, {"spec": {"suspend": suspend}}, showing.mirrors)
        eventually(lambda place=place: showing.site.record(job_id)["place"] == place, 10, place)  # type: ignore[misc]


def test_deleting_an_active_mirror_cancels_its_job(showing: Shown) -> None:
    """Deleting the mirror of a running job cancels that, and no new mirror comes."""
    showing.site.system.start_worker(**RUNS_ON)
    job_id = submitted(showing)
    showing.until_phase(job_id, "Processing")
    showing.site.delete(job_id, showing.mirrors)
    eventually(lambda: showing.get(job_id) is None, 10, "the mirror's end")
    assert showing.site.system.status(job_id)["status"] == "cancelled"
    later = submitted(showing)
    showing.until_phase(later, "Processing")
    assert showing.names() == [later]


def test_deleting_a_finished_mirror_keeps_the_result(showing: Shown) -> None:
    """Deleting a finished mirror deletes no result, whatever its deletionPolicy was changed to."""
    showing.site.system.start_worker()
    job_id = submitted(showing)
    showing.until_phase(job_id, "Completed")
    showing.site.patch(job_id, {"spec": {"result": {"deletionPolicy": "Delete"}}}, showing.mirrors)
    before = showing.site.redis.zscore("{downloadjobs}:expiring", job_id)
    showing.site.delete(job_id, showing.mirrors)
    eventually(lambda: showing.get(job_id) is None, 10, "the mirror's end")
    assert showing.site.redis.zscore("{downloadjobs}:expiring", job_id) == before
    assert "manifest.json" in members(showing.site.system.fetch(job_id))


def test_one_made_by_hand_is_refused(showing: Shown) -> None:
    """A DownloadJob that somebody creates among the mirrors becomes no job."""
    uid = showing.make("films")
    status = showing.until_phase("films", "Failed")
    assert condition_of(status, "Failed") == ("True", "NotAMirror")
    assert showing.site.record(uid) == {}
    showing.site.delete("films", showing.mirrors)
    eventually(lambda: showing.get("films") is None, 10, "its end")


def test_a_false_mirror_reaches_nothing(shown: Shown) -> None:
    """One with a job's id for its name, made before the operator's: no claim, cancel or deletion counts."""
    job_id = submitted(shown)
    uid = shown.make(job_id)
    shown.site.start_operator()
    status = shown.until_phase(job_id, "Failed")
    assert condition_of(status, "Stalled") == ("True", "NotAMirror")
    reaches_nothing(shown, job_id, uid)


def test_a_copied_annotation_makes_no_mirror(shown: Shown) -> None:
    """A copy of a real mirror, annotation and all, in its place, is not that mirror and reaches nothing."""
    shown.site.start_operator()
    job_id = submitted(shown)
    shown.until_phase(job_id, "Queued")
    shown.until_claimable(job_id)
    real = shown.get(job_id)
    assert real is not None
    copied = real["metadata"]["annotations"][MIRROR]
    # Without the operator, which would cancel the job for the real one's end.
    shown.site.operators[0].kill()
    shown.site.patch(job_id, {"metadata": {"finalizers": None}}, shown.mirrors)
    shown.site.delete(job_id, shown.mirrors)
    uid = shown.make(job_id, annotations={MIRROR: copied})
    assert uid != real["metadata"]["uid"]
    shown.site.start_operator()
    status = shown.until_phase(job_id, "Failed")
    assert condition_of(status, "Stalled") == ("True", "NotAMirror")
    reaches_nothing(shown, job_id, uid)


def reaches_nothing(shown: Shown, job_id: str, uid: str) -> None:
    """Nothing that is done to a false mirror is done to the job of its name."""
    nonce = "a" * 64
    shown.site.patch(job_id, {"metadata": {"annotations": {CLAIM: digest_of(nonce)}}}, shown.mirrors)

    def taken_away() -> bool:
        body = shown.get(job_id)
        return body is not None and CLAIM not in body["metadata"].get("annotations", {})

    eventually(taken_away, 10, "the claim's removal")
    assert list(shown.site.redis.scan_iter("{downloadjobs}:claim:*")) == []
    shown.site.patch(job_id, {"spec": {"suspend": True}}, shown.mirrors)
    shown.site.patch(job_id, {"spec": {"cancel": True}}, shown.mirrors)
    shown.site.delete(job_id, shown.mirrors)
    eventually(lambda: shown.get(job_id) is None, 10, "its end")
    record = shown.site.record(job_id)
    assert (record["state"], record["place"]) == ("queued", "ready")
    assert shown.site.record(uid) == {}
    with shown.site.system.client("eve") as client:
        claimed = client.post("/v1/claims", json={"jobId": job_id, "nonce": nonce})
    assert claimed.status_code != httpx.codes.OK, claimed.text
    shown.site.system.start_worker()
    assert shown.site.system.wait(job_id)["status"] == "completed"


def test_a_copy_elsewhere_is_refused(showing: Shown) -> None:
    """A mirror copied into another namespace, annotation and all, becomes no job, and reaches none."""
    job_id = submitted(showing)
    showing.until_phase(job_id, "Queued")
    real = showing.get(job_id)
    assert real is not None
    body = manifest(job_id)
    body["metadata"]["annotations"] = dict(real["metadata"]["annotations"])
    made = showing.site.kube.ask("POST", showing.site.path(), body)
    assert made is not None
    status = showing.site.until_phase(job_id, "Failed")
    assert condition_of(status, "Failed") == ("True", "NotAMirror")
    showing.site.delete(job_id)
    showing.site.until_gone(job_id)
    assert showing.site.record(made["metadata"]["uid"]) == {}
    assert showing.site.record(job_id)["state"] == "queued"


def test_none_shows_nothing(shown: Shown) -> None:
    """`none`: jobs of REST have no object."""
    shown.site.settings.update(MIRROR_API_JOBS="none")
    shown.site.start_operator()
    job_id = submitted(shown)
    shown.site.create("films")
    shown.site.until_phase("films", "Queued")  # it came later, and is there
    assert shown.names() == []
    assert "mirror" not in shown.site.record(job_id)


def test_active_mirrors_go_soon_after_the_end(shown: Shown) -> None:
    """`active`: the mirror of a job that has ended stays for a minute by its own spec, and then goes."""
    shown.site.settings.update(MIRROR_API_JOBS="active")
    shown.site.system.start_worker()
    before = submitted(shown)
    shown.site.system.wait(before)
    shown.site.start_operator()
    job_id = submitted(shown)
    shown.until_phase(job_id, "Completed")
    body = shown.get(job_id)
    assert body is not None
    assert body["spec"]["ttlSecondsAfterFinished"] == 60
    # As if the minute had passed.
    shown.site.patch(job_id, {"spec": {"ttlSecondsAfterFinished": 0}}, shown.mirrors)
    eventually(lambda: shown.get(job_id) is None, 10, "the mirror's end")
    assert shown.names() == []  # one that had ended before is not shown
    assert members(shown.site.system.fetch(job_id))


def test_unfinished_jobs_are_shown_at_the_start(shown: Shown) -> None:
    """Jobs that came while no operator ran are shown when one starts."""
    first, second = submitted(shown), submitted(shown)
    shown.site.start_operator()
    for job_id in (first, second):
        shown.until_phase(job_id, "Queued")
    assert shown.names() == sorted([first, second])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_restart_knows_its_mirrors(shown: Shown, number: signal.Signals) -> None:
    """After a restart mirrors are neither doubled nor refused; they follow and cancel their jobs."""
    shown.site.settings["RESYNC_SECONDS"] = "2"
    operator = shown.site.start_operator()
    job_id, other = submitted(shown), submitted(shown)
    for one in (job_id, other):
        shown.until_phase(one, "Queued")
        shown.until_claimable(one)
    operator.send(number)
    assert operator.wait(10)
    shown.site.start_operator()
    shown.site.patch(job_id, {"spec": {"cancel": True}}, shown.mirrors)
    shown.until_phase(job_id, "Cancelled")
    shown.site.system.start_worker()
    status = shown.until_phase(other, "Completed")
    assert condition_of(status, "Failed") in (None, ("False", "Succeeded"))
    assert shown.names() == sorted([job_id, other])
    assert shown.site.told("not create") == []


def test_killed_while_it_creates_mirrors(shown: Shown) -> None:
    """Killed between creating mirrors and noting them, it knows its own again: each job has just one."""
    shown.site.settings["RESYNC_SECONDS"] = "2"
    jobs = sorted(submitted(shown) for _ in range(20))
    for wanted in (1, 7, 13):
        operator = shown.site.start_operator(wait=False)
        eventually(lambda wanted=wanted: len(shown.names()) >= wanted, 20, "mirrors")  # type: ignore[misc]
        operator.send(signal.SIGKILL)
        operator.wait(10)
    shown.site.start_operator(wait=False)
    for job_id in jobs:
        shown.until_phase(job_id, "Queued")
        shown.until_claimable(job_id)
    assert shown.names() == jobs


def test_a_wipe_ends_mirrors(shown: Shown) -> None:
    """After a wipe of Redis an unfinished mirror fails for RecordLost; a finished one stays as it is."""
    shown.site.start_operator()
    worker = shown.site.system.start_worker()
    ended = submitted(shown)
    shown.until_phase(ended, "Completed")
    worker.kill()
    job_id = submitted(shown)
    shown.until_phase(job_id, "Queued")
    shown.until_claimable(job_id)
    shown.site.redis.flushall()
    submitted(shown)  # the first job after a wipe is when the queue is known to be another
    status = shown.until_phase(job_id, "Failed")
    assert condition_of(status, "Failed") == ("True", "RecordLost")
    assert condition_of(status, "Stalled") == ("True", "RecordLost")
    assert shown.until_phase(ended, "Completed")["result"]["files"] == 3
    assert shown.site.record(job_id) == {}
