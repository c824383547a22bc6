"""How the worker's parts are put together."""

from __future__ import annotations

from functools import partial

import pytest

from downloadjobs_core.objectstore.factory import Stores
from downloadjobs_core.objectstore.measured import MeasuredObjectStore
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from downloadjobs_worker.__main__ import wrapped
from downloadjobs_worker.storage_watch import StorageWatch


@pytest.mark.parametrize(("buckets", "checks"), [(1, 1), (2, 2)])
def test_an_outage_asks_each_bucket_once(buckets: int, checks: int) -> None:
    """Where files and results lie in one bucket it is measured as one, and a look at it is one request."""
    files = MemoryObjectStore("files")
    told: list[str] = []

    def observe(operation: str, _result: str, _seconds: float) -> None:
        told.append(operation)

    stores = Stores(files, files if buckets == 1 else MemoryObjectStore("results"))
    stores = wrapped(stores, partial(MeasuredObjectStore, observe=observe))
    assert stores.results.bucket == ("files" if buckets == 1 else "results")
    assert StorageWatch((stores.files, stores.results), 0).fault() is None
    assert told == ["check"] * checks
