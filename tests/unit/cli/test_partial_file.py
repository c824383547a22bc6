"""The unfinished download on disk, and when its bytes may be used."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from downloadjobs_cli.errors import CliError, SettingsError
from downloadjobs_cli.partial_file import (
    ContentRange,
    Origin,
    PartialFile,
    continues,
    refuse_special,
    resume_offset,
    strong,
)

ORIGIN = Origin(job_id="j1", etag='"e1"', size=100)


@pytest.mark.parametrize(
    ("origin", "job_id", "on_disk", "offset"),
    [
        (ORIGIN, "j1", 40, 40),
        (ORIGIN, "j1", 100, 100),
        (ORIGIN, "j1", 0, 0),
        (None, "j1", 40, 0),
        (ORIGIN, "j2", 40, 0),
        (ORIGIN, "j1", 101, 0),
        (Origin(schema=2, job_id="j1", etag='"e1"', size=100), "j1", 40, 0),
    ],
    ids=["part", "whole", "nothing", "unknown", "other-job", "too-much", "later-release"],
)
def test_bytes_are_used_only_if_they_are_known(
    origin: Origin | None, job_id: str, on_disk: int, offset: int
) -> None:
    """A download goes on from bytes of the same job's result, and begins anew with any others."""
    assert resume_offset(origin, job_id, on_disk) == offset


@pytest.mark.parametrize(
    ("status", "content_range", "etag", "joined"),
    [
        (206, "bytes 40-99/100", '"e1"', True),
        (200, None, '"e1"', False),
        (206, "bytes 40-99/100", '"e2"', False),
        (206, "bytes 40-99/100", None, False),
        (206, "bytes 0-99/100", '"e1"', False),
        (206, "bytes 40-99/101", '"e1"', False),
        (206, "bytes 40-99/*", '"e1"', False),
        (206, None, '"e1"', False),
        (412, None, '"e1"', False),
    ],
)
def test_only_the_rest_of_the_same_result_is_joined(
    *, status: int, content_range: str | None, etag: str | None, joined: bool
) -> None:
    """A body is put behind the bytes on disk only if it is the range asked for, of the same ETag and size."""
    assert continues(ORIGIN, 40, status, content_range, etag) is joined


@pytest.mark.parametrize(
    ("etag", "found"),
    [('"a"', '"a"'), ('W/"a"', None), (None, None), ("a", None), ('"', None), ('"é"', None), ('"a\n"', None)],
)
def test_weak_tags_join_nothing(etag: str | None, found: str | None) -> None:
    """Only a strong ETag promises equal bytes, and only one of ASCII can be sent back."""
    assert strong(etag) == found


@pytest.mark.parametrize("header", [None, "", "bytes", "bytes */100", "items 1-2/3", "bytes a-b/c"])
def test_other_ranges_are_none(header: str | None) -> None:
    """A Content-Range of another form is no range."""
    assert ContentRange.parse(header) is None


def test_what_is_there_is_found_again(tmp_path: Path) -> None:
    """Bytes and their origin outlive the process; the final name is free until the end."""
    target = tmp_path / "a.zip"
    with PartialFile(target) as partial:
        partial.begin(ORIGIN)
        partial.append(b"x" * 40)
    with PartialFile(target) as partial:
        assert (partial.size, partial.origin) == (40, ORIGIN)
        assert not target.exists()
        partial.append(b"y" * 60)
        assert partial.complete() == target
    assert target.read_bytes() == b"x" * 40 + b"y" * 60
    assert list(tmp_path.iterdir()) == [target]


def test_the_sidecar_holds_no_url(tmp_path: Path) -> None:
    """Beside the bytes stand only the job, the ETag and the size: never the presigned URL."""
    with PartialFile(tmp_path / "a.zip") as partial:
        partial.begin(ORIGIN)
        partial.append(b"x")
    document = json.loads((tmp_path / "a.zip.part.json").read_text())
    assert document == {"schema": 1, "jobId": "j1", "etag": '"e1"', "size": 100}


@pytest.mark.parametrize("content", ["", "{", '{"size": "x"}'])
def test_a_broken_sidecar_makes_bytes_unknown(tmp_path: Path, content: str) -> None:
    """Where the sidecar cannot be read, the bytes are of unknown origin."""
    (tmp_path / "a.zip.part").write_bytes(b"x")
    (tmp_path / "a.zip.part.json").write_text(content)
    with PartialFile(tmp_path / "a.zip") as partial:
        assert partial.origin is None


def test_nothing_downloaded_leaves_nothing(tmp_path: Path) -> None:
    """A download that got no byte leaves no file behind."""
    with PartialFile(tmp_path / "a.zip") as partial:
        partial.begin(ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_two_downloads_to_one_path_are_refused(tmp_path: Path) -> None:
    """A second download to the same path is refused: the two would mix their bytes."""
    with PartialFile(tmp_path / "a.zip"), pytest.raises(CliError, match="under way"):
        PartialFile(tmp_path / "a.zip")


def test_a_broken_result_is_set_aside(tmp_path: Path) -> None:
    """What did not verify gets another name, and the next try begins anew."""
    with PartialFile(tmp_path / "a.zip") as partial:
        partial.begin(ORIGIN)
        partial.append(b"x")
        assert partial.set_aside() == tmp_path / "a.zip.broken"
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip.broken"]


@pytest.mark.parametrize("etag", ['"é"', '"日本"', '"a\r\nX: y"', '"a\x01"', 'W/"e1"', "e1", ""])
def test_a_sidecar_with_a_tag_that_no_server_gives_is_as_none(tmp_path: Path, etag: str) -> None:
    """Where the ETag could not stand in a request, the bytes are of unknown origin: begin anew."""
    (tmp_path / "a.zip.part").write_bytes(b"x")
    (tmp_path / "a.zip.part.json").write_text(json.dumps({"jobId": "j1", "etag": etag, "size": 100}))
    with PartialFile(tmp_path / "a.zip") as partial:
        assert partial.origin is None


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b'{"jobId": "\xff"}', b'{"x":' + b"[" * 60_000], ids=["bytes", "text", "deep"]
)
def test_a_sidecar_that_is_no_document_makes_bytes_unknown(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in the sidecar, reading it raises nothing."""
    (tmp_path / "a.zip.part").write_bytes(b"x")
    (tmp_path / "a.zip.part.json").write_bytes(content)
    with PartialFile(tmp_path / "a.zip") as partial:
        assert partial.origin is None


def test_a_part_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """PATH.part is never written through a symbolic link, whether or not a file is at its end."""
    other = tmp_path / "other"
    (tmp_path / "a.zip.part").symlink_to(other)
    with pytest.raises(SettingsError, match="symbolic link"):
        PartialFile(tmp_path / "a.zip")
    assert not other.exists()
    other.write_text("mine")
    with pytest.raises(SettingsError, match="symbolic link"):
        PartialFile(tmp_path / "a.zip")
    assert other.read_text() == "mine"


def test_a_part_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    """A named pipe at PATH.part is refused at once, and nobody is waited for at its other end."""
    os.mkfifo(tmp_path / "a.zip.part")
    with pytest.raises(SettingsError, match="named pipe"):
        PartialFile(tmp_path / "a.zip")


def test_the_sidecar_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A link at PATH.part.json is replaced; what it points to is neither read nor changed."""
    other = tmp_path / "other"
    other.write_text('{"jobId": "j1", "etag": "\\"e1\\"", "size": 100}')
    before = other.read_text()
    (tmp_path / "a.zip.part.json").symlink_to(other)
    with PartialFile(tmp_path / "a.zip") as partial:
        assert partial.origin is None
        partial.begin(Origin(job_id="j2", etag='"e2"', size=1))
        partial.append(b"x")
    assert other.read_text() == before
    assert not (tmp_path / "a.zip.part.json").is_symlink()


def test_only_regular_files_are_no_special_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes, sockets, folders and links are refused by name; a file is found, and nothing is nothing."""
    monkeypatch.chdir(tmp_path)
    assert refuse_special(Path("absent")) is False
    Path("file").touch()
    assert refuse_special(Path("file")) is True
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("link").symlink_to("file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        for name, kind in (
            ("pipe", "a named pipe"),
            ("folder", "a folder"),
            ("link", "a symbolic"),
            ("sock", "a socket"),
        ):
            with pytest.raises(SettingsError, match=kind):
                refuse_special(Path(name))
