"""Verifying a result: a sound one passes, and each way to be broken is named."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from downloadjobs_cli.verifying import MANIFEST, ManifestFile, Member, compare, verify

DATA = {"10003.zip": b"three" * 1000, "10010.zip": b"ten" * 2000}


def entry(name: str, data: bytes) -> dict[str, Any]:
    """What a manifest says of a file that is there."""
    return {
        "fileId": int(name.removesuffix(".zip")),
        "name": name,
        "status": "ok",
        "size": len(data),
        "crc32": f"{zlib.crc32(data):08x}",
        "etag": "e",
        "error": None,
        "message": None,
    }


def missing(file_id: int) -> dict[str, Any]:
    """What a manifest says of a file that is not."""
    return {
        "fileId": file_id,
        "name": f"{file_id}.zip",
        "status": "error",
        "size": None,
        "crc32": None,
        "etag": None,
        "error": "not-found",
        "message": "There is no such file.",
    }


def manifest(*extra: dict[str, Any], data: Mapping[str, bytes] = DATA) -> bytes:
    """A manifest of these members, and of what else is given."""
    files = [*(entry(name, content) for name, content in data.items()), *extra]
    return json.dumps({"schema": 1, "jobId": "j1", "totalFileIds": len(files), "files": files}).encode()


def archive(path: Path, members: Mapping[str, bytes], listing: bytes | None) -> Path:
    """A zip of these members, and of the manifest if there is one."""
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
        if listing is not None:
            target.writestr(MANIFEST, listing)
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A zip with nothing wrong."""
    return archive(tmp_path / "sound.zip", DATA, manifest())


def test_a_sound_result_is_whole(sound: Path) -> None:
    """Every member read, every CRC-32 right, the manifest agrees: nothing is said against it."""
    read: list[int] = []
    report = verify(sound, job_id="j1", files=2, read=read.append)
    assert (report.problems, report.missing) == ([], [])
    assert report.whole
    assert report.files == 2
    assert sum(read) == report.data_bytes


def test_missing_files_are_no_damage(tmp_path: Path) -> None:
    """A result in part is sound, but not whole, and says which files are missing and why."""
    report = verify(archive(tmp_path / "p.zip", DATA, manifest(missing(10020))), files=3)
    assert report.sound
    assert not report.whole
    assert [(file.file_id, file.error) for file in report.missing] == [(10020, "not-found")]


def test_a_cut_zip_is_no_zip(sound: Path) -> None:
    """Without its end, where the directory stands, a zip cannot be read."""
    sound.write_bytes(sound.read_bytes()[:-30])
    assert "its end is missing" in verify(sound).problems[0]


def test_an_empty_file_is_no_zip(tmp_path: Path) -> None:
    """Nothing at all is a problem, no exception."""
    path = tmp_path / "empty.zip"
    path.touch()
    assert not verify(path).sound


def test_one_flipped_byte_is_found(sound: Path) -> None:
    """A member whose bytes do not have its CRC-32 is named, and only it."""
    content = bytearray(sound.read_bytes())
    content[content.index(b"threethree") + 7] ^= 1
    sound.write_bytes(content)
    report = verify(sound)
    assert len(report.problems) == 1
    assert report.problems[0].startswith("10003.zip is damaged: Bad CRC-32")
    assert "10010.zip" in report.members


def test_data_missing_in_the_middle_is_found(sound: Path) -> None:
    """A hole, as from two joined downloads that do not fit, is found."""
    content = sound.read_bytes()
    sound.write_bytes(content[:200] + content[700:])
    assert not verify(sound).sound


def test_without_a_manifest_it_is_not_sound(tmp_path: Path) -> None:
    """Nobody can say whether files are missing if there is no manifest."""
    assert verify(archive(tmp_path / "m.zip", DATA, None)).problems == [f"{MANIFEST} is not in the zip."]


@pytest.mark.parametrize("listing", [b"", b"{", b"[]", b'{"files": 5}', b"\xff\xfe", b'{"files": [{}]}'])
def test_a_manifest_that_is_none_is_a_problem(tmp_path: Path, listing: bytes) -> None:
    """A manifest of another form is a problem, no exception."""
    assert "cannot be understood" in verify(archive(tmp_path / "m.zip", DATA, listing)).problems[0]


def test_another_jobs_result_is_found(sound: Path) -> None:
    """The manifest's job must be the one that was asked for."""
    assert "not of j2" in verify(sound, job_id="j2").problems[0]


def test_the_number_of_files_must_be_what_was_asked_for(sound: Path) -> None:
    """A manifest that lists fewer files than the job has is a problem."""
    assert "lists 2 files, but 3 were asked for" in verify(sound, files=3).problems[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: files.pop(0), "10003.zip is in the zip, but not in manifest.json"),
        (
            lambda files: files.append(entry("10099.zip", b"")),
            "10099.zip is listed in manifest.json, but is not",
        ),
        (lambda files: files[0].update(size=1), "10003.zip has 5,000 bytes, but manifest.json says 1"),
        (lambda files: files[0].update(size=None), "manifest.json says nothing"),
        (lambda files: files[0].update(crc32="00000000"), "but manifest.json says 00000000"),
        (lambda files: files[0].update(crc32="nonsense"), "but manifest.json says nonsense"),
        (lambda files: files[0].update(crc32=None), "but manifest.json says none"),
        (lambda files: files[0].update(status="error"), "is in the zip, but manifest.json says it failed"),
        (lambda files: files.append(files[0]), "manifest.json lists 10003.zip 2 times"),
    ],
    ids=["unlisted", "absent", "size", "no-size", "crc", "nonsense-crc", "no-crc", "failed", "twice"],
)
def test_zip_and_manifest_must_agree(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], object], problem: str
) -> None:
    """Each way in which the manifest and the members can differ is named."""
    document = json.loads(manifest())
    change(document["files"])
    problems = verify(archive(tmp_path / "d.zip", DATA, json.dumps(document).encode())).problems
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_may_be_there_once_only(tmp_path: Path) -> None:
    """Two members of one name are a problem: tools would not agree on which one counts."""
    path = archive(tmp_path / "t.zip", DATA, manifest())
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("10003.zip", DATA["10003.zip"])
    assert "10003.zip is in the zip 2 times." in verify(path).problems


def test_a_damaged_member_is_told_once() -> None:
    """A listed member that was found damaged is not said to be absent as well."""
    listed = [ManifestFile(1, "1.zip", "ok", 5, "0")]
    assert compare(listed, {}, {"1.zip"}) == []
    assert compare(listed, {"1.zip": Member(5, 0)}) == []
