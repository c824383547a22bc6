"""docs/rest-guide.md: its commands and its Python are run as they stand there, and answer what it shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_cli.sample_files import sample_files
from downloadjobs_cli.seeding import seed
from downloadjobs_cli.stack import KEY_PREFIX, without_addresses
from downloadjobs_cli.up import FILES, FIRST_ID, SIZE_MAX, SIZE_MIN
from support_pages import blocks, code
from support_processes import System, running
from support_tools import require_tool

PAGE = "rest-guide.md"
API = "http://127.0.0.1:3000"
CLIENT = "A complete client"
MARK = "== the next block =="

VARIABLE = {
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "ID",
    r"\b[0-9a-f]{32}\b": "TRACE",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z": "TIME",
    r"127\.0\.0\.1:\d+": "HOST",
    r"/\d{16}\.zip": "/TOKEN.zip",
}
"""What differs from run to run, and what stands for it."""


def normal(text: str) -> str:
    """A text without what differs from run to run."""
    for pattern, name in VARIABLE.items():
        text = re.sub(pattern, name, text)
    return text


@pytest.fixture(scope="module")
def served(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """An API and a worker with the sample files that the page asks for; jobs last a second, as it advises."""
    settings = {
        "REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/13",
        "DOWNLOAD_DELAY_ENABLED": "true",
        "DOWNLOAD_DELAY_MAX_MS": "1000",
    }
    with running(System(valkey_server, seaweedfs, tmp_path_factory.mktemp("guide"), settings)) as system:
        wanted = {10_003, 10_010}
        files = [one for one in sample_files(FILES, FIRST_ID, SIZE_MIN, SIZE_MAX) if one.file_id in wanted]
        seed(system.store, KEY_PREFIX, files)
        system.start_api()
        system.start_worker()
        yield system


def environment(system: System) -> dict[str, str]:
    """The environment of the page's programs: no proxy stands between them and the system."""
    return {
        name: value
        for name, value in without_addresses(system.environment()).items()
        if not name.lower().endswith("_proxy")
    }


def test_the_commands_do_what_the_page_shows(served: System, tmp_path: Path) -> None:
    """Every command of the page, in one shell, prints what stands below it."""
    for tool in ("curl", "jq", "unzip"):
        require_tool(tool)
    found = blocks(PAGE)
    script, told = ["set -euo pipefail"], []
    for number, (language, text) in enumerate(found):
        if language == "sh":
            script.append(f"echo {MARK!r}\n{text.replace(API, f'http://127.0.0.1:{served.port}')}")
            following = found[number + 1] if number + 1 < len(found) else ("", "")
            told.append(following if following[0] in {"json", "text"} else ("", ""))
    ran = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path, env=environment(served), capture_output=True, check=False, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    _, *printed = normal(ran.stdout).replace("\r", "").split(f"{MARK}\n")
    assert len(printed) == len(told)
    for output, (language, shown) in zip(printed, told, strict=True):
        if language == "json":
            assert json.loads(output) == json.loads(normal(shown))
        else:
            assert output == normal(shown)
    assert sum(language == "json" for language, _ in found) == sum(language == "json" for language, _ in told)


def test_the_python_does_what_the_page_says(
    served: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every example in Python but the complete client, one after the other, as in one program."""
    monkeypatch.chdir(tmp_path)
    for name in ("ALL_PROXY", "HTTP_PROXY", "all_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    names: dict[str, Any] = {}
    for text in [text for language, text in blocks(PAGE) if language == "python"][:-1]:
        exec(compile(text.replace(API, f"http://127.0.0.1:{served.port}"), PAGE, "exec"), names)  # noqa: S102 - our own page
    names["api"].close()
    names["store"].close()
    assert names["status"]["status"] == "completed"
    assert names["status"]["failedFiles"] == 1
    said = capsys.readouterr().out
    assert "99999999 not-found There is no such file." in said
    assert f"{names['job']} completed_with_errors" in said


def test_the_complete_client_works(served: System, tmp_path: Path) -> None:
    """The client fetches a verified zip, says what is missing, and ends well; what cannot be, it tells."""
    (text,) = code(PAGE, CLIENT, "python")
    assert len(text.splitlines()) <= 60
    program = tmp_path / "fetch.py"
    program.write_text(text.replace(API, f"http://127.0.0.1:{served.port}"), encoding="utf-8")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(program), *words],
            cwd=tmp_path, env=environment(served), capture_output=True, check=False, text=True, timeout=60,
        )  # fmt: skip

    ran = run("10003", "10010", "99999999")
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        0,
        "99999999.zip is missing: There is no such file.\n",
        "",
    )
    assert (tmp_path / "files.zip").stat().st_size > 4_000_000
    for words, told in ((["1"], "invalid-body"), (["99999999"], "no-file-found")):
        ran = run(*words)
        assert (ran.returncode, told in ran.stderr) == (1, True), ran.stderr


class Breaking(httpx.BaseTransport):
    """Gives the bytes of one object, and breaks twice on the way."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[tuple[str, str]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a range, but not to its end the first two times."""
        self.asked.append((request.headers["range"], request.headers.get("if-match", "")))
        begin = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        broken = len(self.asked) < 3

        def body() -> Iterator[bytes]:
            yield self.content[begin : begin + 4] if broken else self.content[begin:]
            if broken:
                raise httpx.ReadError("broken")

        return httpx.Response(206, headers={"etag": '"e"'}, content=body())


def test_the_complete_client_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits as long as Retry-After says, and asks for the rest of what broke off, of the same object."""
    (text,) = code(PAGE, CLIENT, "python")
    names: dict[str, Any] = {}
    exec(compile(text, PAGE, "exec"), names)  # noqa: S102 - our own page
    waited: list[float] = []
    monkeypatch.setattr(names["time"], "sleep", waited.append)
    answers = [
        httpx.Response(503, headers={"retry-after": "7"}),
        httpx.Response(500),
        *(httpx.Response(200, json={"downloadUrl": "http://store/zip"}) for _ in range(3)),
    ]
    store = Breaking(b"0123456789")
    names["api"] = httpx.Client(
        base_url="http://api", transport=httpx.MockTransport(lambda _request: answers.pop(0))
    )
    names["store"] = httpx.Client(transport=store)
    names["fetch"]("j", 10, tmp_path / "zip")
    assert (tmp_path / "zip").read_bytes() == store.content
    assert store.asked == [("bytes=0-", ""), ("bytes=4-", '"e"'), ("bytes=8-", '"e"')]
    assert waited == [7, 2, 1, 1]


def test_what_the_page_says_of_the_url(served: System) -> None:
    """HEAD gets 403, one byte tells the size; unknown members and parameters are ignored."""
    with served.client("me") as client:
        body = {"file_ids": [10_003], "callback_url": "x", "nonsense": 1}
        job = client.post("/v1/download/initiate", json=body).json()["jobId"]
        status = client.get(f"/v1/download/status/{job}", headers={"prefer": "wait=30"}).json()
        assert status["status"] == "completed"
        url = client.get(f"/v1/download/result/{job}").json()["downloadUrl"]
        size = client.get(f"/v1/jobs/{job}").json()["resultBytes"]
        assert client.get("/v1/jobs?limt=10").status_code == httpx.codes.OK
    with httpx.Client(trust_env=False) as anyone:
        assert anyone.head(url).status_code == httpx.codes.FORBIDDEN
        first = anyone.get(url, headers={"range": "bytes=0-0"})
        assert (first.status_code, first.headers["content-range"]) == (206, f"bytes 0-0/{size}")
        for path in ("/openapi", "/docs"):
            assert anyone.get(f"http://127.0.0.1:{served.port}{path}").status_code == httpx.codes.OK
