"""The operator's health: alive if it does its work or could not; ready if it works or stands by."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import pytest

from downloadjobs_operator.connection import WatchClock
from downloadjobs_operator.health import ANSWER_SECONDS, WATCH_SILENT_SECONDS, Health
from downloadjobs_operator.kube import KubernetesDownloadJobs
from downloadjobs_operator.leadership import Leadership

ROOT: Final = Path(__file__).parents[3]


@dataclass
class Cluster:
    """An API server that answers, or does not."""

    answers: bool = True
    asked: int = 0
    takes_seconds: float = 0.0

    async def reachable(self) -> bool:
        self.asked += 1
        await asyncio.sleep(self.takes_seconds)
        return self.answers


@dataclass
class Lease:
    """A Lease that is held, or not."""

    held: bool


def health(
    *, silent: float | None = 0, watches: int = 1, cluster: Cluster | None = None, leading: bool | None = None
) -> Health:
    """A process whose watch was heard `silent` seconds ago; None for never."""
    heard_at = 0.0 if silent is None else time.monotonic() - silent
    return Health(
        clock=WatchClock(heard_at=heard_at, open=watches),
        cluster=cast("KubernetesDownloadJobs", cluster or Cluster()),
        leadership=None if leading is None else cast("Leadership", Lease(leading)),
        queue_silent_seconds=lambda: None,
        objects=lambda: 3,
    )


def alive(of: Health) -> bool:
    """What `/livez` says."""
    return asyncio.run(of.alive())[0]


def test_a_watch_that_is_heard_is_alive() -> None:
    """Whose watch was heard is alive, and the API server is not asked."""
    cluster = Cluster(answers=False)
    assert alive(health(silent=WATCH_SILENT_SECONDS - 1, cluster=cluster))
    assert cluster.asked == 0


def test_a_dead_watch_is_not_alive() -> None:
    """Whose watch is silent although the API server answers is stuck."""
    good, found = asyncio.run(health(silent=WATCH_SILENT_SECONDS + 1).alive())
    assert not good
    assert found["status"] == "stuck"


def test_without_an_api_server_a_restart_does_not_help() -> None:
    """Whose watch is silent because the API server is gone is alive."""
    assert alive(health(silent=WATCH_SILENT_SECONDS + 1, cluster=Cluster(answers=False)))


def test_an_api_server_that_hangs_is_not_waited_for() -> None:
    """One that does not answer in time counts as gone, so that the probe is answered in time."""
    slow = health(silent=WATCH_SILENT_SECONDS + 1, cluster=Cluster(takes_seconds=3))
    began = time.monotonic()
    assert alive(replace(slow, answer_seconds=0.05))
    assert time.monotonic() - began < 2


def test_the_answer_comes_before_the_probe_gives_up() -> None:
    """The chart's probe waits longer than the API server is given."""
    text = (ROOT / "charts/downloadjobs/templates/operator.yaml").read_text(encoding="utf-8")
    waits = re.search(r"path: /livez.*?timeoutSeconds: (\d+)", text, re.DOTALL)
    assert waits is not None
    assert int(waits[1]) >= ANSWER_SECONDS + 2


@pytest.mark.parametrize("silent", [None, 10_000])
def test_who_stands_by_watches_nothing(silent: float | None) -> None:
    """Who does not lead is alive and ready, though it watches nothing."""
    found = health(silent=silent, watches=0, leading=False)
    assert alive(found)
    assert found.ready()[0]


@pytest.mark.parametrize("leading", [None, True])
def test_who_leads_is_ready_once_it_watches(*, leading: bool | None) -> None:
    """Who does the work, with a Lease or where none is asked for, is ready while a watch is under way."""
    assert not health(watches=0, leading=leading).ready()[0]
    good, found = health(watches=1, leading=leading).ready()
    assert good
    assert (found["leading"], found["downloadJobs"], found["queueSilentSeconds"]) == (True, 3, None)


def test_before_the_first_watch_it_is_alive() -> None:
    """A process that has just begun is not stuck."""
    good, found = asyncio.run(health(silent=None).alive())
    assert good
    assert found["watchSilentSeconds"] is None
