"""The local servers: they start, they end with whoever started them, and only loopback reaches them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from downloadjobs_cli import server_process
from downloadjobs_cli.embedded import (
    LOOPBACK,
    EmbeddedServer,
    EmbeddedServerError,
    MinioServer,
    SeaweedServer,
    ValkeyServer,
    free_ports,
)
from downloadjobs_core.errors import BucketNotFoundError
from downloadjobs_core.objectstore.s3 import connect
from support_servers import killed_after
from support_tools import require_tool

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")

STARTER = """
import sys
from pathlib import Path
from downloadjobs_cli.embedded import ValkeyServer
with ValkeyServer(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


class Failing(EmbeddedServer):
    """A server that says something and ends."""

    name = "failing"

    def _command(self) -> Sequence[str]:
        return [sys.executable, "-c", "print('the disk is on fire'); raise SystemExit(3)"]

    def _probe(self) -> None:
        raise ConnectionRefusedError


class Silent(Failing):
    """A server that never gets ready."""

    name = "silent"

    def _command(self) -> Sequence[str]:
        return [sys.executable, "-c", "import time; time.sleep(60)"]


def talk(server: ValkeyServer, *words: str) -> bytes:
    """Send one command to Valkey and return its answer."""
    with socket.create_connection((LOOPBACK, server.port), timeout=5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(4096)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def listening_addresses(pid: int) -> set[str]:
    """The addresses on which a process takes TCP connections, as /proc writes them."""
    inodes, found = set(), set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            inodes.add(str(path.readlink()))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].partition(":")[0])
    return found


@pytest.fixture
def valkey_of_mine(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey that a test may ill-treat."""
    with killed_after(ValkeyServer(tmp_path / "valkey", append_only=True)) as server:
        yield server


def test_valkey_evicts_nothing(valkey_of_mine: ValkeyServer) -> None:
    """Valkey refuses writes when its memory is full; it never drops a job for another."""
    assert b"noeviction" in talk(valkey_of_mine, "CONFIG", "GET", "maxmemory-policy")


def test_append_only_file_outlives_a_kill(valkey_of_mine: ValkeyServer) -> None:
    """With an append-only file, what was written is there after a kill and a restart, on the same port."""
    port = valkey_of_mine.port
    assert talk(valkey_of_mine, "SET", "key", "value") == b"+OK\r\n"
    valkey_of_mine.kill()
    valkey_of_mine.start()
    assert valkey_of_mine.port == port
    assert talk(valkey_of_mine, "GET", "key") == b"$5\r\nvalue\r\n"


def test_without_append_only_file_a_restart_wipes(tmp_path: Path) -> None:
    """Without an append-only file a restart begins with nothing: the wipe that tests ask for."""
    with killed_after(ValkeyServer(tmp_path)) as server:
        talk(server, "SET", "key", "value")
        server.restart()
        assert talk(server, "GET", "key") == b"$-1\r\n"


def test_pause(valkey_of_mine: ValkeyServer) -> None:
    """A paused server takes connections and answers nothing until it is resumed."""
    with socket.create_connection((LOOPBACK, valkey_of_mine.port), timeout=0.3) as connection:
        valkey_of_mine.pause()
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(10)
        assert valkey_of_mine.running
        valkey_of_mine.resume()
        assert connection.recv(10) == b"+PONG\r\n"


def test_stop_of_a_paused_server(valkey_of_mine: ValkeyServer) -> None:
    """A paused server can be stopped."""
    pid = valkey_of_mine.pid
    valkey_of_mine.pause()
    valkey_of_mine.stop()
    assert not is_alive(pid)


def test_end_is_harmless_twice(valkey_of_mine: ValkeyServer) -> None:
    """Stopping or killing what does not run is no error; asking for its process is one."""
    valkey_of_mine.stop()
    valkey_of_mine.stop()
    valkey_of_mine.kill()
    assert not valkey_of_mine.running
    with pytest.raises(EmbeddedServerError, match="valkey does not run"):
        _ = valkey_of_mine.pid


def test_start_twice(valkey_of_mine: ValkeyServer) -> None:
    """A server that runs is not started again."""
    with pytest.raises(EmbeddedServerError, match="valkey runs already"):
        valkey_of_mine.start()
    assert talk(valkey_of_mine, "PING") == b"+PONG\r\n"


def test_server_that_ends_shows_its_log(tmp_path: Path) -> None:
    """When a server ends instead of starting, the error shows what it said last."""
    with pytest.raises(EmbeddedServerError, match="the disk is on fire"):
        Failing(tmp_path).start()


def test_server_that_never_gets_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer in time is killed, and the error says how long it was given."""
    monkeypatch.setattr(server_process, "START_SECONDS", 0.5)
    server = Silent(tmp_path)
    with pytest.raises(EmbeddedServerError, match="silent is not ready"):
        server.start()
    assert not server.running


@pytest.mark.parametrize("kind", [ValkeyServer, SeaweedServer, MinioServer])
def test_port_that_someone_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[EmbeddedServer]
) -> None:
    """A port that someone took since we looked at it makes the server take other ones."""
    if kind is MinioServer:
        require_tool("minio")
    with socket.create_server((LOOPBACK, 0)) as taken:
        wanted = [(taken.getsockname()[1], *free_ports(kind.port_count)[1:]), free_ports(kind.port_count)]
        monkeypatch.setattr(server_process, "free_ports", lambda _count: wanted.pop(0))
        with killed_after(kind(tmp_path)) as server:
            assert server.port != taken.getsockname()[1]
            assert server.running


def test_first_port_stays(valkey_of_mine: ValkeyServer) -> None:
    """A restart fails when its port is taken: clients know that one and no other."""
    valkey_of_mine.stop()
    with (
        socket.create_server((LOOPBACK, valkey_of_mine.port)),
        pytest.raises(EmbeddedServerError, match=r"(?i)already in use"),
    ):
        valkey_of_mine.start()


def test_seaweedfs_keeps_its_data(tmp_path: Path) -> None:
    """What was stored is there in the next run, on other ports, also after a kill; /tmp is left clean."""
    with (
        killed_after(SeaweedServer(tmp_path, access_key="key", secret_key="secret")) as server,
        closing(connect(server.config, server.bucket)) as store,
    ):
        store.put("a.zip", b"content")
        leftovers = list(server._leftovers())
        assert [path for path in leftovers if not path.is_socket()] == []
    assert [path for path in leftovers if path.exists()] == []
    with (
        killed_after(SeaweedServer(tmp_path, access_key="key", secret_key="secret")) as again,
        closing(connect(again.config, again.bucket)) as store,
    ):
        assert again.ports != server.ports
        assert store.stat("a.zip").size == 7


def test_second_bucket(seaweedfs: SeaweedServer) -> None:
    """More buckets can be made; none is made by itself."""
    with closing(connect(seaweedfs.config, "second")) as store:
        with pytest.raises(BucketNotFoundError):
            store.check()
        seaweedfs.make_bucket("second")
        store.check()


@linux
@pytest.mark.parametrize("name", ["valkey_server", "seaweedfs", "minio"])
def test_only_loopback_reaches_it(request: pytest.FixtureRequest, name: str) -> None:
    """No server listens on any address but loopback's."""
    server = request.getfixturevalue(name)
    assert isinstance(server, EmbeddedServer)
    assert "0100007F" in listening_addresses(server.pid)
    assert listening_addresses(server.pid) <= {"0100007F", f"{'0' * 24}01000000"}


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process with a Valkey of its own, and that Valkey's process id."""
    command = [sys.executable, "-c", STARTER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.kill()


@linux
def test_server_ends_when_its_parent_is_killed(starter: tuple[subprocess.Popen[str], int]) -> None:
    """Killing the process that started a server leaves no server behind."""
    process, pid = starter
    assert is_alive(pid)
    process.kill()
    assert wait_until(lambda: not is_alive(pid))


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_ends_with_a_signal_to_its_parent(
    starter: tuple[subprocess.Popen[str], int], number: signal.Signals
) -> None:
    """Ctrl-C or SIGTERM to the process that started a server leaves no server behind."""
    process, pid = starter
    process.send_signal(number)
    assert wait_until(lambda: not is_alive(pid))


@linux
def test_server_ends_with_its_parent(starter: tuple[subprocess.Popen[str], int]) -> None:
    """A process that ends in order stops its server first."""
    process, pid = starter
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    assert not is_alive(pid)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is nearly full is named before a server fails on it without saying why."""
    monkeypatch.setattr(server_process, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(EmbeddedServerError, match="free"):
        ValkeyServer(tmp_path).start()


def test_free_ports() -> None:
    """Free ports are as many as asked, differ, and take nobody's."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    with socket.create_server((LOOPBACK, ports[0])):
        assert ports[0] not in free_ports(200)
