"""What every request passes: limits of all replicas, CORS, tokens, ownership, time-outs. Real servers."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import falcon.inspect
import httpx
import jwt
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric import ec

from downloadjobs_api import dashboard
from downloadjobs_api.app import create_app
from downloadjobs_api.cors import EXPOSED, REQUEST_HEADERS
from downloadjobs_api.drain import Drain
from downloadjobs_api.http_protocol import MAX_HEADER_BYTES
from downloadjobs_api.settings import ApiSettings
from downloadjobs_api.signing_keys import READ_SECONDS
from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from support_api_process import Answer, Wire
from support_processes import System, running
from support_servers import killed_after
from support_worker import eventually

INITIATE: Final = "/v1/download/initiate"
LIMIT: Final = 20
PAGE: Final = "https://app.example.com"
POLICY: Final = re.compile(rf'"default";q={LIMIT};w=60')
LIMITS: Final = {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "ratelimit", "ratelimit-policy"}


DATABASE: Final = 12
"""Of the session's Valkey, for what needs no limits."""


@pytest.fixture
def limited(valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path) -> Iterator[System]:
    """An API with a small limit, which believes the proxies of 127.0.0.0/8."""
    settings = {
        "RATE_LIMIT_MAX_REQUESTS": str(LIMIT),
        "TRUSTED_PROXIES": "127.0.0.0/8",
        "CORS_ORIGINS": PAGE,
        "REQUEST_TIMEOUT_MS": "1000",
    }
    system = System(valkey, seaweedfs, tmp_path, settings=settings)
    with running(system):
        system.start_api()
        yield system


def keys_of(valkey: ValkeyServer) -> dict[str, int]:
    """The counters in Redis, and in how many ms each ends."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        return {name: int(client.pttl(name)) for name in client.scan_iter("*:rate:*")}


@pytest.mark.contract("rate-limit")
def test_processes_share_the_limit(
    limited: System, valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path
) -> None:
    """Of requests at two processes at once exactly as many are answered as one client may make."""
    other = System(valkey, seaweedfs, tmp_path, settings=limited.settings)
    with running(other):
        other.start_api()
        with limited.client() as one, other.client() as two, ThreadPoolExecutor(8) as threads:
            asked = [(one, two)[n % 2] for n in range(3 * LIMIT)]
            answers = list(threads.map(lambda client: client.get("/v1/download/status/none"), asked))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [404] * LIMIT + [429] * 2 * LIMIT
    told = sorted(int(answer.headers["ratelimit-remaining"]) for answer in answers)
    assert told == [0] * (2 * LIMIT + 1) + list(range(1, LIMIT))  # each has its own number
    assert all(0 < left <= 60_000 for left in keys_of(valkey).values())
    assert len(keys_of(valkey)) == 1


@pytest.mark.contract("headers")
def test_headers_tell_what_is_left(limited: System) -> None:
    """Every answer has both kinds of headers, which agree, and say when to come again."""
    with limited.client() as client:
        answers = [client.get("/") for _ in range(LIMIT + 1)]
    with limited.client("eve") as eve:
        missing, wrong = eve.get("/nowhere"), eve.put("/")
    for number, answer in enumerate(answers):
        headers = answer.headers
        left = max(0, LIMIT - number - 1)
        assert answer.status_code == (200 if number < LIMIT else 429)
        assert (headers["ratelimit-limit"], headers["ratelimit-remaining"]) == (str(LIMIT), str(left))
        assert headers["ratelimit"] == f'"default";r={left};t={headers["ratelimit-reset"]}'
        assert POLICY.fullmatch(headers["ratelimit-policy"])
        assert 0 < int(headers["ratelimit-reset"]) <= 60
    assert answers[-1].json()["error"] == "rate-limited"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    for answer in (missing, wrong):
        assert set(answer.headers) >= LIMITS


@pytest.mark.contract("headers")
def test_answers_of_the_server_itself_tell_of_no_limit(limited: System) -> None:
    """What is refused by its head is not counted, what is ended within its body is; neither has limits."""
    head = f"POST {INITIATE} HTTP/1.1\r\nHost: x\r\nx-user-id: ada\r\nContent-Type: application/json\r\n"
    refused = {
        f"GET / HTTP/1.1\r\nHost: {'a' * MAX_HEADER_BYTES}\r\n\r\n": 431,
        f"{head}Content-Length: 9999999\r\n\r\n": 413,
    }
    with limited.client() as client:
        for request, status in refused.items():
            with Wire(limited.port) as wire:
                wire.send(request)
                answer = wire.answer()
            assert (answer.status, LIMITS & set(answer.headers)) == (status, set())
        assert client.get("/").headers["ratelimit-remaining"] == str(LIMIT - 1)
        with Wire(limited.port) as wire:
            wire.send(f"{head}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n")
            time.sleep(0.3)  # the app begins to read
            wire.send("nonsense\r\n")
            answer = wire.answer()
        assert (answer.status, LIMITS & set(answer.headers)) == (400, set())
        assert client.get("/").headers["ratelimit-remaining"] == str(LIMIT - 3)


@pytest.mark.contract("rate-limit")
def test_a_refused_request_changes_nothing(limited: System, valkey: ValkeyServer) -> None:
    """One request too many is refused before its body is read, and a refused client's count stays small."""
    with limited.client() as client:
        for _ in range(LIMIT):
            client.get("/")
        before = keys_of(valkey)
        for _ in range(50):
            assert client.post(INITIATE, json={"file_ids": [10_000]}).status_code == 429
    with redis.Redis.from_url(valkey.url, decode_responses=True) as looked:
        assert looked.get("{downloadjobs}:rate:user:ada") == str(LIMIT)  # refused from memory
        assert not list(looked.scan_iter("*:job:*"))
    assert keys_of(valkey).keys() == before.keys()


@pytest.mark.contract("rate-limit")
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_are_not_limited(limited: System, path: str) -> None:
    """What the platform asks is always answered, and has no headers of a limit."""
    with limited.client() as client:
        answers = [client.get(path) for _ in range(LIMIT + 5)]
    assert {answer.status_code for answer in answers} == {200}
    assert not LIMITS & set(answers[0].headers)


def test_only_what_the_page_consists_of_is_not_limited(limited: System) -> None:
    """The page and its files are not counted; what only begins like them is, and a file that is none."""
    with limited.client() as client:
        for path in sorted(dashboard.paths()):
            answer = client.get(path)
            assert answer.status_code == 200
            assert not LIMITS & set(answer.headers)
        for path in ("/dashboardxyz", "/dashboard/", "/dashboard/nothing.js", "/dashboard/config.json/x"):
            answer = client.get(path)
            assert answer.status_code in {308, 404}
            assert set(answer.headers) >= LIMITS


@pytest.mark.contract("rate-limit")
def test_who_is_not_signed_in_is_counted_by_address(limited: System, valkey: ValkeyServer) -> None:
    """Behind a trusted proxy each client has its own count, whatever it writes into the header itself."""
    with limited.client("") as client:
        for forged in ("1.1.1.1", "2.2.2.2", "garbage"):
            client.get("/", headers={"x-forwarded-for": f"{forged}, 203.0.113.9"})
        left = client.get("/", headers={"x-forwarded-for": "203.0.113.10"}).headers["ratelimit-remaining"]
    assert int(left) == LIMIT - 1
    names = {name.partition(":rate:")[2] for name in keys_of(valkey)}
    assert names == {"address:203.0.113.9", "address:203.0.113.10"}


def test_without_redis_requests_are_let_through(seaweedfs: SeaweedServer, tmp_path: Path) -> None:
    """A count that cannot be had refuses nobody: what needs Redis says 503, and limits come back with it."""
    with killed_after(ValkeyServer(tmp_path / "valkey")) as valkey:
        system = System(valkey, seaweedfs, tmp_path, settings={"RATE_LIMIT_MAX_REQUESTS": "3"})
        with running(system):
            child = system.start_api()
            with system.client() as client:
                valkey.kill()
                answers = [client.get("/") for _ in range(10)]
                assert {answer.status_code for answer in answers} == {200}
                assert not {"ratelimit", "ratelimit-remaining"} & set(answers[-1].headers)
                assert client.get("/v1/download/status/x").status_code == 503
                valkey.start()
                eventually(
                    lambda: "ratelimit-remaining" in client.get("/").headers,
                    20,
                    "limits after Redis came back",
                )
            log = child.log_tail()
            assert log.count("requests are not limited") == 1
            assert "requests are limited again" in log


@pytest.mark.contract("headers")
def test_a_preflight_needs_no_user(limited: System) -> None:
    """A browser's question is answered for every path, and names all headers that the API takes."""
    with limited.client("") as client:
        answer = client.options(INITIATE, headers={"origin": PAGE, "access-control-request-method": "POST"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-headers"] == ", ".join(REQUEST_HEADERS)
    assert {"GET", "POST", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.contract("headers")
@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/nowhere", 404), ("/v1/jobs/x", 401)])
def test_only_named_origins_may_read(limited: System, path: str, status: int) -> None:
    """Good answers and errors say whose pages may read them, and that this differs by origin."""
    with limited.client("") as client:
        good = client.get(path, headers={"origin": PAGE})
        evil = client.get(path, headers={"origin": "https://evil.example"})
    assert (good.status_code, evil.status_code) == (status, status)
    assert good.headers["access-control-allow-origin"] == PAGE
    assert good.headers["access-control-expose-headers"] == ", ".join(EXPOSED)
    assert "access-control-allow-origin" not in evil.headers
    assert "Origin" in good.headers["vary"]
    assert "Origin" in evil.headers["vary"]


def test_what_the_server_refuses_may_be_read_too(limited: System) -> None:
    """A request that is no HTTP for us is answered with the same headers."""
    with Wire(limited.port) as wire:
        wire.send(f"GET / HTTP/1.1\r\nOrigin: {PAGE}\r\n\r\n")
        answer = wire.answer()
    assert answer.status == 400
    assert answer.headers["access-control-allow-origin"] == PAGE


def dripped(wire: Wire, part: str) -> Answer:
    """The answer to a request that is sent a part of over and over."""
    wire.socket.settimeout(0.1)
    for _ in range(100):
        wire.send(part)
        try:
            if wire.socket.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            continue
    wire.socket.settimeout(10)
    return wire.answer()


def test_a_body_that_trickles_ends(limited: System) -> None:
    """A body that is not whole in time is answered with 408, however steadily its bytes come."""
    with Wire(limited.port) as wire:
        wire.send(
            f"POST {INITIATE} HTTP/1.1\r\nHost: x\r\nx-user-id: ada\r\nContent-Type: application/json\r\n"
            "Content-Length: 1000\r\n\r\n"
        )
        started = time.monotonic()
        answer = dripped(wire, " ")
    assert answer.status == 408
    assert answer.json["error"] == "body-too-slow"
    assert answer.headers["connection"] == "close"
    assert 1 <= time.monotonic() - started < 8


@pytest.mark.parametrize("path", [INITIATE, "/nowhere"])
def test_a_body_that_never_begins_ends(limited: System, path: str) -> None:
    """Whoever sends the beginning of a chunk's size over and over, has the time of a request, user or not."""
    with Wire(limited.port) as wire:
        wire.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        started = time.monotonic()
        answer = dripped(wire, "0")
    assert (answer.status, answer.json["error"]) == (408, "body-too-slow")
    assert 1 <= time.monotonic() - started < 8


def test_a_request_that_takes_too_long_ends(
    valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path
) -> None:
    """REQUEST_TIMEOUT_MS ends what is no call to storage, too, and the connection goes on."""
    slow = {
        "DOWNLOAD_DELAY_ENABLED": "true",
        "DOWNLOAD_DELAY_MIN_MS": "60000",
        "DOWNLOAD_DELAY_MAX_MS": "60001",
    }
    system = System(valkey, seaweedfs, tmp_path, settings={"REQUEST_TIMEOUT_MS": "500", **slow})
    with running(system):
        system.start_api()
        with system.client() as client:
            answer = client.post("/v1/download/start", json={"file_id": 10_000})
            assert (answer.status_code, answer.json()["error"]) == (504, "request-timeout")
            assert answer.headers["retry-after"]
            assert client.get("/").status_code == 200


LEEWAY: Final = 30
"""`JWT_LEEWAY_SECONDS`, by default."""

KEY: Final = ec.generate_private_key(ec.SECP256R1())


def bearer(**claims: Any) -> dict[str, str]:  # noqa: ANN401 - whatever a token may say
    """The header of a token that is good but for what is given."""
    given = {"iss": "https://sso", "aud": "us", "sub": "ada", "exp": int(time.time()) + 60} | claims
    return {"authorization": f"Bearer {jwt.encode(given, KEY, 'ES256', headers={'kid': '1'})}"}


@pytest.fixture
def signed(valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path) -> Iterator[System]:
    """An API in the mode jwt, with the keys in a file."""
    public = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "1"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [public]}))
    settings = {
        "AUTH_MODE": "jwt",
        "JWT_ISSUER": "https://sso",
        "JWT_AUDIENCE": "us",
        "JWT_JWKS_FILE": str(tmp_path / "jwks.json"),
    }
    system = System(valkey, seaweedfs, tmp_path, settings=settings)
    with running(system):
        system.start_api()
        yield system


@pytest.mark.contract("identity")
def test_tokens_say_who_asks(signed: System) -> None:
    """A token is a user's, whatever the user's header says; a bad one is 401 and never repeated."""
    with httpx.Client(base_url=f"http://127.0.0.1:{signed.port}", trust_env=False) as client:
        made = client.post(INITIATE, json={"file_ids": [10_000]}, headers=bearer())
        status = f"/v1/download/status/{made.json()['jobId']}"
        assert client.get(status, headers=bearer()).status_code == 200
        assert client.get(status, headers=bearer(sub="bob") | {"x-user-id": "ada"}).status_code == 403
        nobody = client.get(status, headers={"x-user-id": "ada"})
        assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
        expired = bearer(exp=int(time.time()) - 100)
        refused = client.get(status, headers=expired)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
        secret = expired["authorization"].split()[1]
        assert secret not in refused.text + str(refused.headers)
        assert client.get(status, headers=bearer(sub="k8s:default")).status_code == 403
        assert client.get(status, headers=bearer(sub="a,b")).status_code == 401
        assert client.get(status, headers={"authorization": "Bearer a, Bearer b"}).status_code == 401
        assert client.get(status, headers={"authorization": "Basic eDp5"}).status_code == 401
    assert secret not in signed.children[0].log_tail()


@contextmanager
def dripping_issuer() -> Iterator[str]:
    """The URL of an issuer whose answer never ends in its head."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not ended.wait(0.5):
                    self.wfile.write(b"A: b\r\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/keys"
        ended.set()
        server.shutdown()
        thread.join()


def test_an_issuer_that_drips_holds_up_nobody_for_long(
    valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path
) -> None:
    """Who has a token is told 503 after some seconds; probes are not asked for theirs and answer at once."""
    settings = {"AUTH_MODE": "jwt", "JWT_ISSUER": "https://sso", "JWT_AUDIENCE": "us"}
    with dripping_issuer() as url, ThreadPoolExecutor(12) as threads:
        system = System(valkey, seaweedfs, tmp_path, settings=settings | {"JWT_JWKS_URL": url})
        with running(system):
            child = system.start_api()

            def ask(path: str) -> tuple[int, float]:
                began = time.monotonic()
                with httpx.Client(base_url=f"http://127.0.0.1:{system.port}", trust_env=False) as client:
                    answer = client.get(path, headers=bearer(), timeout=30)
                return answer.status_code, time.monotonic() - began

            slow = [threads.submit(ask, "/v1/jobs") for _ in range(4)]
            probes = list(threads.map(ask, ["/livez", "/readyz", "/dashboard"] * 2))
            assert {status for status, _ in probes} == {200}
            assert max(seconds for _, seconds in probes) < READ_SECONDS - 2
            answers = [asked.result() for asked in slow]
            assert {status for status, _ in answers} == {503}
            assert max(seconds for _, seconds in answers) < READ_SECONDS + 3
            assert "the issuer's keys cannot be read" in child.log_tail()


@pytest.mark.parametrize("path", ["/v1/events", "/v1/jobs/{job_id}/events"])
def test_a_stream_ends_with_its_token(signed: System, path: str) -> None:
    """A stream that a token opened ends, whole, when that does; another token goes on from there."""
    with httpx.Client(base_url=f"http://127.0.0.1:{signed.port}", trust_env=False, timeout=20) as client:
        made = client.post(INITIATE, json={"file_ids": [10_000]}, headers=bearer()).json()
        path = path.replace("{job_id}", made["jobId"])
        began = time.time()
        with client.stream("GET", path, headers=bearer(exp=int(began) - LEEWAY + 3)) as answer:
            assert answer.status_code == 200
            said = answer.read().decode()
        assert 1.5 < time.time() - began < 6
        last = re.findall(r"^id: (.+)$", said, re.MULTILINE)[-1]
        with client.stream("GET", path, headers=bearer() | {"last-event-id": last}) as answer:
            assert answer.status_code == 200


def test_a_long_poll_ends_with_its_token(signed: System) -> None:
    """It is answered when the token ends, as at the end of its time."""
    with httpx.Client(base_url=f"http://127.0.0.1:{signed.port}", trust_env=False, timeout=20) as client:
        made = client.post(INITIATE, json={"file_ids": [10_000]}, headers=bearer()).json()
        status = f"/v1/download/status/{made['jobId']}"
        began = time.time()
        answer = client.get(status, headers=bearer(exp=int(began) - LEEWAY + 3) | {"prefer": "wait=15"})
        assert 1.5 < time.time() - began < 6
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")
        assert answer.headers["preference-applied"] in {"wait=2", "wait=1"}


@pytest.mark.parametrize("path", ["/v1/download/check", "/v1/download/start"])
def test_tokens_are_asked_for_everywhere(signed: System, path: str) -> None:
    """In the mode jwt what needs no user in the mode header needs a token."""
    with httpx.Client(base_url=f"http://127.0.0.1:{signed.port}", trust_env=False) as client:
        assert client.post(path, json={"file_id": 10_000}).status_code == 401
        assert client.post(path, json={"file_id": 10_000}, headers=bearer()).status_code == 200


def routes() -> list[tuple[str, str]]:
    """Every method and path under /v1/ that the app itself has."""
    found = falcon.inspect.inspect_routes(create_app(ApiSettings(), Drain()))
    return sorted(
        (method.method, route.path)
        for route in found
        for method in route.methods
        if not method.internal and route.path.startswith("/v1/")
    )


OPEN: Final = {
    ("POST", "/v1/claims"),  # a nonce is the proof
    ("POST", "/v1/download/check"),
    ("POST", "/v1/download/start"),  # outside production
    ("GET", "/v1/mock/{token}"),  # signed
    ("GET", "/v1/webhooks/key"),  # public
}
"""What no user is needed for. All else under /v1/ needs one, whoever adds it."""


@pytest.fixture(scope="module")
def opened(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """One API for all routes, with a database of its own."""
    redis = f"redis://127.0.0.1:{valkey_server.port}/{DATABASE}"
    system = System(
        valkey_server, seaweedfs, tmp_path_factory.mktemp("routes"), settings={"REDIS_URL": redis}
    )
    with running(system):
        system.start_api()
        yield system


@pytest.mark.contract("identity")
@pytest.mark.parametrize(("method", "path"), [route for route in routes() if route not in OPEN])
def test_every_route_needs_a_user(opened: System, method: str, path: str) -> None:
    """Without a user nothing under /v1/ is answered, before anything else is looked at."""
    with opened.client("") as client:
        assert client.request(method, re.sub(r"\{\w+\}", "x", path)).status_code == 401


@pytest.mark.contract("identity")
@pytest.mark.parametrize(("method", "path"), [route for route in routes() if "{job_id}" in route[1]])
def test_every_job_is_its_owners(opened: System, method: str, path: str) -> None:
    """Whatever can be done with a job, others get 403, and for a job that there is not everybody gets 404."""
    job_id = opened.submit([10_000], user="ada")
    mine = path.replace("{job_id}", job_id)
    none = path.replace("{job_id}", str(uuid.uuid4()))
    with opened.client("eve") as eve, opened.client("ada") as ada:
        assert eve.request(method, mine).status_code == 403
        assert ada.request(method, none).status_code == 404
        assert eve.request(method, none).status_code == 404
    assert opened.status(job_id)["status"] == "queued"
