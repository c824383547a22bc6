"""docs/webhooks.md: its examples are what is sent, and its code verifies what is signed."""

from __future__ import annotations

import base64
import http.server
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from downloadjobs_api.callbacks import callback_document
from downloadjobs_core.job import Job
from downloadjobs_core.states import FINISHED, JobState
from downloadjobs_core.webhook_keys import Signer, read_public_keys, read_signer
from downloadjobs_core.webhooks import payload
from downloadjobs_worker.settings import WorkerSettings
from support_pages import DOCS, code
from support_webhooks import make_key

PAGE = (DOCS / "webhooks.md").read_text(encoding="utf-8")
NOW = 1_795_521_626
BODY = b'{"type":"job.completed"}'

Verified = Callable[..., bool]


def blocks(language: str) -> list[str]:
    """The page's examples in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


CALLBACK, EVENT, KEYS = (json.loads(text) for text in blocks("json"))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """An installation's key."""
    return read_signer(make_key(tmp_path)[1])


@pytest.fixture(scope="module")
def python() -> dict[str, Any]:
    """What the page's Python defines: what verifies, and the relay that stands on it."""
    names: dict[str, Any] = {}
    for text in [
        *code("webhooks.md", "Receive and verify", "python"),
        *code("webhooks.md", "Slack", "python"),
    ]:
        exec(compile(text, "webhooks.md", "exec"), names)  # noqa: S102 - our own page
    return names


def test_the_example_is_what_is_sent() -> None:
    """The page's event is the payload of a call with these fields, member by member and in order."""
    fields = {
        "job": "1f2f879b-6de6-4913-84ea-0f5cd1d8e9aa",
        "state": "completed_with_errors",
        "at_us": "1795521626417000",
        "created_us": "1795521575096000",
        "finished_us": "1795521626417000",
        "expires_us": "1795608026417000",
        "total_file_ids": "4",
        "files_total": "3",
        "files_failed": "1",
        "result_bytes": "118490240",
        "error_code": "",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "callback_url": "https://hooks.example.com/downloads?key=7f3a",
        "callback_origin": "https://hooks.example.com",
    }
    assert json.dumps(payload(fields)) == json.dumps(EVENT)


def test_the_callback_of_a_detail_is_told_whole() -> None:
    """The page's `callback` is made of a record, and its table has every member."""
    job = Job(
        job_id="j",
        user="u",
        state=JobState.COMPLETED,
        callback_origin="https://hooks.example.com",
        callback_event="completed",
        callback_state="pending",
        callback_attempts=2,
        callback_status=503,
        callback_due_us=1_795_521_931_402_000,
    )
    assert callback_document(job) == CALLBACK
    told = set(re.findall(r"^\| `(\w+)` \|", PAGE.split("## What comes")[0], re.MULTILINE))
    assert told == set(CALLBACK)


def test_each_end_has_its_type() -> None:
    """The page tells the type of every state in which a job ends."""
    assert set(re.findall(r"^\| `(job\.\w+)` \|", PAGE, re.MULTILINE)) == {f"job.{one}" for one in FINISHED}


def test_the_keys_are_one_key(tmp_path: Path) -> None:
    """The page's three notations are of the same key."""
    (shown,) = KEYS["keys"]
    for text in (shown["publicKey"], shown["pem"]):
        (tmp_path / "key").write_text(text, encoding="ascii")
        (key,) = read_public_keys(tmp_path / "key")
        assert {"publicKey": key.standard, "pem": key.pem, "jwk": key.jwk} == shown


def test_the_tries_are_those_of_the_settings() -> None:
    """The waits that the page names are the defaults."""
    units = {"s": 1, "min": 60, "h": 3600}
    (told,) = re.findall(r"tried again after\s+(.*?), each plus", PAGE, re.DOTALL)
    waits = [int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", told)]
    assert waits == list(WorkerSettings.model_fields["webhook_retry_seconds"].default)
    assert f"{len(waits) + 1} tries" in PAGE


def changes(signer: Signer) -> list[tuple[str, dict[str, str], bytes, int, bool]]:
    """Calls that are genuine, or not quite: what was done, headers, body, when it comes, and whether."""
    good = signer.headers("msg_1", NOW, BODY)
    v1a = good["webhook-signature"]
    return [
        ("nothing", good, BODY, NOW, True),
        ("a little late", good, BODY, NOW + 299, True),
        ("too late", good, BODY, NOW + 301, False),
        ("too early", good, BODY, NOW - 301, False),
        ("another body", good, BODY + b" ", NOW, False),
        ("another id", {**good, "webhook-id": "msg_2"}, BODY, NOW, False),
        ("another time", {**good, "webhook-timestamp": str(NOW + 1)}, BODY, NOW, False),
        ("no time", {**good, "webhook-timestamp": "soon"}, BODY, NOW, False),
        ("no signature", {**good, "webhook-signature": ""}, BODY, NOW, False),
        ("a broken one", {**good, "webhook-signature": "v1a,!!!"}, BODY, NOW, False),
        ("another scheme", {**good, "webhook-signature": v1a.replace("v1a", "v1")}, BODY, NOW, False),
        ("another before", {**good, "webhook-signature": f"v1,AAAA v1a,AAAA {v1a}"}, BODY, NOW, True),
        ("no headers", {}, BODY, NOW, False),
    ]


def test_the_python_verifies(python: dict[str, Any], signer: Signer, tmp_path: Path) -> None:
    """The page's Python takes what is genuine and new, by any of its keys, and nothing else."""
    verified: Verified = python["verified"]
    own = signer.public[0].standard
    stranger = read_signer(make_key(tmp_path, "stranger")[1]).public[0].standard
    for what, headers, body, now, wanted in changes(signer):
        assert verified(headers, body, [own], now) is wanted, what
        assert verified(headers, body, [stranger, own], now) is wanted, what
        assert not verified(headers, body, [stranger], now), what
    assert not verified(signer.headers("msg_1", NOW, BODY), BODY, [], NOW)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_node_example_verifies(signer: Signer, tmp_path: Path) -> None:
    """The page's JavaScript says the same of the same calls."""
    (text,) = blocks("js")
    (tmp_path / "receiver.js").write_text(text, encoding="utf-8")
    calls = [[headers, base64.b64encode(body).decode(), now] for _, headers, body, now, _ in changes(signer)]
    program = """
        const { verified } = require(process.argv[1]);
        const { calls, keys } = JSON.parse(require("node:fs").readFileSync(0));
        const said = calls.map(([headers, body, now]) =>
          verified(headers, Buffer.from(body, "base64"), keys, now));
        console.log(JSON.stringify(said));
    """
    ran = subprocess.run(
        ["node", "-e", program, str(tmp_path / "receiver.js")],
        input=json.dumps({"calls": calls, "keys": [signer.public[0].jwk]}),
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(ran.stdout) == [wanted for *_, wanted in changes(signer)]


def test_the_relay_refuses_what_is_not_genuine(python: dict[str, Any], signer: Signer) -> None:
    """The page's relay answers 401 before it tells Slack anything."""
    headers = signer.headers("msg_1", 1, BODY)  # long ago
    slack = "http://127.0.0.1:1/"
    assert python["relay"](headers, BODY, [signer.public[0].standard], slack) == 401


@pytest.mark.parametrize(
    ("state", "members", "told"),
    [
        ("completed", {}, "job.completed: job j, 2 of 2 files"),
        ("completed_with_errors", {"failedFiles": 1}, "job.completed_with_errors: job j, 1 of 2 files"),
        (
            "failed",
            {"error": {"code": "c", "message": "No file is there."}},
            "job.failed: job j, No file is there.",
        ),
        ("cancelled", {}, "job.cancelled: job j"),
        ("expired", {}, "job.expired: job j"),
    ],
)
def test_the_relay_tells_slack_how_a_job_ended(
    python: dict[str, Any], signer: Signer, state: str, members: dict[str, Any], told: str
) -> None:
    """Files are counted only where there is a result; else Slack is told why there is none."""
    data = {"jobId": "j", "state": state, "files": 2, "failedFiles": 0, "error": None, **members}
    body = json.dumps({"type": f"job.{state}", "data": data}).encode()
    posted: list[bytes] = []

    class Slack(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Slack) as slack:
        thread = threading.Thread(target=slack.handle_request)
        thread.start()
        headers = signer.headers("msg_1", int(time.time()), body)
        url = f"http://127.0.0.1:{slack.server_port}/"
        assert python["relay"](headers, body, [signer.public[0].standard], url) == 204
        thread.join()
    assert [json.loads(text) for text in posted] == [{"text": told}]
