"""Running kubectl: what its words mean, what of them is shown, and how a port is forwarded."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from downloadjobs_cli.cluster_api import ForwardedApi, candidates
from downloadjobs_cli.cluster_jobs import ClusterJobs
from downloadjobs_cli.errors import CliError, RefusedError, SettingsError, TransientError
from downloadjobs_cli.kubectl import Kubectl, KubectlError, Reason, error_of, find_program
from downloadjobs_cli.port_forward import PortForward, Service
from support_kubectl import CONFLICT, FORBIDDEN, NOT_FOUND, REFUSED, FakeKubectl


@pytest.fixture
def cluster(tmp_path: Path) -> FakeKubectl:
    """A kubectl with a finished DownloadJob, `films` in `team-a`."""
    return FakeKubectl(tmp_path / "bin")


def kubectl_of(cluster: FakeKubectl) -> Kubectl:
    """It, as the command line has found it."""
    return Kubectl(find_program(str(cluster.program)), "prod", "/k/config", "team-a")


def script(folder: Path, text: str) -> Kubectl:
    """A kubectl that is a shell script."""
    path = folder / "kubectl"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Kubectl(find_program(str(path)))


@pytest.mark.parametrize(
    ("words", "reason", "code"),
    [
        (NOT_FOUND.format("downloadjobs.downloadjobs.dev", "x"), Reason.NOT_FOUND, 4),
        (FORBIDDEN.format("get"), Reason.FORBIDDEN, 4),
        (CONFLICT, Reason.CONFLICT, 1),
        ('error: the server doesn\'t have a resource type "downloadjobs"', Reason.NO_KIND, 1),
        ("error: You must be logged in to the server (Unauthorized)", Reason.UNAUTHORIZED, 4),
        ('error: context "x" does not exist', Reason.SETTINGS, 2),
        ("Error in configuration: context was not found for specified context: x", Reason.SETTINGS, 2),
        ("error: stat /nope: no such file or directory", Reason.SETTINGS, 2),
        ("error: unable to forward port because pod is not running", Reason.OTHER, 1),
        ("", Reason.OTHER, 1),
    ],
)
def test_kubectls_words_have_a_meaning(words: str, reason: Reason, code: int) -> None:
    """Each kind of failure is told from the others, and kubectl's own sentence is kept."""
    error = error_of(f"E1124 08:00:00.1 memcache.go:265] noise\n{words}\n")
    assert isinstance(error, KubectlError)
    assert (error.reason, error.exit_code) == (reason, code)
    assert words in error.message
    assert not words or "noise" not in error.message


@pytest.mark.parametrize(
    "words",
    [
        REFUSED,
        "Unable to connect to the server: dial tcp 10.0.0.1:443: i/o timeout",
        "Error from server (ServiceUnavailable): the server is currently unable to handle the request",
        "Error from server (Timeout): the server was unable to return a response in the time allotted",
    ],
)
def test_a_cluster_that_is_away_may_come_back(words: str) -> None:
    """What may pass is a fault that is tried again, and exit code 3."""
    error = error_of(words)
    assert isinstance(error, TransientError)
    assert (error.exit_code, error.code) == (3, "cluster-unreachable")
    assert words in error.message


def test_kubectl_may_be_words(tmp_path: Path) -> None:
    """A program with arguments of its own stands for kubectl, as `minikube kubectl --` does."""
    assert find_program("sh -c") == (find_program("sh")[0], "-c")
    for missing in ("no-such-kubectl", "", str(tmp_path), '"unbalanced'):
        with pytest.raises(SettingsError, match="KUBECTL") as caught:
            find_program(missing)
        assert (caught.value.code, caught.value.exit_code) == ("no-kubectl", 2)


def test_a_kubectl_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """One that has not answered after the seconds it is given is killed, and the fault may pass."""
    began = time.monotonic()
    with pytest.raises(TransientError, match=r"does not answer \(it took too long\)"):
        script(tmp_path, "exec sleep 60").run("get", seconds=0.2)
    assert time.monotonic() - began < 10


def test_flags_go_to_every_call(cluster: FakeKubectl) -> None:
    """Context, kubeconfig and namespace of the user are kubectl's; a patch goes where the object was."""
    jobs = ClusterJobs(kubectl_of(cluster))
    found = jobs.get("films")
    assert jobs.write_claim(found, "d" * 64)
    flags = ["--kubeconfig=/k/config", "--context=prod", "--namespace=team-a"]
    assert [call[-3:] for call in cluster.calls] == [flags, flags]
    assert cluster.calls[0][:3] == ["get", "downloadjobs.downloadjobs.dev", "films"]
    assert "--type=merge" in cluster.calls[1]


def test_a_patch_is_of_metadata_and_of_the_very_object(cluster: FakeKubectl) -> None:
    """It names uid and resourceVersion, so that nothing but what was read is claimed; a conflict is False."""
    jobs = ClusterJobs(kubectl_of(cluster))
    found = jobs.get("films")
    assert jobs.write_claim(found, "d" * 64)
    (sent,) = (word for word in cluster.calls[1] if word.startswith("--patch="))
    assert sent == (
        '--patch={"metadata": {"uid": "0a1b", "resourceVersion": "10",'
        f' "annotations": {{"downloadjobs.dev/claim-sha256": "{"d" * 64}"}}}}}}'
    )
    assert not jobs.write_claim(found, "d" * 64)


def test_a_missing_right_is_named(cluster: FakeKubectl) -> None:
    """Who may not get, or not patch, is told which right is missing and where a Role with it is."""
    jobs = ClusterJobs(kubectl_of(cluster))
    found = jobs.get("films")
    cluster.fail("get", FORBIDDEN.format("get"))
    cluster.fail("patch", FORBIDDEN.format("patch"))
    for verb, call in (("get", lambda: jobs.get("films")), ("patch", lambda: jobs.write_claim(found, "d"))):
        with pytest.raises(RefusedError) as caught:
            call()
        assert f"lack the right to {verb} downloadjobs.downloadjobs.dev" in caught.value.message
        assert "manifests/rbac/team-role.yaml" in caught.value.message
        assert f'User "ada" cannot {verb}' in caught.value.message


def test_what_is_not_there_is_said(cluster: FakeKubectl) -> None:
    """No such object, and no such kind, are two things."""
    jobs = ClusterJobs(kubectl_of(cluster))
    with pytest.raises(RefusedError, match="no DownloadJob other in the namespace team-a"):
        jobs.get("other")
    cluster.fail("get", 'error: the server doesn\'t have a resource type "downloadjobs"')
    with pytest.raises(RefusedError, match="is downloadjobs installed"):
        jobs.get("films")


def test_an_answer_that_is_no_download_job(tmp_path: Path) -> None:
    """What another kubectl prints ends in a sentence."""
    with pytest.raises(CliError, match="no DownloadJob of this release"):
        ClusterJobs(script(tmp_path, "echo '{}'")).get("films")


def test_what_a_plugin_says_is_shown_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A plugin's question is seen before it is answered; kubectl's own words become the error."""
    kubectl = script(
        tmp_path,
        "printf 'Open https://login.test and enter AB-CD\\nPassword: ' >&2; sleep 0.5\n"
        "printf '\\nE1124 noise\\nError from server (NotFound): x\\n' >&2; exit 1",
    )
    began = time.monotonic()
    with pytest.raises(KubectlError):
        kubectl.run("get")
    assert time.monotonic() - began >= 0.5
    shown = capfd.readouterr().err
    assert shown == "Open https://login.test and enter AB-CD\nPassword: \n"


def test_what_is_shown_has_no_control_characters(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A server's message of several lines is shown from its second on, but cannot speak to the terminal."""
    kubectl = script(tmp_path, r"printf 'Error from server: a\n\033]0;pwned\007 b\n' >&2; exit 1")
    with pytest.raises(KubectlError):
        kubectl.run("get")
    assert capfd.readouterr().err == "�]0;pwned� b\n"


def test_a_port_is_forwarded_until_it_is_stopped(cluster: FakeKubectl) -> None:
    """The free port that kubectl chose is read from it, and its process ends with the forwarding."""
    cluster.write(services=["team-a/downloadjobs-api"])
    forward = PortForward(kubectl_of(cluster), Service("team-a", "downloadjobs-api"))
    assert forward.url.startswith("http://127.0.0.1:")
    before = forward.running
    (pid,) = cluster.pids("port-forward")
    os.kill(pid, 0)
    forward.stop()
    assert (before, forward.running) == (True, False)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert {"service/downloadjobs-api", ":80", "--address=127.0.0.1"} <= set(cluster.calls[0])


def test_a_service_is_looked_for_in_two_namespaces() -> None:
    """First in the DownloadJob's own, then in `downloadjobs`; what the user names is all there is."""
    own, usual = Service("team-a", "downloadjobs-api"), Service("downloadjobs", "downloadjobs-api")
    assert candidates(None, "team-a") == [own, usual]
    assert candidates(None, "downloadjobs") == [usual]
    assert candidates("api", "team-a") == [Service("team-a", "api")]
    assert candidates("infra/api:8080", "team-a") == [Service("infra", "api", "8080")]
    for wrong in ("a/b/c", "API", "", "a:b:c", "a b"):
        with pytest.raises(SettingsError):
            candidates(wrong, "team-a")


@pytest.mark.parametrize(
    ("faults", "code", "text"),
    [
        ([], 3, "no Service team-a/downloadjobs-api nor downloadjobs/downloadjobs-api"),
        ([None, 'Error from server (Forbidden): services "x" is forbidden'], 4, "Service downloadjobs/"),
        (["error: timed out waiting for the condition"], 3, "no pod of its Service runs"),
        (["error: Service api does not have a service port 80"], 3, "have a service port 80"),
    ],
    ids=["none", "forbidden", "no pod", "no port"],
)
def test_without_a_way_to_the_api_it_says_what_to_name(
    cluster: FakeKubectl, faults: list[str | None], code: int, text: str
) -> None:
    """No Service, no right to forward to it, no pod behind it: each is said, with --api as the way out."""
    cluster.fail("port-forward", *faults)
    api = ForwardedApi(kubectl_of(cluster), candidates(None, "team-a"))
    with pytest.raises(CliError) as caught, api:
        api.claim("j1", "n" * 43)
    assert caught.value.exit_code == code
    assert text in caught.value.message
    assert "--api" in caught.value.message


def test_a_cluster_that_is_away_ends_the_search(cluster: FakeKubectl) -> None:
    """An unreachable cluster is no missing Service: it is tried again."""
    cluster.fail("port-forward", REFUSED)
    api = ForwardedApi(kubectl_of(cluster), candidates(None, "team-a"))
    with pytest.raises(TransientError), api:
        api.claim("j1", "n" * 43)


class Answer(BaseHTTPRequestHandler):
    """An API that answers every claim."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        document = {"jobId": body["jobId"], "status": "completed", "downloadUrl": "http://s3.test/x"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())


def test_a_forwarding_that_ended_is_begun_anew(cluster: FakeKubectl) -> None:
    """Forwarding ends with its pod; the next claim has another, and none of them is left at the end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        cluster.write(services=["team-a/downloadjobs-api"], api_port=server.server_port)
        with ForwardedApi(kubectl_of(cluster), candidates(None, "team-a")) as api:
            assert api.claim("j1", "n" * 43).value.job_id == "j1"
            (first,) = cluster.pids("port-forward")
            assert api.claim("j2", "n" * 43).value.job_id == "j2"
            os.kill(first, signal.SIGKILL)
            assert api.claim("j3", "n" * 43).value.job_id == "j3"
            assert len(cluster.pids("port-forward")) == 2
        assert not any(map(_alive, cluster.pids("port-forward")))
        server.shutdown()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_killed_command_leaves_no_forwarding(cluster: FakeKubectl) -> None:
    """Even kill -9 of the command line ends the process that forwards."""
    cluster.write(services=["team-a/downloadjobs-api"])
    parent = os.fork()
    if parent == 0:
        PortForward(kubectl_of(cluster), Service("team-a", "downloadjobs-api"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    (pid,) = cluster.pids("port-forward")
    deadline = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().split()[2] != "Z"
