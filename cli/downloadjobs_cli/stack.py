"""A whole stack on this machine: Valkey, an S3 server, one API process and some workers, all on loopback."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import indent
from typing import Final

import httpx

from downloadjobs_cli.children import Child, ended
from downloadjobs_cli.embedded import LOOPBACK, EmbeddedServer, SeaweedServer, ValkeyServer, free_ports
from downloadjobs_cli.errors import CliError
from downloadjobs_cli.http_clients import http_client
from downloadjobs_cli.stack_folder import StackFolder
from downloadjobs_core.objectstore.protocol import ObjectStore
from downloadjobs_core.objectstore.s3 import connect

READY_SECONDS: Final = 60.0
"""The API takes a second on an idle machine; a busy one must not fail for it."""

POLL_SECONDS: Final = 0.05

FELLOW_SECONDS: Final = 2.0
"""After one process ended while it started: time for the others to do so, so that all faults are told."""

DRAIN_SECONDS: Final = 10
"""How long open requests and running jobs may go on when the stack stops; a job handed back is not lost."""

LAST_SECONDS: Final = 5.0
"""Beyond the drain, for a process to end; then it is killed."""

KEY_PREFIX: Final = "downloads/"
"""Where the sample files lie in the bucket."""

_ADDRESSES: Final = frozenset(
    {
        "ALLOW_MOCK_STORAGE",
        "API_PUBLIC_URL",
        "API_WORKERS",
        "ENVIRONMENT",
        "HOST",
        "METRICS_PORT",
        "NODE_ENV",
        "PORT",
        "WEB_CONCURRENCY",
        "WORKER_NAME",
    }
)
_GROUPS: Final = ("AWS_", "GUNICORN_", "MINIO_", "MOCK_", "REDIS_", "S3_")
"""Settings that say where things are. A user's shell may hold them for another installation, which a try-out
must never touch; all others (LOG_LEVEL, DOWNLOAD_DELAY_ENABLED …) are the user's to set."""


class StackError(CliError):
    """A process of the stack did not start, or ended by itself.

    Args:
        message: what happened.
        log_path: the process' log.
        tail: the end of that log.
    """

    code = "stack"

    def __init__(self, message: str, log_path: Path, tail: str) -> None:
        super().__init__(message)
        self.logs = {log_path: tail}


def failed(process: Child | EmbeddedServer, what: str) -> StackError:
    """The error for a process of the stack; it carries the end of that process' log."""
    return StackError(f"{process.name} {what}.", process.log_path, process.log_tail())


def log_lines(logs: Mapping[Path, str]) -> str:
    """The ends of logs, each under its path, for people."""
    return "\n".join(f"The end of {path}:\n{indent(tail, '  ')}" for path, tail in logs.items() if tail)


def without_addresses(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the settings that say where another installation is."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _ADDRESSES and not name.startswith(_GROUPS)
    }


class Stack:
    """The processes, started in the order in which they need each other.

    Args:
        folder: where they keep data and logs.
        port: the API's; None for any free one.
        workers: how many worker processes.
        settings: beside the user's own environment, for the API and the workers.
    """

    def __init__(
        self,
        folder: StackFolder,
        *,
        port: int | None,
        workers: int,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        access_key, secret_key = folder.keys()
        self._folder = folder
        self._secret_key = secret_key
        self._access_key = access_key
        self._extra = dict(settings or {})
        self._port = port
        self._metrics_ports: dict[str, int] = {}
        self.valkey = ValkeyServer(folder.path / "valkey", append_only=folder.keep)
        self.s3 = SeaweedServer(folder.path / "s3", access_key=access_key, secret_key=secret_key)
        # gunicorn ends its own worker process at SIGTERM; killed, it would leave it behind.
        self.api = Child("api", "downloadjobs_api", folder.logs, death_signal=signal.SIGTERM)
        self.workers = [
            Child(f"worker-{number}", "downloadjobs_worker", folder.logs) for number in range(1, workers + 1)
        ]

    @property
    def api_url(self) -> str:
        """Where the API is."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def metrics_urls(self) -> dict[str, str]:
        """Where each process that was started serves its metrics, by its name."""
        return {name: f"http://{LOOPBACK}:{port}/metrics" for name, port in self._metrics_ports.items()}

    @property
    def children(self) -> list[Child]:
        """The API and the workers."""
        return [self.api, *self.workers]

    def addresses(self) -> dict[str, str]:
        """The settings by which the stack's servers are reached."""
        return {
            "REDIS_URL": self.valkey.url,
            "S3_ENDPOINT": self.s3.endpoint,
            "S3_REGION": self.s3.config.region,
            "S3_ACCESS_KEY_ID": self._access_key,
            "S3_SECRET_ACCESS_KEY": self._secret_key,
            "S3_BUCKET_NAME": self.s3.bucket,
            "S3_KEY_PREFIX": KEY_PREFIX,
        }

    def store(self) -> ObjectStore:
        """The bucket with files and results."""
        return connect(self.s3.config, self.s3.bucket)

    def start_servers(self) -> None:
        """Start Valkey and the S3 server, and wait until both answer.

        Raises:
            EmbeddedServerError: one of them cannot be found, or did not start.
        """
        self.valkey.start()
        self.s3.start()

    def start_processes(self) -> None:
        """Start the API and the workers."""
        own, *metrics = free_ports(1 + len(self.children))
        self._port = self._port or own
        self._metrics_ports = dict(zip((child.name for child in self.children), metrics, strict=True))
        for child in self.children:
            self.start_child(child)

    def wait_until_ready(self) -> None:
        """Wait until the API can take work.

        Raises:
            StackError: a process ended, or the API is not ready in time.
        """
        deadline = time.monotonic() + READY_SECONDS
        with http_client(self.api_url, timeout=5.0) as http:
            while not self._ready(http):
                if time.monotonic() > deadline:
                    raise failed(self.api, f"is not ready after {READY_SECONDS:.0f} s")
                time.sleep(POLL_SECONDS)

    def start_child(self, child: Child) -> None:
        """Start the API or a worker, or start it again."""
        own = {"PORT": str(self._port)} if child is self.api else {"WORKER_NAME": child.name}
        child.start(
            {
                "LOG_FORMAT": "text",
                "DRAIN_SECONDS": str(DRAIN_SECONDS),
                **without_addresses(os.environ),
                **self._extra,
                **self.addresses(),
                **own,
                "HOST": LOOPBACK,
                "METRICS_PORT": str(self._metrics_ports.get(child.name, 0)),
            }
        )

    def _ready(self, http: httpx.Client) -> bool:
        if any(child.exit_code is not None for child in self.children):
            raise self._start_failed()
        try:
            return http.get(f"{self.api_url}/readyz").is_success
        except httpx.TransportError:
            return False

    def _start_failed(self) -> StackError:
        """The error for all that ended: settings that one process refuses, another mostly refuses as well."""
        until = time.monotonic() + FELLOW_SECONDS
        while time.monotonic() < until and any(child.exit_code is None for child in self.children):
            time.sleep(POLL_SECONDS)
        over = {child: code for child in self.children if (code := child.exit_code) is not None}
        names = ", ".join(f"{child.name} ({ended(code)})" for child, code in over.items())
        error = StackError(f"{names} ended while starting.", self.api.log_path, "")
        error.logs = {child.log_path: child.log_tail() for child in over}
        return error

    def stop(self, say: Callable[[str], None], *, in_order: bool) -> None:
        """Stop everything; nothing is left running when this returns.

        Args:
            say: told what is stopped now.
            in_order: let requests and jobs end, and servers write their data down; else kill.
        """
        if in_order:
            say("Stopping the API …")
            self.api.ask_to_end()
            self.api.wait(DRAIN_SECONDS + LAST_SECONDS)
            say("Stopping the workers: running jobs end, or are handed back …")
            for worker in self.workers:
                worker.ask_to_end()
            deadline = time.monotonic() + DRAIN_SECONDS + 2 * LAST_SECONDS
            for worker in self.workers:
                worker.wait(max(deadline - time.monotonic(), 0.0))
        for child in self.children:
            child.kill()
        if in_order:
            say("Stopping the servers …")
        for server in self.servers():
            if in_order:
                server.stop()
            else:
                server.kill()

    def servers(self) -> list[EmbeddedServer]:
        """The servers, in the order in which they stop: results are written before the queue is closed."""
        return [self.s3, self.valkey]

    def kill(self) -> None:
        """Kill everything at once: for the second Ctrl-C. Only sends signals, so it is safe in a handler."""
        pids = [server.pid for server in self.servers() if server.running]
        for child in self.children:
            child.send_kill()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def logs(self) -> dict[Path, str]:
        """The ends of the API's and the workers' logs, by path."""
        return {child.log_path: child.log_tail() for child in self.children}
