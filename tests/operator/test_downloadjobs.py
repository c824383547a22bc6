"""A DownloadJob from `kubectl apply` to its zip and its end, as its user sees it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from downloadjobs_cli.verifying import verify
from downloadjobs_core.errors import ObjectNotFoundError
from downloadjobs_core.job import job_key
from support_operator_process import FILES, MISSING, Object, Site, condition_of, manifest
from support_worker import eventually, members, read_object

pytestmark = pytest.mark.cluster

FINALIZER = "downloadjobs.dev/job"
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def there(site: Site, key: str) -> bool:
    """Whether an object is in the bucket."""
    try:
        site.system.store.stat(key)
    except ObjectNotFoundError:
        return False
    return True


def seconds_between(earlier: str, later: str) -> float:
    """By two times of a status."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def finished(site: Site, name: str) -> Object:
    """The status of a job once it has ended well."""
    status = site.until(name, lambda status: "completionTime" in status, "finished")
    assert status["phase"] == "Completed", status
    return status


def test_from_apply_to_the_zip(working: Site, tmp_path: Path) -> None:
    """What is applied is Finished for `kubectl wait`, and its status tells where a verified zip lies."""
    here = f"--namespace={working.namespace}"
    working.cluster.apply(json.dumps(manifest("films")), working.namespace)
    working.cluster.kubectl("wait", "--for=condition=Finished", "dj/films", here, "--timeout=30s")
    status = working.status("films")
    zipped = tmp_path / "films.zip"
    zipped.write_bytes(read_object(working.system.store, status["result"]["key"]))
    report = verify(zipped, job_id=status["jobId"], files=len(FILES))
    assert report.whole, report.problems
    assert set(members(zipped.read_bytes())) == {f"{file_id}.zip" for file_id in FILES} | {"manifest.json"}
    assert status["result"]["bytes"] == zipped.stat().st_size


def test_a_change_after_the_record_went_is_waited_for(working: Site) -> None:
    """`kubectl wait` returns after a change of a finished spec, though the job's record is gone."""
    uid = working.create("films")
    finished(working, "films")
    working.redis.delete(job_key(uid))
    working.change("films", ttlSecondsAfterFinished=3_600)
    here = f"--namespace={working.namespace}"
    working.cluster.kubectl("wait", "--for=condition=Finished", "dj/films", here, "--timeout=10s")
    assert working.status("films")["observedGeneration"] == 2


def test_a_finished_status_has_all_that_is_documented(working: Site) -> None:
    """A status is of this generation, with times, a result for a day, and a reason in each condition."""
    uid = working.create("films")
    status = finished(working, "films")
    assert status["jobId"] == uid
    assert status["observedGeneration"] == 1
    assert status["attempts"] == 1
    assert status["message"] == "All 3 files are in the result."
    total = sum(FILES.values())
    assert status["progress"] == {"processed": 3, "total": 3, "bytes": total, "percent": "100%"}
    assert not {"worker", "eta", "queuePosition"} & set(status)
    result = status["result"]
    assert re.fullmatch(rf"results/{uid}/\d{{16}}\.zip", result["key"])
    assert (result["bucket"], result["files"], result["failedFiles"]) == ("downloads", 3, 0)
    assert seconds_between(status["completionTime"], result["expiresAt"]) == pytest.approx(86_400, abs=1)
    assert seconds_between(status["startTime"], status["completionTime"]) >= 0
    assert {
        kind: condition_of(status, kind) for kind in ("Queued", "Finished", "Complete", "ResultAvailable")
    } == {
        "Queued": ("False", "Finished"),
        "Finished": ("True", "Succeeded"),
        "Complete": ("True", "Succeeded"),
        "ResultAvailable": ("True", "Available"),
    }
    assert not any(condition_of(status, kind) for kind in ("Failed", "Suspended", "Stalled"))
    for one in status["conditions"]:
        assert one["observedGeneration"] == 1
        assert re.fullmatch(MOMENT, one["lastTransitionTime"])


def test_no_url_stands_in_the_object(working: Site) -> None:
    """Neither the object nor its Events hold a URL or a signature: whoever may read them could download."""
    working.create("films")
    finished(working, "films")
    working.until_told("films", "Queued", "Started", "Completed")
    events = working.kube.ask("GET", f"/api/v1/namespaces/{working.namespace}/events")
    for text in (json.dumps(working.get("films")), json.dumps(events)):
        assert "://" not in text
        assert "X-Amz" not in text


def test_each_transition_is_told_once(working: Site) -> None:
    """Events: Queued, Started and Completed, one of each, about the object itself."""
    uid = working.create("films")
    finished(working, "films")
    working.until_told("films", "Queued", "Started", "Completed")
    path = f"/api/v1/namespaces/{working.namespace}/events?fieldSelector=involvedObject.uid={uid}"
    found = working.kube.ask("GET", path)
    assert found is not None
    assert {one["reportingComponent"] for one in found["items"]} == {"downloadjobs-operator"}
    assert {one["type"] for one in found["items"]} == {"Normal"}
    texts = {one["reason"]: one["message"] for one in found["items"]}
    assert texts["Queued"] == f"Queued as job {uid}."
    assert texts["Started"].startswith("Attempt 1 was begun")
    assert texts["Completed"] == "All 3 files are in the result."


def test_columns(working: Site) -> None:
    """`kubectl get dj` has five columns, and `-o wide` three more."""
    working.create("films")
    finished(working, "films")
    here = ("get", "dj", "films", f"--namespace={working.namespace}")
    header, row = working.cluster.kubectl(*here).stdout.splitlines()
    assert header.split() == ["NAME", "PHASE", "PROGRESS", "FILES", "ATTEMPTS", "AGE"]
    assert re.fullmatch(r"films\s+Completed\s+100%\s+3\s+1\s+\d+s\s*", row), row
    header, row = working.cluster.kubectl(*here, "-owide").stdout.splitlines()
    assert re.split(r"\s{2,}", header)[-4:] == ["AGE", "WORKER", "QUEUE POSITION", "MESSAGE"]
    assert row.endswith("All 3 files are in the result.")


def test_columns_of_one_that_waits(waiting: Site) -> None:
    """`-o wide` shows the place in the queue of a job that waits."""
    waiting.create("films")
    waiting.until("films", lambda status: status.get("queuePosition") == 1, "the first in the queue")
    wide = waiting.cluster.kubectl("get", "dj", "films", f"--namespace={waiting.namespace}", "-owide").stdout
    row = re.split(r"\s{2,}", wide.splitlines()[1].strip())
    assert row[:4] == ["films", "Queued", "0%", "3"]
    assert row[-2:] == ["1", "Waiting for a worker."]


def test_phases_are_selectable(working: Site) -> None:
    """`kubectl get dj --field-selector status.phase=…` finds those of a phase."""
    working.create("films")
    finished(working, "films")
    found = working.kube.ask("GET", f"{working.path()}?fieldSelector=status.phase%3DCompleted")
    none = working.kube.ask("GET", f"{working.path()}?fieldSelector=status.phase%3DFailed")
    assert found is not None
    assert [one["metadata"]["name"] for one in found["items"]] == ["films"]
    assert none is not None
    assert none["items"] == []


def test_the_operator_notes_nothing_in_annotations(working: Site) -> None:
    """Of all that an object holds, only the finalizer and the status are the operator's."""
    working.create("films", [*FILES])
    finished(working, "films")
    body = working.get("films")
    assert body is not None
    assert body["metadata"]["finalizers"] == [FINALIZER]
    assert "annotations" not in body["metadata"]


def test_the_object_and_its_zip_go_together(working: Site) -> None:
    """Deleting a finished DownloadJob lets it go at once, and queues its zip's removal by a worker."""
    uid = working.create("films")
    key = finished(working, "films")["result"]["key"]
    working.delete("films")
    working.until_gone("films", 10)
    due_us = working.redis.zscore("{downloadjobs}:expiring", uid)
    now_s, _ = working.redis.time()
    assert due_us / 1e6 <= now_s + 1
    # Within a minute by itself; brought forward, so that nobody need wait.
    working.redis.zadd("{downloadjobs}:maintenance", {"expire-results": 1})
    working.redis.lpush("{downloadjobs}:wake", "1")
    eventually(lambda: not there(working, key), 30, "the zip's end")


def test_a_retained_zip_stays(working: Site) -> None:
    """With `deletionPolicy: Retain` the zip outlives its DownloadJob, until its own time is over."""
    uid = working.create("films", result={"deletionPolicy": "Retain"})
    status = finished(working, "films")
    before = working.redis.zscore("{downloadjobs}:expiring", uid)
    working.delete("films")
    working.until_gone("films", 10)
    assert working.redis.zscore("{downloadjobs}:expiring", uid) == before
    assert there(working, status["result"]["key"])


def test_the_deletion_policy_can_be_changed_later(working: Site) -> None:
    """The policy at the time of the deletion counts, not the one it was created with."""
    uid = working.create("films", result={"deletionPolicy": "Delete"})
    finished(working, "films")
    before = working.redis.zscore("{downloadjobs}:expiring", uid)
    working.change("films", result={"deletionPolicy": "Retain"})
    working.delete("films")
    working.until_gone("films", 10)
    assert working.redis.zscore("{downloadjobs}:expiring", uid) == before


def test_missing_files_are_told(working: Site) -> None:
    """A file that is not there: CompletedWithErrors, Complete, a count of what is missing, a warning."""
    working.create("films", [*FILES, MISSING])
    status = working.until_phase("films", "CompletedWithErrors")
    assert condition_of(status, "Finished") == ("True", "CompletedWithErrors")
    assert condition_of(status, "Complete") == ("True", "CompletedWithErrors")
    assert condition_of(status, "Failed") is None
    assert (status["result"]["files"], status["result"]["failedFiles"]) == (3, 1)
    assert status["progress"]["total"] == 4
    working.until_told("films", "Queued", "Started", "Completed")


def test_without_any_file_it_fails(working: Site) -> None:
    """No file at all: Failed and Stalled are true for the same reason, and there is no result."""
    working.create("films", [MISSING])
    status = working.until_phase("films", "Failed")
    assert condition_of(status, "Finished") == ("True", "Failed")
    assert condition_of(status, "Complete") is None or condition_of(status, "Complete") == ("False", "Failed")
    failed = condition_of(status, "Failed")
    assert failed is not None
    assert failed[0] == "True"
    assert condition_of(status, "Stalled") == failed
    assert "result" not in status
    working.until_told("films", "Queued", "Started", "Failed")


def test_the_results_time_is_the_specs(working: Site) -> None:
    """`result.expirationSeconds` is how long the zip is kept; then it is Expired, and still Finished."""
    uid = working.create("films", result={"expirationSeconds": 60})
    status = finished(working, "films")
    assert seconds_between(status["completionTime"], status["result"]["expiresAt"]) == pytest.approx(
        60, abs=1
    )
    # As if the minute had passed.
    working.redis.hset(f"{{downloadjobs}}:job:{uid}", "expires_us", 1)
    working.redis.zadd("{downloadjobs}:expiring", {uid: 1})
    working.redis.zadd("{downloadjobs}:maintenance", {"expire-results": 1})
    working.redis.lpush("{downloadjobs}:wake", "1")
    expired = working.until_phase("films", "Expired")
    assert condition_of(expired, "Finished") == ("True", "Succeeded")
    assert condition_of(expired, "ResultAvailable") == ("False", "Expired")
    assert "result" not in expired
    assert not there(working, status["result"]["key"])
    working.until_told("films", "Queued", "Started", "Completed", "ResultExpired")


def test_duplicate_ids_are_one_file(working: Site) -> None:
    """An id that stands there twice is bundled once, and counts once."""
    working.create("films", [60_001, 60_001, 60_003])
    assert finished(working, "films")["progress"]["total"] == 2


def test_a_copy_of_one_is_a_job_at_once(working: Site) -> None:
    """What was made from another's YAML, with its annotations and finalizer, is a job like any other."""
    working.create("films")
    status = finished(working, "films")
    found = working.get("films")
    assert found is not None
    kept = {"annotations": {"copied": "from films"}, "finalizers": found["metadata"]["finalizers"]}
    copy = {**found, "metadata": {"name": "copy", **kept}}
    working.kube.ask("POST", working.path(), copy)
    assert finished(working, "copy")["jobId"] != status["jobId"]
