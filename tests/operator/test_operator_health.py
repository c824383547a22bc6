"""The operator's health pages, and how it says that it cannot work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from downloadjobs_cli.stack import without_addresses
from support_operator_process import Site
from support_worker import eventually

pytestmark = pytest.mark.cluster


def ended(**settings: str) -> subprocess.CompletedProcess[str]:
    """An operator that ends by itself."""
    kept = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    return subprocess.run(
        [sys.executable, "-m", "downloadjobs_operator"],
        env={**without_addresses(kept), "HOST": "127.0.0.1", "PORT": "0", **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class OldServer(BaseHTTPRequestHandler):
    """An API server that does not know DownloadJobs, until it does."""

    knows = threading.Event()

    def do_GET(self) -> None:
        """Every question gets 404, but that for the group once it is known."""
        known = self.knows.is_set() and self.path == "/apis/downloadjobs.dev/v1"
        body = (
            {"kind": "APIResourceList", "resources": [{"name": "downloadjobs"}]} if known else {"code": 404}
        )
        data = json.dumps(body).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Keep quiet."""


@contextmanager
def old_server(folder: Path) -> Iterator[Path]:
    """A kubeconfig for such a server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OldServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "old",
        "clusters": [{"name": "old", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "old", "user": {"token": "x"}}],
        "contexts": [{"name": "old", "context": {"cluster": "old", "user": "old"}}],
    }
    path = folder / "old-kubeconfig"
    path.write_text(json.dumps(config))
    OldServer.knows.clear()
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()


def test_a_working_operator_is_alive_and_ready(waiting: Site) -> None:
    """Of a leader both pages say 200; `/readyz` counts its objects, and tells when Redis last answered."""
    waiting.create("films")
    waiting.until_phase("films", "Queued")
    alive, ready = waiting.health("livez"), waiting.health("readyz")
    assert (alive["code"], alive["status"], alive["leading"]) == (200, "ok", True)
    assert alive["watchSilentSeconds"] < 120
    assert (ready["code"], ready["leading"], ready["watching"]) == (200, True, True)
    assert ready["downloadJobs"] == 1
    assert ready["queueSilentSeconds"] < 15


def test_redis_away_is_no_reason_to_restart(site: Site) -> None:
    """Without Redis it stays alive and ready, and tells for how long Redis has been silent."""
    site.start_operator()
    eventually(lambda: site.health("readyz")["queueSilentSeconds"] is not None, 10, "a word of Redis")
    site.system.valkey.kill()
    eventually(lambda: bool(site.told("the queue cannot be read")), 10, "a line about it")
    assert site.health("livez")["code"] == 200
    ready = site.health("readyz")
    assert ready["code"] == 200
    earlier = ready["queueSilentSeconds"]
    eventually(lambda: site.health("readyz")["queueSilentSeconds"] > earlier, 10, "a longer silence")


def test_sigint_ends_it_too(site: Site) -> None:
    """SIGINT ends it in order as SIGTERM does."""
    operator = site.start_operator()
    operator.send(signal.SIGINT)
    assert operator.wait(10)
    assert operator.exit_code == 0


def test_wrong_settings(tmp_path: Path) -> None:
    """Wrong settings are all named at once, with their values, and the exit code is 2."""
    done = ended(
        KUBECONFIG=str(tmp_path / "none"),
        PORT="x",
        MIRROR_API_JOBS="all",
        WATCH_NAMESPACES="A,b",
        RESYNC_SECONDS="0",
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for name in ("PORT", "MIRROR_NAMESPACE", "WATCH_NAMESPACES", "RESYNC_SECONDS"):
        assert f"  {name}" in done.stderr, done.stderr
    assert "'A' is no namespace's name" in done.stderr


NOT_YAML = pytest.param(
    "{",
)


@pytest.mark.parametrize("text", [None, "", NOT_YAML, "[]", "apiVersion: v1\nkind: Config\n"])
def test_no_cluster(tmp_path: Path, text: str | None) -> None:
    """Without a kubeconfig that can be used it says so, in words, and exits with 2."""
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    done = ended(KUBECONFIG=str(path))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "Set KUBECONFIG to a file whose current context is the cluster." in done.stderr


def test_a_port_that_is_taken(site: Site) -> None:
    """A port that another process listens on is named, and the exit code is 2."""
    site.start_operator()
    done = ended(KUBECONFIG=str(site.kubeconfig), PORT=str(site.ports["operator"]))
    assert done.returncode == 2
    assert f"PORT: cannot listen on {site.ports['operator']}" in done.stderr


def test_without_the_definition(site: Site, tmp_path: Path) -> None:
    """In a cluster that does not know DownloadJobs it says what to apply, and waits for that."""
    with old_server(tmp_path) as kubeconfig:
        operator = site.start_operator(wait=False, KUBECONFIG=str(kubeconfig))
        eventually(lambda: bool(site.told("not ready")), 20, "a line about it")
        assert "apply the CustomResourceDefinition" in site.told("not ready")[0]["error"]
        assert operator.exit_code is None
        assert site.health("livez")["code"] == 200
        OldServer.knows.set()
        eventually(lambda: bool(site.told("waiting for the Lease")), 20, "its going on")
        operator.ask_to_end()
        assert operator.wait(10)
        assert operator.exit_code == 0


def test_a_signal_while_it_waits_for_the_definition(site: Site, tmp_path: Path) -> None:
    """SIGTERM ends one that waits for the definition at once, with 0."""
    with old_server(tmp_path) as kubeconfig:
        operator = site.start_operator(wait=False, KUBECONFIG=str(kubeconfig))
        eventually(lambda: bool(site.told("not ready")), 20, "a line about it")
        operator.ask_to_end()
        assert operator.wait(4)
        assert operator.exit_code == 0


def test_without_rights(site: Site) -> None:
    """A ServiceAccount that may nothing: the log says what is forbidden, and nothing is called ready."""
    here = f"--namespace={site.namespace}"
    site.cluster.kubectl("create", "serviceaccount", "nobody", here)
    kubeconfig = site.cluster.kubeconfig_of(site.namespace, "nobody")
    operator = site.start_operator(wait=False, KUBECONFIG=str(kubeconfig), LEADER_ELECTION="false")

    def forbidden() -> bool:
        return "orbidden" in operator.log_tail() or operator.exit_code is not None

    eventually(forbidden, 20, "a line about it")
    assert "orbidden" in operator.log_tail()
    assert site.health("readyz")["code"] in {0, 503}


def test_a_peering_that_is_not_there_is_waited_for(site: Site) -> None:
    """`PEERING_NAME` without its object: one line says which is missing, and the process waits for it."""
    operator = site.start_operator(wait=False, PEERING_NAME="nobody")
    eventually(lambda: bool(site.told("not ready")), 20, "a line about it")
    time.sleep(6)
    (line,) = site.told("not ready")
    assert f"KopfPeering nobody in the namespace {site.namespace}" in line["error"]
    assert operator.exit_code is None
    operator.ask_to_end()
    assert operator.wait(5)
    assert operator.exit_code == 0
