"""A stand-in for `kubectl`: behind it are one DownloadJob, and an operator that takes claims in.

`FakeKubectl` puts an executable `kubectl` into a folder, which runs this file as a program. Both share the
folder's `state.json`; what was called stands in `calls.jsonl`.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

RESOURCE = "downloadjobs.downloadjobs.dev"
CLAIM = "downloadjobs.dev/claim-sha256"

FORBIDDEN = (
    'Error from server (Forbidden): downloadjobs.downloadjobs.dev "films" is forbidden: User "ada" cannot {} '
    'resource "downloadjobs" in API group "downloadjobs.dev" in the namespace "team-a"'
)
NOT_FOUND = 'Error from server (NotFound): {} "{}" not found'
CONFLICT = (
    'Error from server (Conflict): Operation cannot be fulfilled on downloadjobs.downloadjobs.dev "films": '
    "the object has been modified; please apply your changes to the latest version and try again"
)
REFUSED = "The connection to the server localhost:8080 was refused - did you specify the right host or port?"


class FakeKubectl:
    """A kubectl whose cluster a test makes up."""

    def __init__(self, folder: Path, **status: Any) -> None:  # noqa: ANN401 - JSON
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.program = folder / "kubectl"
        words = [sys.executable, __file__, str(folder)]
        self.program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        self.program.chmod(0o755)
        self.write(
            object={
                "apiVersion": "downloadjobs.dev/v1",
                "kind": "DownloadJob",
                "metadata": {
                    "name": "films", "namespace": "team-a", "uid": "0a1b", "resourceVersion": "10",
                    "generation": 1,
                },
                "spec": {"fileIds": [10003], "priority": "normal"},
                "status": {"phase": "Completed", **status},
            },
            faults={}, phases=[], operator=True, redis="", services=[], api_port=0,
        )  # fmt: skip

    @property
    def state(self) -> dict[str, Any]:
        """The cluster's state."""
        state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return state

    def write(self, **state: Any) -> None:  # noqa: ANN401 - JSON
        """Change parts of the state."""
        path = self.folder / "state.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | state))

    def set_status(self, **status: Any) -> None:  # noqa: ANN401 - JSON
        """Replace the object's status."""
        self.write(object={**self.state["object"], "status": status})

    def fail(self, verb: str, *faults: str | None) -> None:
        """Let the next calls of a verb fail with these words; None lets one through."""
        self.write(faults={**self.state["faults"], verb: list(faults)})

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of each call, so far."""
        path = self.folder / "calls.jsonl"
        return [json.loads(line)["args"] for line in path.read_text().splitlines()] if path.exists() else []

    def pids(self, verb: str) -> list[int]:
        """The processes that a verb was run by."""
        lines = map(json.loads, (self.folder / "calls.jsonl").read_text().splitlines())
        return [line["pid"] for line in lines if line["args"][0] == verb]


# What runs as kubectl.


def flag(args: Sequence[str], name: str) -> str:
    """The value of `--name=value`, or nothing."""
    return next((word.partition("=")[2] for word in args if word.startswith(f"--{name}=")), "")


def end(words: str) -> None:
    """Say it and fail, as kubectl does."""
    sys.stderr.write(words + "\n")
    sys.exit(1)


def patch(cluster: FakeKubectl, args: Sequence[str]) -> None:
    """Merge metadata; the operator takes a claim in at once."""
    state = cluster.state
    meta = state["object"]["metadata"]
    wanted = json.loads(flag(args, "patch"))["metadata"]
    if wanted["resourceVersion"] != meta["resourceVersion"] or wanted["uid"] != meta["uid"]:
        end(CONFLICT)
    meta["annotations"] = meta.get("annotations", {}) | wanted["annotations"]
    meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
    if state["operator"]:
        digest = meta["annotations"].pop(CLAIM)
        meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
        if state["redis"]:
            import redis  # noqa: PLC0415 - costs more than all the rest

            job_id = state["object"]["status"].get("jobId") or meta["uid"]
            with redis.Redis.from_url(state["redis"]) as client:
                client.set(f"{{downloadjobs}}:claim:{digest}:{job_id}", "1", ex=300)
    cluster.write(object=state["object"])
    sys.stdout.write(f"{RESOURCE}/films\n")


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until one side ends."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end_of in (source, target):
        with suppress(OSError):
            end_of.shutdown(socket.SHUT_RDWR)


def forward(cluster: FakeKubectl, args: Sequence[str]) -> None:
    """Relay connections to the API's port."""
    service = f"{flag(args, 'namespace')}/{next(word for word in args if word.startswith('service/'))[8:]}"
    if service not in cluster.state["services"]:
        end(NOT_FOUND.format("services", service.partition("/")[2]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"Forwarding from 127.0.0.1:{listener.getsockname()[1]} -> 3000", flush=True)  # noqa: T201
        while True:
            inner, _ = listener.accept()
            print("Handling connection for 80", flush=True)  # noqa: T201 - as kubectl does
            outer = socket.create_connection(("127.0.0.1", cluster.state["api_port"]))
            for ends in ((inner, outer), (outer, inner)):
                threading.Thread(target=pump, args=ends, daemon=True).start()


def get(cluster: FakeKubectl, args: Sequence[str]) -> None:
    """Print the object, in its next phase if there are some to come."""
    state = cluster.state
    if state["phases"]:
        state["object"]["status"]["phase"] = state["phases"].pop(0)
        cluster.write(object=state["object"], phases=state["phases"])
    if args[1:3] != [RESOURCE, "films"]:
        end(NOT_FOUND.format(RESOURCE, args[2]))
    sys.stdout.write(json.dumps(state["object"]))


def main(folder: Path, args: list[str]) -> None:
    """Be kubectl."""
    cluster = FakeKubectl.__new__(FakeKubectl)
    cluster.folder = folder
    with (folder / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps({"args": args, "pid": os.getpid()}) + "\n")
    faults = cluster.state["faults"]
    if faults.get(args[0]):
        fault = faults[args[0]].pop(0)
        cluster.write(faults=faults)
        if fault is not None:
            end(fault)
    {"get": get, "patch": patch, "port-forward": forward}[args[0]](cluster, args)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
