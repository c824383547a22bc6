"""Listening on an address, as every process does it."""

from __future__ import annotations

import socket
import sys
from typing import Final

from downloadjobs_core.settings import EXIT_SETTINGS

BACKLOG: Final = 2048
"""Connections that the kernel keeps until they are accepted; it cuts it to net.core.somaxconn."""


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen. Of a name with addresses of both kinds, such as localhost, the IPv4 one counts.

    Raises:
        OSError: the host is unknown or not this machine's, the port is taken or not allowed.
        UnicodeError: the host is no name at all.
    """
    families = [found[0] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    dual = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dual)


def listen_or_end(process: str, host: str, port: int, *, setting: str) -> socket.socket:
    """Listen, or end the process with code 2 and a line that says why it cannot.

    Args:
        process: its name.
        host: the address.
        port: 0 for any free one.
        setting: which setting the port comes from.
    """
    try:
        return listen(host, port)
    except (OSError, UnicodeError) as error:
        reason, _, _ = str(getattr(error, "strerror", error)).partition(" (while attempting")
        sys.stderr.write(
            f"{process}: cannot listen on {host}, port {port}: {reason}; set HOST or {setting}.\n"
        )
        raise SystemExit(EXIT_SETTINGS) from None


def url_of(listener: socket.socket) -> str:
    """Where it listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
