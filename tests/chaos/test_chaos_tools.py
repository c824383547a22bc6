"""The harness itself: what breaks connections breaks them, and what is wrong is seen."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from downloadjobs_cli.embedded import LOOPBACK, ValkeyServer
from downloadjobs_core.job import job_key
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT
from support_chaos_history import History
from support_chaos_proxy import SOME_BYTES, Mode, Proxy
from support_chaos_snapshot import Snapshot, contradictions
from support_worker import eventually

pytestmark = pytest.mark.chaos

PATIENCE_SECONDS = 20


class Counting(socketserver.ThreadingTCPServer):
    """Answers each line with itself, and counts them."""

    daemon_threads = True
    lines = 0


class Echo(socketserver.StreamRequestHandler):
    """One connection of `Counting`."""

    def handle(self) -> None:
        """Answer until the client goes."""
        assert isinstance(self.server, Counting)
        try:
            for line in self.rfile:
                self.server.lines += 1
                self.wfile.write(line)
        except OSError:
            return


@contextmanager
def echoing() -> Iterator[tuple[Counting, Proxy]]:
    """A server behind a proxy."""
    with Counting((LOOPBACK, 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with Proxy(server.server_address[1]) as proxy:
                yield server, proxy
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    """A client of the proxy."""
    with socket.create_connection((LOOPBACK, proxy.port), PATIENCE_SECONDS) as client:
        yield client


def ask(client: socket.socket, line: bytes) -> bytes:
    """Send a line and read its answer, which is as long."""
    client.sendall(line)
    answer = b""
    while len(answer) < len(line) and (data := client.recv(1 << 16)):
        answer += data
    return answer


def ask_often(client: socket.socket, line: bytes, times: int) -> None:
    """Ask again and again."""
    for _ in range(times):
        ask(client, line)


def test_an_open_proxy_passes_everything() -> None:
    """Without a fault bytes pass in both directions, and an end passes as an end."""
    with echoing() as (_, proxy), connected(proxy) as client:
        large = b"x" * 1_000_000 + b"\n"
        assert ask(client, large) == large
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert proxy.resets == 0


def test_a_cut_resets_old_and_new_connections() -> None:
    """While it is cut nothing gets through, and afterwards everything does."""
    with echoing() as (server, proxy):
        with connected(proxy) as client:
            assert ask(client, b"before\n") == b"before\n"
            proxy.set_mode(Mode.CUT)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with connected(proxy) as client, pytest.raises(ConnectionError):
            ask_often(client, b"during\n", 2)
        proxy.set_mode(Mode.OPEN)
        with connected(proxy) as client:
            assert ask(client, b"after\n") == b"after\n"
        assert server.lines == 2


def test_a_reset_comes_in_the_middle() -> None:
    """A connection breaks after some bytes, before as many have passed as it may pass at most."""
    with echoing() as (_, proxy), connected(proxy) as client:
        proxy.set_mode(Mode.RESET)
        with pytest.raises(ConnectionError):
            ask_often(client, b"x" * 100_000 + b"\n", SOME_BYTES // 100_000 + 1)


def test_a_lost_answer_is_of_work_that_was_done() -> None:
    """In place of some answers a reset comes, though the server has got the request and answered it."""
    with echoing() as (server, proxy):
        proxy.set_mode(Mode.DEAF)
        asked = answered = 0
        while answered == asked:
            with connected(proxy) as client:
                asked += 1
                try:
                    answered += ask(client, b"line\n") == b"line\n"
                except ConnectionResetError:
                    break
            assert asked < 100
        eventually(lambda: server.lines == asked, PATIENCE_SECONDS, "the arrival of every request")


SOUND = Snapshot(
    records={
        "a": {"state": "queued", "place": "ready", "user": "u"},
        "b": {"state": "processing", "place": "leased", "user": "u", "token": "1"},
        "c": {"state": "completed", "place": "", "user": "u", "result_key": "results/shared/d/1.zip"},
        "d": {"state": "queued", "place": "joined", "user": "v"},
    },
    places={"ready": ["a"], "leased": ["b"], "parked": [], "delayed": [], "joined": ["d"], "suspended": []},
    waiting=["a", "d"],
    waiting_by_user={"u": 1, "v": 1},
    running_by_user={"u": 1},
    sharers={"results/shared/d/1.zip": ["c"]},
    shared=["results/shared/d/1.zip"],
)


def test_a_sound_queue_has_no_contradiction() -> None:
    """A job that waits, one that runs and one that has ended are each where they should be."""
    assert contradictions(SOUND) == []


@pytest.mark.parametrize(
    "broken",
    [
        replace(SOUND, places={**SOUND.places, "ready": []}),
        replace(SOUND, places={**SOUND.places, "delayed": ["a"]}),
        replace(SOUND, places={**SOUND.places, "ready": ["a", "c"]}),
        replace(SOUND, records={**SOUND.records, "b": {**SOUND.records["b"], "token": ""}}),
        replace(SOUND, records={**SOUND.records, "c": {**SOUND.records["c"], "token": "1"}}),
        replace(SOUND, waiting=[]),
        replace(SOUND, waiting_by_user={}),
        replace(SOUND, running_by_user={"u": 2}),
        replace(SOUND, dead=["a"]),
        replace(SOUND, parked_by_time=["a"]),
        replace(SOUND, places={**SOUND.places, "joined": []}),
        replace(SOUND, sharers={}),
        replace(SOUND, sharers={"results/shared/d/1.zip": ["c", "gone"]}),
        replace(SOUND, shared=[]),
    ],
    ids=[
        "lost from its set", "in two sets", "in a set after its end", "held without a token",
        "a token after its end", "not among those who wait", "not counted as waiting",
        "counted twice as running", "dead and alive", "parked and ready",
        "waits for nobody's result", "points to what nobody keeps", "kept for who does not point to it",
        "shared and not kept",
    ],
)  # fmt: skip
def test_every_contradiction_is_seen(broken: Snapshot) -> None:
    """What breaks an invariant of the queue is told."""
    assert contradictions(broken) != []


def test_a_second_publication_is_seen(valkey: ValkeyServer) -> None:
    """A job that finishes twice, and one whose result becomes another, are told, and nothing else is."""
    redis = connect(RedisConfig(valkey.url))
    history = History(redis)

    def happens(job_id: str, kind: str, result: str = "") -> None:
        redis.hset(job_key(job_id), "result_key", result)
        redis.xadd(f"{ROOT}:events", {"job": job_id, "kind": kind})
        history.look()

    for job_id in ("sound", "twice", "changed"):
        happens(job_id, "queued")
        happens(job_id, "started")
        happens(job_id, "finished", "results/1.zip")
    assert history.published_twice() == []
    assert history.contradictions() == []
    happens("twice", "finished", "results/1.zip")
    redis.hset(job_key("changed"), "result_key", "results/2.zip")
    history.look()
    assert history.ended() == {"sound", "twice", "changed"}
    assert [sentence.split()[0] for sentence in history.published_twice()] == ["twice", "changed"]
    assert history.contradictions() == ["twice was finished, and then finished."]
    redis.close()
