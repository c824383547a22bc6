"""An upgrade of an older release while jobs wait and run.

`make test-upgrade UPGRADE_FROM=path/to/chart UPGRADE_FROM_TAG=…`
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from downloadjobs_cli.verifying import verify
from support_e2e import (
    CHART,
    PROJECT,
    RELEASE,
    Installation,
    Installer,
    installer_in,
    merged,
    require_nodes,
    until,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

FILES: Final = {10_003: 40_000, 10_010: 3_000_000}

SLOW: Final = {
    "DOWNLOAD_DELAY_ENABLED": True,
    "DOWNLOAD_DELAY_MIN_MS": 15_000,
    "DOWNLOAD_DELAY_MAX_MS": 20_000,
}
"""So long that jobs still run when their worker must go."""

JOBS: Final = 8
"""Twice as many as one worker runs at once: some wait."""


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installer]:
    """The cluster of this file."""
    with installer_in(tmp_path_factory.mktemp("upgrade")) as found:
        yield found


@dataclass
class Older(Installation):
    """A release that another chart and other images make, until it is upgraded to this checkout's."""

    chart: Path = CHART
    tag: str = ""

    def _helm(self, verb: str, values: Mapping[str, Any]) -> None:
        of_that_time = merged(values, {"image": {"tag": self.tag}})
        place = f"--namespace={self.namespace}"
        text = json.dumps(of_that_time)
        self.installer.helm(verb, RELEASE, str(self.chart), place, "--values=-", stdin=text)

    def upgrade_to_this(self) -> None:
        """As docs/install.md tells users to."""
        self.installer.helm(
            "upgrade",
            RELEASE,
            str(CHART),
            f"--namespace={self.namespace}",
            "--reset-then-reuse-values",
            f"--set=image.tag={self.installer.tag}",
        )
        self.wait_ready()

    def images(self) -> set[str]:
        """What the project's pods run that are not about to go."""
        return {
            container["image"]
            for component in PROJECT
            for pod in self.pods(component)
            if "deletionTimestamp" not in pod["metadata"]
            for container in pod["spec"]["containers"]
        }


@pytest.fixture
def older(installer: Installer) -> Iterator[Older]:
    """An installation by the older chart."""
    chart, tag = os.environ.get("UPGRADE_FROM"), os.environ.get("UPGRADE_FROM_TAG")
    if not chart or not tag:
        pytest.fail("UPGRADE_FROM and UPGRADE_FROM_TAG name a chart and its images' tag", pytrace=False)
    require_nodes(installer.cluster, tag)
    with installer.namespace() as namespace:
        folder = installer.folder / namespace
        folder.mkdir()
        # Redis must not lose the jobs when its own pod is replaced.
        volumes = {"persistence": {"enabled": True, "size": "1Gi"}}
        values = {
            "worker": {"autoscaling": {"min": 1, "max": 2}, "settings": SLOW, "drainSeconds": 10},
            "bundled": {"redis": volumes, "objectStore": volumes},
        }
        found = Older(installer, namespace, values, folder, chart=Path(chart), tag=tag)
        try:
            found.install()
            yield found
        finally:
            found.close()


def test_jobs_outlive_an_upgrade(older: Older) -> None:
    """What was accepted before an upgrade is done after it; results from before can be fetched."""
    older.seed(FILES)
    before = older.initiate(list(FILES))
    older.wait_job(before)
    older.apply_job("before", list(FILES))
    jobs = [older.initiate([file_id]) for file_id in FILES for _ in range(JOBS // 2)]
    until(lambda: any(older.job(job)["state"] == "processing" for job in jobs), 60, "a job that runs")

    older.upgrade_to_this()

    assert {image.rpartition(":")[2] for image in older.images()} == {older.installer.tag}
    until(lambda: older.request("GET", "/readyz").is_success, 60, "the API's servers")
    for job in jobs:
        older.wait_job(job, seconds=240)
    assert older.wait_finished("before", 240)["phase"] == "Completed"
    older.cli("get", before, "--output", "before.zip", "--force")
    assert verify(older.folder / "before.zip", job_id=before, files=len(FILES)).whole
    after = older.initiate(list(FILES))
    older.wait_job(after, seconds=240)
    older.cli("get", after, "--output", "after.zip", "--force")
    assert verify(older.folder / "after.zip", job_id=after, files=len(FILES)).whole
    assert older.restarts() == {}
