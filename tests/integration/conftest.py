"""What every integration test may ask for: the session's servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from support_processes import System, running
from support_servers import minio, seaweedfs, valkey, valkey_server

__all__ = ["minio", "seaweedfs", "system", "valkey", "valkey_server"]


@pytest.fixture
def system(valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path) -> Iterator[System]:
    """An installation over the session's servers, in which nothing runs yet."""
    with running(System(valkey, seaweedfs, tmp_path)) as system:
        yield system
