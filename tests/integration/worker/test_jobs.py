"""Jobs from the REST request to the verified archive, by real processes on real servers."""

import json
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.job import job_key
from downloadjobs_core.objectstore.s3 import connect as connect_to
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_worker import patience
from support_processes import System, running
from support_worker import PREFIX, content, eventually, members, put_files

MIB = 1024 * 1024


def results(system: System) -> list[str]:
    """The keys of all results of a test's system, those of its own jobs among them."""
    return [found.key for found in system.store.list("results/")]


@pytest.fixture
def own_storage(valkey: ValkeyServer, tmp_path: Path) -> Iterator[System]:
    """An installation with an S3 server of its own, to stop and break."""
    with SeaweedServer(tmp_path / "s3") as s3, running(System(valkey, s3, tmp_path)) as system:
        yield system


def test_a_job_becomes_a_verified_archive(system: System) -> None:
    """Files asked for by REST are fetched as one zip, each member with the bytes that were stored."""
    stored = put_files(system.store, {30_001: 5 * MIB, 30_002: 0, 30_003: 123})
    system.start_api()
    system.start_worker()
    job_id = system.submit([30_001, 30_002, 30_003, 30_001])
    status = system.wait(job_id)
    assert status["progress"] == {
        "processed": 3,
        "total": 3,
        "bytes": 5 * MIB + 123,
        "bytesTotal": 5 * MIB + 123,
    }
    assert "failedFiles" not in status
    found = members(system.fetch(job_id))
    manifest = json.loads(found.pop("manifest.json"))
    assert found == stored
    assert (manifest["jobId"], manifest["totalFileIds"]) == (job_id, 4)


def test_missing_files_are_told_and_the_rest_is_there(system: System) -> None:
    """A job with missing files completes, says how many failed, and its manifest says which."""
    put_files(system.store, {30_011: 10})
    system.start_api()
    system.start_worker()
    job_id = system.submit([30_011, 99_999_999])
    status = system.wait(job_id)
    assert (status["status"], status["failedFiles"]) == ("completed", 1)
    manifest = json.loads(members(system.fetch(job_id))["manifest.json"])
    assert [file["status"] for file in manifest["files"]] == ["ok", "error"]


def test_a_job_without_any_file_fails(system: System) -> None:
    """If none of the files exists the job is failed at once, and its result says why."""
    system.start_api()
    system.start_worker()
    job_id = system.submit([99_999_998, 99_999_999])
    assert system.wait(job_id, 10)["status"] == "failed"
    with system.client() as client:
        answer = client.get(f"/v1/download/result/{job_id}")
    assert (answer.status_code, answer.json()["error"]) == (409, "no-result")
    assert "None of the requested files exists" in answer.json()["message"]


def test_a_thousand_files_make_one_archive(system: System) -> None:
    """The most files that one job may ask for, in their order."""
    stored = put_files(system.store, dict.fromkeys(range(31_000, 32_000), 2_000))
    system.start_api()
    system.start_worker()
    job_id = system.submit(range(31_000, 32_000))
    assert system.wait(job_id)["progress"]["processed"] == 1_000
    found = members(system.fetch(job_id))
    assert list(found) == [*stored, "manifest.json"]
    assert {name: found[name] for name in stored} == stored


def test_a_file_that_changes_while_it_is_read_is_never_mixed(own_storage: System) -> None:
    """A file that is overwritten all the time is in the archive as one of its versions, or the job fails."""
    system = own_storage
    versions = [bytes([n]) * (12 * MIB) for n in range(5)]
    key = f"{PREFIX}30021.zip"
    store = system.store
    store.put(key, versions[0])
    stop = threading.Event()

    def overwrite() -> None:
        while not stop.is_set():
            for version in versions:
                store.put(key, version)

    system.start_api()
    system.start_worker()
    writer = threading.Thread(target=overwrite)
    writer.start()
    try:
        job_id = system.submit([30_021])
        status = system.wait(job_id)
    finally:
        stop.set()
        writer.join()
    if status["status"] == "completed":
        assert members(system.fetch(job_id))["30021.zip"] in versions
    else:
        assert list(store.pending_uploads("results/")) == []


@pytest.mark.parametrize(
    "seconds", [3, sum(patience.DELAYS_SECONDS) + 6], ids=["within a call's tries", "past them"]
)
def test_an_outage_costs_no_attempt(own_storage: System, seconds: float) -> None:
    """S3 is killed in the middle of a job and restarted: the one attempt goes on, and leaves one object."""
    system = own_storage
    system.settings |= {"MAX_ATTEMPTS": "1"}
    stored = put_files(system.store, dict.fromkeys(range(30_031, 30_043), 16 * MIB))
    system.start_api()
    system.start_worker()
    job_id = system.submit(range(30_031, 30_043))
    eventually(lambda: system.status(job_id)["progress"]["processed"] >= 2, what="some progress")
    system.s3.kill()
    time.sleep(seconds)
    assert system.status(job_id)["status"] == "processing"
    system.s3.start()
    assert system.wait(job_id, 90)["status"] == "completed"
    found = members(system.fetch(job_id))
    assert {name: found[name] for name in stored} == stored
    assert len(results(system)) == 1
    assert list(system.store.pending_uploads("results/")) == []


def test_a_job_waits_for_its_bucket(system: System) -> None:
    """A bucket that is made after the job was asked for costs it no attempt."""
    system.settings |= {"MAX_ATTEMPTS": "1", "S3_BUCKET_NAME": "made-later"}
    system.start_api()
    worker = system.start_worker()
    job_id = system.submit([30_151])
    eventually(lambda: system.status(job_id)["status"] == "processing", what="the start of the job")
    time.sleep(2)
    assert system.status(job_id)["status"] == "processing"
    worker.send(signal.SIGSTOP)  # it must not look between the two
    system.s3.make_bucket("made-later")
    with closing(connect_to(system.s3.config, "made-later")) as store:
        put_files(store, {30_151: 10})
    worker.send(signal.SIGCONT)
    assert system.wait(job_id, 30)["status"] == "completed"


def test_an_upload_waits_for_the_bucket_of_results(system: System) -> None:
    """Where only results cannot be stored, an attempt waits with what it has, and stores it afterwards."""
    system.settings |= {"MAX_ATTEMPTS": "1", "S3_RESULTS_BUCKET": "results-later"}
    stored = put_files(system.store, {30_161: 9 * MIB})
    system.start_api()
    system.start_worker()
    job_id = system.submit([30_161])
    eventually(lambda: system.status(job_id)["progress"].get("bytes", 0) > 0, what="something read")
    time.sleep(2)
    assert system.status(job_id)["status"] == "processing"
    system.s3.make_bucket("results-later")
    assert system.wait(job_id, 30)["status"] == "completed"
    assert members(system.fetch(job_id))["30161.zip"] == stored["30161.zip"]


def test_a_job_that_fails_for_good_says_why_and_leaves_nothing(own_storage: System) -> None:
    """When storage stays away for every attempt the job fails with a reason, and no upload is left behind."""
    system = own_storage
    system.settings |= {"MAX_ATTEMPTS": "1", "STORAGE_PATIENCE_SECONDS": "0"}
    put_files(system.store, dict.fromkeys(range(30_051, 30_061), 16 * MIB))
    system.start_api()
    system.start_worker()
    job_id = system.submit(range(30_051, 30_061))
    eventually(lambda: system.status(job_id)["progress"]["processed"] >= 1, what="some progress")
    system.s3.pause()
    system.s3.kill()
    assert system.wait(job_id, 60)["status"] == "failed"
    redis = connect(RedisConfig(system.valkey.url))
    assert redis.hget(job_key(job_id), "error_code") == "storage-unavailable"
    redis.close()


def test_a_killed_worker_loses_no_job(system: System) -> None:
    """A worker that is killed in the middle leaves its lease to run out, and another finishes the job."""
    stored = put_files(system.store, dict.fromkeys(range(30_071, 30_091), 8 * MIB))
    system.start_api()
    first = system.start_worker()
    job_id = system.submit(range(30_071, 30_091))
    eventually(lambda: system.status(job_id)["progress"]["processed"] >= 2, what="some progress")
    first.kill()
    system.start_worker()
    assert system.wait(job_id, 60)["status"] == "completed"
    found = members(system.fetch(job_id))
    assert {name: found[name] for name in stored} == stored


@pytest.mark.contract("simulation")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_hands_back_what_does_not_end_in_time(system: System, signum: signal.Signals) -> None:
    """Told to stop, a worker gives its job back at once when its time is over, and ends with 0."""
    put_files(system.store, {30_101: 10})
    system.settings |= {
        "DOWNLOAD_DELAY_ENABLED": "true", "DOWNLOAD_DELAY_MIN_MS": "60000", "DOWNLOAD_DELAY_MAX_MS": "60000",
        "DRAIN_SECONDS": "1",
    }  # fmt: skip
    system.start_api()
    worker = system.start_worker()
    job_id = system.submit([30_101])
    eventually(lambda: system.status(job_id)["status"] == "processing", what="the start of the job")
    worker.send(signum)
    assert worker.wait(15)
    assert worker.exit_code == 0
    assert system.status(job_id)["status"] == "queued"
    redis = connect(RedisConfig(system.valkey.url))
    assert redis.hget(job_key(job_id), "deliveries") == "0"
    redis.close()


def test_a_drain_lets_running_jobs_end(system: System) -> None:
    """Told to stop, a worker finishes the job it has, and takes no other."""
    put_files(system.store, {30_111: 10})
    system.settings |= {
        "DOWNLOAD_DELAY_ENABLED": "true", "DOWNLOAD_DELAY_MIN_MS": "2000", "DOWNLOAD_DELAY_MAX_MS": "2000",
        "DRAIN_SECONDS": "20", "WORKER_CONCURRENCY": "1",
    }  # fmt: skip
    system.start_api()
    worker = system.start_worker()
    first, second = system.submit([30_111]), system.submit([30_111])
    eventually(lambda: system.status(first)["status"] == "processing", what="the start of the job")
    worker.ask_to_end()
    assert worker.wait(15)
    assert system.status(first)["status"] == "completed"
    assert system.status(second)["status"] == "queued"


def test_every_line_of_a_job_names_it(system: System) -> None:
    """The worker's log lines about a job carry its id, and the request id and trace it was asked for with."""
    put_files(system.store, {30_121: 10})
    system.start_api()
    worker = system.start_worker()
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with system.client() as client:
        headers = {"x-request-id": "my-request", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        answer = client.post("/v1/download/initiate", json={"file_ids": [30_121]}, headers=headers)
    assert answer.headers["x-request-id"] == "my-request"
    system.wait(answer.json()["jobId"])
    lines = [json.loads(line) for line in worker.log_path.read_text().splitlines()]
    about = [line for line in lines if line["event"] in {"attempt started", "job finished"}]
    assert len(about) == 2
    for line in about:
        assert (line["job_id"], line["request_id"], line["trace_id"]) == (
            answer.json()["jobId"], "my-request", trace,
        )  # fmt: skip


def test_redis_that_restarts_costs_no_job(seaweedfs: SeaweedServer, tmp_path: Path) -> None:
    """Valkey with an append-only file is killed and restarted in the middle of a job: the job completes."""
    with (
        ValkeyServer(tmp_path / "valkey", append_only=True) as own_valkey,
        running(System(own_valkey, seaweedfs, tmp_path)) as system,
    ):
        stored = put_files(system.store, dict.fromkeys(range(30_131, 30_151), 8 * MIB))
        system.start_api()
        system.start_worker()
        job_id = system.submit(range(30_131, 30_151))
        eventually(lambda: system.status(job_id)["progress"]["processed"] >= 2, what="some progress")
        own_valkey.kill()
        with system.client() as client:
            answer = client.get(f"/v1/download/status/{job_id}")
            assert (answer.status_code, answer.json()["error"]) == (503, "queue-unavailable")
            assert answer.headers["retry-after"] == "5"
        own_valkey.start()
        assert system.wait(job_id, 60)["status"] == "completed"
        found = members(system.fetch(job_id))
        assert {name: found[name] for name in stored} == stored


@pytest.mark.slow
def test_a_file_over_four_gib(own_storage: System) -> None:
    """A member beyond the limits of a plain zip is stored with zip64, and read back whole."""
    system = own_storage
    size = 4 * 1024 * MIB + 5
    store = system.store
    upload = store.create_upload(f"{PREFIX}30161.zip")
    block = content(1, 64 * MIB)
    parts = [store.upload_part(f"{PREFIX}30161.zip", upload, n, block) for n in range(1, 65)]
    parts.append(store.upload_part(f"{PREFIX}30161.zip", upload, 65, b"12345"))
    store.complete_upload(f"{PREFIX}30161.zip", upload, parts)
    put_files(store, {30_162: 100})
    system.start_api()
    system.start_worker()
    job_id = system.submit([30_161, 30_162])
    assert system.wait(job_id, 600)["progress"]["bytesTotal"] == size + 100
    with system.client() as client:
        url = client.get(f"/v1/download/result/{job_id}").json()["downloadUrl"]
    archive = system.folder / "large.zip"
    with httpx.stream("GET", url, timeout=600) as answer, archive.open("wb") as file:
        for chunk in answer.iter_bytes(MIB):
            file.write(chunk)
    with zipfile.ZipFile(archive) as opened:
        assert [info.file_size for info in opened.infolist()][:2] == [size, 100]
        assert opened.testzip() is None
    archive.unlink()
