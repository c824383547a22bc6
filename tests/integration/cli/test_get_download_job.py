"""`downloadjobs get dj/NAME` with a stand-in for kubectl, and the real API, queue and store behind it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer, free_ports
from support_kubectl import CONFLICT, FORBIDDEN, REFUSED, FakeKubectl
from support_processes import System, running
from support_worker import members, put_files

DATABASE = 12
FILES = {71_003: 300_000, 71_010: 70_000}


@pytest.fixture(scope="module")
def system(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """An installation with a worker."""
    settings = {"REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/{DATABASE}"}
    system = System(valkey_server, seaweedfs, tmp_path_factory.mktemp("cluster"), settings=settings)
    with running(system):
        system.start_api()
        system.start_worker()
        put_files(system.store, FILES)
        yield system


@pytest.fixture(scope="module")
def job_id(system: System) -> str:
    """A job with a result, of a user who is not the one who claims it."""
    job_id = system.submit(list(FILES))
    assert system.wait(job_id)["status"] == "completed"
    return job_id


@pytest.fixture
def cluster(tmp_path: Path, system: System, job_id: str) -> FakeKubectl:
    """A cluster whose DownloadJob is that job, and whose API is the installation's."""
    cluster = FakeKubectl(tmp_path / "bin", jobId=job_id, progress={"processed": 2, "total": 2})
    cluster.write(
        redis=system.environment()["REDIS_URL"], services=["team-a/downloadjobs-api"], api_port=system.port
    )
    return cluster


def command(cluster: FakeKubectl, *words: str, program: str = "") -> tuple[list[str], dict[str, str]]:
    """A command line and its environment: kubectl is found on PATH."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DOWNLOADJOBS_") and name != "KUBECTL"
    }
    environment["PATH"] = f"{cluster.folder}{os.pathsep}{environment['PATH']}"
    start = [program] if program else [sys.executable, "-m", "downloadjobs_cli"]
    return [*start, "get", *words], environment


def run(cluster: FakeKubectl, *words: str, program: str = "") -> subprocess.CompletedProcess[str]:
    """Run `get` to its end, in a folder beside the cluster's."""
    line, environment = command(cluster, *words, program=program)
    folder = cluster.folder.parent
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def verbs(cluster: FakeKubectl) -> list[str]:
    """What kubectl was asked to do."""
    return [call[0] for call in cluster.calls]


def gone(pids: Sequence[int]) -> bool:
    """Whether none of these processes is left."""
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        return False
    return True


def test_a_claimed_result_is_saved_and_verified(cluster: FakeKubectl, system: System) -> None:
    """No user is named: the result comes through a forwarded port, whose process ends with the command."""
    ran = run(cluster, "djob/films", "-n", "team-a")
    assert ran.returncode == 0, ran.stderr
    zipped = cluster.folder.parent / "films.zip"
    assert set(members(zipped.read_bytes())) == {"71003.zip", "71010.zip", "manifest.json"}
    assert "Saved to films.zip" in ran.stdout
    assert "Verified: 2 files" in ran.stdout
    assert verbs(cluster) == ["get", "port-forward", "patch"]
    assert gone(cluster.pids("port-forward"))
    metadata = cluster.state["object"]["metadata"]
    assert metadata["annotations"] == {}
    said = ran.stdout + ran.stderr + (system.folder / "api.log").read_text()
    assert "X-Amz" not in said
    assert not re.search("[A-Za-z0-9_-]{43}", ran.stdout + ran.stderr)


def test_an_api_that_is_named_needs_no_port(cluster: FakeKubectl, system: System) -> None:
    """With --api nothing is forwarded; --json prints one document, and -o says where to."""
    ran = run(cluster, "dj/films", "--api", f"127.0.0.1:{system.port}", "--json", "-o", "out.zip")
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert (document["path"], document["verified"], document["files"]) == ("out.zip", True, 2)
    assert ran.stderr == ""
    assert verbs(cluster) == ["get", "patch"]


def test_the_url_can_be_had_alone(cluster: FakeKubectl) -> None:
    """--url prints a presigned URL, and nothing is downloaded."""
    ran = run(cluster, "dj/films", "--url")
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\S+X-Amz-Signature=\w+\n", ran.stdout)
    assert not list(cluster.folder.parent.glob("*.zip"))


def test_kubectl_runs_it_as_a_plugin(cluster: FakeKubectl) -> None:
    """As kubectl-downloadjobs it is `kubectl downloadjobs`; kubectl's flags follow the plugin's name."""
    program = str(Path(sys.executable).with_name("kubectl-downloadjobs"))
    shown = subprocess.run([program, "get", "--help"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("Usage: kubectl downloadjobs get ")
    line, environment = command(cluster, program=program)
    ran = subprocess.run(
        [program, "-n", "team-a", "--context=prod", "get", "dj/films"],
        cwd=cluster.folder.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert line[0] == program
    assert ran.returncode == 0, ran.stderr
    assert all("--context=prod" in call and "--namespace=team-a" in call for call in cluster.calls)


def test_kubectl_may_be_named(cluster: FakeKubectl) -> None:
    """--kubectl and KUBECTL name another program; one that is not there is exit code 2."""
    ran = run(cluster, "dj/films", "--kubectl", "no-such-kubectl")
    assert ran.returncode == 2
    assert "no program no-such-kubectl" in ran.stderr
    line, environment = command(cluster, "dj/films", "--kubeconfig", "/k/config")
    environment |= {"PATH": "/nowhere", "KUBECTL": str(cluster.program)}
    ran = subprocess.run(
        line, cwd=cluster.folder.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert all("--kubeconfig=/k/config" in call for call in cluster.calls)


def test_the_api_is_found_in_its_own_namespace(cluster: FakeKubectl) -> None:
    """Without a Service beside the DownloadJob, that in `downloadjobs` is taken; or the one that is named."""
    cluster.write(services=["downloadjobs/downloadjobs-api", "infra/api"])
    assert run(cluster, "dj/films").returncode == 0
    assert verbs(cluster) == ["get", "port-forward", "port-forward", "patch"]
    ran = run(cluster, "dj/films", "--api-service", "infra/api:8080", "--force")
    assert ran.returncode == 0, ran.stderr
    assert {"service/api", ":8080", "--namespace=infra"} <= set(cluster.calls[-2])


def test_wait_follows_the_job_to_its_end(cluster: FakeKubectl) -> None:
    """--wait polls the object, shows its phases, and then gets the result."""
    cluster.write(phases=["", "Processing", "Completed"])
    ran = run(cluster, "dj/films", "--wait")
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^processing +2/2 files$", ran.stderr, re.MULTILINE)
    assert "Saved to films.zip" in ran.stdout
    cluster.write(phases=["Processing", "Processing", "Completed"])
    ran = run(cluster, "dj/films", "--wait", "--json", "--force")
    documents = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [document.get("status") for document in documents] == ["processing", "completed", None]
    assert documents[-1]["verified"] is True


def test_wait_ends_in_time(cluster: FakeKubectl) -> None:
    """--timeout ends waiting with 5."""
    cluster.set_status(phase="Processing")
    ran = run(cluster, "dj/films", "--wait", "--timeout", "0.5")
    assert ran.returncode == 5
    assert "It goes on" in ran.stderr


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        ({}, 4, "The operator has not taken dj/films in yet"),
        ({"phase": "Processing"}, 4, "no result yet. Wait for it by --wait."),
        ({"phase": "Failed", "message": "No file was found."}, 1, "No file was found."),
        ({"phase": "Cancelled"}, 1, "is cancelled"),
        ({"phase": "Expired"}, 4, "has expired"),
    ],
    ids=["new", "processing", "failed", "cancelled", "expired"],
)
def test_without_a_result_nothing_is_patched(
    cluster: FakeKubectl, status: dict[str, str], code: int, text: str
) -> None:
    """Why there is no result is told out of the object."""
    cluster.set_status(**status)
    ran = run(cluster, "dj/films")
    assert (ran.returncode, verbs(cluster)) == (code, ["get"]), ran.stderr
    assert text in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("verb", "words", "code", "text"),
    [
        ("get", FORBIDDEN.format("get"), 4, "manifests/rbac/team-role.yaml"),
        ("get", REFUSED, 3, "The cluster does not answer"),
        ("patch", FORBIDDEN.format("patch"), 4, "lack the right to patch"),
    ],
    ids=["get", "away", "patch"],
)
def test_what_kubectl_refuses_is_explained(
    cluster: FakeKubectl, verb: str, words: str, code: int, text: str
) -> None:
    """A missing right and an unreachable cluster end with their exit codes, and in a sentence."""
    cluster.fail(verb, words)
    ran = run(cluster, "dj/films")
    assert ran.returncode == code
    assert text in ran.stderr
    assert "Traceback" not in ran.stderr


def test_another_name_is_not_found(cluster: FakeKubectl) -> None:
    """No such DownloadJob is exit code 4."""
    ran = run(cluster, "dj/other", "--json")
    assert ran.returncode == 4
    assert json.loads(ran.stderr)["error"] == "not-found"


def test_a_conflict_is_no_error(cluster: FakeKubectl) -> None:
    """What changed between reading and writing is read again."""
    cluster.fail("patch", CONFLICT, None)
    ran = run(cluster, "dj/films")
    assert ran.returncode == 0, ran.stderr
    assert verbs(cluster) == ["get", "port-forward", "patch", "get", "patch"]


def test_flags_of_a_cluster_need_a_download_job(cluster: FakeKubectl, job_id: str) -> None:
    """With a job's id they would do nothing, which is told; another kind of object is no job."""
    for words in (
        [job_id, "-n", "team-a"],
        ["pod/films"],
        ["dj/Films_1"],
        ["dj/films", "--api-service", "a/b/c"],
    ):
        assert run(cluster, *words).returncode == 2
    assert "patch" not in verbs(cluster)


def test_an_existing_file_stays(cluster: FakeKubectl) -> None:
    """It is refused once the object was found, before anything is waited for or claimed."""
    (cluster.folder.parent / "films.zip").write_text("mine")
    assert run(cluster, "dj/films", "--wait").returncode == 2
    assert verbs(cluster) == ["get"]
    (cluster.folder.parent / "other.zip").write_text("mine")
    assert "no DownloadJob other" in run(cluster, "dj/other").stderr


def test_without_a_way_to_the_api_nothing_is_claimed(cluster: FakeKubectl) -> None:
    """No Service of the API: it is said what to name, and the object is left as it is."""
    cluster.write(services=[])
    ran = run(cluster, "dj/films")
    assert ran.returncode == 3
    assert "no Service team-a/downloadjobs-api nor downloadjobs/downloadjobs-api" in ran.stderr
    assert "patch" not in verbs(cluster)


def test_no_api_behind_the_service(cluster: FakeKubectl) -> None:
    """Where nothing answers behind the forwarded port, it is told which Service that is."""
    cluster.write(api_port=free_ports(1)[0])
    ran = run(cluster, "dj/films", "--patience", "0")
    assert ran.returncode == 3
    assert "the Service team-a/downloadjobs-api. Are its pods ready?" in ran.stderr
    assert gone(cluster.pids("port-forward"))


def test_a_store_out_of_reach_is_named(
    cluster: FakeKubectl, valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path
) -> None:
    """A URL that leads to where this machine cannot go: its host is told, and the setting; not the URL."""
    away = f"http://127.0.0.1:{free_ports(1)[0]}"
    settings = {
        "REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/{DATABASE}", "S3_PUBLIC_ENDPOINT": away,
    }  # fmt: skip
    other = System(valkey_server, seaweedfs, tmp_path, settings=settings)
    with running(other):
        other.start_api()
        ran = run(cluster, "dj/films", "--api", f"127.0.0.1:{other.port}", "--patience", "0")
    assert ran.returncode == 3
    assert f"object store at {away.removeprefix('http://')} does not answer" in ran.stderr
    assert "S3_PUBLIC_ENDPOINT" in ran.stderr
    assert "X-Amz" not in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_ends_the_forwarding(cluster: FakeKubectl, number: signal.Signals) -> None:
    """However the command ends, kubectl port-forward ends with it."""
    if number is signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux ends children with their parent")
    cluster.write(operator=False)  # so that it waits for the claim
    line, environment = command(cluster, "dj/films")
    with subprocess.Popen(
        line, cwd=cluster.folder.parent, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while "port-forward" not in verbs(cluster):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    if number is not signal.SIGKILL:
        assert process.returncode == 130, err
        assert "Interrupted" in err
    while not gone(cluster.pids("port-forward")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
