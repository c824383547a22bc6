"""The store that measures: it passes everything on, and tells how each request ended."""

from __future__ import annotations

import inspect

import pytest

from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    UploadNotFoundError,
)
from downloadjobs_core.objectstore.measured import OPERATIONS, RESULTS, MeasuredObjectStore, result_of
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from downloadjobs_core.objectstore.protocol import ObjectStore


@pytest.fixture
def told() -> list[tuple[str, str]]:
    """What was measured: operation and result."""
    return []


@pytest.fixture
def store(told: list[tuple[str, str]]) -> MeasuredObjectStore:
    """A measured store over one in memory."""

    def observe(operation: str, result: str, seconds: float) -> None:
        assert seconds >= 0
        told.append((operation, result))

    return MeasuredObjectStore(MemoryObjectStore(), observe)


def test_every_call_of_a_store_is_passed_on() -> None:
    """No method is left to the protocol's own empty body; all but the presigned URL are measured."""
    methods = {name for name, _ in inspect.getmembers(ObjectStore, inspect.isfunction) if name[0] != "_"}
    assert methods <= set(vars(MeasuredObjectStore))
    assert methods == {*OPERATIONS, "presign_get"}


def test_each_request_is_told_with_its_result(
    store: MeasuredObjectStore, told: list[tuple[str, str]]
) -> None:
    """What works is `ok`, and answers as the store below does."""
    store.check()
    etag = store.put("a", b"12345")
    assert (store.stat("a").size, store.stat("a").etag) == (5, etag)
    with store.open("a", offset=2) as reader:
        assert reader.read(10) == b"345"
    assert [found.key for found in store.list("")] == ["a"]
    upload = store.create_upload("b")
    assert [pending.key for pending in store.pending_uploads("b")] == ["b"]
    part = store.upload_part("b", upload, 1, b"x")
    store.complete_upload("b", upload, [part])
    store.abort_upload("b", store.create_upload("b"))
    store.delete("a")
    assert {result for _, result in told} == {"ok"}
    assert {operation for operation, _ in told} == set(OPERATIONS)


def test_a_fault_is_told_and_raised(store: MeasuredObjectStore, told: list[tuple[str, str]]) -> None:
    """An error goes on to the caller, and is the request's result."""
    with pytest.raises(ObjectNotFoundError):
        store.stat("nowhere")
    store.put("a", b"1")
    with pytest.raises(ObjectChangedError):
        store.open("a", if_match="another")
    assert told == [("stat", "not_found"), ("put", "ok"), ("open", "changed")]


def test_each_kind_of_fault_has_a_result() -> None:
    """Results are few, and whatever is not known is `error`."""
    faults = {
        ObjectNotFoundError("k"): "not_found",
        UploadNotFoundError(): "not_found",
        BucketNotFoundError("b"): "not_found",
        ObjectChangedError("k"): "changed",
        ObjectStoreDeniedError(): "denied",
        CredentialsRefusedError(): "denied",
        ObjectStoreUnavailableError(): "unavailable",
        ObjectStoreError(): "error",
        RuntimeError(): "error",
    }
    assert [result_of(fault) for fault in faults] == list(faults.values())
    assert set(faults.values()) | {"ok"} == set(RESULTS)


def test_an_empty_list_is_one_request(store: MeasuredObjectStore, told: list[tuple[str, str]]) -> None:
    """A prefix under which nothing is gives an empty list, measured once."""
    assert list(store.list("none/")) == []
    assert told == [("list", "ok")]
