"""The API and workers as real processes over a test's own servers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from downloadjobs_cli.children import Child
from downloadjobs_cli.embedded import S3Server, ValkeyServer, free_ports
from downloadjobs_cli.stack import without_addresses
from downloadjobs_core.objectstore.s3 import S3ObjectStore, connect
from support_worker import eventually

FINISHED = {"completed", "failed", "cancelled", "expired"}


@dataclass
class System:
    """One installation: a queue, a store, an API, and as many workers as a test starts."""

    valkey: ValkeyServer
    s3: S3Server
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=lambda: free_ports(1)[0])
    children: list[Child] = field(default_factory=list)

    @cached_property
    def store(self) -> S3ObjectStore:
        """The bucket of files and results."""
        return connect(self.s3.config, self.s3.bucket)

    def environment(self) -> dict[str, str]:
        """Quick retries and short leases; a test's own settings win."""
        return {
            **without_addresses(os.environ),
            "REDIS_URL": self.valkey.url,
            "S3_ENDPOINT": self.s3.endpoint,
            "S3_ACCESS_KEY_ID": self.s3.config.access_key or "",
            "S3_SECRET_ACCESS_KEY": self.s3.config.secret_key or "",
            "S3_BUCKET_NAME": self.s3.bucket,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "METRICS_PORT": "0",
            "LOG_FORMAT": "json",
            "LEASE_SECONDS": "3",
            "RETRY_BASE_SECONDS": "0.5",
            "DRAIN_SECONDS": "5",
            "RATE_LIMIT_MAX_REQUESTS": "1000000",  # tests poll
            **self.settings,
        }

    def start_api(self) -> Child:
        """Start the API and wait until it is ready."""
        api = Child("api", "downloadjobs_api", self.folder)
        self.children.append(api)
        api.start(self.environment())

        def listening() -> bool:
            assert api.exit_code is None, api.log_tail()
            with self.client() as client:
                try:
                    return client.get("/livez").status_code == httpx.codes.OK
                except httpx.TransportError:
                    return False

        eventually(listening, 20, "the API's first answer")
        return api

    def start_worker(self, **settings: str) -> Child:
        """Start one more worker."""
        number = sum(child.name.startswith("worker") for child in self.children) + 1
        worker = Child(f"worker-{number}", "downloadjobs_worker", self.folder)
        self.children.append(worker)
        worker.start({**self.environment(), "WORKER_NAME": worker.name, **settings})
        return worker

    def client(self, user: str = "ada") -> httpx.Client:
        """A REST client of one user."""
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"x-user-id": user},
            trust_env=False,
            timeout=30,
        )

    def submit(self, file_ids: Sequence[int], user: str = "ada") -> str:
        """Ask for files; the job's id."""
        with self.client(user) as client:
            answer = client.post("/v1/download/initiate", json={"file_ids": list(file_ids)})
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return str(answer.json()["jobId"])

    def status(self, job_id: str, user: str = "ada") -> dict[str, Any]:
        """A job's status."""
        with self.client(user) as client:
            answer = client.get(f"/v1/download/status/{job_id}")
        assert answer.status_code == httpx.codes.OK, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def wait(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        """Poll a job until it has ended."""
        until = time.monotonic() + seconds
        while (status := self.status(job_id))["status"] not in FINISHED:
            assert time.monotonic() < until, (status, [child.log_tail() for child in self.children])
            time.sleep(0.1)
        return status

    def fetch(self, job_id: str, user: str = "ada") -> bytes:
        """A job's archive, by its presigned URL."""
        with self.client(user) as client:
            answer = client.get(f"/v1/download/result/{job_id}")
        assert answer.status_code == httpx.codes.OK, answer.text
        with httpx.Client(trust_env=False, timeout=60) as anyone:
            archive = anyone.get(answer.json()["downloadUrl"])
        assert archive.status_code == httpx.codes.OK, archive.text
        return archive.content


@contextmanager
def running(system: System) -> Iterator[System]:
    """Stop every process of a system at the end of a test, whatever happened."""
    try:
        yield system
    finally:
        for child in system.children:
            child.kill()
        system.store.close()
