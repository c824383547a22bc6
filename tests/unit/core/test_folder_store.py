"""The mock storage: generated files, signed links, and a folder that several processes share."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.errors import (
    LinkRefusedError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
)
from downloadjobs_core.objectstore import mock_files
from downloadjobs_core.objectstore.arguments import content_disposition
from downloadjobs_core.objectstore.folder import FolderObjectStore
from downloadjobs_core.objectstore.mock_links import LinkSigner
from support_objectstore_contract import read_all

NOW = 1_800_000_000.0
AVAILABLE, ABSENT = "downloads/70000.zip", "downloads/70001.zip"
ESCAPES = ("../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/.", "a\0b", "", "..", "a/")

file_ids = st.integers(10_000, 100_000_000).map(lambda number: number - number % 7)


class Opener(Protocol):
    """Opens one more store on the same folder, as another process would."""

    def __call__(self) -> FolderObjectStore: ...


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the mock storage will be; nothing is there yet."""
    return tmp_path / "deep" / "mock"


@pytest.fixture
def open_store(root: Path) -> Opener:
    """Opens stores on `root`."""
    return lambda: FolderObjectStore(root, "downloads/", "http://api.test/", clock=lambda: NOW)


@pytest.fixture
def store(open_store: Opener) -> FolderObjectStore:
    """A store on a new folder."""
    return open_store()


def token_of(url: str) -> str:
    """The token in a link."""
    return url.rpartition("/")[2]


@pytest.mark.parametrize("file_id", [0, 7, 10_003, 70_000, 99_999_998])
def test_every_seventh_file_is_there(store: FolderObjectStore, file_id: int) -> None:
    """A file is there if its id is divisible by 7, and the next six are not."""
    assert store.stat(f"downloads/{file_id}.zip").size > 0
    for absent in range(file_id + 1, file_id + 7):
        with pytest.raises(ObjectNotFoundError):
            store.stat(f"downloads/{absent}.zip")
        with pytest.raises(ObjectNotFoundError):
            store.path_of(f"downloads/{absent}.zip")


@pytest.mark.parametrize(
    "name", ["07.zip", "7", "7.ZIP", "-7.zip", "7.zip.zip", "x7.zip", "\uff17.zip", "7 .zip"]
)
def test_only_plain_ids_are_files(store: FolderObjectStore, name: str) -> None:
    """A name that is no decimal id with `.zip` is no generated file."""
    with pytest.raises(ObjectNotFoundError):
        store.stat(f"downloads/{name}")


def test_the_prefix_counts(store: FolderObjectStore) -> None:
    """Files lie under the prefix that was set, and nowhere else."""
    with pytest.raises(ObjectNotFoundError):
        store.stat("other/70000.zip")
    with pytest.raises(ObjectNotFoundError):
        store.stat("70000.zip")


@given(file_ids)
def test_sizes_have_limits(file_id: int) -> None:
    """A generated file has 64 KiB to 1 MiB."""
    assert 65_536 <= mock_files.size_of(file_id) <= 1_048_576


@given(file_ids, st.data())
def test_any_range_is_part_of_the_whole(file_id: int, data: st.DataObject) -> None:
    """Read at any offset, a generated file gives the bytes that the whole has there."""
    size = mock_files.size_of(file_id)
    offset = data.draw(st.integers(0, size + 10))
    length = data.draw(st.integers(0, size))
    whole = mock_files.read_at(file_id, 0, size)
    assert len(whole) == size
    assert mock_files.read_at(file_id, offset, length) == whole[offset : offset + length]


def test_generated_files_never_change(store: FolderObjectStore) -> None:
    """Size, ETag and bytes of a file are the same on every machine and in every version."""
    found = store.stat(AVAILABLE)
    with store.open(AVAILABLE, if_match=found.etag) as reader:
        head = reader.read(8)
    assert (found.size, found.etag, head.hex()) == (
        1_011_444,
        "2a0a9065a1be4ff18f2b3ef0330579cd",
        "876a03fc8bf6c8d4",
    )


def test_generated_files_differ(store: FolderObjectStore) -> None:
    """Two files have other bytes, sizes and ETags."""
    one, other = store.stat("downloads/70000.zip"), store.stat("downloads/70007.zip")
    assert one.size != other.size
    assert one.etag != other.etag
    with store.open(one.key) as first, store.open(other.key) as second:
        assert first.read(1000) != second.read(1000)


def test_open_generated_file(store: FolderObjectStore) -> None:
    """A generated file is opened like a stored one: offset, `if_match`, end."""
    whole = read_all(store.open(AVAILABLE))
    found = store.stat(AVAILABLE)
    assert len(whole) == found.size
    assert read_all(store.open(AVAILABLE, offset=65_000), piece=777) == whole[65_000:]
    assert read_all(store.open(AVAILABLE, offset=found.size)) == b""
    with pytest.raises(ObjectChangedError):
        store.open(AVAILABLE, offset=found.size + 1)
    with pytest.raises(ObjectChangedError):
        store.open(AVAILABLE, if_match="other")


@pytest.mark.parametrize("key", [AVAILABLE, ABSENT])
def test_files_are_read_only(store: FolderObjectStore, key: str) -> None:
    """What is generated cannot be stored over, uploaded to or removed."""
    with pytest.raises(ObjectStoreDeniedError, match=key):
        store.put(key, b"x")
    with pytest.raises(ObjectStoreDeniedError, match=key):
        store.create_upload(key)
    with pytest.raises(ObjectStoreDeniedError, match=key):
        store.delete(key)


def test_files_are_not_listed(store: FolderObjectStore) -> None:
    """Generated files are without number, so lists hold only what was stored."""
    store.path_of(AVAILABLE)
    store.put("results/a.zip", b"x")
    assert [found.key for found in store.list("")] == ["results/a.zip"]


def test_path_of_a_result(store: FolderObjectStore, root: Path) -> None:
    """A result can be served from its file, which lies in the folder under its key."""
    store.put("results/a/b.zip", b"content")
    assert store.path_of("results/a/b.zip").read_bytes() == b"content"
    assert store.path_of("results/a/b.zip") == root / "objects/results/a/b.zip"


def test_path_of_a_generated_file(store: FolderObjectStore) -> None:
    """A generated file is written down when it is to be served from a file, with the same bytes."""
    path = store.path_of(AVAILABLE)
    assert path.read_bytes() == read_all(store.open(AVAILABLE))
    assert store.path_of(AVAILABLE) == path


def test_path_of_nothing(store: FolderObjectStore) -> None:
    """There is no file for an object that is not there."""
    with pytest.raises(ObjectNotFoundError):
        store.path_of("results/none.zip")


@pytest.mark.parametrize("key", ESCAPES)
@pytest.mark.parametrize("name", ["stat", "path_of", "put", "delete", "create_upload"])
def test_no_key_leads_out_of_the_folder(store: FolderObjectStore, root: Path, key: str, name: str) -> None:
    """A key with an empty segment, `.`, `..` or a NUL is refused, and nothing is made or removed for it."""
    actions: dict[str, Callable[[], object]] = {
        "stat": lambda: store.stat(key),
        "path_of": lambda: store.path_of(key),
        "put": lambda: store.put(key, b"x"),
        "delete": lambda: store.delete(key),
        "create_upload": lambda: store.create_upload(key),
    }
    before = sorted(root.parent.rglob("*"))
    with pytest.raises(ValueError, match="no key"):
        actions[name]()
    assert sorted(root.parent.rglob("*")) == before


@pytest.mark.parametrize("upload_id", ["../objects/results", "..", "", "0" * 31, "0" * 32 + "/.."])
def test_no_upload_id_leads_out_of_the_folder(store: FolderObjectStore, upload_id: str) -> None:
    """Whatever is no upload's id names no upload; aborting it removes nothing."""
    store.put("results/key", b"results/key")
    store.abort_upload("results/key", upload_id)
    with pytest.raises(ObjectStoreError):
        store.upload_part("results/key", upload_id, 1, b"x")
    assert store.stat("results/key").size == 11


def test_folder_is_private(store: FolderObjectStore, root: Path) -> None:
    """Nobody else on the machine can read the folder, the results in it or the key of links."""
    store.presign_get("results/a.zip", expires_seconds=1)
    store.put("results/a.zip", b"x")
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "link.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path_of("results/a.zip").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to someone else")
def test_folder_of_someone_else(root: Path, open_store: Opener) -> None:
    """A folder that another user laid out is not used: its links could be forged, its results read."""
    (root / "objects").mkdir(parents=True)
    os.chown(root / "objects", 65_534, 65_534)
    with pytest.raises(ObjectStoreError, match="MOCK_STORAGE_DIR"):
        open_store()


def test_folder_that_is_a_link(root: Path, tmp_path: Path, open_store: Opener) -> None:
    """A link in the place of a folder is not followed."""
    root.mkdir(parents=True)
    (root / "objects").symlink_to(tmp_path)
    with pytest.raises(ObjectStoreError, match="MOCK_STORAGE_DIR"):
        open_store()


def test_folder_cannot_be_made(root: Path, open_store: Opener) -> None:
    """A folder that cannot be used is named, with the setting that names it."""
    root.parent.mkdir()
    root.write_text("a file")
    with pytest.raises(ObjectStoreUnavailableError, match=rf"{re.escape(str(root))} \(MOCK_STORAGE_DIR\)"):
        open_store()


def test_check_makes_the_folder_anew(store: FolderObjectStore, root: Path) -> None:
    """A folder that was removed is unavailable until the next check makes it again."""
    for folder in root.iterdir():
        folder.rmdir()
    with pytest.raises(ObjectStoreError):
        store.put("results/a.zip", b"x")
    store.check()
    store.put("results/a.zip", b"x")


def test_processes_share_the_folder(store: FolderObjectStore, open_store: Opener) -> None:
    """What one process stores, uploads or signs, another one reads, completes or accepts."""
    other = open_store()
    etag = store.put("results/a.zip", b"x")
    assert other.stat("results/a.zip").etag == etag
    upload_id = store.create_upload("results/b.zip")
    part = other.upload_part("results/b.zip", upload_id, 1, b"y")
    store.complete_upload("results/b.zip", upload_id, [part])
    assert read_all(other.open("results/b.zip")) == b"y"
    token = token_of(store.presign_get("results/a.zip", expires_seconds=60))
    assert other.verify(token, NOW) == ("results/a.zip", None)


def test_a_write_that_fails_leaves_nothing(store: FolderObjectStore, root: Path) -> None:
    """A file that could not be written to its end does not appear, and its remains are removed."""
    store.put("results/a.zip", b"old")
    store.put("results/folder/b.zip", b"x")
    with pytest.raises(ObjectStoreUnavailableError):
        store.put("results/folder", b"there is a folder of this name")
    assert list((root / "scratch").iterdir()) == []
    assert read_all(store.open("results/a.zip")) == b"old"


def test_writing_beside_removing(store: FolderObjectStore, open_store: Opener) -> None:
    """A write succeeds while others remove the last file of its folder, and the folder with it."""

    def write_and_remove(number: int) -> None:
        mine = open_store()
        for _ in range(100):
            mine.put(f"results/job/{number}.zip", b"x")
            mine.delete(f"results/job/{number}.zip")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_and_remove, range(4)))
    assert list(store.list("")) == []


def test_removing_the_last_file_removes_its_folders(store: FolderObjectStore, root: Path) -> None:
    """No empty folders are left where results were."""
    store.put("results/job/1.zip", b"x")
    store.put("results/other/1.zip", b"x")
    store.delete("results/job/1.zip")
    assert [path.name for path in (root / "objects/results").iterdir()] == ["other"]


def test_link(store: FolderObjectStore) -> None:
    """A link is under the API's address and tells which object, and under what name to save it."""
    url = store.presign_get("results/a b.zip", expires_seconds=600, filename="füles.zip")
    assert re.fullmatch(r"http://api\.test/v1/mock/[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", url)
    assert store.verify(token_of(url), NOW + 599) == ("results/a b.zip", "füles.zip")


def test_link_expires(store: FolderObjectStore) -> None:
    """After its time a link is refused, and says so."""
    token = token_of(store.presign_get("results/a.zip", expires_seconds=600))
    with pytest.raises(LinkRefusedError, match="past its time"):
        store.verify(token, NOW + 600)


def test_link_is_of_one_folder(store: FolderObjectStore, tmp_path: Path) -> None:
    """A link signed with another folder's key is refused."""
    other = FolderObjectStore(tmp_path / "other", "downloads/", "http://api.test", clock=lambda: NOW)
    with pytest.raises(LinkRefusedError, match="not made by this server"):
        store.verify(token_of(other.presign_get("results/a.zip", expires_seconds=600)), NOW)


@given(st.data())
def test_changed_link(data: st.DataObject) -> None:
    """A token with any sign changed, added or left out is refused, or is still the same token."""
    with tempfile.TemporaryDirectory() as folder:
        signer = LinkSigner(Path(folder, "link.key"))
        token = signer.sign("results/a.zip", int(NOW) + 60, None)
        at = data.draw(st.integers(0, len(token)))
        cut = data.draw(st.integers(0, 3))
        changed = token[:at] + data.draw(st.text(max_size=3)) + token[at + cut :]
        if changed == token:
            assert signer.verify(changed, NOW) == ("results/a.zip", None)
            return
        try:
            found = signer.verify(changed, NOW)
        except LinkRefusedError:
            return
        assert found == ("results/a.zip", None)  # the last sign of base64 has bits without meaning


@given(st.text())
def test_token_of_anything(text: str) -> None:
    """No text is a token by chance, and none makes the check break."""
    with tempfile.TemporaryDirectory() as folder, pytest.raises(LinkRefusedError):
        LinkSigner(Path(folder, "link.key")).verify(text, NOW)


def test_first_links_of_many_processes(tmp_path: Path) -> None:
    """Processes that all make the first link at once agree on one key, and leave only it."""
    signers = [LinkSigner(tmp_path / "link.key") for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        tokens = list(pool.map(lambda signer: signer.sign("a", int(NOW) + 1, None), signers))
    assert len(set(tokens)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["link.key"]


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("files.zip", 'attachment; filename="files.zip"'),
        ("a b.zip", 'attachment; filename="a b.zip"'),
        ('a"b\\c.zip', "attachment; filename=\"a_b_c.zip\"; filename*=UTF-8''a%22b%5Cc.zip"),
        ("ä%.zip", "attachment; filename=\"__.zip\"; filename*=UTF-8''%C3%A4%25.zip"),
        (
            "a\r\nSet-Cookie: x",
            "attachment; filename=\"a__Set-Cookie_ x\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x",
        ),
    ],
)
def test_content_disposition(filename: str, header: str) -> None:
    """A file name gets into the header whole, and nothing else gets in with it."""
    assert content_disposition(filename) == header
