"""Real servers for tests, one of each per session: `conftest.py` files take these fixtures in.

They are started when the first test asks for them, and killed at the end. A test that
stops, pauses or kills a server takes one of its own, `killed_after(SeaweedServer(tmp_path))`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from downloadjobs_cli.embedded import LOOPBACK, EmbeddedServer, MinioServer, SeaweedServer, ValkeyServer
from support_tools import require_tool

Server = TypeVar("Server", bound=EmbeddedServer)


@contextmanager
def killed_after(server: Server) -> Iterator[Server]:
    """Start a server, and kill it at the end: its data is thrown away, so it need not end in order."""
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """The session's Valkey. Tests take `valkey`, which is empty."""
    with killed_after(ValkeyServer(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: ValkeyServer) -> ValkeyServer:
    """A running Valkey without any key or script in it."""
    with socket.create_connection((LOOPBACK, valkey_server.port)) as connection:
        connection.sendall(b"FLUSHALL SYNC\r\nSCRIPT FLUSH SYNC\r\nQUIT\r\n")
        answers = connection.makefile("rb").read()
    assert answers == b"+OK\r\n" * 3
    return valkey_server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """The session's SeaweedFS. What a test stores stays: keys begin with something of the test's own."""
    with killed_after(SeaweedServer(tmp_path_factory.mktemp("seaweedfs"))) as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """The session's MinIO, if this machine has one; see `seaweedfs`."""
    require_tool("minio")
    with killed_after(MinioServer(tmp_path_factory.mktemp("minio"))) as server:
        yield server
