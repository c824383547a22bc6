"""The stores that need no server keep the contract of object stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from downloadjobs_core.errors import ObjectNotFoundError
from downloadjobs_core.objectstore.folder import FolderObjectStore
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from support_objectstore_contract import ObjectStoreContract, Subject, read_all

PART_BYTES = 1000


class TestMemoryStore(ObjectStoreContract):
    """The store in memory."""

    @pytest.fixture
    def subject(self) -> Subject:
        """A fresh one, with small parts."""
        return Subject(MemoryObjectStore(min_part_bytes=PART_BYTES), "results/", PART_BYTES)


class TestFolderStore(ObjectStoreContract):
    """The results of the mock storage."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        """A fresh one, with small parts."""
        store = FolderObjectStore(
            tmp_path / "mock", "downloads/", "http://api.test", min_part_bytes=PART_BYTES
        )
        return Subject(store, "results/", PART_BYTES)


def test_memory_presign_tells_what_was_asked() -> None:
    """A URL of the store in memory names bucket, key, time and file name, for tests to look at."""
    store = MemoryObjectStore("files")
    url = store.presign_get("results/a b.zip", expires_seconds=600, filename="my files.zip")
    assert url == "memory://files/results/a%20b.zip?expires=600&filename=my+files.zip"


def test_memory_keeps_the_content_type() -> None:
    """Tests can see what content type an object was stored with, put or uploaded."""
    store = MemoryObjectStore()
    upload_id = store.create_upload("a.zip", content_type="application/zip")
    store.complete_upload("a.zip", upload_id, [store.upload_part("a.zip", upload_id, 1, b"x")])
    store.put("a.json", b"{}", content_type="application/json")
    assert (store.content_type("a.zip"), store.content_type("a.json")) == (
        "application/zip",
        "application/json",
    )
    with pytest.raises(ObjectNotFoundError):
        store.content_type("b")


def test_memory_takes_its_own_copy() -> None:
    """A buffer that is used again does not change what was stored from it."""
    store = MemoryObjectStore()
    buffer = bytearray(b"first")
    store.put("a", buffer)
    upload_id = store.create_upload("b")
    part = store.upload_part("b", upload_id, 1, memoryview(buffer))
    buffer[:] = b"other"
    store.complete_upload("b", upload_id, [part])
    assert read_all(store.open("a")) == read_all(store.open("b")) == b"first"
