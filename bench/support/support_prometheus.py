"""A Prometheus server on loopback, for pictures of what real processes tell."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from downloadjobs_cli.children import dying_with_parent
from downloadjobs_cli.embedded import LOOPBACK, free_ports
from support_tools import require_tool

SCRAPE_SECONDS: Final = 5
"""Often: what is recorded here lasts minutes, not days."""

START_SECONDS: Final = 30.0

Targets = Mapping[int, Mapping[str, str]]
"""The labels of each process, by the port of its metrics."""


class Prometheus:
    """One server. A context manager.

    Args:
        folder: what it has recorded, and its configuration; an earlier run's is there again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._targets = folder / "targets.json"
        (port,) = free_ports(1)
        self._address = f"{LOOPBACK}:{port}"
        self.client = httpx.Client(base_url=f"http://{self._address}", trust_env=False, timeout=60)
        self._process: subprocess.Popen[bytes] | None = None
        self._scraped: list[dict[str, object]] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.scrape({})
        config = self._folder / "prometheus.json"
        job = {"job_name": "recorded", "file_sd_configs": [{"files": [str(self._targets)]}]}
        seconds = f"{SCRAPE_SECONDS}s"
        config.write_text(
            json.dumps({"global": {"scrape_interval": seconds}, "scrape_configs": [job]}), encoding="utf-8"
        )
        command = [
            require_tool("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            "--storage.tsdb.retention.time=10y",
            f"--web.listen-address={self._address}",
        ]
        with (self._folder / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(
                dying_with_parent(command, signal.SIGKILL), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + START_SECONDS
        while not self._ready():
            if time.monotonic() > end or self._process.poll() is not None:
                raise SystemExit(f"Prometheus does not start: see {self._folder / 'prometheus.log'}")
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        if self._process is not None:
            self._process.terminate()  # it writes what it has in memory
            self._process.wait(60)

    def _ready(self) -> bool:
        try:
            return self.client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def scrape(self, targets: Targets) -> None:
        """Read these processes from now on, and no other."""
        found: list[dict[str, object]] = [
            {"targets": [f"{LOOPBACK}:{port}"], "labels": dict(labels)} for port, labels in targets.items()
        ]
        if found == self._scraped:
            return
        self._scraped = found
        part = self._targets.with_suffix(".part")
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(self._targets)

    def over(self, query: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a query between two times."""
        return self._ask("query_range", query=query, start=begin, end=end, step=step)

    def at(self, query: str, moment: float) -> list[dict[str, Any]]:
        """The samples of a query at a time."""
        return self._ask("query", query=query, time=moment)

    def _ask(self, kind: str, **parameters: str | float) -> list[dict[str, Any]]:
        answer = self.client.post(f"/api/v1/{kind}", data={name: str(it) for name, it in parameters.items()})
        body = answer.json()
        if body["status"] != "success":
            raise SystemExit(f"{parameters.get('query')}: {body.get('error')}")
        found: list[dict[str, Any]] = body["data"]["result"]
        return found
