"""The API behind nginx and HAProxy, which run by the settings of `docs/following-jobs.md`."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import httpx
import pytest

from downloadjobs_api.bodies import MAX_BODY_BYTES
from downloadjobs_api.metrics import Follower
from downloadjobs_api.server import KEEP_ALIVE_SECONDS
from downloadjobs_api.settings import ApiSettings
from downloadjobs_api.streams import COMMENT_SECONDS
from downloadjobs_cli.children import Child
from downloadjobs_cli.embedded import LOOPBACK, SeaweedServer, ValkeyServer
from support_events import Stream
from support_metrics import scrape
from support_processes import System, running
from support_proxies import KINDS, Proxy, proxied, settings
from support_worker import eventually

DATABASE: Final = 13
LOGIN: Final = "login=ada"
EVENTS: Final = f"/v1/events?{LOGIN}"
AT_ONCE_SECONDS: Final = 0.15
"""An event's way to the client. Algorithms that wait for more to send take 0.2 and longer."""

needs_addresses = pytest.mark.skipif(
    sys.platform != "linux", reason="needs Linux, where 127.0.0.2 is this machine, and /proc"
)


class Apis:
    """Two processes of the API, which share everything."""

    def __init__(self, systems: Sequence[System]) -> None:
        self.systems = systems
        self.processes: list[Child] = [system.start_api() for system in systems]

    @property
    def ports(self) -> list[int]:
        """Where they listen."""
        return [system.port for system in self.systems]

    def followers(self, kind: Follower) -> float:
        """How many requests they hold."""
        return sum(scrape(process).value("live_requests", kind=kind) or 0 for process in self.processes)

    def start_anew(self, number: int) -> None:
        """Stop one in order, and start it again."""
        self.processes[number].ask_to_end()
        assert self.processes[number].wait(20)
        self.processes[number] = self.systems[number].start_api()


@pytest.fixture(scope="module")
def apis(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Apis]:
    """They believe the proxy, which is on 127.0.0.1, and no other address of this machine."""
    values = {
        "REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/{DATABASE}",
        "TRUSTED_PROXIES": f"{LOOPBACK}/32",
    }
    one, two = (
        System(valkey_server, seaweedfs, tmp_path_factory.mktemp("api"), settings=values) for _ in range(2)
    )
    with running(one), running(two):
        yield Apis((one, two))


@pytest.fixture(scope="module", params=list(KINDS))
def proxy(
    request: pytest.FixtureRequest, apis: Apis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """One proxy before them."""
    with proxied(request.param, apis.ports, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


def submit(client: httpx.Client) -> str:
    """A job, which waits: there is no worker."""
    answer = client.post(f"/v1/download/initiate?{LOGIN}", json={"file_ids": [10_003]})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


def come_at_once(proxy: Proxy) -> bool:
    """Whether events do, of a stream that says it takes gzip."""
    began = time.monotonic()
    with proxy.client() as client, Stream(proxy.url, EVENTS) as stream:
        took = [stream.wait_for("snapshot").at - began]
        for count in range(1, 6):
            began = time.monotonic()
            submit(client)
            took.append(stream.wait_for("queued", count).at - began)
    return took[0] < 5 and min(took[1:]) < AT_ONCE_SECONDS and max(took) < 5


def test_events_come_at_once(proxy: Proxy) -> None:
    """No buffer holds an event back."""
    assert come_at_once(proxy)


@pytest.mark.parametrize("name", KINDS)
def test_compression_holds_nothing_back(name: str, apis: Apis, tmp_path: Path) -> None:
    """Where a proxy compresses what it may, events come at once; JSON is smaller, and its tag still good."""
    with proxied(name, apis.ports, tmp_path, compress=True) as proxy, proxy.client() as client:
        assert come_at_once(proxy)
        answer = client.get(f"/v1/jobs?{LOGIN}")
        assert answer.headers["content-encoding"] == "gzip"
        tag = answer.headers["etag"]
        assert client.get(f"/v1/jobs?{LOGIN}", headers={"if-none-match": tag}).status_code == 304


def test_a_client_that_goes_away_is_noticed(proxy: Proxy, apis: Apis) -> None:
    """Soon after the client of a stream or of a long poll has gone, the API holds it no longer."""
    with Stream(proxy.url, EVENTS) as stream:
        stream.wait_for("snapshot")
        eventually(lambda: apis.followers(Follower.USER_STREAM) == 1, 5, "the stream")
    eventually(lambda: apis.followers(Follower.USER_STREAM) == 0, 5, "the end of the stream")
    with proxy.client() as client:
        path = f"/v1/download/status/{submit(client)}?{LOGIN}"
        with pytest.raises(httpx.ReadTimeout):
            client.get(path, headers={"prefer": "wait=40"}, timeout=1)
    eventually(lambda: apis.followers(Follower.WAIT) == 0, 5, "the end of the long poll")


@needs_addresses
def test_clients_are_told_apart_by_address(proxy: Proxy) -> None:
    """Who is not signed in is counted by address, whatever the client wrote into X-Forwarded-For."""
    addresses = {"nginx": ("127.0.0.2", "127.0.0.3"), "haproxy": ("127.0.0.4", "127.0.0.5")}[proxy.name]
    left = []
    with proxy.client(addresses[0]) as client:
        for forged in (None, "203.0.113.7", f"203.0.113.8, {addresses[1]}", LOOPBACK, "garbage"):
            headers = {} if forged is None else {"x-forwarded-for": forged}
            left.append(int(client.get("/v1/jobs", headers=headers).headers["ratelimit-remaining"]))
    assert [left[0] - one for one in left] == [0, 1, 2, 3, 4]
    with proxy.client(addresses[1]) as other:
        assert int(other.get("/v1/jobs").headers["ratelimit-remaining"]) == left[0]


def test_only_the_login_says_who_asks(proxy: Proxy) -> None:
    """The user that a client names itself counts for nothing, with a login and without."""
    forged = [("x-user-id", "eve"), ("X-User-ID", "eve")]
    with proxy.client() as client:
        assert client.get("/v1/jobs", headers=forged).status_code == 401
        path = f"/v1/download/status/{submit(client)}"
        assert client.get(f"{path}?{LOGIN}", headers=forged).status_code == 200
        assert client.get(f"{path}?login=eve", headers={"x-user-id": "ada"}).status_code == 403


def test_requests_and_answers_pass_whole(proxy: Proxy) -> None:
    """Ids, preferences, long URLs and headers, and the largest body arrive, and so do the answers."""
    with proxy.client() as client:
        large = client.get(
            f"/v1/jobs?{LOGIN}&x={'a' * 6_000}", headers={"x-request-id": "mine", "x-large": "a" * 6_000}
        )
        assert (large.status_code, large.headers.get_list("x-request-id")) == (200, ["mine"])
        body = b'{"file_ids": [10003]' + b" " * (MAX_BODY_BYTES - 21) + b"}"
        answer = client.post(
            f"/v1/download/initiate?{LOGIN}", content=body, headers={"content-type": "application/json"}
        )
        assert (len(body), answer.status_code) == (MAX_BODY_BYTES, 202)
        there = answer.headers["location"]
        assert there.startswith("/")
        waited = client.get(f"{there}?{LOGIN}", headers={"prefer": "wait=1"})
        assert (waited.status_code, waited.headers["preference-applied"]) == (200, "wait=1")
        assert client.get("/v1/jobs").headers["content-type"] == "application/problem+json"


@needs_addresses
def test_connections_are_used_again(proxy: Proxy, apis: Apis) -> None:
    """Requests do not open a connection to the API each."""
    before = connections(apis.ports)
    with proxy.client() as client:
        for _ in range(60):
            assert client.get("/livez").status_code == 200
    assert len(connections(apis.ports) - before) < 30  # health checks open some


def connections(ports: Sequence[int]) -> set[tuple[str, str]]:
    """Those to these ports that there are, or were in the last minute."""
    wanted = {f"{port:04X}" for port in ports}
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    pairs = [(line.split()[1], line.split()[2]) for line in lines]
    return {pair for pair in pairs if any(end.partition(":")[2] in wanted for end in pair)}


def test_a_reload_ends_nothing(proxy: Proxy) -> None:
    """A stream and a long poll go on while the proxy reads its settings again, and so do requests."""
    ended: list[httpx.Response] = []
    with proxy.client() as client, proxy.client() as waiting, Stream(proxy.url, EVENTS) as stream:
        stream.wait_for("snapshot")
        job_id = submit(client)
        path = f"/v1/download/status/{job_id}?{LOGIN}"
        poll = threading.Thread(
            target=lambda: ended.append(waiting.get(path, headers={"prefer": "wait=30"})), daemon=True
        )
        poll.start()
        time.sleep(0.5)
        proxy.reload()
        with proxy.client() as new:
            assert new.delete(f"/v1/jobs/{job_id}?{LOGIN}").status_code == 200
        poll.join(20)
        assert [answer.json()["status"] for answer in ended] == ["cancelled"]
        assert stream.wait_for("cancelled").data["jobId"] == job_id


def test_a_rolling_update_is_not_seen(proxy: Proxy, apis: Apis) -> None:
    """While one process of the API after the other is started anew, each request is answered."""
    done = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        with proxy.client() as client:
            while not done.is_set():
                try:
                    statuses.append(client.get(f"/v1/jobs?{LOGIN}").status_code)
                except httpx.RemoteProtocolError:
                    continue  # HAProxy closes a connection, so that the client asks again
                time.sleep(0.01)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        apis.start_anew(0)
        time.sleep(3 if proxy.name == "haproxy" else 0)  # it has the first back after two good checks
        apis.start_anew(1)
    finally:
        done.set()
        for thread in asking:
            thread.join(40)
    assert set(statuses) == {200}
    assert len(statuses) > 100


@pytest.mark.parametrize("name", KINDS)
def test_a_proxy_waits_longer_than_the_api(name: str) -> None:
    """The page's times are longer than a long poll and the time between two comments, by default."""
    times = re.findall(r"(?:proxy_read_timeout|timeout client|timeout server) +(\d+)s", settings(name))
    assert len(times) == {"nginx": 1, "haproxy": 2}[name]
    longest = ApiSettings.model_fields["long_poll_max_seconds"].default
    assert all(max(longest, COMMENT_SECONDS) + 10 < int(seconds) <= KEEP_ALIVE_SECONDS for seconds in times)


@pytest.mark.slow
def test_silence_is_survived(proxy: Proxy) -> None:
    """A stream in which nothing happens for more than a minute goes on, and so does the longest long poll."""
    with proxy.client() as client, Stream(proxy.url, EVENTS) as stream:
        job_id = submit(client)
        stream.wait_for("queued")
        path = f"/v1/download/status/{job_id}?{LOGIN}"
        answer = client.get(path, headers={"prefer": "wait=999"}, timeout=70)
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")
        assert answer.headers["preference-applied"] == "wait=50"
        eventually(lambda: stream.parser.comments >= 5, 40, "a fifth comment")
        submit(client)
        stream.wait_for("queued", 2)
