"""What the app consists of, with traces and without."""

from __future__ import annotations

from opentelemetry.trace import NoOpTracer

from downloadjobs_api.tracing import Spans, TracedThreads
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from downloadjobs_core.objectstore.traced import TracedObjectStore


def test_without_traces_nothing_stands_between() -> None:
    """Where nobody asks for spans, no call pays for them."""
    plain = Spans(None)
    files, results = MemoryObjectStore(), MemoryObjectStore()
    assert plain.stores(files, results) == (files, results)
    assert not isinstance(plain.threads(1, "storage"), TracedThreads)
    assert plain.middleware() == []


def test_one_store_stays_one_within_spans() -> None:
    """Health checks a store that is both for files and for results once, traced or not."""
    traced = Spans(NoOpTracer())
    store, other = MemoryObjectStore(), MemoryObjectStore()
    files, results = traced.stores(store, store)
    assert isinstance(files, TracedObjectStore)
    assert files is results
    files, results = traced.stores(store, other)
    assert files is not results
    assert isinstance(results, TracedObjectStore)
