"""What the consumer refuses to be."""

from __future__ import annotations

from typing import cast

import pytest
from huey.exceptions import ConfigurationError

from downloadjobs_core.huey_queue import LeasedHuey
from downloadjobs_core.leases import LeaseStore
from downloadjobs_worker.consumer import DrainingConsumer
from downloadjobs_worker.keeper import Keeper


def consumer(**how: str) -> DrainingConsumer:
    """A consumer that does not run, over a queue that is not asked."""
    leases = cast("LeaseStore", object())
    keeper = Keeper(leases, worker="w", slots=1)
    huey = LeasedHuey(leases, worker="w")
    return DrainingConsumer(huey, leases=leases, keeper=keeper, workers=2, drain_seconds=1, **how)


@pytest.mark.parametrize("worker_type", ["process", "greenlet", "gevent"])
def test_only_threads_are_supported(worker_type: str) -> None:
    """Workers of another type are refused by name, with the reason: a lease is kept by the same process."""
    with pytest.raises(ConfigurationError) as refused:
        consumer(worker_type=worker_type)
    message = str(refused.value)
    assert f"worker type '{worker_type}' is not supported" in message
    assert "only 'thread' is" in message
    assert "leases are kept by a thread of the same process" in message


def test_threads_are_the_default() -> None:
    """A consumer runs as many threads as it was told, and enqueues no periodic task."""
    made = consumer()
    assert (made.worker_type, made.workers, made.periodic) == ("thread", 2, False)
