"""The API keeps what its OpenAPI document promises: thousands of requests that schemathesis makes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from support_processes import System, running

DATABASE = 11
EXAMPLES = 60
"""For each operation and phase; together some thousands of requests."""


@pytest.fixture(scope="module")
def system(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """An API on mock storage, with limits that nobody reaches. No worker: its jobs would fill the disk."""
    folder = tmp_path_factory.mktemp("openapi")
    system = System(
        valkey_server,
        seaweedfs,
        folder,
        settings={
            "REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/{DATABASE}",
            "S3_BUCKET_NAME": "",
            "MOCK_STORAGE_DIR": str(folder / "mock"),
            "USER_MAX_QUEUED": "1000000",
            "RATE_LIMIT_MAX_REQUESTS": "1000000",
            "LONG_POLL_MAX_SECONDS": "0.1",
        },
    )
    with running(system):
        system.start_api()
        yield system


@pytest.mark.contract("openapi")
@pytest.mark.timeout(400)
def test_nothing_undocumented(system: System) -> None:
    """No request, valid or not, meets a fault (5xx) or an answer that the document does not describe.

    Left out of schemathesis' checks: `ignored_auth`, since a header that an ingress sets is no secret that
    could be wrong; and `use_after_free`, since DELETE cancels a job, whose record stays. Left out of the
    operations: streams, which do not end (`test_events.py` has them).
    """
    with system.client() as client:
        address = str(client.base_url)
    done = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis",
            "--config-file", Path(__file__).parent / "schemathesis.toml",
            "run", f"{address}/openapi", "--exclude-operation-id-regex", "[eE]vents$",
            "--exclude-checks", "ignored_auth,use_after_free",
            "--header", "x-user-id: ada", "--max-examples", str(EXAMPLES),
            "--continue-on-failure", "--no-color",
        ],
        capture_output=True, text=True, timeout=380, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert "No test cases were generated" not in done.stdout


@pytest.mark.contract("openapi")
def test_known_documents_are_not_sent_again(system: System) -> None:
    """Who has the document, the page or its style sheet already is told so by 304."""
    with system.client() as client:
        for path in ("/openapi", "/docs", "/doc", "/docs/style.css"):
            first = client.get(path)
            assert first.status_code == httpx.codes.OK, path
            again = client.get(path, headers={"if-none-match": first.headers["etag"]})
            assert (again.status_code, again.content) == (httpx.codes.NOT_MODIFIED, b""), path
            assert client.get(path, headers={"if-none-match": '"another"'}).status_code == httpx.codes.OK
            assert client.head(path).status_code == httpx.codes.OK
