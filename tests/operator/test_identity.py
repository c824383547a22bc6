"""Whose a DownloadJob is, and what its author cannot reach: other users, other jobs, the rules."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer
from support_operator_process import Kube, Site, condition_of, installed, manifest
from support_worker import members

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def _allowing(
    kube: Kube, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with installed(kube, seaweedfs, tmp_path_factory.mktemp("allowing")) as site:
        site.settings["USER_ID_NAMESPACES"] = site.namespace
        site.start_operator()
        site.system.start_api()
        site.system.start_worker()
        yield site


@pytest.fixture
def allowing(_allowing: Site) -> Iterator[Site]:
    """A site whose namespace may name users, with an API and a worker."""
    yield _allowing
    _allowing.clear()


def refused(site: Site, name: str, reason: str) -> None:
    """It failed at once, for this reason, and never became a job."""
    status = site.until_phase(name, "Failed")
    assert condition_of(status, "Finished") == ("True", "Failed")
    assert condition_of(status, "Failed") == ("True", reason)
    assert condition_of(status, "Stalled") == ("True", reason)
    assert "jobId" not in status
    assert site.record(site.uids[name]) == {}


def rejected(site: Site, body: object, method: str = "POST", name: str = "") -> str:
    """What the API server says to a request that the schema forbids."""
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    answer = site.kube.client.request(method, site.path(name), json=body, headers=headers)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    return str(answer.json()["message"])


def test_a_user_where_none_may_be_named(waiting: Site) -> None:
    """`userId` in a namespace that may not name users is refused, with what to change."""
    waiting.create("films", userId="ada")
    refused(waiting, "films", "UserIdNotAllowed")
    assert "operator.userIdNamespaces" in waiting.status("films")["message"]
    waiting.until_told("films", "Failed")


def test_a_refused_one_can_be_deleted(waiting: Site) -> None:
    """What never became a job is deleted like any other."""
    waiting.create("films", userId="ada")
    refused(waiting, "films", "UserIdNotAllowed")
    waiting.delete("films")
    waiting.until_gone("films", 10)


def test_more_priority_than_the_namespace_may_have(waiting: Site) -> None:
    """A class above the namespace's ceiling is refused."""
    waiting.create("films", priority="high")
    refused(waiting, "films", "PriorityTooHigh")


def test_the_named_user_has_the_result(allowing: Site) -> None:
    """The user of `userId` sees the job at the API and fetches its result."""
    uid = allowing.create("films", userId="ada")
    allowing.until_phase("films", "Completed")
    assert allowing.system.status(uid, "ada")["status"] == "completed"
    assert "manifest.json" in members(allowing.system.fetch(uid, "ada"))


def test_another_user_has_nothing(allowing: Site) -> None:
    """Anybody else gets 403 for its status, its result and its cancellation."""
    uid = allowing.create("films", userId="ada")
    allowing.until_phase("films", "Completed")
    with allowing.system.client("eve") as client:
        for path in (f"/v1/download/status/{uid}", f"/v1/download/result/{uid}", f"/v1/jobs/{uid}"):
            assert client.get(path).status_code == httpx.codes.FORBIDDEN, path
        assert client.delete(f"/v1/jobs/{uid}").status_code == httpx.codes.FORBIDDEN


def test_the_named_user_does_not_own_it(allowing: Site) -> None:
    """The user of `userId` may not cancel the job: it belongs to its namespace."""
    uid = allowing.create("films", userId="ada", suspend=True)
    allowing.until_phase("films", "Queued")
    with allowing.system.client("ada") as client:
        answer = client.delete(f"/v1/jobs/{uid}")
    assert answer.status_code == httpx.codes.FORBIDDEN, answer.text
    assert allowing.record(uid)["state"] == "queued"
    assert allowing.record(uid)["user"] == f"k8s:{allowing.namespace}"


def test_without_a_user_nobody_at_the_api_has_it(allowing: Site) -> None:
    """A job without `userId` is its namespace's: no user of the API sees it, whatever their name."""
    uid = allowing.create("films")
    allowing.until_phase("films", "Completed")
    with allowing.system.client("ada") as client:
        assert client.get(f"/v1/download/status/{uid}").status_code == httpx.codes.FORBIDDEN
    with allowing.system.client(f"k8s:{allowing.namespace}") as client:
        answer = client.get(f"/v1/download/status/{uid}")
    assert (answer.status_code, answer.json()["error"]) == (httpx.codes.FORBIDDEN, "reserved-user")


def test_no_user_has_a_namespaces_name(allowing: Site) -> None:
    """`userId: k8s:…` is refused by the API server itself: it would be another namespace's jobs."""
    said = rejected(allowing, manifest("films", userId="k8s:kube-system"))
    assert "userId must not begin with k8s:" in said


def test_cancel_cannot_be_undone(allowing: Site) -> None:
    """`cancel` cannot be set back or removed, by one request or by two."""
    allowing.create("films", suspend=True)
    allowing.change("films", cancel=True)
    for later in (False, None):
        said = rejected(allowing, {"spec": {"cancel": later}}, "PATCH", "films")
        assert "cancel cannot be taken back" in said
    allowing.until_phase("films", "Cancelled")


def test_the_user_cannot_be_changed(allowing: Site) -> None:
    """`userId` can be neither changed nor taken away, so no second request can set it anew."""
    uid = allowing.create("films", userId="ada", suspend=True)
    for later in ("eve", None):
        said = rejected(allowing, {"spec": {"userId": later}}, "PATCH", "films")
        assert "userId cannot be set, changed or removed later" in said
    allowing.until_phase("films", "Queued")
    assert allowing.record(uid)["reader"] == "ada"


def test_a_status_by_hand_decides_nothing(allowing: Site) -> None:
    """Who writes another job's id into a status gets neither that job cancelled nor its result removed."""
    victim = allowing.system.submit([60_001], "ada")
    allowing.system.wait(victim)
    allowing.create("films", suspend=True)
    allowing.until_phase("films", "Queued")
    path = f"{allowing.path('films')}/status"
    headers = {"Content-Type": "application/merge-patch+json"}
    answer = allowing.kube.client.patch(path, json={"status": {"jobId": victim}}, headers=headers)
    assert answer.is_success
    allowing.change("films", cancel=True)
    allowing.until_phase("films", "Cancelled")
    allowing.delete("films")
    allowing.until_gone("films", 10)
    assert allowing.system.status(victim, "ada")["status"] == "completed"
    assert members(allowing.system.fetch(victim, "ada"))
    assert allowing.record(allowing.uids["films"])["state"] == "cancelled"
