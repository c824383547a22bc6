"""Redis loses everything: what is unfinished is submitted again, what is finished stays so."""

from __future__ import annotations

from pathlib import Path

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from support_operator_process import RUNS_ON, Site, condition_of
from support_servers import killed_after
from support_worker import eventually

pytestmark = pytest.mark.cluster


def some_of_each(site: Site) -> None:
    """One that has ended, one that runs, one that waits, one that is held, and one that was cancelled."""
    site.start_operator()
    quick = site.system.start_worker()
    site.create("finished")
    site.until_phase("finished", "Completed")
    quick.kill()
    site.system.start_worker(WORKER_CONCURRENCY="1", **RUNS_ON)
    site.create("running")
    site.until_phase("running", "Processing")
    site.create("waiting")
    site.until_phase("waiting", "Queued")
    site.create("held", suspend=True)
    site.until_condition("held", "Suspended", "True", "Suspended")
    site.create("cancelled")
    site.until_phase("cancelled", "Queued")
    site.change("cancelled", cancel=True)
    site.until_phase("cancelled", "Cancelled")


def all_end_well(site: Site, finished: dict[str, object]) -> None:
    """Everything unfinished is in the queue again and finishes; the finished one was not touched."""
    for name in ("running", "waiting", "held"):
        uid = site.uids[name]
        eventually(lambda uid=uid: bool(site.record(uid)), 30, f"the submission of {name}")  # type: ignore[misc]
    assert site.record(site.uids["held"])["place"] == "suspended"
    site.system.children[-1].kill()  # the worker that never ends
    site.system.start_worker()
    for name in ("running", "waiting"):
        status = site.until_phase(name, "Completed", 60)
        assert condition_of(status, "Finished") == ("True", "Succeeded")
    assert site.status("held")["phase"] == "Queued"
    site.change("held", suspend=False)
    site.until_phase("held", "Completed")
    assert site.status("finished") == finished
    assert site.status("cancelled")["phase"] == "Cancelled"
    for name in ("finished", "cancelled"):
        assert site.record(site.uids[name]) == {}


def test_flushed(site: Site) -> None:
    """After FLUSHALL every unfinished DownloadJob is submitted again, as it was asked for, and finishes."""
    some_of_each(site)
    finished = site.status("finished")
    site.redis.flushall()
    all_end_well(site, finished)


def test_another_redis_in_its_place(site: Site, tmp_path: Path) -> None:
    """The same with a new, empty server at the same address, which has not even the scripts."""
    some_of_each(site)
    finished = site.status("finished")
    valkey = site.system.valkey
    ports = valkey.ports
    valkey.kill()
    replacement = ValkeyServer(tmp_path / "replacement")
    replacement.data_dir.mkdir(exist_ok=True)
    replacement.ports = ports
    with killed_after(replacement):
        all_end_well(site, finished)


def test_wiped_while_the_operator_is_down(site: Site) -> None:
    """An operator that starts after a wipe submits what is unfinished again."""
    some_of_each(site)
    finished = site.status("finished")
    site.operators[0].kill()
    site.redis.flushall()
    site.start_operator(RESYNC_SECONDS="2")
    all_end_well(site, finished)


def test_a_wipe_is_told_in_the_log(site: Site) -> None:
    """The log says that the queue was wiped, once."""
    site.start_operator()
    site.create("films")
    site.until_phase("films", "Queued")
    site.redis.flushall()
    eventually(lambda: bool(site.record(site.uids["films"])), 30, "the submission")
    site.create("other")
    site.until_phase("other", "Queued")
    eventually(lambda: len(site.told("the queue was wiped")) >= 1, 10, "the line")
    assert len(site.told("the queue was wiped")) == 1
