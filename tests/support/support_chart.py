"""The chart, as Helm renders it without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from support_tools import require_tool

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "downloadjobs"

SECRETS: Final = (
    "bundled.redis.existingSecret=redis",
    "bundled.objectStore.workerSecret=s3-worker",
    "bundled.objectStore.apiSecret=s3-api",
)
"""Values without which the bundled servers cannot be rendered outside of a cluster."""


def render(
    *settings: str, values: Mapping[str, Any] | None = None, upgrade: bool = False, chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """Have Helm render the chart, for a release `try` in the namespace `own`.

    Args:
        settings: values as `--set` has them.
        values: the same as values.yaml has them.
        upgrade: as for an upgrade, not for an installation.
        chart: another than the project's.
    """
    helm = require_tool(os.environ.get("HELM") or "helm")
    command = [
        helm, "template", "try", str(chart), "--namespace=own", "--kube-version=1.31.0", "--values=-",
        *(f"--set={setting}" for setting in settings), *(["--is-upgrade"] if upgrade else []),
    ]  # fmt: skip
    text = json.dumps(values or {})
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def rendered(
    *settings: str, values: Mapping[str, Any] | None = None, chart: Path = CHART
) -> list[dict[str, Any]]:
    """The objects of a rendering that must succeed."""
    done = render(*settings, values=values, chart=chart)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]
