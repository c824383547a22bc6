"""The Tiltfile, run with stand-ins for Tilt's functions: Starlark is a part of Python."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
import yaml

from support_tools import require_tool

ROOT: Final = Path(__file__).parents[2]
TILTFILE: Final = ROOT / "Tiltfile"

VARIABLE: Final = "DOWNLOADJOBS_TILT_CONTEXT"

Calls = dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]


class RefusedError(Exception):
    """What Tilt's `fail` does."""


def run(context: str, environment: dict[str, str] | None = None) -> Calls:
    """Evaluate the Tiltfile; each call of a function of Tilt's, by the function's name."""
    calls: Calls = defaultdict(list)

    def function(name: str) -> Any:  # noqa: ANN401 - of whatever Tilt's functions take and give
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            calls[name].append((args, kwargs))
            return args

        return call

    def fail(message: str) -> None:
        raise RefusedError(message)

    names = (
        "allow_k8s_contexts", "docker_build", "encode_yaml_stream", "helm", "k8s_resource", "k8s_yaml",
        "link", "local_resource", "sync", "watch_file",
    )  # fmt: skip
    known: dict[str, Any] = {
        **{name: function(name) for name in names},
        "k8s_context": lambda: context,
        "fail": fail,
        "os": SimpleNamespace(getenv=(environment or {}).get),
        "shlex": SimpleNamespace(quote=shlex.quote),
        "TRIGGER_MODE_MANUAL": "manual",
    }
    exec(compile(TILTFILE.read_text(encoding="utf-8"), "Tiltfile", "exec"), known)  # noqa: S102 - our own file
    return calls


def workloads() -> dict[str, dict[str, Any]]:
    """The Deployments that the chart renders with the values for Tilt, by name."""
    helm = require_tool(os.environ.get("HELM") or "helm")
    ((chart, *_), options) = run("kind-kind")["helm"][0]
    (values,) = options["values"]
    command = [helm, "template", options["name"], chart, f"--namespace={options['namespace']}", "--values"]
    done = subprocess.run(
        [*command, values], cwd=ROOT, capture_output=True, check=True, text=True, timeout=60
    )
    found = [one for one in yaml.safe_load_all(done.stdout) if one]
    return {one["metadata"]["name"]: one for one in found if one["kind"] == "Deployment"}


@pytest.mark.parametrize(
    "context",
    ["production", "gke_films_europe_main", "kind", "docker-desktop.example.com", "my-kind-cluster"],
)
def test_other_clusters_are_refused(context: str) -> None:
    """A context that no program for local clusters makes is refused, and told how to be allowed."""
    with pytest.raises(RefusedError, match=f"{VARIABLE}={context} tilt up"):
        run(context)
    with pytest.raises(RefusedError):
        run(context, {VARIABLE: "another"})


@pytest.mark.parametrize(
    ("context", "environment"),
    [("kind-downloadjobs", {}), ("docker-desktop", {}), ("minikube", {}), ("staging", {VARIABLE: "staging"})],
)
def test_local_clusters_are_taken(context: str, environment: dict[str, str]) -> None:
    """Clusters of this machine are taken, and the one that is named; Tilt is told of just this one."""
    assert run(context, environment)["allow_k8s_contexts"] == [((context,), {})]


def test_images_are_of_the_stage_for_development() -> None:
    """Each image is built of its Dockerfile's stage `dev`."""
    builds = run("kind-kind")["docker_build"]
    assert {args[0] for args, _ in builds} == {
        f"downloadjobs/{name}" for name in ("api", "worker", "operator")
    }
    for args, options in builds:
        assert options["target"] == "dev"
        assert options["dockerfile"] == f"{args[0].removeprefix('downloadjobs/')}/Dockerfile"


@pytest.mark.parametrize("process", ["api", "worker", "operator"])
def test_source_goes_where_the_process_finds_it(process: str) -> None:
    """What is synced is what the stage copies, and goes to the folders that stand on its PYTHONPATH."""
    (options,) = (
        options for args, options in run("kind-kind")["docker_build"] if args[0] == f"downloadjobs/{process}"
    )
    text = (ROOT / process / "Dockerfile").read_text(encoding="utf-8")
    stage = text.partition("AS dev\n")[2].partition("\nFROM ")[0]
    copied = re.findall(r"^COPY (\w+) /src/\1$", stage, re.MULTILINE)
    path = re.findall(r"PYTHONPATH=(\S+)", stage)[0].split(":")
    synced = [args for args, _ in run("kind-kind")["sync"]]
    assert path == [f"/tmp/src/{folder}" for folder in copied]  # noqa: S108 - the container's
    for folder in copied:
        assert (f"{folder}/downloadjobs_{folder}", f"/tmp/src/{folder}/downloadjobs_{folder}") in synced  # noqa: S108
    assert len(options["live_update"]) == len(copied)


@pytest.mark.parametrize("process", ["api", "worker", "operator"])
def test_a_build_sees_what_it_needs(process: str) -> None:
    """All that the Dockerfile copies by name is in what Tilt gives to the builder, and is there."""
    (only,) = (
        options["only"]
        for args, options in run("kind-kind")["docker_build"]
        if args[0] == f"downloadjobs/{process}"
    )
    assert all((ROOT / name).exists() for name in only)
    text = (ROOT / process / "Dockerfile").read_text(encoding="utf-8")
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    named = {name for line in copies for name in line.split()} - {"."}
    assert named <= set(only)
    # The wheel's own.
    assert {"pyproject.toml", "README.md", "LICENSE", f"{process}"} <= set(only)


def test_resources_are_the_charts() -> None:
    """Each Deployment is a resource of Tilt's, and what is forwarded are ports of its containers."""
    found = workloads()
    resources = run("kind-kind")["k8s_resource"]
    assert {args[0] for args, _ in resources} == set(found)
    for args, options in resources:
        (container,) = found[args[0]]["spec"]["template"]["spec"]["containers"]
        ports = {port["containerPort"] for port in container["ports"]}
        for forward in options.get("port_forwards", []):
            assert int(forward.partition(":")[2]) in ports


def test_secrets_are_those_that_pods_read() -> None:
    """Helm makes no Secrets where it looks nothing up, so the Tiltfile makes all that the pods name."""
    ((objects,), _) = run("kind-kind")["encode_yaml_stream"][0]
    made = {one["metadata"]["name"]: set(one["stringData"]) for one in objects if one["kind"] == "Secret"}
    wanted: dict[str, set[str]] = defaultdict(set)
    for name, key in re.findall(
        r'"secretKeyRef": {"name": "([^"]+)", "key": "([^"]+)"}', json.dumps(list(workloads().values()))
    ):
        wanted[name].add(key)
    assert made == wanted


def test_a_sample_job_is_a_button() -> None:
    """The sample job waits for who presses it, and names the cluster that was checked."""
    (options,) = (options for args, options in run("kind-kind")["local_resource"] if args[0] == "sample-job")
    assert (options["auto_init"], options["trigger_mode"]) == (False, "manual")
    commands = options["cmd"].split(" && ")
    assert all(
        command.startswith("kubectl --context kind-kind --namespace downloadjobs ") for command in commands
    )
    (name,) = set(re.findall(r"\S+\.yaml", options["cmd"]))
    assert yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["kind"] == "DownloadJob"


def test_the_tiltfile_is_starlark() -> None:
    """It uses nothing of Python that Starlark lacks."""
    lacking = (
        ast.AnnAssign, ast.Assert, ast.AsyncFunctionDef, ast.Await, ast.ClassDef, ast.Delete, ast.Global,
        ast.Import, ast.ImportFrom, ast.Is, ast.IsNot, ast.JoinedStr, ast.Match, ast.NamedExpr, ast.Nonlocal,
        ast.Raise, ast.Set, ast.Try, ast.While, ast.With, ast.Yield, ast.YieldFrom,
    )  # fmt: skip
    tree = ast.parse(TILTFILE.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, lacking)]
