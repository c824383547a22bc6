"""Where a request comes from: its peer, or what trusted proxies say in `X-Forwarded-For`.

The header's entries are read from the right: each trusted proxy appended whom it was asked
by, and what stands left of the first untrusted one anybody may have written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX: Final = "unix"
"""Stands in `TRUSTED_PROXIES` for peers without an address, which come by a Unix socket."""

MOST_HOPS: Final = 32
"""Proxies that a request may come through. What stands before them in the header is not read."""

SITE_BITS: Final = 64
"""Of an IPv6 address: what one site has, of which a client may take any (RFC 6177, RFC 8981)."""

MOST_REMEMBERED: Final = 4096
LONGEST_REMEMBERED: Final = 256
"""Clients whose names are remembered, and the longest header of them: clients choose what stands in it."""

UNKNOWN: Final = "unknown"


def parse_networks(text: str) -> tuple[Network | str, ...]:
    """Read networks, as `10.0.0.0/8,fd00::/8,unix`.

    Raises:
        ValueError: one of them is none.
    """
    found: list[Network | str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part == UNIX:
            found.append(UNIX)
            continue
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError as error:
            raise ValueError(f"must be networks such as 10.0.0.0/8, with commas between: {error}") from None
    return tuple(found)


def parse_address(text: str) -> Address | None:
    """Read an address as proxies write it: with a port, in brackets, with a zone. None if it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


def client_name(address: Address) -> str:
    """What stands for a client: its IPv4 address, or the /64 that its IPv6 address lies in."""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return f"{ipaddress.IPv6Network((address, SITE_BITS), strict=False).network_address}/{SITE_BITS}"


class ClientAddresses:
    """Finds out where requests come from.

    Args:
        trusted: the networks of proxies whose header counts; none by default.
    """

    def __init__(self, trusted: Sequence[Network | str] = ()) -> None:
        self._trust_unix = UNIX in trusted
        self._trusted = tuple(network for network in trusted if not isinstance(network, str))
        self._remembered = lru_cache(maxsize=MOST_REMEMBERED)(self._name)

    def heeds(self) -> bool:
        """Whether the header counts at all."""
        return self._trust_unix or bool(self._trusted)

    def name(self, peer: str, forwarded: str | None) -> str:
        """What stands for a client.

        Args:
            peer: the address of the connection's other end; empty for a Unix socket.
            forwarded: the header `X-Forwarded-For`, several of them joined by commas, or None.
        """
        if forwarded is not None and len(forwarded) > LONGEST_REMEMBERED:
            return self._name(peer, forwarded)
        return self._remembered(peer, forwarded)

    def _name(self, peer: str, forwarded: str | None) -> str:
        address = self.address(peer, forwarded)
        return UNKNOWN if address is None else client_name(address)

    def address(self, peer: str, forwarded: str | None) -> Address | None:
        """The client's address; None if nobody who is trusted says it."""
        address = parse_address(peer) if peer else None
        trusted = self._trust_unix if address is None else self._is_trusted(address)
        if forwarded is None or not trusted:
            return address
        for entry in reversed(forwarded.rsplit(",", MOST_HOPS)[-MOST_HOPS:]):
            said = parse_address(entry)
            if said is None:
                break  # the last trusted proxy stands for whoever is behind it
            address = said
            if not self._is_trusted(said):
                break
        return address

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)
