"""The workflows of .github: what they may, what they run, and that their tools do not complain."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from support_tools import require_tool

ROOT: Final = Path(__file__).parents[2]
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TOOLS: Final = (ROOT / ".github" / "install-tools.sh").read_text(encoding="utf-8")
ALL: Final = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)

each_workflow: Final = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    """A workflow."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def test_the_tools_do_not_complain() -> None:
    """zizmor, actionlint and shellcheck find nothing."""
    for tool in ("actionlint", "shellcheck"):
        require_tool(tool)
    done = subprocess.run(
        [ROOT / "dev" / "check-workflows"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_workflow
def test_a_workflow_may_nothing_that_no_job_asks_for(path: Path) -> None:
    """Rights are given to jobs, not to workflows; only a release writes anything."""
    workflow = load(path)
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["permissions"], name
        if path.stem != "release":
            assert job["permissions"] == {"contents": "read"}, name


@each_workflow
def test_a_workflow_ends(path: Path) -> None:
    """Each job has a time limit, and a newer run takes the place of an older one, but never of a release."""
    workflow = load(path)
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    ends = workflow["concurrency"]["cancel-in-progress"]
    assert ends == (False if path.stem == "release" else "${{ github.event_name == 'pull_request' }}")
    assert "github.workflow" in workflow["concurrency"]["group"]


def test_actions_are_pinned() -> None:
    """Every action is named by a whole SHA with its version beside it, and by one SHA everywhere."""
    uses = re.findall(r"uses: (.*)", ALL)
    pinned = [re.fullmatch(r"([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", one) for one in uses]
    assert all(pinned), [one for one, found in zip(uses, pinned, strict=True) if not found]
    by_action: dict[str, set[str]] = {}
    for found in pinned:
        assert found
        by_action.setdefault(found[1], set()).add(f"{found[2]} {found[3]}")
    assert all(len(pins) == 1 for pins in by_action.values()), by_action


def test_a_checkout_keeps_no_token() -> None:
    """No step after a checkout finds the job's token in the clone."""
    assert ALL.count("uses: actions/checkout@") == ALL.count("persist-credentials: false")


def test_tools_are_pinned() -> None:
    """Tools have versions, those of .ci/run where it has the same; workflows ask only for tools there are."""
    packages = dict(re.findall(r"^    \[([\w.-]+)\]=(\S+)$", TOOLS, re.MULTILINE))
    assert all(re.search(r"@v\d", package) for package in packages.values())
    asked = {name for line in re.findall(r"install-tools\.sh (.*)", ALL) for name in line.split()}
    assert {name for name in asked if not name.startswith('"$')} <= set(packages)
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("minio", "helm"):
        (version,) = re.findall(rf"^{name}_version=(\S+)$", steps, re.MULTILINE)
        assert packages[name].endswith(f"@{version}")


def test_clusters_are_pinned() -> None:
    """e2e runs on three Kubernetes versions by sums; the first is the chart's oldest, the last dev/kind's."""
    jobs = load(ROOT / ".github" / "workflows" / "e2e.yml")["jobs"]
    matrix = jobs["kind"]["strategy"]["matrix"]["include"]
    assert len(matrix) == 3
    for one in matrix:
        assert re.fullmatch(rf"kindest/node:v{one['kubernetes']}\.\d+@sha256:[0-9a-f]{{64}}", one["node"])
    chart = yaml.safe_load((ROOT / "charts" / "downloadjobs" / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["kubeVersion"] == f">={matrix[0]['kubernetes']}-0"
    assert matrix[-1]["node"] in (ROOT / "dev" / "kind").read_text(encoding="utf-8")


def test_targets_are_there() -> None:
    """Whatever workflows tell to make can be made, and what they run is there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.sub(r"^ *(#|- name:|name:).*", "", ALL, flags=re.MULTILINE)
    told = re.findall(r"(?<![\w-])make ((?:--\S+ (?:\"[^\"]*\" )?)*)([a-z][a-z\d-]*)", commands)
    assert told
    for _, target in told:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for script in set(
        re.findall(r"(?<!/)(?:\.github|dev)/(?!null)[a-z-]+(?:\.sh)?(?= |$)", ALL, re.MULTILINE)
    ):
        assert (ROOT / script).is_file(), script
        assert (ROOT / script).stat().st_mode & 0o111, script
