"""The README's quickstart for Kubernetes, word for word but for the cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from downloadjobs_cli.stack import without_addresses
from downloadjobs_cli.verifying import verify
from support_e2e import ROOT, Installer

NAMESPACE: Final = "downloadjobs"


def commands() -> list[str]:
    """The first block of commands of the README's section about Kubernetes."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## On Kubernetes\n", 1)[1]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [line.removeprefix("$ ") for line in block[1].splitlines() if line.startswith("$ ")]


def test_the_quickstart(installer: Installer, tmp_path: Path) -> None:
    """Each command of the quickstart works as it stands there, and leads to a verified zip."""
    kubectl = installer.cluster.kubectl
    if not kubectl("get", "namespace", NAMESPACE, check=False).returncode:
        pytest.skip(f"the namespace {NAMESPACE} is in use")
    first, *rest = commands()
    assert first == "make kind-up"
    assert "image.tag=dev" in rest[0]
    # Here the definition is there already; Helm may have it if it is marked as its own.
    definition = "crd/downloadjobs.downloadjobs.dev"
    kubectl("label", "--overwrite", definition, "app.kubernetes.io/managed-by=Helm")
    owner = [f"meta.helm.sh/release-name={NAMESPACE}", f"meta.helm.sh/release-namespace={NAMESPACE}"]
    kubectl("annotate", "--overwrite", definition, *owner)
    script = tmp_path / "quickstart.sh"
    # Its last act ends what runs beside it, such as the forwarded port.
    lines = ["set -ex", 'trap "kill %1" EXIT', *rest]
    text = "\n".join(lines).replace("image.tag=dev", f"image.tag={installer.tag}")
    script.write_text(text, encoding="utf-8")
    programs = [
        Path(installer.helm_path).parent,
        installer.cluster.kubectl_path.parent,
        Path(sys.executable).parent,
    ]
    environment = {
        **without_addresses(os.environ),
        "KUBECONFIG": str(installer.cluster.kubeconfig),
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
    }
    try:
        done = subprocess.run(
            ["bash", str(script)],
            cwd=checkout(tmp_path),
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Verified: 3 files" in done.stdout + done.stderr
        zips = list((tmp_path / "checkout").glob("*.zip"))
        assert [path.name for path in zips] == ["three-files.zip"]
        assert verify(zips[0]).whole
    finally:
        kubectl("delete", "downloadjobs", "--all", f"--namespace={NAMESPACE}", "--timeout=60s", check=False)
        installer.helm("uninstall", NAMESPACE, f"--namespace={NAMESPACE}", "--ignore-not-found")
        kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", check=False, timeout=130)


def checkout(folder: Path) -> Path:
    """A folder that looks like a checkout to these commands, and into which the result may be written."""
    path = folder / "checkout"
    path.mkdir()
    for name in ("charts", "manifests"):
        (path / name).symlink_to(ROOT / name)
    (path / ".venv").symlink_to(Path(sys.executable).parents[1])
    return path
