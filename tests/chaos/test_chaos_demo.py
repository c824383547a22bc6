"""`downloadjobs demo --chaos` with a small job: the whole of it, as a stranger runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


def test_the_other_worker_finishes_what_a_killed_one_held(tmp_path: Path) -> None:
    """The worker that holds the job is killed, the other leases it in time, and the zip verifies: exit 0."""
    demo = subprocess.run(
        [sys.executable, "-m", "downloadjobs_cli", "demo", "--chaos", "--chaos-mib", "128", "--json"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert demo.returncode == 0, demo.stderr
    document = json.loads(demo.stdout)
    assert document["verified"] is True
    assert document["files"] == 16
    assert document["bytes"] >= 128 * 1024 * 1024  # with the manifest
    assert {document["killedWorker"], document["worker"]} == {"worker-1", "worker-2"}
    assert 0 < document["leasedAfterSeconds"] <= document["leaseSeconds"] + 5
    assert list(tmp_path.iterdir()) == []
