"""The API's server runtime: real processes, real sockets, a tiny app."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from downloadjobs_api.bodies import MAX_BODY_BYTES
from downloadjobs_api.drain import Drain
from downloadjobs_api.http_protocol import MAX_HEADER_BYTES, MAX_PIPELINED, MAX_TARGET_BYTES
from downloadjobs_api.security_headers import SECURITY_HEADERS
from downloadjobs_api.server import serve
from downloadjobs_api.settings import ApiSettings
from downloadjobs_core.settings import EXIT_SETTINGS
from support_api_process import ApiProcess, Wire, start

IMPATIENCE_SECONDS = 0.5
"""The times of the impatient protocol."""

CHUNK = 64 * 1024
CHUNKED = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def patient() -> Iterator[ApiProcess]:
    """A server with the real times, for tests that do not wait for them."""
    with start() as process:
        process.wait_for("starting")
        yield process
        assert process.stop() == 0
    assert [line for line in process.output if "Traceback" in line] == []


@pytest.fixture(scope="module")
def impatient() -> Iterator[ApiProcess]:
    """A server whose times end while a test waits."""
    with start("works", "impatient") as process:
        process.wait_for("starting")
        yield process
        assert process.stop() == 0


@pytest.fixture
def wire(patient: ApiProcess) -> Iterator[Wire]:
    """A connection to the patient server."""
    with patient.wire() as wire:
        yield wire


@pytest.fixture
def hasty(impatient: ApiProcess) -> Iterator[Wire]:
    """A connection to the impatient server."""
    with impatient.wire() as wire:
        yield wire


def with_headers(*lines: str, version: str = "1.1") -> str:
    """A POST with these header lines, and no body yet."""
    return "\r\n".join([f"POST / HTTP/{version}", *lines, "", ""])


def in_chunks(length: int, *lines: str) -> str:
    """A POST with these header lines and a body that is larger than one whose length is told may be."""
    chunk = f"{CHUNK:x}\r\n{'a' * CHUNK}\r\n"
    return (
        with_headers("Host: a", "Transfer-Encoding: chunked", *lines)
        + chunk * (length // CHUNK)
        + "0\r\n\r\n"
    )


def whole_bodies(process: ApiProcess) -> list[int]:
    """How long the bodies were that the tiny app took for whole, until now."""
    lengths = [line["bytes"] for line in process.events("body read")]
    with process.wire() as wire:
        wire.send(with_headers("Host: a", "Content-Length: 1") + "!")
        assert wire.answer().status == 200
    process.wait_for("body read", len(lengths) + 1)
    lengths = [line["bytes"] for line in process.events("body read")]
    return [length for length in lengths if length != 1]


# The process: settings, address, logs


@pytest.mark.contract("settings")
def test_each_wrong_setting_is_named_at_once() -> None:
    """Faults in the settings end the process with 2 before anything starts, and each is named."""
    env = {"DRAIN_SECONDS": "-1", "API_WORKERS": "none", "S3_PUBLIC_ENDPOINT": "nowhere"}
    with ApiProcess(["-m", "downloadjobs_api"], env) as process:
        assert process.wait() == EXIT_SETTINGS
    output = "".join(process.output)
    assert [name for name in env if name not in output] == []
    assert "Traceback" not in output
    assert process.events("listening") == []


def test_the_api_itself_runs_by_its_settings_only() -> None:
    """`python -m downloadjobs_api` serves where its settings say, whatever gunicorn's own variables are."""
    env = {
        "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:1 --workers 7 --access-logfile -",
        "WEB_CONCURRENCY": "6",
        "FORWARDED_ALLOW_IPS": "*",
        "LOG_LEVEL": "debug",
    }
    with ApiProcess(["-m", "downloadjobs_api"], env) as process, process.wire() as wire:
        answer = wire.get("/livez")
        assert (answer.status, answer.headers.get("server")) == (200, None)
        assert "date" in answer.headers
        assert process.wait_for("listening")["workers"] == 1
        assert process.stop() == 0


def test_every_line_is_json_and_stands_once(patient: ApiProcess, wire: Wire) -> None:
    """The lines of gunicorn and uvicorn go through our root, each once; neither logs requests."""
    wire.get("/unlogged")
    lines = [json.loads(line) for line in tuple(patient.output)]
    assert [line for line in lines if "unlogged" in line["event"]] == []
    stamped = [(line["timestamp"], line["event"]) for line in lines]
    assert len(stamped) == len(set(stamped))
    assert len(patient.events("listening")) == 1


def test_a_taken_port_ends_the_process_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Where another process listens, the server says so in one sentence and exits with 2, trying no more."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as exit_:
            serve(ApiSettings(host="127.0.0.1", port=port), lambda _settings, _drain: pytest.fail("started"))
    assert exit_.value.code == EXIT_SETTINGS
    expected = f"cannot listen on 127.0.0.1, port {port}: Address already in use; set HOST or PORT.\n"
    assert capsys.readouterr().err == f"downloadjobs-api: {expected}"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "not..a..host"])
def test_a_host_that_is_not_ours_ends_the_process_at_once(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A HOST that this machine does not have, or that nobody knows, is one sentence and code 2."""
    with pytest.raises(SystemExit) as exit_:
        serve(ApiSettings(host=host, port=0), lambda _settings, _drain: pytest.fail("started"))
    assert exit_.value.code == EXIT_SETTINGS
    assert capsys.readouterr().err.startswith(f"downloadjobs-api: cannot listen on {host}, port 0: ")


def test_ipv6_addresses_are_told_in_brackets() -> None:
    """HOST may be an IPv6 address, and the log says it as URLs do."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("needs IPv6")
    with start(HOST="::1") as process:
        assert process.wait_for("listening")["address"].startswith("http://[::1]:")


# What is no request


@pytest.mark.contract("server")
@pytest.mark.parametrize(
    "request_",
    [
        pytest.param("hello\r\n\r\n", id="no HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", id="TLS"),
        pytest.param("BREW / HTTP/1.1\r\nHost: test\r\n\r\n", id="unknown method"),
        pytest.param("CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n", id="CONNECT"),
        pytest.param("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 preface"),
        pytest.param("GET / HTTP/2.0\r\nHost: test\r\n\r\n", id="HTTP/2.0"),
        pytest.param("GET / HTTP/0.9\r\n\r\n", id="HTTP/0.9"),
        pytest.param("GET / HTTP/1.1\r\n\r\n", id="no Host"),
        pytest.param("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two Hosts"),
        pytest.param(b"GET /\xff?\xff HTTP/1.1\r\nHost: test\r\n\r\n", id="URL not ASCII"),
        pytest.param("GET http://a:b:c/ HTTP/1.1\r\nHost: test\r\n\r\n", id="URL not valid"),
        pytest.param("GET / HTTP/1.1\r\nHost : test\r\n\r\n", id="space before colon"),
        pytest.param("GET / HTTP/1.1\r\nHost: test\r\nA: b\r\n c\r\n\r\n", id="folded header"),
        pytest.param("GET / HTTP/1.1\nHost: test\n\n", id="bare LF"),
        pytest.param("GET / HTTP/1.1\r\nHost: test\r\nA: \0\r\n\r\n", id="NUL"),
    ],
)
def test_what_is_no_request_is_answered_as_by_the_app(wire: Wire, request_: str | bytes) -> None:
    """What cannot be a request gets a problem with a request id and security headers, then the end."""
    wire.send(request_)
    answer = wire.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(SECURITY_HEADERS) <= set(answer.headers.items())
    problem = answer.json
    assert problem["type"] == "https://downloadjobs.dev/problems/bad-request"
    assert (problem["status"], problem["error"]) == (400, "bad-request")
    assert problem["message"]
    assert problem["title"]
    assert problem["requestId"] == answer.headers["x-request-id"]
    assert wire.rest() == b""


def test_a_refusal_has_the_clients_request_id(patient: ApiProcess, wire: Wire) -> None:
    """If the client named its request before the fault, the answer and the log have that name."""
    wire.send("GET / HTTP/1.1\r\nX-Request-ID: my-own\r\n\r\n")
    answer = wire.answer()
    assert (answer.headers["x-request-id"], answer.json["requestId"]) == ("my-own", "my-own")
    assert patient.wait_for("request refused", request_id="my-own")["status"] == 400


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(
            with_headers("Host: a", "Content-Length: 3", "Transfer-Encoding: chunked"), id="length and coding"
        ),
        pytest.param(
            with_headers("Host: a", "Transfer-Encoding: chunked", "Content-Length: 3"), id="coding and length"
        ),
        pytest.param(with_headers("Host: a", "Content-Length: 3", "Content-Length: 4"), id="two lengths"),
        pytest.param(
            with_headers("Host: a", "Content-Length: 3", "Content-Length: 3"), id="the same length twice"
        ),
        pytest.param(with_headers("Host: a", "Content-Length: 3, 3"), id="list of lengths"),
        pytest.param(with_headers("Host: a", "Content-Length: +3"), id="signed length"),
        pytest.param(with_headers("Host: a", "Transfer-Encoding: gzip, chunked"), id="two codings"),
        pytest.param(
            with_headers("Host: a", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"),
            id="two codings, two lines",
        ),
        pytest.param(with_headers("Host: a", "Transfer-Encoding: xchunked"), id="unknown coding"),
        pytest.param(
            with_headers("Host: a", "Transfer-Encoding: chunked", version="1.0"), id="chunked HTTP/1.0"
        ),
    ],
)
def test_ambiguous_framing_is_refused(patient: ApiProcess, wire: Wire, head: str) -> None:
    """Where two readers may see different ends of a body (RFC 9112 section 6.3), the app sees none."""
    bodies = whole_bodies(patient)
    wire.send(head + "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.answer().status == 400
    assert wire.rest() == b""
    assert whole_bodies(patient) == bodies


def test_a_fault_behind_a_request_waits_for_its_answer(wire: Wire) -> None:
    """Answers come in the order of their requests (RFC 9112 section 9.3.2), refusals among them."""
    wire.send("GET /sleep?seconds=0.2 HTTP/1.1\r\nHost: a\r\n\r\nhello\r\n\r\n")
    assert wire.answer().status == 200
    assert wire.answer().status == 400


def test_a_fault_within_a_body_ends_its_request(patient: ApiProcess, wire: Wire) -> None:
    """A chunk that is none refuses the request, and the app does not take the part before it for the body."""
    bodies = whole_bodies(patient)
    wire.send(CHUNKED + "5\r\nhello\r\n")
    time.sleep(0.05)
    wire.send("nonsense\r\n")
    assert wire.answer().status == 400
    assert wire.rest() == b""
    assert whole_bodies(patient) == bodies


def test_a_fault_in_a_queued_body_waits_too(wire: Wire) -> None:
    """The same behind another request: that one is answered first."""
    wire.send("GET /sleep?seconds=0.2 HTTP/1.1\r\nHost: a\r\n\r\n" + CHUNKED + "nonsense\r\n")
    assert wire.answer().status == 200
    assert wire.answer().status == 400
    assert wire.rest() == b""


# Sizes


@pytest.mark.parametrize(("length", "status"), [(MAX_TARGET_BYTES, 200), (MAX_TARGET_BYTES + 1, 414)])
def test_urls_have_a_length(wire: Wire, length: int, status: int) -> None:
    """A URL may have 16 KiB; a longer one is 414."""
    assert wire.get("/" + "a" * (length - 1)).status == status


@pytest.mark.parametrize(("length", "status"), [(MAX_HEADER_BYTES, 200), (MAX_HEADER_BYTES + 1, 431)])
def test_headers_have_a_length(wire: Wire, length: int, status: int) -> None:
    """Names and values may have 64 KiB together; more is 431."""
    value = "a" * (length - len("Host") - len("test") - len("A"))
    wire.send(f"GET / HTTP/1.1\r\nHost: test\r\nA: {value}\r\n\r\n")
    answer = wire.answer()
    assert answer.status == status
    if status != 200:
        assert answer.json["error"] == "headers-too-large"


@pytest.mark.parametrize(
    ("beginning", "status"),
    [
        pytest.param("GET /", 414, id="URL"),
        pytest.param("GET / HTTP/1.1\r\nA: ", 431, id="header"),
        pytest.param(CHUNKED + "0\r\nA: ", 431, id="trailer"),
        pytest.param(CHUNKED + "5;a=", 431, id="chunk extension"),
        pytest.param("GET / HTTP/1.1\r\nHost: test\r\n\r\nGET /", 414, id="next URL"),
    ],
)
def test_nothing_grows_without_end(wire: Wire, beginning: str, status: int) -> None:
    """What has no end is refused when it is too long, not kept until memory ends."""
    wire.send(beginning)
    for _ in range(64):
        wire.send("a" * 4096)
    answer = wire.answer()
    assert (wire.answer() if answer.status == 200 else answer).status == status


def test_nothing_at_all_ends_too(wire: Wire) -> None:
    """Empty lines before a request are allowed (RFC 9112 section 2.2), but not without end."""
    wire.send("\r\n" + "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    assert wire.answer().status == 200
    wire.send("\r\n" * 64 * 1024)
    assert wire.answer().status == 431


def test_more_requests_at_once_than_are_kept_are_refused(wire: Wire) -> None:
    """Requests that wait for an answer on one connection are bounded; those before the bound are answered."""
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n" * (MAX_PIPELINED + 10))
    statuses = [wire.answer().status for _ in range(MAX_PIPELINED + 2)]
    assert statuses == [200] * (MAX_PIPELINED + 1) + [400]
    assert wire.rest() == b""


# What is a request


def test_http_1_0_is_answered_and_closed(wire: Wire) -> None:
    """A client of HTTP/1.0 gets its answer, without Host, and then the end of the connection."""
    wire.send("GET /old HTTP/1.0\r\n\r\n")
    answer = wire.answer()
    assert (answer.status, answer.json["path"]) == (200, "/old")
    assert wire.rest() == b""


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    """Several requests sent at once have their answers in order, bodies among them."""
    post = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    wire.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n" + post + "GET /c HTTP/1.1\r\nHost: a\r\n\r\n")
    answers = [wire.answer().json for _ in range(3)]
    assert [(answer["path"], answer["body"]) for answer in answers] == [
        ("/a", ""),
        ("/b", "hello"),
        ("/c", ""),
    ]


@pytest.mark.parametrize("url", ["/a%20b?c=d%20e", "http://elsewhere/a%20b?c=d%20e", "/a%20b?c=d%20e#f"])
def test_urls_may_be_absolute(wire: Wire, url: str) -> None:
    """Of a URL, path and query count, whichever form it has (RFC 9112 section 3.2.2)."""
    answer = wire.get(url).json
    assert (answer["path"], answer["query"]) == ("/a b", "c=d%20e")


def test_a_client_may_wait_to_be_asked_for_the_body(wire: Wire) -> None:
    """`Expect: 100-continue` gets its 100, then the answer."""
    wire.send(with_headers("Host: a", "Content-Length: 5", "Expect: 100-continue"))
    assert wire.answer().status == 100
    wire.send("hello")
    assert wire.answer().json["body"] == "hello"


@pytest.mark.parametrize(
    "more", [(), ("Expect: 100-continue",), ("Connection: Upgrade", "Upgrade: h2c")], ids=str
)
def test_a_body_that_is_announced_too_large_is_not_invited(wire: Wire, more: tuple[str, ...]) -> None:
    """A length over the limit is refused by its head behind the answers before it; the limit is read."""
    wire.send(with_headers("Host: a", f"Content-Length: {MAX_BODY_BYTES}", "Expect: 100-continue"))
    assert wire.answer().status == 100
    wire.send("a" * MAX_BODY_BYTES)
    large = with_headers("Host: a", f"Content-Length: {MAX_BODY_BYTES + 1}", "X-Request-ID: mine", *more)
    wire.send("GET /sleep?seconds=0.2 HTTP/1.1\r\nHost: a\r\n\r\n" + large)
    assert [wire.answer().status for _ in range(2)] == [200, 200]
    answer = wire.answer()
    assert (answer.status, answer.json["error"]) == (413, "body-too-large")
    assert (answer.headers["x-request-id"], answer.headers["connection"]) == ("mine", "close")
    assert wire.rest() == b""


def test_an_upgrade_is_not_accepted_and_does_no_harm(wire: Wire) -> None:
    """Who asks for an upgrade, as Java's client always does, is answered in HTTP/1.1, body and all."""
    upgrade = ("Host: a", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAE")
    inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    wire.send(with_headers(*upgrade, f"Content-Length: {len(inner)}"))
    time.sleep(0.05)
    wire.send(inner + with_headers(*upgrade, "Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n")
    assert wire.answer().json["body"] == inner
    assert wire.answer().json["body"] == "hello"
    bodiless = with_headers(*upgrade).replace("POST /", "GET /upgrade")
    wire.send(bodiless * 3)
    assert [wire.answer().json["path"] for _ in range(3)] == ["/upgrade"] * 3
    assert wire.get("/next").json["path"] == "/next"
    wire.send(bodiless + "GET / HTTP/1.1\r\n\r\n")
    assert wire.answer().json["path"] == "/upgrade"
    assert "one Host header" in wire.answer().json["message"]


def test_trailers_are_not_headers(wire: Wire) -> None:
    """A field after the body cannot say who the user is (RFC 9110 section 6.5.1)."""
    wire.send(CHUNKED + "5\r\nhello\r\n0\r\nX-User-Id: root\r\n\r\n")
    answer = wire.answer().json
    assert (answer["body"], answer["user"]) == ("hello", None)


def test_what_the_app_does_not_catch_is_a_problem_too(wire: Wire) -> None:
    """An error past the app's own handlers is a 500 that looks like every other."""
    answer = wire.get("/fault")
    assert (answer.status, answer.json["error"]) == (500, "internal-error")
    assert set(SECURITY_HEADERS) <= set(answer.headers.items())


# Bodies


@pytest.mark.contract("server")
@pytest.mark.parametrize(
    "part",
    [
        pytest.param(with_headers("Host: a", "Content-Length: 10") + "hello", id="length"),
        pytest.param(CHUNKED + "5\r\nhello\r\n", id="chunked"),
        pytest.param(CHUNKED + "5\r\nhel", id="within a chunk"),
        pytest.param(with_headers("Host: a", "Content-Length: 10"), id="nothing"),
    ],
)
@pytest.mark.parametrize("pause", [0, 0.05], ids=["at once", "later"])
def test_a_body_cut_short_never_counts_as_whole(patient: ApiProcess, part: str, pause: float) -> None:
    """A client that goes away within its body: the app's read raises, where Falcon would return the part."""
    bodies = whole_bodies(patient)
    with patient.wire() as wire:
        wire.send(part)
        time.sleep(pause)
    assert whole_bodies(patient) == bodies


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_an_early_answer_arrives(wire: Wire, connection: str) -> None:
    """A client that still sends its body when the answer is out can read it, and go on if it may."""
    wire.send(in_chunks(8 * 1024 * 1024, f"Connection: {connection}").replace("/", "/deaf", 1))
    assert wire.answer().status == 413
    if connection == "close":
        assert wire.rest() == b""
    else:
        assert wire.get("/next").json["path"] == "/next"


# Times


@pytest.mark.contract("server")
def test_a_head_has_a_time(impatient: ApiProcess) -> None:
    """A connection whose first request's head is not whole in time is closed, whether bytes come or none."""
    began = time.monotonic()
    with impatient.wire() as silent, impatient.wire() as slow:
        for byte in "GET / HTTP/1.1":
            slow.send(byte)
            time.sleep(IMPATIENCE_SECONDS / 20)
        assert (silent.rest(), slow.rest()) == (b"", b"")
    assert time.monotonic() - began < IMPATIENCE_SECONDS * 3


def test_a_following_head_has_its_own_time(hasty: Wire) -> None:
    """An idle connection may stay; once the next request begins, its head has the same time."""
    assert hasty.get("/").status == 200
    time.sleep(IMPATIENCE_SECONDS * 2)
    assert hasty.get("/").status == 200
    hasty.send("GET / HT")
    began = time.monotonic()
    assert hasty.rest() == b""
    assert time.monotonic() - began >= IMPATIENCE_SECONDS * 0.9


def test_a_body_that_stops_is_given_up(impatient: ApiProcess, hasty: Wire) -> None:
    """A body may come slowly; when none of it comes for a while that is the answer, and the end."""
    bodies = whole_bodies(impatient)
    hasty.send(with_headers("Host: a", "Content-Length: 10"))
    for _ in range(4):
        time.sleep(IMPATIENCE_SECONDS * 0.4)
        hasty.send("a")
    assert_too_slow(hasty)
    assert whole_bodies(impatient) == bodies


def assert_too_slow(wire: Wire) -> None:
    """The request is answered for its body, and the connection ends."""
    answer = wire.answer()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["error"] == "body-too-slow"
    assert answer.json["requestId"] == answer.headers["x-request-id"]
    assert wire.rest() == b""


def drip(wire: Wire, part: str, seconds: float) -> None:
    """Send a part over and over, until the server has answered."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([wire.socket], [], [], IMPATIENCE_SECONDS / 5)[0]:
            return
        wire.send(part)
    pytest.fail("it went on")


@pytest.mark.parametrize(
    ("beginning", "part"),
    [
        pytest.param(CHUNKED, "0", id="size"),
        pytest.param(CHUNKED + "1;", "x", id="extension"),
        pytest.param(CHUNKED.replace("/", "/sleep", 1), "0", id="another path"),
        pytest.param(CHUNKED + "1\r\n{\r\n", "0", id="size of the next"),
        pytest.param(CHUNKED + "2\r\n{}\r\n0\r\n", "X", id="trailer"),
    ],
)
def test_only_the_bodys_own_bytes_renew_its_time(
    impatient: ApiProcess, hasty: Wire, beginning: str, part: str
) -> None:
    """Who sends nothing but what stands around the parts of a body is given up, as who sends nothing."""
    bodies = whole_bodies(impatient)
    began = time.monotonic()
    hasty.send(beginning)
    drip(hasty, part, IMPATIENCE_SECONDS * 10)
    assert_too_slow(hasty)
    assert time.monotonic() - began >= IMPATIENCE_SECONDS * 0.9
    assert whole_bodies(impatient) == bodies


def test_a_body_that_is_slow_behind_a_request_waits_for_its_answer(hasty: Wire) -> None:
    """The time of a queued body runs once it is its turn, and the answers before it come first."""
    seconds = IMPATIENCE_SECONDS * 2
    hasty.send(f"GET /sleep?seconds={seconds} HTTP/1.1\r\nHost: a\r\n\r\n{CHUNKED}1;")
    assert hasty.answer().status == 200
    assert_too_slow(hasty)


@pytest.mark.parametrize("head", [CHUNKED, with_headers("Host: a", "Content-Length: 10")])
def test_the_first_part_of_a_body_has_the_time_of_a_request(head: str) -> None:
    """Until then the app, which ends what takes longer than REQUEST_TIMEOUT_MS, has not heard of it."""
    with start(REQUEST_TIMEOUT_MS="300") as process, process.wire() as wire, process.wire() as going:
        going.send(head + ("1\r\na\r\n" if head == CHUNKED else "a"))
        wire.send(head)
        assert_too_slow(wire)
        going.send("9\r\naaaaaaaaa\r\n0\r\n\r\n" if head == CHUNKED else "aaaaaaaaa")
        assert going.answer().json["body"] == "a" * 10
        assert process.wait_for("request refused")["status"] == 408


def test_a_slow_answer_has_all_the_time(hasty: Wire) -> None:
    """While the server owes an answer no time runs out, even with a part of the next request there."""
    seconds = IMPATIENCE_SECONDS * 2
    hasty.send(f"GET /sleep?seconds={seconds} HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n")
    assert hasty.answer().status == 200
    hasty.send("Host: a\r\n\r\n")
    assert hasty.answer().status == 200


def test_a_slow_app_is_not_its_clients_fault(hasty: Wire) -> None:
    """The time of a body runs while the app takes what comes, and not while it lets the client wait."""
    length = 4 * 1024 * 1024  # more than any buffer on the way holds
    hasty.send(in_chunks(length).replace("/", "/slow", 1))
    assert hasty.answer().json == length


def test_the_rest_of_an_answered_body_has_a_time(hasty: Wire) -> None:
    """After an early answer the rest of the body is waited for a moment only."""
    hasty.send("POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\na")
    assert hasty.answer().status == 413
    assert hasty.rest() == b""


# The end


def test_the_drain_is_an_event() -> None:
    """Whoever waits for the drain goes on when it begins, and at once afterwards."""

    async def scenario() -> None:
        drain = Drain()
        waiting = asyncio.create_task(drain.wait())
        await asyncio.sleep(0)
        assert (drain.begun, waiting.done()) == (False, False)
        drain.begin()
        drain.begin()
        await waiting
        await drain.wait()
        assert drain.begun

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drains(number: signal.Signals) -> None:
    """SIGTERM or Ctrl-C: idle connections end, polls are woken, other requests finish, the exit code is 0."""
    with start(DRAIN_SECONDS="5") as process:
        with process.wire() as idle, process.wire() as poll, process.wire() as busy:
            assert idle.get("/").status == 200
            poll.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n")
            busy.send("GET /sleep?seconds=1 HTTP/1.1\r\nHost: a\r\n\r\n")
            process.wait_for("polling")
            process.wait_for("sleeping")
            if number == signal.SIGINT:
                os.killpg(process.process.pid, number)  # as a terminal does
            else:
                process.process.send_signal(number)
            assert idle.rest() == b""
            assert poll.answer().json == {"drain": True}
            assert select.select([busy.socket], [], [], 0) == ([], [], [])
            last = busy.answer()
            assert (last.status, last.headers["connection"]) == (200, "close")
        assert process.wait() == 0
        assert process.wait_for("draining")["requests"] == 2
        assert len(process.events("stopped")) == 1
    assert [line for line in process.output if "Traceback" in line or '"exception"' in line] == []


def test_a_second_interrupt_ends_the_drain() -> None:
    """Who presses Ctrl-C again does not wait for what still runs."""
    with start() as process, process.wire() as wire:
        wire.send("GET /sleep?seconds=60 HTTP/1.1\r\nHost: a\r\n\r\n")
        process.wait_for("sleeping")
        os.killpg(process.process.pid, signal.SIGINT)
        process.wait_for("draining")
        os.killpg(process.process.pid, signal.SIGINT)
        assert process.wait() == 0
    assert [line for line in process.output if "Traceback" in line or '"exception"' in line] == []


def test_a_drain_has_a_time() -> None:
    """What is not done after DRAIN_SECONDS is answered with 503, and the process still ends in order."""
    with start(DRAIN_SECONDS="0.3") as process:
        with process.wire() as wire:
            wire.send("GET /sleep?seconds=60 HTTP/1.1\r\nHost: a\r\n\r\n")
            process.wait_for("sleeping")
            process.process.send_signal(signal.SIGTERM)
            answer = wire.answer()
            assert (answer.status, answer.json["error"]) == (503, "draining")
        assert process.wait() == 0
        assert len(process.events("stopped")) == 1


def test_a_stop_during_the_start_is_heard() -> None:
    """An app that is not up yet does not keep the process from ending."""
    with start("hangs") as process:
        process.wait_for("starting")
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 3
    assert [line for line in process.output if "Traceback" in line or '"exception"' in line] == []


def test_an_app_that_does_not_start_ends_the_process() -> None:
    """Where the app fails at its start the process says why and exits with 3, without trying again."""
    with start("fails") as process:
        assert process.wait() == 3
        assert len(process.events("starting")) == 1
    assert [line for line in process.output if "no database" in line]


def test_workers_answer_beside_each_other_and_are_replaced() -> None:
    """With two workers one answers while the other is blocked; one that is killed is replaced."""
    with start(API_WORKERS="2") as process:
        process.wait_for("starting", count=2)
        with process.wire() as blocked:
            blocked.send("GET /sleep?seconds=1&block=true HTTP/1.1\r\nHost: a\r\n\r\n")
            process.wait_for("sleeping")
            with process.wire() as wire:
                pid = wire.get("/").json["pid"]
            assert blocked.answer().json["pid"] != pid
        os.kill(pid, signal.SIGKILL)
        assert process.wait_for("starting", count=3)["pid"] != pid
        assert process.stop() == 0


def test_a_worker_ends_without_its_master() -> None:
    """When the master was killed its worker drains and ends: it would else hold the port for ever."""
    with start() as process:
        process.wait_for("starting")
        with process.wire() as wire:
            assert wire.get("/").status == 200
            process.process.kill()
            assert wire.rest() == b""
        assert process.wait_for("draining")["cause"] == "the master is gone"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_signals_to_reload_are_ignored(patient: ApiProcess, number: signal.Signals) -> None:
    """SIGHUP and SIGUSR2 to master and workers change nothing: settings are the environment."""
    with patient.wire() as wire:
        pid = wire.get("/").json["pid"]
        os.killpg(patient.process.pid, number)
        time.sleep(0.2)
        assert wire.get("/").json["pid"] == pid
    assert len(patient.events("starting")) == 1
