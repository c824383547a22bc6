"""More DownloadJobs than may wait: none is refused, all come to their turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from downloadjobs_cli.embedded import SeaweedServer
from downloadjobs_core.job import Job
from downloadjobs_core.leases import Outcome
from downloadjobs_core.states import JobState
from support_operator_process import Kube, Site, condition_of, installed
from support_worker import eventually

pytestmark = pytest.mark.cluster

FAILED = Outcome(JobState.FAILED, error_code="x", error_message="It failed.")


@pytest.fixture(scope="module")
def _narrow(kube: Kube, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with installed(kube, seaweedfs, tmp_path_factory.mktemp("narrow"), USER_MAX_QUEUED="2") as site:
        site.start_operator()
        yield site


@pytest.fixture
def narrow(_narrow: Site) -> Iterator[Site]:
    """A site where two jobs of a namespace may wait, and four DownloadJobs are there."""
    site = _narrow
    for name in ("first", "second"):
        site.create(name)
        site.until_phase(name, "Queued")
    for name in ("third", "fourth"):
        site.create(name)
        site.until_condition(name, "Queued", "False", "QuotaExceeded")
    yield site
    site.clear()
    for child in site.system.children:
        child.kill()
    site.system.children.clear()


def lease(site: Site) -> Job:
    """Take the next job."""
    found: list[Job] = []

    def taken() -> bool:
        job = site.leases.lease("by hand")
        found.extend([job] if job is not None else [])
        return bool(found)

    eventually(taken, 15, "a job to lease")
    return found[0]


def test_too_many_wait_and_say_so(narrow: Site) -> None:
    """One too many is neither stalled nor finished, has no job, and is told of by a warning."""
    status = narrow.status("third")
    assert condition_of(status, "Finished") == ("False", "Unfinished")
    assert condition_of(status, "Stalled") is None
    assert "jobId" not in status
    assert status["phase"] == "Pending"
    found = narrow.cluster.kubectl(
        "get",
        "dj",
        f"--namespace={narrow.namespace}",
        "--field-selector=status.phase=Pending",
        "--output=name",
    )
    assert found.stdout.split() == [f"downloadjob.downloadjobs.dev/{name}" for name in ("fourth", "third")]
    assert narrow.record(narrow.uids["third"]) == {}
    assert "It is tried again by itself" in status["message"]
    narrow.until_told("third", "QuotaExceeded")


def test_room_is_taken_at_once(narrow: Site) -> None:
    """As soon as a job of the namespace is begun the next one is queued, without a resync."""
    lease(narrow)
    names = ("third", "fourth")
    eventually(
        lambda: any(narrow.status(name).get("phase") == "Queued" for name in names), 10, "a queued one"
    )
    let_in = [name for name in names if narrow.status(name).get("phase") == "Queued"]
    assert len(let_in) == 1
    assert condition_of(narrow.status(let_in[0]), "Queued") == ("True", "Waiting")
    narrow.until_told(let_in[0], "QuotaExceeded", "Queued")


def test_a_cancellation_makes_room(narrow: Site) -> None:
    """A waiting job that is cancelled, or deleted, makes room as well."""
    narrow.change("first", cancel=True)
    narrow.delete("second")
    for name in ("third", "fourth"):
        narrow.until_phase(name, "Queued", 10)


def test_nothing_is_lost(narrow: Site) -> None:
    """Once workers run, all of them finish."""
    narrow.system.start_worker()
    for name in ("first", "second", "third", "fourth"):
        narrow.until_phase(name, "Completed", 30)


def test_one_that_waits_for_room_can_be_cancelled(narrow: Site) -> None:
    """What was never queued ends as Cancelled, and never becomes a job."""
    narrow.change("third", cancel=True)
    narrow.until_phase("third", "Cancelled")
    assert narrow.record(narrow.uids["third"]) == {}


def test_one_that_waits_for_room_can_be_deleted(narrow: Site) -> None:
    """What was never queued is gone at once, and room that comes later is the next one's."""
    narrow.delete("third")
    narrow.until_gone("third", 10)
    narrow.leases.finish(lease(narrow), FAILED)
    narrow.until_phase("fourth", "Queued", 10)
    assert narrow.record(narrow.uids["third"]) == {}


def test_it_waits_on_over_a_restart(narrow: Site) -> None:
    """A new operator knows what waits for room."""
    narrow.operators[0].kill()
    narrow.start_operator()
    narrow.leases.finish(lease(narrow), FAILED)
    lease(narrow)
    for name in ("third", "fourth"):
        narrow.until_phase(name, "Queued", 15)


def test_other_namespaces_have_their_own_room(narrow: Site) -> None:
    """The users of the API, and so other namespaces, are not held up."""
    narrow.system.start_api()
    job_id = narrow.system.submit([60_001])
    assert narrow.system.status(job_id)["status"] == "queued"
