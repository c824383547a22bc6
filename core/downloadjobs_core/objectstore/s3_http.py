"""The HTTP client below the S3 adapter."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from typing import Any, Final

import certifi
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

from downloadjobs_core.errors import ObjectStoreError

SEND_SLICE_BYTES: Final = 256 * 1024
"""How much of a body must get through within one read time-out: 256 KiB in 30 s is a modem's pace."""

CONNECT_RETRIES: Final = 1
"""Nothing was sent yet, so trying again is harmless; every other fault is the caller's to judge."""

HOSTS: Final = 4
"""Pools kept, one a host: the server, and with virtual-host addressing one for each bucket."""


class _PatientSend(http.client.HTTPConnection):
    """Sends a body slice by slice, each within the read time-out.

    urllib3 leaves the connect time-out on the socket while it sends, and Python's
    `sendall` takes it for the whole body: 64 MiB over a slow line would never arrive.
    """

    send_timeout_seconds: float

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client declares it
        """Send headers, or the body."""
        sock = self.sock
        if sock is None or not isinstance(data, bytes | bytearray | memoryview):
            super().send(data)
            return
        sock.settimeout(self.send_timeout_seconds)
        with memoryview(data) as view:
            for start in range(0, len(view), SEND_SLICE_BYTES):
                with view[start : start + SEND_SLICE_BYTES] as part:
                    super().send(part)


def http_client(
    *,
    connect_timeout_seconds: float,
    read_timeout_seconds: float,
    connections: int,
    ca_file: Path | None,
) -> PoolManager:
    """Build a client that keeps up to `connections` connections to a host, and opens more when asked.

    Redirects are not followed: S3's tell of a wrong region, and what they lead to would
    refuse the signature.

    Args:
        connect_timeout_seconds: for connecting, and for the TLS handshake.
        read_timeout_seconds: the longest silence while sending or receiving.
        connections: how many idle connections are kept for each host.
        ca_file: certificates to trust instead of the public ones (PEM).

    Raises:
        ObjectStoreError: `ca_file` cannot be used.
    """

    class _Connection(_PatientSend, HTTPConnection):
        send_timeout_seconds = read_timeout_seconds

    class _TLSConnection(_PatientSend, HTTPSConnection):
        send_timeout_seconds = read_timeout_seconds

    class _Pool(HTTPConnectionPool):
        ConnectionCls = _Connection

    class _TLSPool(HTTPSConnectionPool):
        ConnectionCls = _TLSConnection

    manager = PoolManager(
        num_pools=HOSTS,
        maxsize=connections,
        block=False,
        timeout=Timeout(connect=connect_timeout_seconds, read=read_timeout_seconds),
        retries=Retry(total=None, connect=CONNECT_RETRIES, read=0, redirect=False, status=0, other=0),
        ssl_context=_trust(ca_file),
    )
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return manager


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    """Trust `ca_file` alone, or else the system's certificates and those that certifi carries."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ObjectStoreError(
            f"S3_CA_FILE {ca_file} is not a file of certificates in PEM format ({error.strerror or error})."
        ) from error
    if ca_file is None:
        context.load_verify_locations(certifi.where())
    return context
