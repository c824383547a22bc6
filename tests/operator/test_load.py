"""Many DownloadJobs at once: all are done, and what they cost the operator and the API server is printed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import pytest

from downloadjobs_core.leases import Outcome
from downloadjobs_core.states import JobState
from support_operator_process import Site, manifest

pytestmark = pytest.mark.cluster

DONE: Final = Outcome(JobState.COMPLETED, result_key="results/job/1.zip", result_bytes=1)
SECONDS_EACH: Final = 0.1
"""A generous share of each object, on a busy machine."""


def peak_mib(pid: int) -> float:
    """The most memory that a process ever had, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def run(site: Site, count: int) -> None:
    """Create so many objects, end their jobs as workers would, and wait until all say so."""
    site.settings.update(USER_MAX_RUNNING="100000", USER_MAX_QUEUED="100000")
    operator = site.start_operator()
    began = time.monotonic()
    for number in range(count):
        assert site.kube.ask("POST", site.path(), manifest(f"film-{number}"))
    ended, ends = 0, began + 60 + count * SECONDS_EACH
    while ended < count and time.monotonic() < ends:
        job = site.leases.lease("by hand")
        if job is None:
            time.sleep(0.05)
        else:
            site.leases.finish(job, DONE)
            ended += 1
    assert ended == count, f"{ended} of {count} jobs were submitted"
    phases: list[str | None] = []
    while time.monotonic() < ends:
        phases = [one.get("status", {}).get("phase") for one in site.all()]
        if phases.count("Completed") == count:
            break
        time.sleep(1)
    assert phases.count("Completed") == count
    took = time.monotonic() - began
    listed = site.kube.ask("GET", f"/api/v1/namespaces/{site.namespace}/events?limit=1")
    assert listed is not None
    events = 1 + listed["metadata"].get("remainingItemCount", 0)
    print(  # noqa: T201 - what it is for
        f"\n{count} DownloadJobs: all Completed after {took:.0f} s; the operator's peak is"
        f" {peak_mib(operator.pid):.0f} MiB; {events / count:.1f} Events for each"
    )


def test_hundreds_at_once(site: Site) -> None:
    """300 DownloadJobs at once are all submitted, ended and shown."""
    run(site, 300)


@pytest.mark.load
@pytest.mark.timeout(900)
def test_thousands_at_once(site: Site) -> None:
    """2,000 DownloadJobs at once (LOAD_OBJECTS: another number) are all submitted, ended and shown."""
    run(site, int(os.environ.get("LOAD_OBJECTS", "2000")))
