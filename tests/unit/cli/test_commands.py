"""The commands as a user or a script calls them: what goes where, and the exit codes."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from downloadjobs_cli.get_command import DownloadJobName, JobReference
from downloadjobs_cli.job_commands import read_ids
from downloadjobs_cli.main import run
from downloadjobs_cli.options import Options
from downloadjobs_cli.partial_file import PartialFile

URL = "http://s3.test/results/j1.zip?X-Amz-Signature=secret"

Call = Callable[..., int]


def result_zip(*, missing: bool = False) -> bytes:
    """A result of one or two files, the second of which may be missing."""
    data = b"data" * 100
    files: list[dict[str, Any]] = [
        {
            "fileId": 10003,
            "name": "10003.zip",
            "status": "ok",
            "size": 400,
            "crc32": f"{zlib.crc32(data):08x}",
        }
    ]
    if missing:
        message = "There is no such file."
        files.append(
            {
                "fileId": 10010,
                "name": "10010.zip",
                "status": "error",
                "error": "not-found",
                "message": message,
            }
        )
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("10003.zip", data)
        archive.writestr("manifest.json", json.dumps({"jobId": "j1", "files": files}))
    return target.getvalue()


class Api:
    """An API and a store with one job, `j1`."""

    def __init__(self) -> None:
        self.states = ["completed"]
        self.total = 1
        self.failed = 0
        self.zip = result_zip()
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host == "s3.test":
            return httpx.Response(200, headers={"ETag": '"e1"'}, stream=httpx.ByteStream(self.zip))
        if request.url.path == "/v1/jobs/j1/retry":
            return self.retry(request)
        action, _, job = request.url.path.partition("/v1/download/")[2].partition("/")
        if job not in {"", "j1"}:
            return self.problem(404, "job-not-found", "There is no such job.")
        return {"initiate": self.initiate, "status": self.status, "result": self.result, "check": self.check}[
            action
        ](request)

    @staticmethod
    def problem(status: int, code: str, message: str) -> httpx.Response:
        return httpx.Response(status, json={"error": code, "message": message, "requestId": "r1"})

    def initiate(self, request: httpx.Request) -> httpx.Response:
        count = len(json.loads(request.content)["file_ids"])
        document = {"jobId": "j1", "status": "queued", "totalFileIds": count, "estimatedTime": "1-3 seconds"}
        return httpx.Response(202, json=document)

    def retry(self, _request: httpx.Request) -> httpx.Response:
        if not self.failed:
            return self.problem(409, "nothing-to-retry", "No file of the job failed.")
        document = {"jobId": "j1", "status": "queued", "totalFileIds": self.failed, "retryOf": "j1"}
        return httpx.Response(202, json=document)

    def status(self, _request: httpx.Request) -> httpx.Response:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        document: dict[str, Any] = {
            "jobId": "j1",
            "status": state,
            "progress": {"processed": 1, "total": self.total},
        }
        if self.failed:
            document["failedFiles"] = self.failed
        return httpx.Response(200, json=document)

    def result(self, _request: httpx.Request) -> httpx.Response:
        if self.states[0] == "failed":
            return self.problem(409, "no-result", "The job has no result: no file exists.")
        if self.states[0] == "expired":
            return self.problem(410, "result-expired", "The result has expired.")
        document = {"jobId": "j1", "status": "completed", "downloadUrl": URL, "expiresIn": 600}
        return httpx.Response(200, json=document)

    def check(self, request: httpx.Request) -> httpx.Response:
        file_id = json.loads(request.content)["file_id"]
        there = file_id % 2 == 0
        document = {
            "file_id": file_id,
            "available": there,
            "s3Key": f"downloads/{file_id}.zip" if there else None,
            "size": 1500 if there else None,
        }
        return httpx.Response(200, json=document)


@pytest.fixture
def api() -> Api:
    """The API that `call` speaks with."""
    return Api()


@pytest.fixture
def call(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Runs a command line in an empty folder; returns its exit code."""
    for name in ("API", "USER", "TOKEN"):
        monkeypatch.delenv(f"DOWNLOADJOBS_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *words: run([str(word) for word in words], Options(transport=httpx.MockTransport(api)))


def test_submit_prints_the_id_alone(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe `submit` prints the job's id and nothing else to standard output."""
    assert call("submit", 10003, 10010) == 0
    captured = capsys.readouterr()
    assert captured.out == "j1\n"
    assert "Submitted 2 files" in captured.err


def test_submit_and_wait_keeps_standard_output_clean(
    call: Call, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --wait too: progress and the end go to standard error."""
    api.states = ["processing", "completed"]
    assert call("submit", 10003, "--wait") == 0
    captured = capsys.readouterr()
    assert captured.out == "j1\n"
    assert "Completed: 1 file." in captured.err


def test_submit_and_get_does_it_all(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--get waits, downloads and verifies."""
    assert call("submit", 10003, "--get", "out.zip") == 0
    assert zipfile.is_zipfile(tmp_path / "out.zip")
    assert "Verified: 1 file" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["out.zip", "pipe"])
def test_submit_asks_for_nothing_that_it_could_not_save(
    call: Call, api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    """A path of --get that must not be written is refused before there is a job."""
    (tmp_path / "out.zip").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    assert call("submit", 10003, "--get", path) == 2
    assert api.requests == []
    assert "by -o" not in capsys.readouterr().err
    assert call("submit", 10003, "--get", "out.zip", "--force") == 0
    assert zipfile.is_zipfile(tmp_path / "out.zip")


def test_retry_prints_the_new_id_alone(call: Call, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe `retry` prints the new job's id and nothing else to standard output."""
    api.failed = 2
    assert call("retry", "j1") == 0
    captured = capsys.readouterr()
    assert captured.out == "j1\n"
    assert "Submitted 2 files" in captured.err


def test_retry_waits(call: Call, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """With --wait it follows the new job, and exits with how that ends."""
    api.failed = 1
    assert call("retry", "j1", "--wait") == 1
    assert "Completed in part" in capsys.readouterr().err


def test_retry_of_a_whole_result_is_refused(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """If no file failed it exits with 4, and says what the API says."""
    assert call("retry", "j1") == 4
    assert "No file of the job failed." in capsys.readouterr().err


def test_submit_reads_ids_from_a_file(call: Call, api: Api, tmp_path: Path) -> None:
    """--from-file adds ids to those of the command line."""
    (tmp_path / "ids").write_text("10004, 10005 # comment 1\n\n10006\n")
    assert call("submit", 10003, "--from-file", "ids") == 0
    assert json.loads(api.requests[0].content) == {"file_ids": [10003, 10004, 10005, 10006]}


def test_a_file_that_is_no_text_is_refused(call: Call, tmp_path: Path) -> None:
    """Ids from a binary file end with 2, not with a traceback."""
    (tmp_path / "ids").write_bytes(b"\xff\xfe\x00")
    assert call("submit", "--from-file", "ids") == 2


def test_a_bad_id_in_a_file_is_named_with_its_line() -> None:
    """A word that is no id is refused before anything is sent, and the line is named."""
    with pytest.raises(click.BadParameter, match=r"line 2: .*5"):
        read_ids("10003\n5\n")


@pytest.mark.parametrize(
    "words",
    [
        ["submit"],
        ["submit", "5"],
        ["submit", "x"],
        ["submit", *["10003"] * 1001],
        ["status", "../etc"],
        ["watch", "j1", "--timeout", "inf"],
        ["watch", "j1", "--patience", "nan"],
        ["--api", "ftp://x", "status", "j1"],
        ["--api", "http://a:b", "status", "j1"],
        ["--user", "Jürgen", "status", "j1"],
        ["--api", "http://127.0.0.1:1/\x01", "status", "j1"],
        ["--api", "http://a\n.test", "status", "j1"],
        ["--api", "http://ä..b", "status", "j1"],
        ["get", "j1", "-o", "-"],
        ["submit", "10003", "--get", "-"],
        ["nonsense"],
    ],
    ids=[
        *("none", "small", "word", "1001", "path", "inf", "nan", "scheme", "port", "user"),
        *("control", "line", "idna", "stream", "stream-too", "command"),
    ],
)
def test_a_wrong_command_line_ends_with_2(call: Call, api: Api, words: list[str]) -> None:
    """What can be seen to be wrong is refused with 2, and nothing is sent."""
    assert call(*words) == 2
    assert api.requests == []


def test_a_word_that_is_no_file_id_is_called_so(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says what was meant, not which type it has."""
    assert call("check", "x") == 2
    assert "'x' is not a valid file id." in capsys.readouterr().err


def test_errors_are_json_with_json(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json an error is one object on standard error; standard output stays empty."""
    assert call("status", "j2", "--json") == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    document = {"error": "job-not-found", "message": "There is no such job.", "requestId": "r1"}
    assert json.loads(captured.err) == document
    assert call("submit", "5", "--json") == 2
    assert json.loads(capsys.readouterr().err)["error"] == "usage"


def test_errors_name_the_request(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """For people an error is the API's message with the request's id, and no traceback."""
    assert call("status", "j2") == 4
    assert capsys.readouterr().err == "error: There is no such job. (request r1)\n"


EVIL = "\x1b]0;pwned\x07\x1b[2K\rDONE\x9b1m\x7f"


def evil_zip() -> bytes:
    """A result whose manifest has control characters."""
    files = [{"fileId": 1, "name": "1.zip", "status": "error", "error": EVIL, "message": EVIL}]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"jobId": "j1", "files": files}))
    return target.getvalue()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "j2"], "error: ��]0;pwned"),
        (["status", "j1"], "DONE"),
        (["watch", "j1", "--timeout", "0"], "DONE"),
        (["submit", "10003"], "DONE"),
        (["check", "10004"], "DONE"),
        (["get", "j3"], "1  �]0;pwned"),
        (["get", "j3", "--url"], "http://s3.test/�"),
    ],
    ids=["problem", "status", "watch", "id", "key", "manifest", "url"],
)
@pytest.mark.parametrize("how", ["text", "json"])
def test_a_server_cannot_speak_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    words: list[str],
    said: str,
    how: str,
) -> None:
    """Control characters in what a server sends are replaced for people, and escaped in JSON."""
    documents: dict[str, tuple[int, dict[str, Any]]] = {
        "status/j1": (200, {"jobId": "j1", "status": EVIL, "progress": {"processed": 0, "total": 1}}),
        "status/j2": (404, {"error": EVIL, "message": f"\x1b{EVIL}", "requestId": EVIL}),
        "status/j3": (200, {"jobId": "j1", "status": "completed", "progress": {"processed": 1, "total": 1}}),
        "result/j3": (200, {"jobId": "j1", "status": "completed", "downloadUrl": f"http://s3.test/{EVIL}"}),
        "initiate": (202, {"jobId": EVIL, "status": EVIL, "totalFileIds": 1, "estimatedTime": EVIL}),
        "check": (200, {"file_id": 10004, "available": True, "s3Key": EVIL, "size": 1}),
    }

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "s3.test":
            return httpx.Response(200, stream=httpx.ByteStream(evil_zip()))
        status, document = documents[request.url.path.removeprefix("/v1/download/")]
        return httpx.Response(status, json=document)

    monkeypatch.chdir(tmp_path)
    if words == ["get", "j3"]:
        documents["result/j3"][1]["downloadUrl"] = "http://s3.test/"
    run([*words, *(["--json"] if how == "json" else [])], Options(transport=httpx.MockTransport(answer)))
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert [char for char in printed if char != "\n" and unicodedata.category(char) == "Cc"] == []
    if how == "text":
        assert said in printed
    else:
        assert r"\u001b" in printed
        assert r"\u009b" in printed


@pytest.mark.parametrize("where", ["before", "behind"])
def test_shared_options_stand_before_or_behind_the_command(call: Call, api: Api, where: str) -> None:
    """--user and --api work on both sides of the command's name."""
    shared = ["--user", "ann", "--api", "downloads.test:81/x/"]
    words = [*shared, "check", 10004] if where == "before" else ["check", 10004, *shared]
    assert call(*words) == 0
    assert str(api.requests[0].url) == "http://downloads.test:81/x/v1/download/check"
    assert api.requests[0].headers["x-user-id"] == "ann"


def test_the_environment_is_the_default(call: Call, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOWNLOADJOBS_API and DOWNLOADJOBS_USER hold where the command line says nothing."""
    monkeypatch.setenv("DOWNLOADJOBS_API", "https://env.test")
    monkeypatch.setenv("DOWNLOADJOBS_USER", "env")
    call("check", 10004)
    call("check", 10004, "--user", "ann")
    assert [request.headers["x-user-id"] for request in api.requests] == ["env", "ann"]
    assert {request.url.host for request in api.requests} == {"env.test"}


@pytest.mark.parametrize(
    ("state", "failed", "code"),
    [("completed", 0, 0), ("completed", 1, 1), ("failed", 1, 1), ("cancelled", 0, 1), ("processing", 0, 0)],
)
def test_status_exits_with_the_jobs_state(call: Call, api: Api, state: str, failed: int, code: int) -> None:
    """`status` exits with 0 for a job that runs or is done, with 1 for one that is not whole."""
    api.states, api.failed = [state], failed
    assert call("status", "j1") == code


def test_watch_tells_why_a_job_failed(call: Call, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed job's reason is asked for and shown."""
    api.states = ["failed"]
    assert call("watch", "j1") == 1
    assert "no file exists" in capsys.readouterr().out


def test_watch_prints_json_lines(call: Call, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """`watch --json` prints each change as a document on its line."""
    api.states = ["queued", "completed"]
    assert call("watch", "j1", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["queued", "completed"]


def test_watch_times_out(call: Call, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """--timeout ends with 5 and says that the job goes on."""
    api.states = ["processing"]
    assert call("watch", "j1", "--timeout", "0.1") == 5
    assert "It goes on" in capsys.readouterr().err


def test_get_saves_and_verifies(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`get` saves JOB.zip here, says that it is verified, leaves nothing else, and prints no URL."""
    assert call("get", "j1") == 0
    captured = capsys.readouterr()
    assert "Saved to j1.zip" in captured.out
    assert "Verified: 1 file" in captured.out
    assert "Signature" not in captured.out + captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["j1.zip"]


def test_get_into_a_folder_as_json(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-o takes a folder; --json prints one document."""
    (tmp_path / "results").mkdir()
    assert call("get", "j1", "-o", "results", "--json") == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["path"] == "results/j1.zip"
    assert document["verified"] is True
    assert document["missing"] == []
    assert captured.err == ""


def test_get_in_part_names_what_is_missing(call: Call, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """A result in part is saved, its missing files are named, and the exit code is 1."""
    api.zip, api.total, api.failed = result_zip(missing=True), 2, 1
    assert call("get", "j1") == 1
    out = capsys.readouterr().out
    assert "1 of 2 files missing" in out
    assert "10010  not-found  There is no such file." in out


def test_get_in_part_exits_with_1_unverified_too(call: Call, api: Api) -> None:
    """--no-verify still tells a whole result from one in part."""
    api.zip, api.total, api.failed = b"not even a zip", 2, 1
    assert call("get", "j1", "--no-verify") == 1
    api.failed = 0
    assert call("get", "j1", "--no-verify", "--force") == 0


def test_a_broken_result_gets_no_good_name(
    call: Call, api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What does not verify never has the name that was asked for."""
    api.zip = api.zip.replace(b"datadata", b"datadatA", 1)
    assert call("get", "j1") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["j1.zip.broken"]
    assert "10003.zip is damaged" in capsys.readouterr().err


def asked(api: Api) -> list[str]:
    """What the API was asked for."""
    return [request.url.path.split("/")[3] for request in api.requests]


def test_a_job_that_is_not_there_comes_before_a_file_that_is(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two things that are wrong, the one is told that the user must know first."""
    (tmp_path / "films.zip").write_text("mine")
    for words in ([], ["--wait"]):
        assert call("get", "films", *words) == 4
        assert "There is no such job." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["films", "0c7d0a2e", "films-2.of-2026"])
def test_get_hints_at_a_download_job(call: Call, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no UUID is perhaps a DownloadJob's name."""
    assert call("get", name) == 4
    assert f"If {name} is a DownloadJob in a cluster, say dj/{name}." in capsys.readouterr().err


@pytest.mark.parametrize("job_id", ["0c7d0a2e-0c5e-4f0e-9d6a-0f3a4a1b2c3d", "Films"])
def test_get_does_not_hint_at_what_cannot_be(
    call: Call, job_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A UUID is a job's id, and what is no name in Kubernetes is no DownloadJob."""
    assert call("get", job_id) == 4
    assert "dj/" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["status"], "kubectl get dj/films\n"),
        (["watch"], "kubectl get dj/films --watch\n"),
        (["cancel"], """kubectl patch dj/films --type=merge -p '{"spec":{"cancel":true}}'\n"""),
        (["dead", "retry"], "kubectl get dj/films -o jsonpath={.status.jobId}\n"),
    ],
    ids=lambda words: words[-1] if isinstance(words, list) else "",
)
def test_commands_for_jobs_point_to_kubectl(
    call: Call, api: Api, words: list[str], instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is asked of a DownloadJob but its result is asked of kubectl, and the command is named."""
    assert call(*words, "dj/films") == 2
    assert instead in capsys.readouterr().err
    assert api.requests == []


def test_get_does_not_overwrite(call: Call, api: Api, tmp_path: Path) -> None:
    """An existing file stays, unless --force is given; nothing is downloaded before."""
    (tmp_path / "j1.zip").write_text("mine")
    assert call("get", "j1") == 2
    assert (tmp_path / "j1.zip").read_text() == "mine"
    assert asked(api) == ["status"]
    assert call("get", "j1", "--force") == 0
    assert zipfile.is_zipfile(tmp_path / "j1.zip")


@pytest.mark.parametrize(
    ("state", "code", "text"),
    [
        ("processing", 4, "downloadjobs watch j1"),
        ("failed", 1, "no file exists"),
        ("cancelled", 1, "cancelled"),
        ("expired", 4, "has expired"),
    ],
)
def test_get_without_a_result_says_why(
    call: Call,
    api: Api,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    state: str,
    code: int,
    text: str,
) -> None:
    """Not finished and expired are refused, failed and cancelled are 1; no file is left behind."""
    api.states = [state]
    assert call("get", "j1") == code
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_get_to_a_folder_that_is_not_there(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that cannot be written is said in a sentence."""
    assert call("get", "j1", "-o", "nowhere/x.zip") == 1
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dj", "djob", "downloadjob", "downloadjobs.downloadjobs.dev", "DJ"])
def test_a_download_job_has_kubectls_names(kind: str) -> None:
    """Every name that kubectl knows the kind by, in any case, stands before a DownloadJob's."""
    assert JobReference()(f"{kind}/films.2") == DownloadJobName("films.2")


@pytest.mark.parametrize("word", ["pod/x", "dj/", "dj/X", "dj/-x", "dj/x/y", "/x", "dj/" + "x" * 254])
def test_what_is_no_job_is_refused(word: str) -> None:
    """A slash is for dj/NAME only, whose name is one that Kubernetes allows."""
    with pytest.raises(click.BadParameter):
        JobReference()(word)


def test_get_waits_for_a_job(call: Call, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """--wait watches the job first; an existing file is refused before, once the job was found."""
    api.states = ["processing", "processing", "completed"]
    assert call("get", "j1", "--wait") == 0
    captured = capsys.readouterr()
    assert "processing" in captured.err
    assert "Verified: 1 file" in captured.out
    api.requests.clear()
    assert call("get", "j1", "--wait") == 2
    assert asked(api) == ["status"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "link", "dangling", "pipe-link"])
@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_get_replaces_nothing_but_files(
    call: Call, api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, kind: str, force: list[str]
) -> None:
    """Only a regular file is replaced, and a link is none: neither it nor what it points to changes."""
    (tmp_path / "mine").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    ends = {"link": "mine", "dangling": "nowhere", "pipe-link": "pipe"}
    if kind in ends:
        (tmp_path / kind).symlink_to(ends[kind])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        before = {path.name: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()}
        assert call("get", "j1", "-o", kind, *force) == 2
        assert {path.name: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()} == before
    assert (tmp_path / "mine").read_text() == "mine"
    assert "no regular file" in capsys.readouterr().err
    assert asked(api) == ["status"]


def test_get_does_not_replace_what_came_meanwhile(
    call: Call, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody made during the download stays; the same command with --force goes on."""
    answer = api.result

    def appear(request: httpx.Request) -> httpx.Response:
        (tmp_path / "j1.zip").write_text("mine")
        return answer(request)

    monkeypatch.setattr(api, "result", appear)
    assert call("get", "j1") == 2
    assert (tmp_path / "j1.zip").read_text() == "mine"
    assert call("get", "j1", "--force") == 0
    assert zipfile.is_zipfile(tmp_path / "j1.zip")


@pytest.mark.parametrize("length", [249, 300], ids=["part", "name"])
def test_a_name_that_is_too_long_is_an_error(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    """A name too long, also only with `.part` behind, is said in a sentence; nothing is said to be kept."""
    assert call("get", "j1", "-o", "x" * length) == 1
    err = capsys.readouterr().err
    assert "cannot be written: File name too long." in err
    assert "kept" not in err
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_said_if_there_is_something(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error tells of PATH.part only if bytes are in it."""

    def refuse(_partial: PartialFile) -> Path:
        raise OSError(errno.EACCES, "Permission denied")

    assert call("get", "j1", "-o", "nowhere/x.zip") == 1
    assert "kept" not in capsys.readouterr().err
    monkeypatch.setattr(PartialFile, "complete", refuse)
    assert call("get", "j1") == 1
    assert "kept in j1.zip.part" in capsys.readouterr().err
    assert (tmp_path / "j1.zip.part").stat().st_size


@pytest.mark.parametrize(
    "url",
    ["redis://h:port", "redis://h:99999", "redis://h?socket_timeout=x", "redis://h?nobody=1", "redis://ä..b"],
)
def test_a_redis_url_that_is_none_is_named(
    call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """`dead` ends with 2 for a REDIS_URL that no client can be made of, and names the setting."""
    monkeypatch.setenv("REDIS_URL", url)
    assert call("dead", "list") == 2
    assert "redis_url" in capsys.readouterr().err.lower()


def test_the_url_is_printed_when_asked_for(call: Call, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """--url prints the presigned URL alone, and downloads nothing."""
    assert call("get", "j1", "--url") == 0
    assert capsys.readouterr().out == f"{URL}\n"
    assert {request.url.host for request in api.requests} == {"localhost"}


def test_check_is_a_table(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` says of each file whether it is there, and exits with 1 if one is not."""
    assert call("check", 10004, 10005) == 1
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["FILE", "THERE", "SIZE", "KEY"],
        ["10004", "yes", "1.5", "kB", "downloads/10004.zip"],
        ["10005", "no", "–", "–"],
    ]
    assert call("check", 10004) == 0


def test_check_as_json(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """`check --json` prints the API's answers as one list."""
    assert call("check", 10004, 10005, "--json") == 1
    assert [answer["available"] for answer in json.loads(capsys.readouterr().out)] == [True, False]


def test_help_tells_the_exit_codes(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """--help lists every command and the exit codes."""
    assert call("--help") == 0
    out = capsys.readouterr().out
    for word in ("demo", "up", "seed", "submit", "status", "watch", "get", "check", "Exit codes", "141"):
        assert word in out
