"""What every object store must do, whatever is behind it.

A test file subclasses `ObjectStoreContract` and gives it a fixture `subject`. A
reader's rules and an upload's are in classes of their own for their length only.
"""

from __future__ import annotations

import hashlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from downloadjobs_core.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreError,
    UploadNotFoundError,
)
from downloadjobs_core.objectstore.protocol import (
    MAX_PRESIGN_SECONDS,
    BytesLike,
    ObjectReader,
    ObjectStore,
    Part,
)

UNKNOWN_UPLOAD = "0123456789abcdef0123456789abcdef"
ODD_NAMES = ("with space.zip", "ä-ö-漢.zip", "a+b%20c&d=e?f#g.zip", "tilde~(1)'!*.zip")


@dataclass(frozen=True, slots=True)
class Subject:
    """A store under test.

    Attributes:
        store: it.
        prefix: begins the keys of this test, and of no other one.
        part_bytes: the smallest size of a part that is not the last.
    """

    store: ObjectStore
    prefix: str
    part_bytes: int

    def key(self, name: str = "object.zip") -> str:
        """A key of this test's own."""
        return self.prefix + name


def some_bytes(size: int, seed: int = 0) -> bytes:
    """Bytes that do not repeat, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def read_all(reader: ObjectReader, piece: int = 1 << 20) -> bytes:
    """What is left in a reader, which is closed."""
    with reader:
        return b"".join(iter(lambda: reader.read(piece), b""))


class ReadingContract:
    """Rules of storing, looking up, reading, listing and removing whole objects."""

    def test_is_an_object_store(self, subject: Subject) -> None:
        """The store has everything that the protocol names."""
        assert isinstance(subject.store, ObjectStore)

    def test_check(self, subject: Subject) -> None:
        """A store that can be used passes its check."""
        subject.store.check()

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_put_takes_any_bytes(self, subject: Subject, kind: type[bytes | bytearray | memoryview]) -> None:
        """Bytes, bytearrays and memoryviews are stored alike."""
        data: BytesLike = kind(some_bytes(100_000))
        subject.store.put(subject.key(), data)
        assert read_all(subject.store.open(subject.key())) == bytes(data)

    def test_put_takes_a_part_of_a_buffer(self, subject: Subject) -> None:
        """A slice of a larger buffer is stored without what is around it."""
        buffer = bytearray(some_bytes(300_000))
        subject.store.put(subject.key(), memoryview(buffer)[1000:250_000])
        assert read_all(subject.store.open(subject.key())) == buffer[1000:250_000]

    def test_stat(self, subject: Subject) -> None:
        """An object's size in bytes, and the ETag that `put` returned, without quotes."""
        etag = subject.store.put(subject.key(), b"0123456789")
        found = subject.store.stat(subject.key())
        assert (found.key, found.size, found.etag) == (subject.key(), 10, etag)
        assert etag
        assert '"' not in etag

    def test_stat_of_nothing(self, subject: Subject) -> None:
        """Looking up an object that is not there says which one."""
        with pytest.raises(ObjectNotFoundError) as caught:
            subject.store.stat(subject.key())
        assert caught.value.key == subject.key()

    def test_a_folder_is_no_object(self, subject: Subject) -> None:
        """The part of a key before a slash names nothing."""
        subject.store.put(subject.key("folder/object"), b"x")
        with pytest.raises(ObjectNotFoundError):
            subject.store.open(subject.key("folder"))

    def test_empty_object(self, subject: Subject) -> None:
        """An object may have no bytes, and is at its end when it is opened."""
        subject.store.put(subject.key(), b"")
        assert subject.store.stat(subject.key()).size == 0
        assert read_all(subject.store.open(subject.key())) == b""

    def test_put_replaces(self, subject: Subject) -> None:
        """Storing under a key again gives other bytes and another ETag."""
        first = subject.store.put(subject.key(), b"one")
        second = subject.store.put(subject.key(), b"two")
        assert first != second
        assert subject.store.stat(subject.key()).etag == second
        assert read_all(subject.store.open(subject.key())) == b"two"

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_keys(self, subject: Subject, name: str) -> None:
        """A key is taken as it is, whatever its signs mean in a URL."""
        subject.store.put(subject.key(name), name.encode())
        assert read_all(subject.store.open(subject.key(name))) == name.encode()
        assert [found.key for found in subject.store.list(subject.prefix)] == [subject.key(name)]

    def test_open_of_nothing(self, subject: Subject) -> None:
        """Opening an object that is not there fails at once, not at the first read."""
        with pytest.raises(ObjectNotFoundError):
            subject.store.open(subject.key())

    def test_reads_are_no_longer_than_asked(self, subject: Subject) -> None:
        """A read gives at most what was asked for, and empty bytes at the end, again and again."""
        data = some_bytes(10_000)
        subject.store.put(subject.key(), data)
        with subject.store.open(subject.key()) as reader:
            pieces = [reader.read(4096) for _ in range(5)]
        assert max(map(len, pieces)) <= 4096
        assert b"".join(pieces) == data
        assert pieces[-1] == b""

    @pytest.mark.parametrize("offset", [0, 1, 4096, 99_999])
    def test_open_from_an_offset(self, subject: Subject, offset: int) -> None:
        """A read may begin in the middle; size and ETag are still the whole object's."""
        data = some_bytes(100_000)
        etag = subject.store.put(subject.key(), data)
        reader = subject.store.open(subject.key(), offset=offset, if_match=etag)
        assert (reader.stat.key, reader.stat.size, reader.stat.etag) == (subject.key(), 100_000, etag)
        assert read_all(reader) == data[offset:]

    def test_open_at_the_end(self, subject: Subject) -> None:
        """An offset that is the object's size leaves nothing to read, and is no error."""
        etag = subject.store.put(subject.key(), b"12345")
        reader = subject.store.open(subject.key(), offset=5, if_match=etag)
        assert reader.stat.size == 5
        assert read_all(reader) == b""

    def test_open_past_the_end(self, subject: Subject) -> None:
        """An object shorter than the offset is not the one that was read before."""
        subject.store.put(subject.key(), b"12345")
        with pytest.raises(ObjectChangedError):
            subject.store.open(subject.key(), offset=6)

    @pytest.mark.parametrize("offset", [0, 2, 5])
    def test_if_match_refuses_another_object(self, subject: Subject, offset: int) -> None:
        """With `if_match`, an object that was replaced is not opened, wherever the read would begin."""
        etag = subject.store.put(subject.key(), b"12345")
        subject.store.put(subject.key(), b"54321")
        with pytest.raises(ObjectChangedError) as caught:
            subject.store.open(subject.key(), offset=offset, if_match=etag)
        assert caught.value.key == subject.key()

    def test_if_match_of_nothing(self, subject: Subject) -> None:
        """With `if_match`, an object that is gone is not found, rather than changed."""
        with pytest.raises(ObjectNotFoundError):
            subject.store.open(subject.key(), if_match="0123456789abcdef0123456789abcdef")

    def test_close_before_the_end(self, subject: Subject) -> None:
        """A reader may be closed at any time, and twice; the store goes on."""
        subject.store.put(subject.key(), some_bytes(3_000_000))
        for _ in range(5):
            reader = subject.store.open(subject.key())
            reader.read(1000)
            reader.close()
            reader.close()
        assert subject.store.stat(subject.key()).size == 3_000_000

    def test_threads_share_a_store(self, subject: Subject) -> None:
        """Several threads read and write through one store at once."""

        def write_and_read(number: int) -> bool:
            data = some_bytes(200_000, number)
            subject.store.put(subject.key(str(number)), data)
            return read_all(subject.store.open(subject.key(str(number)))) == data

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(write_and_read, range(32)))

    def test_delete(self, subject: Subject) -> None:
        """A removed object is gone, and removing it again is no error."""
        subject.store.put(subject.key(), b"x")
        subject.store.delete(subject.key())
        with pytest.raises(ObjectNotFoundError):
            subject.store.stat(subject.key())
        subject.store.delete(subject.key())

    def test_list(self, subject: Subject) -> None:
        """A list has the objects under its prefix and no other, however deep, with size and ETag."""
        wanted = {
            subject.key(name): subject.store.put(subject.key(name), name.encode())
            for name in ("a/1", "a/2/3/4", "a/22")
        }
        subject.store.put(subject.key("b/1"), b"x")
        found = list(subject.store.list(subject.key("a/")))
        assert {stat.key: stat.etag for stat in found} == wanted
        assert sorted(stat.size for stat in found) == [3, 4, 7]
        prefix = subject.key("a/2")
        assert {stat.key for stat in subject.store.list(prefix)} == {
            subject.key("a/2/3/4"),
            subject.key("a/22"),
        }

    def test_list_of_nothing(self, subject: Subject) -> None:
        """A prefix without objects gives an empty list."""
        assert list(subject.store.list(subject.prefix)) == []

    def test_list_is_not_cut_off(self, subject: Subject) -> None:
        """A list goes on past the 1,000 objects that one answer of S3 holds."""
        keys = [subject.key(f"{number:04}") for number in range(1_100)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: subject.store.put(key, b"x"), keys))
        assert sorted(stat.key for stat in subject.store.list(subject.prefix)) == keys

    @pytest.mark.parametrize("seconds", [0, -1, MAX_PRESIGN_SECONDS + 1])
    def test_presign_has_limits(self, subject: Subject, seconds: int) -> None:
        """A URL cannot be good for less than a second or more than seven days."""
        with pytest.raises(ValueError, match=str(seconds)):
            subject.store.presign_get(subject.key(), expires_seconds=seconds)


class UploadContract:
    """Rules of multipart uploads."""

    def test_upload(self, subject: Subject) -> None:
        """Parts come in any order and size, and are joined by their numbers."""
        store, key = subject.store, subject.key()
        contents = {
            1: some_bytes(subject.part_bytes + 7, 1),
            2: some_bytes(subject.part_bytes, 2),
            5: some_bytes(subject.part_bytes * 2 + 1, 5),
            9: b"end",
        }
        upload_id = store.create_upload(key, content_type="application/zip")
        parts = [store.upload_part(key, upload_id, number, contents[number]) for number in (9, 2, 5, 1)]
        assert [part.number for part in parts] == [9, 2, 5, 1]
        etag = store.complete_upload(key, upload_id, parts)
        assert store.stat(key).etag == etag
        whole = b"".join(contents[number] for number in sorted(contents))
        assert hashlib.sha256(read_all(store.open(key))).digest() == hashlib.sha256(whole).digest()
        assert (
            read_all(store.open(key, offset=subject.part_bytes + 3, if_match=etag))
            == whole[subject.part_bytes + 3 :]
        )

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_one_small_part(self, subject: Subject, kind: type[bytes | bytearray | memoryview]) -> None:
        """A single part may be small, as it is the last; it may be any kind of bytes."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        store.complete_upload(key, upload_id, [store.upload_part(key, upload_id, 1, kind(b"small"))])
        assert read_all(store.open(key)) == b"small"

    def test_parts_at_once(self, subject: Subject) -> None:
        """Several threads upload parts of one object at once."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        contents = [some_bytes(subject.part_bytes, number) for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            parts = list(
                pool.map(
                    lambda item: store.upload_part(key, upload_id, item[0], item[1]), enumerate(contents, 1)
                )
            )
        store.complete_upload(key, upload_id, parts)
        assert read_all(store.open(key)) == b"".join(contents)

    def test_nothing_is_seen_before_the_end(self, subject: Subject) -> None:
        """An object appears when its upload is completed, not before."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        part = store.upload_part(key, upload_id, 1, b"x")
        with pytest.raises(ObjectNotFoundError):
            store.stat(key)
        assert list(store.list(subject.prefix)) == []
        store.complete_upload(key, upload_id, [part])
        assert store.stat(key).size == 1

    def test_upload_replaces(self, subject: Subject) -> None:
        """Completing an upload replaces an object, which stays as it was until then."""
        store, key = subject.store, subject.key()
        store.put(key, b"old")
        upload_id = store.create_upload(key)
        part = store.upload_part(key, upload_id, 1, b"new")
        assert read_all(store.open(key)) == b"old"
        store.complete_upload(key, upload_id, [part])
        assert read_all(store.open(key)) == b"new"

    def test_small_part_in_the_middle(self, subject: Subject) -> None:
        """A part that is too small and not the last is refused, no retry mends it, and the upload stays."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        parts = [store.upload_part(key, upload_id, number, b"small") for number in (1, 2)]
        with pytest.raises(ObjectStoreError) as caught:
            store.complete_upload(key, upload_id, parts)
        assert not caught.value.retryable
        assert not isinstance(caught.value, UploadNotFoundError)
        assert [upload.upload_id for upload in store.pending_uploads(key)] == [upload_id]
        store.abort_upload(key, upload_id)

    def test_complete_without_a_part(self, subject: Subject) -> None:
        """Naming a part that was not uploaded is refused; the right list still works after it."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        part = store.upload_part(key, upload_id, 1, some_bytes(subject.part_bytes))
        with pytest.raises(UploadNotFoundError):
            store.complete_upload(key, upload_id, [part, Part(2, part.etag)])
        store.complete_upload(key, upload_id, [part])
        assert store.stat(key).size == subject.part_bytes

    def test_complete_with_a_wrong_etag(self, subject: Subject) -> None:
        """A part with another ETag than the one uploaded is refused."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        store.upload_part(key, upload_id, 1, b"x")
        with pytest.raises(UploadNotFoundError):
            store.complete_upload(key, upload_id, [Part(1, "0123456789abcdef0123456789abcdef")])
        store.abort_upload(key, upload_id)

    def test_complete_twice(self, subject: Subject) -> None:
        """Completing again finds no upload, or answers the same; the object stays whole."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        part = store.upload_part(key, upload_id, 1, b"x")
        etag = store.complete_upload(key, upload_id, [part])
        try:
            again = store.complete_upload(key, upload_id, [part])
        except UploadNotFoundError:
            again = etag
        assert again == etag == store.stat(key).etag

    def test_same_part_again(self, subject: Subject) -> None:
        """Sending a part again with the same bytes, as a retry does, changes nothing."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        first, second = (store.upload_part(key, upload_id, 1, b"same") for _ in range(2))
        assert first == second
        store.complete_upload(key, upload_id, [second])
        assert read_all(store.open(key)) == b"same"

    def test_abort(self, subject: Subject) -> None:
        """After an abort no part is taken, nothing can be completed, and no object is there."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        part = store.upload_part(key, upload_id, 1, b"x")
        store.abort_upload(key, upload_id)
        with pytest.raises(UploadNotFoundError):
            store.upload_part(key, upload_id, 2, b"y")
        with pytest.raises(UploadNotFoundError):
            store.complete_upload(key, upload_id, [part])
        with pytest.raises(ObjectNotFoundError):
            store.stat(key)

    def test_abort_of_nothing(self, subject: Subject) -> None:
        """Aborting twice, after completing, or what never was, is no error, and harms no object."""
        store, key = subject.store, subject.key()
        aborted, completed = store.create_upload(key), store.create_upload(key)
        store.complete_upload(key, completed, [store.upload_part(key, completed, 1, b"x")])
        for upload_id in (aborted, aborted, completed, UNKNOWN_UPLOAD):
            store.abort_upload(key, upload_id)
        assert store.stat(key).size == 1

    def test_upload_is_of_one_key(self, subject: Subject) -> None:
        """An upload's id is good for the key it was begun for, and for no other."""
        store, key = subject.store, subject.key()
        upload_id = store.create_upload(key)
        with pytest.raises(UploadNotFoundError):
            store.upload_part(subject.key("other"), upload_id, 1, b"x")
        store.abort_upload(subject.key("other"), upload_id)
        store.complete_upload(key, upload_id, [store.upload_part(key, upload_id, 1, b"x")])
        assert store.stat(key).size == 1

    def test_unknown_upload(self, subject: Subject) -> None:
        """No part is taken for an upload that was never begun."""
        with pytest.raises(UploadNotFoundError):
            subject.store.upload_part(subject.key(), UNKNOWN_UPLOAD, 1, b"x")

    @pytest.mark.parametrize("number", [0, -1, 10_001])
    def test_part_numbers_have_limits(self, subject: Subject, number: int) -> None:
        """Parts are numbered from 1 to 10,000."""
        with pytest.raises(ValueError, match=str(number)):
            subject.store.upload_part(subject.key(), UNKNOWN_UPLOAD, number, b"x")

    @pytest.mark.parametrize("parts", [[], [Part(1, "a"), Part(1, "b")]])
    def test_parts_are_a_sane_list(self, subject: Subject, parts: list[Part]) -> None:
        """No part at all, or one number twice, is the caller's mistake."""
        with pytest.raises(ValueError, match="part"):
            subject.store.complete_upload(subject.key(), UNKNOWN_UPLOAD, parts)

    def test_pending_uploads(self, subject: Subject) -> None:
        """An upload is pending from its begin to its end; its key, id and time are known."""
        store = subject.store
        before = time.time()
        begun = {store.create_upload(subject.key(name)): subject.key(name) for name in ("a/1", "a/2", "b/1")}
        pending = {upload.upload_id: upload for upload in store.pending_uploads(subject.prefix)}
        assert {upload_id: upload.key for upload_id, upload in pending.items()} == begun
        assert all(before - 2 < upload.initiated_at < time.time() + 2 for upload in pending.values())
        one, two, other = begun
        assert {upload.upload_id for upload in store.pending_uploads(subject.key("a/"))} == {one, two}
        store.abort_upload(begun[one], one)
        store.complete_upload(begun[two], two, [store.upload_part(begun[two], two, 1, b"x")])
        assert [upload.upload_id for upload in store.pending_uploads(subject.prefix)] == [other]
        store.abort_upload(begun[other], other)
        assert list(store.pending_uploads(subject.prefix)) == []

    def test_pending_uploads_of_one_key(self, subject: Subject) -> None:
        """A whole key gives that key's uploads, each of them."""
        store, key = subject.store, subject.key()
        begun = {store.create_upload(key) for _ in range(3)}
        other = store.create_upload(subject.key("other"))
        assert {upload.upload_id for upload in store.pending_uploads(key)} == begun
        for upload_id in begun:
            store.abort_upload(key, upload_id)
        store.abort_upload(subject.key("other"), other)

    def test_pending_uploads_are_not_cut_off(self, subject: Subject) -> None:
        """The pending uploads go on past the 1,000 that one answer of S3 holds."""
        store = subject.store
        keys = [subject.key(f"{number:04}") for number in range(1_050)]
        with ThreadPoolExecutor(16) as pool:
            ids = list(pool.map(store.create_upload, keys))
            assert sorted(upload.upload_id for upload in store.pending_uploads(subject.prefix)) == sorted(ids)
            list(pool.map(store.abort_upload, keys, ids))
        assert list(store.pending_uploads(subject.prefix)) == []


class ObjectStoreContract(ReadingContract, UploadContract):
    """All rules."""
