"""What the docs quote of running processes: every situation of troubleshooting.md, and whole records."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer, free_ports
from downloadjobs_core.job import job_key
from downloadjobs_core.redis_client import RedisConfig, connect
from support_processes import System, running
from support_worker import eventually, members, put_files

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
USER = "me"

VARIABLE = {
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "ID",
    r"\b[0-9a-f]{32}\b": "TRACE",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z": "TIME",
    r"(127\.0\.0\.1(:|, port )|[Pp]ort )\d+": r"\1PORT",
    r"Error \d+ connecting": "Error ERRNO connecting",
}
"""What differs from run to run, and what stands for it."""


def normal(text: str) -> str:
    """A text without what differs from run to run."""
    for pattern, name in VARIABLE.items():
        text = re.sub(pattern, name, text)
    return text


def blocks(title: str) -> list[tuple[str, str]]:
    """The blocks of code below a heading of the page: language and text."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {title!r}"
    return re.findall(r"^```(\w+)\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)


def commands(title: str, program: str) -> list[tuple[str, str]]:
    """The commands of a program below a heading, and what the page says that each prints."""
    found = []
    for language, text in blocks(title):
        if language == "console":
            command, _, output = text.removeprefix("$ ").replace("\\\n", " ").partition("\n")
            if program in command:
                found.append((command, output))
    return found


def ask(command: str, system: System, job_id: str) -> httpx.Response:
    """Send the request that a curl command of the page describes, to a system's API."""
    made, _, request = command.rpartition("curl ")
    words = iter(shlex.split(request.removesuffix(" | jq")))
    headers, content, path = {}, None, ""
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            content = next(words)
        elif word != "-s":
            path = urlsplit(word).path.replace("JOB", job_id)
    if content == "@-":
        first, last = map(int, re.findall(r"range\((\d+); (\d+)\)", made)[0])
        content = json.dumps({"file_ids": list(range(first, last))})
    with httpx.Client(base_url=f"http://127.0.0.1:{system.port}", trust_env=False, timeout=30) as client:
        return client.request("POST" if content else "GET", path, headers=headers, content=content)


def check_answers(title: str, system: System, job_id: str = "") -> None:
    """Send every request below a heading, and compare the answers with those that stand below them."""
    told = [json.loads(normal(text)) for language, text in blocks(title) if language == "json"]
    asked = [ask(command, system, job_id) for command, _ in commands(title, "curl")]
    assert [json.loads(normal(answer.text)) for answer in asked] == told
    assert told
    for answer in asked:
        assert answer.headers["content-type"].startswith("application/")
        assert answer.json()["status"] in {answer.status_code, "unhealthy"}


def check_log_lines(title: str, system: System) -> None:
    """Wait until every log line below a heading was logged, by the API or a worker of a system."""
    told = [
        json.loads(normal(line))
        for language, text in blocks(title)
        if language == "text"
        for line in text.splitlines()
    ]
    assert told

    def missing() -> list[dict[str, Any]]:
        logged = [
            json.loads(normal(line))
            for child in system.children
            for line in child.log_path.read_text(encoding="utf-8").splitlines(keepends=True)
            if line.startswith("{") and line.endswith("\n")
        ]
        return [line for line in told if line not in logged]

    eventually(lambda: not missing(), 20, f"the log lines of {title!r}")


def run(command: str, port: int, job_id: str = "") -> tuple[int, str]:
    """Run one of our commands from the page; its exit code, and what it printed."""
    command = re.sub(r"(127\.0\.0\.1:|PORT=|--port )3000", rf"\g<1>{port}", command).replace("JOB", job_id)
    words = shlex.split(command)
    given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z0-9_]+=", word))
    program, *arguments = words[len(given) :]
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COV"))}
    ran = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        env={**kept, **given}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


def check_commands(title: str, program: str, port: int, exit_code: int, job_id: str = "") -> None:
    """Run every command of a program below a heading, and compare what it prints."""
    found = commands(title, program)
    assert found
    for command, output in found:
        code, printed = run(command, port, job_id)
        assert (normal(printed), code) == (normal(output), exit_code)


@pytest.fixture(scope="module")
def systems(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, System]]:
    """One installation for each kind of fault, with the shared servers as far as it reaches them."""
    nobody = free_ports(2)
    faults = {
        "none": {"USER_MAX_QUEUED": "2"},
        "redis": {"REDIS_URL": f"redis://127.0.0.1:{nobody[0]}/0"},
        "s3": {"S3_ENDPOINT": f"http://127.0.0.1:{nobody[1]}", "MAX_ATTEMPTS": "1"},
        "credentials": {"S3_SECRET_ACCESS_KEY": "nonsense", "MAX_ATTEMPTS": "1"},
        "bucket": {"S3_BUCKET_NAME": "nowhere", "MAX_ATTEMPTS": "1"},
    }
    with ExitStack() as stack:
        found = {}
        for number, (name, settings) in enumerate(faults.items(), 1):
            own_queue = {
                "REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/{number}",
                "STORAGE_PATIENCE_SECONDS": "1",  # so that jobs say that they wait, and end
            }
            system = System(
                valkey_server, seaweedfs, tmp_path_factory.mktemp(name), settings=own_queue | settings
            )
            found[name] = stack.enter_context(running(system))
        for name, system in found.items():
            system.start_api()
            if name != "none":
                system.start_worker()
        yield found


@pytest.fixture(scope="module")
def jobs(systems: dict[str, System]) -> dict[str, str]:
    """A job of each installation that can take one; where no worker is, as many as may wait."""
    submitted = {name: system.submit([10_003], USER) for name, system in systems.items() if name != "redis"}
    systems["none"].submit([10_003], USER)
    return submitted


@pytest.mark.parametrize("program", ["downloadjobs-api", "downloadjobs-worker"])
def test_settings_nonsense(program: str) -> None:
    """Wrong settings are all named at once, and the process ends with 2."""
    check_commands("A setting is wrong", program, 3000, exit_code=2)


@pytest.mark.parametrize("program", ["downloadjobs-api", "downloadjobs up"])
@pytest.mark.usefixtures("jobs")  # the one that S3 fails takes its time, which these tests fill
def test_taken_port(systems: dict[str, System], program: str) -> None:
    """A port that is taken is named, and the process ends with 2."""
    check_commands("The port is taken", program, systems["none"].port, exit_code=2)


def test_no_api() -> None:
    """The command line says that no API answers, where it asked, and what may be wrong; exit code 3."""
    check_commands("The API does not answer", "downloadjobs", free_ports(1)[0], exit_code=3)


def test_redis_down(systems: dict[str, System]) -> None:
    """Without Redis the API answers 503 where it needs the queue, /readyz too, and all logs say why."""
    check_answers("Redis is down", systems["redis"])
    with systems["redis"].client() as client:
        ready, submitted = (
            client.get("/readyz"),
            client.post("/v1/download/initiate", json={"file_ids": [10_003]}),
        )
    assert ready.status_code == 503
    assert ready.headers["retry-after"] == submitted.headers["retry-after"] == "5"
    assert ready.json()["error"] == submitted.json()["error"]
    check_log_lines("Redis is down", systems["redis"])


def ended(system: System, job_id: str) -> None:
    """Wait until a job has failed."""
    eventually(lambda: system.status(job_id, USER)["status"] == "failed", 30, "the end of the job")


def test_wrong_credentials(systems: dict[str, System], jobs: dict[str, str]) -> None:
    """With wrong credentials the API answers 503, a job fails at once, and logs say which key is wrong."""
    system = systems["credentials"]
    ended(system, jobs["credentials"])
    check_answers("The S3 credentials are wrong", system, jobs["credentials"])
    check_log_lines("The S3 credentials are wrong", system)
    nobody = system.start_worker(S3_ACCESS_KEY_ID="nobody")
    (told,) = re.findall(r"`(does not know the access key: [^`]+)`", PAGE)
    eventually(lambda: told in nobody.log_path.read_text(encoding="utf-8"), 20, "the fault of the access key")


def test_missing_bucket(systems: dict[str, System], jobs: dict[str, str]) -> None:
    """Without its bucket the API is unhealthy, a job fails at once, and the worker's log names the bucket."""
    ended(systems["bucket"], jobs["bucket"])
    check_answers("The bucket is missing", systems["bucket"], jobs["bucket"])
    check_log_lines("The bucket is missing", systems["bucket"])


@pytest.mark.parametrize(
    "title",
    [
        "The body is not JSON",
        "Too many ids",
        "An id is out of range",
        "No user",
        "Somebody else's job",
        "Too many jobs wait",
    ],
)
def test_refused_requests(systems: dict[str, System], jobs: dict[str, str], title: str) -> None:
    """A request that is refused is told why, in a problem with a stable type."""
    check_answers(title, systems["none"], jobs["none"])


def test_refused_command(systems: dict[str, System], jobs: dict[str, str]) -> None:
    """The command line tells what the API told, with the request's id; exit code 4."""
    check_commands(
        "Somebody else's job", "downloadjobs ", systems["none"].port, exit_code=4, job_id=jobs["none"]
    )


def test_s3_down(systems: dict[str, System], jobs: dict[str, str]) -> None:
    """Without S3 the API answers 503 where it needs storage, and a job fails after its last attempt."""
    ended(systems["s3"], jobs["s3"])
    check_answers("S3 is down", systems["s3"], jobs["s3"])
    check_log_lines("S3 is down", systems["s3"])


def example(name: str) -> Any:  # noqa: ANN401 - JSON
    """The first JSON example of a page."""
    (text, *_) = re.findall(
        r"^```json\n(.*?)^```$", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return json.loads(text)


def test_examples_are_whole(system: System) -> None:
    """A job with a missing file has the fields of the docs' record, detail, manifest and events."""
    put_files(system.store, {10_003: 10})
    system.start_api()
    system.start_worker()
    job_id = system.submit([10_003, 99_999_999])
    system.wait(job_id)
    redis = connect(RedisConfig(system.valkey.url))
    record = redis.hgetall(job_key(job_id))
    entries = cast("list[tuple[str, dict[str, str]]]", redis.xrange("{downloadjobs}:events"))
    redis.close()
    assert set(record) == set(example("job-record.md"))
    with system.client() as client:
        detail = client.get(f"/v1/jobs/{job_id}").json()
    assert set(detail) == set(example("job-detail.md"))
    manifest = json.loads(members(system.fetch(job_id))["manifest.json"])
    shown = example("manifest.md")
    assert set(manifest) == set(shown)
    assert {frozenset(file) for file in manifest["files"]} == {frozenset(file) for file in shown["files"]}
    told = {entry["kind"]: set(entry) for _, entry in example("events.md")}
    for _, entry in entries:
        assert set(entry) == told[entry["kind"]]
