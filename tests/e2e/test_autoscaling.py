"""The autoscaler on real pods: from none to many and back, and no pod that works is removed."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from downloadjobs_core.scripts import ROOT
from support_e2e import RELEASE, Installation, Installer, until

FILES: Final = {10_003: 40_000}

MOST: Final = 5
SLOTS: Final = 2

SCALE_INS: Final = int(os.environ.get("E2E_SCALE_INS") or 5)
"""How often pods are removed while others work."""

BLIND_SECONDS: Final = 60.0
"""How long Redis is away."""

SETTINGS: Final[dict[str, Any]] = {
    "worker": {
        "concurrency": SLOTS,
        # A job takes so long, at random, and pods get idle one after the other.
        "settings": {
            "DOWNLOAD_DELAY_ENABLED": "true",
            "DOWNLOAD_DELAY_MIN_MS": "1000",
            "DOWNLOAD_DELAY_MAX_MS": "15000",
        },
        "autoscaling": {"max": MOST, "targetWaitSeconds": 2, "cooldownSeconds": 3, "podStartSeconds": 3},
    }
}


@pytest.fixture(scope="module")
def scaled(installer: Installer) -> Iterator[Installation]:
    """An installation whose workers come and go."""
    with installer.installed(SETTINGS, persistence=False) as found:
        found.seed(FILES)
        yield found


def workers(installation: Installation) -> int:
    """How many the Deployment wants."""
    return installation.scale().wanted


def settled_at(installation: Installation, number: int, seconds: float = 90) -> None:
    """Wait until there are so many, and as many are wanted."""
    until(lambda: installation.scale() == (number, number, number), seconds, f"{number} workers")


def submit(installation: Installation, count: int) -> list[str]:
    """Many jobs at once, each of a user of its own, so that none is parked; their ids."""
    assert installation.api_url  # open
    with ThreadPoolExecutor(count) as pool:
        users = [f"user-{secrets.token_hex(4)}" for _ in range(count)]
        ids = pool.map(lambda user: installation.initiate(list(FILES), user=user), users)
        return [f"{user}/{job_id}" for user, job_id in zip(users, ids, strict=True)]


def records(installation: Installation, jobs: Sequence[str]) -> list[dict[str, Any]]:
    """The records of jobs."""
    named = [job.split("/") for job in jobs]
    return [installation.job(job_id, user=user) for user, job_id in named]


def assert_done_once(installation: Installation, jobs: Sequence[str], seconds: float = 120) -> None:
    """Each job ends well, by its first attempt: none was lost, and none was begun twice."""
    until(
        lambda: all(job["state"] == "completed" for job in records(installation, jobs)),
        seconds,
        "all jobs completed",
        every=1,
    )
    assert {job["attempt"] for job in records(installation, jobs)} == {1}


def metric(installation: Installation, name: str) -> float:
    """One sample of the operator's metrics, by its name and labels; 0 if there is none."""
    (pod,) = installation.pod_names("operator")
    found = re.search(rf"^{re.escape(name)} (\S+)$", installation.metrics(pod, 8080), re.MULTILINE)
    return float(found[1]) if found else 0.0


def removed(installation: Installation, state: str) -> float:
    """Pods that were removed so far, idle or busy."""
    return metric(installation, f'downloadjobs_autoscaler_victims_total{{state="{state}"}}')


def told(installation: Installation, reason: str) -> list[str]:
    """What Events about the Deployment said."""
    events = installation.events(f"{RELEASE}-worker")
    return [event["message"] for event in events if event["reason"] == reason]


def test_from_none_to_many_and_back(scaled: Installation) -> None:
    """Jobs bring as many workers as may be, at once; then these go, and none of them worked."""
    settled_at(scaled, 0)
    before = removed(scaled, "idle")
    jobs = submit(scaled, 4 * MOST)
    until(lambda: workers(scaled) == MOST, 5, f"{MOST} workers wanted", every=0.1)
    assert 1 <= len(told(scaled, "ScaledUp")) <= MOST
    assert "waiting" in told(scaled, "ScaledUp")[0]
    assert_done_once(scaled, jobs)
    settled_at(scaled, 0)
    assert told(scaled, "ScaledDown")
    until(lambda: removed(scaled, "idle") >= before + MOST, 10, "all removed pods counted")
    assert removed(scaled, "busy") == 0


def test_the_command_line_explains(scaled: Installation) -> None:
    """`downloadjobs autoscaler explain` in the operator's pod says why there are so many."""
    said = scaled.exec("operator", "downloadjobs", "autoscaler", "explain")
    assert "nothing waits and nothing runs" in said
    assert "Scaled" in said


def test_a_burst_during_the_cooldown(scaled: Installation) -> None:
    """The cooldown of fewer workers never delays more."""
    settled_at(scaled, 0)
    jobs = submit(scaled, 1)
    until(lambda: workers(scaled) == 1, 5, "one worker wanted", every=0.1)
    assert_done_once(scaled, jobs)
    jobs = submit(scaled, 4 * MOST)
    until(lambda: workers(scaled) == MOST, 5, f"{MOST} workers wanted", every=0.1)
    assert_done_once(scaled, jobs)


@pytest.mark.timeout(90 + 90 * SCALE_INS)
def test_no_busy_worker_is_removed(scaled: Installation) -> None:
    """Workers are removed again and again while others work, and each job is done by its first attempt."""
    before = removed(scaled, "idle")
    for _ in range(SCALE_INS):
        # So many that all workers get some, and some get idle much sooner than others.
        jobs = submit(scaled, MOST * SLOTS)
        until(lambda: workers(scaled) > 1, 10, "more workers wanted", every=0.1)
        assert_done_once(scaled, jobs)
    settled_at(scaled, 0)
    assert removed(scaled, "idle") > before
    assert removed(scaled, "busy") == 0


def test_a_rollout_loses_nothing(scaled: Installation) -> None:
    """Workers of another image replace those at work, which end what they began; nothing is begun twice."""
    jobs = submit(scaled, 2 * MOST)
    until(lambda: scaled.scale().ready > 0, 60, "workers at work")
    # The same image by its longer name, which is another to the Deployment.
    scaled.upgrade({"worker": {"image": {"repository": "docker.io/downloadjobs/worker"}}}, wait=False)
    jobs += submit(scaled, MOST)
    assert_done_once(scaled, jobs, 180)
    scaled.wait_ready(["worker"])
    assert removed(scaled, "busy") == 0


def test_without_redis_nothing_changes(scaled: Installation) -> None:
    """While Redis cannot be reached there are as many workers as before, and it is told that it holds."""
    jobs = submit(scaled, 4 * MOST)
    until(lambda: scaled.scale().ready == MOST, 60, "workers at work")
    held = 'downloadjobs_autoscaler_held{reason="stale"}'
    with scaled.redis_unreachable():
        until(lambda: metric(scaled, held) == 1, 40, "scaling is held")
        before = workers(scaled)
        end = time.monotonic() + BLIND_SECONDS
        while time.monotonic() < end:
            assert workers(scaled) == before
            time.sleep(2)
        assert metric(scaled, held) == 1
    assert "Holding" in told(scaled, "ScalingHeld")[-1]
    until(lambda: metric(scaled, held) == 0, 40, "scaling goes on")
    until(
        lambda: all(job["state"] == "completed" for job in records(scaled, jobs)), 180, "all jobs completed"
    )
    settled_at(scaled, 0, 120)
    assert removed(scaled, "busy") == 0


def test_an_operator_killed_between_fence_and_patch(scaled: Installation) -> None:
    """Fences of an operator that is gone do not stay, and the next one goes on."""
    settled_at(scaled, 0, 120)
    assert_done_once(scaled, submit(scaled, MOST * SLOTS))
    until(lambda: fenced(scaled) > 0, 60, "workers fenced", every=0.1)
    (pod,) = scaled.pod_names("operator")
    scaled.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
    # Those that were fenced work again, or go for good.
    jobs = submit(scaled, MOST * SLOTS)
    assert_done_once(scaled, jobs, 180)
    scaled.wait_ready(["operator"])
    settled_at(scaled, 0, 180)
    until(lambda: fenced(scaled) == 0, 120, "no fence is left")
    assert removed(scaled, "busy") == 0


def fenced(installation: Installation) -> int:
    """How many workers are fenced, those whose fence has run out included."""
    return int(installation.redis("ZCARD", f"{ROOT}:fenced"))
