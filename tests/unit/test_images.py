"""The Dockerfiles' own rules, and the list of the images that an installation takes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from support_tools import require_tool

ROOT: Final = Path(__file__).parents[2]
PROCESSES: Final = ("api", "worker", "operator")
BASE: Final = "python:3.13-slim"

each_process: Final = pytest.mark.parametrize("process", PROCESSES)


def dockerfile(process: str) -> str:
    """The Dockerfile of a process."""
    return (ROOT / process / "Dockerfile").read_text(encoding="utf-8")


def stages(process: str) -> dict[str, str]:
    """The stages of a Dockerfile by name, with their first lines; the last one's is empty."""
    parts = re.split(r"^(?=FROM )", dockerfile(process), flags=re.MULTILINE)[1:]
    return {re.findall(r"^FROM \S+(?: AS (\w+))?$", part, re.MULTILINE)[0]: part for part in parts}


@each_process
def test_the_image_itself_builds_nothing(process: str) -> None:
    """The last stage, which is the default, begins with the base and takes one folder from another stage."""
    last = stages(process)[""]
    assert list(stages(process))[-1] == ""
    assert last.startswith(f"FROM {BASE}\n")
    assert re.findall(r"^COPY .*$", last, re.MULTILINE) == ["COPY --from=installed /app /app"]
    assert not re.search(r"\b(pip|uv|apt-get|curl|wget)\b", re.sub(r"^#.*$", "", last, flags=re.MULTILINE))


@each_process
@pytest.mark.parametrize("stage", ["", "dev"])
def test_the_user_is_a_number(process: str, stage: str) -> None:
    """`runAsNonRoot` can check a number alone, and home is where anybody may write."""
    part = stages(process)[stage]
    assert re.findall(r"^USER (.*)$", part, re.MULTILINE) == ["65532:65532"]
    assert "HOME=/tmp" in part


@each_process
def test_packages_are_pinned_by_hash(process: str) -> None:
    """Each installation checks hashes, but for the wheel that was just built; of the extras only its own."""
    installs = re.findall(r"(?:pip install|uv pip install)(?:.*\\\n)*.*", dockerfile(process))
    assert all("--require-hashes" in one or "--no-deps /wheels/" in one for one in installs)
    named = set(re.findall(r"-r /requirements/(\w+)\.txt", stages(process)["installed"]))
    assert named == {process, "cli"} if process == "operator" else named == {process}


@each_process
def test_no_step_knows_an_architecture(process: str) -> None:
    """One Dockerfile is good for amd64 and arm64."""
    assert not re.search(r"amd64|arm64|x86_64|aarch64|TARGETARCH|--platform", dockerfile(process))


@each_process
def test_labels_are_those_of_the_oci(process: str) -> None:
    """An image says what it is, of which source and version."""
    labels = set(re.findall(r"org\.opencontainers\.image\.([\w.]+)=", stages(process)[""]))
    assert labels == {"base.name", "description", "licenses", "revision", "source", "title", "version"}


def test_common_stages_are_the_same() -> None:
    """What all three share is the same text, so that it is built once."""
    for stage in ("uv", "wheel"):
        assert len({stages(process)[stage] for process in PROCESSES}) == 1, stage


def images(node: object) -> Iterator[str]:
    """Every image that an object names."""
    if isinstance(node, dict):
        if isinstance(node.get("image"), str):
            yield node["image"]
        for inner in node.values():
            yield from images(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from images(inner)


def render(*values: str) -> list[dict[str, Any]]:
    """What the chart renders with the bundled servers."""
    helm = require_tool(os.environ.get("HELM") or "helm")
    chart, secrets = ROOT / "charts" / "downloadjobs", ROOT / "tests" / "values" / "bundled.yaml"
    command = [helm, "template", "downloadjobs", str(chart), f"--values={secrets}", "--kube-version=1.31.0"]
    done = subprocess.run([*command, *values], capture_output=True, check=True, text=True, timeout=60)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("--set=image.tag=1.2.3", "--set=image.registry=registry.example.com/mirror"),
        (f"--set=api.image.digest=sha256:{'a' * 64}", "--set=bundled.objectStore.kind=minio"),
    ],
    ids=["defaults", "registry", "digest"],
)
def test_the_list_of_images_is_whole(values: tuple[str, ...]) -> None:
    """`make images-list` prints each image that an object of the chart names once, and nothing else."""
    helm = require_tool(os.environ.get("HELM") or "helm")
    make = require_tool("make", "gmake")
    command = [make, "--silent", "images-list", f"HELM={helm}", f"ARGS={' '.join(values)}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines == sorted({image for one in render(*values) for image in images(one)})
    assert len(lines) >= len(PROCESSES) + 2
    assert all(re.fullmatch(r"[\w./-]+(:[\w.-]+|@sha256:[0-9a-f]{64})", line) for line in lines)
