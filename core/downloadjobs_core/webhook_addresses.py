"""Which URLs and addresses a webhook may go to: the defence against requests that reach into the cluster.

A callback URL is somebody else's word for where the project's workers shall connect to (SSRF). `callback_of`
judges its text when a job is submitted; `AddressRules.may_reach` judges each address that its name resolves
to, at each try. What stands in neither list of `AddressRules` must be a global address.

Sources: RFC 3986 and the WHATWG URL standard (hosts that end in a number are IPv4 addresses, whatever their
notation), IANA's special-purpose registries (RFC 6890), RFC 6052 and 8215 (NAT64), RFC 3056 (6to4), RFC 4380
(Teredo), RFC 9110 (4.2.4, userinfo).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from downloadjobs_core.errors import CallbackRefusedError

MAX_URL: Final = 2_048
"""Characters of a callback URL."""

HTTPS_PORT: Final = 443

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_VISIBLE: Final = re.compile(r"[!-~]+", re.ASCII)
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_MAX_NAME: Final = 253
_LOCAL_SUFFIXES: Final = (
    "localhost",
    "local",
    "internal",
    "cluster.local",
    "svc",
    "home.arpa",
    "lan",
    "intranet",
)

_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
"""The only part of IPv6 that is given out as global unicast (RFC 4291, IANA)."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_NEVER_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",      # protocol assignments, Teredo among them, which embeds an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",      # 6to4, which embeds one as well
        "3fff::/20",      # documentation
    )
)  # fmt: skip
_NEVER_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",        # this network
        "100.64.0.0/10",    # shared address space: clusters use it for pods
        "192.0.0.0/24",     # protocol assignments
        "192.88.99.0/24",   # relays of 6to4
        "198.18.0.0/15",    # benchmarks
        "224.0.0.0/3",      # multicast, reserved, broadcast
    )
)  # fmt: skip
"""Beside what the standard library calls not global, which differs between Python's releases."""

_NEVER_ALLOWED: Final = tuple(
    ipaddress.ip_network(text) for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128")
)
"""Link-local: a cloud's metadata server, with its credentials, is there. No allow list opens it."""


@dataclass(frozen=True, slots=True)
class CallbackUrl:
    """A callback URL whose text breaks no rule."""

    url: str
    """As given: its path and query may hold a secret, so it is not logged."""
    origin: str
    """Scheme, host and port: what may be shown."""
    host: str
    """Lower case, without the brackets of an IPv6 address."""
    port: int
    target: str
    """Path and query, as a request line has them."""


def _is_global(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in network for network in _NEVER_V4)
    embedded = address.ipv4_mapped
    if embedded is None and address in _NAT64:
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if embedded is not None:
        return _is_global(embedded)
    return address.is_global and address in _GLOBAL_V6 and not any(address in one for one in _NEVER_V6)


def _plain(address: Address) -> Address:
    """An IPv4 address that an IPv6 one stands for, as the kernel would reach it."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _within(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """IPv4 addresses that an IPv6 one embeds, where a translator or a tunnel would lead to them."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in (_NAT64, _LOCAL_NAT64, _COMPATIBLE)):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return tuple(one for one in found if one is not None)


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What a platform team opens beside the world.

    Attributes:
        hosts: names as `host` or `host:port`; `*.suffix` for all below it. They may have any address but a
            link-local one, and are looked up with the search list of the pod.
        networks: addresses that count as global ones do.
    """

    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    def allows_host(self, host: str, port: int) -> bool:
        """Whether a name stands in the list."""
        return any(_matches(entry, host, port) for entry in self.hosts)

    def may_reach(self, address: Address, *, allowed_host: bool) -> bool:
        """Whether a connection to an address may be opened."""
        plain = _plain(address)
        if plain.is_multicast or plain.is_unspecified:
            return False
        if any(one in network for one in (address, *_within(address)) for network in _NEVER_ALLOWED):
            return False
        return allowed_host or _is_global(address) or any(plain in network for network in self.networks)


def _matches(entry: str, host: str, port: int) -> bool:
    name, _, wanted = entry.partition(":")
    if port != int(wanted or HTTPS_PORT):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def callback_of(text: str, rules: AddressRules) -> CallbackUrl:
    """Judge a callback URL by its text. No name is looked up.

    Raises:
        CallbackRefusedError: it breaks a rule; the message says which.
    """
    if len(text) > MAX_URL:
        raise CallbackRefusedError(f"it may have {MAX_URL} characters at most")
    if not _VISIBLE.fullmatch(text) or "\\" in text:
        raise CallbackRefusedError(
            "it has a character that no URL has: encode spaces and others by %, and write an international"
            " name in its ASCII form (xn--…)"
        )
    try:
        parts = urlsplit(text)
        port = HTTPS_PORT if parts.port is None else parts.port
    except ValueError:
        raise CallbackRefusedError("it is no URL such as https://hooks.example.com/downloads") from None
    if parts.scheme.lower() != "https":
        raise CallbackRefusedError("it must begin with https://")
    if "@" in parts.netloc:
        raise CallbackRefusedError("it must not have a user or password")
    if "#" in text:
        raise CallbackRefusedError("it must not have a fragment (#…)")
    host = _host(parts.netloc, (parts.hostname or "").lower(), port, rules)
    if port != HTTPS_PORT and not rules.allows_host(host, port):
        raise CallbackRefusedError("its port must be 443")
    shown = f"[{host}]" if ":" in host else host
    origin = f"https://{shown}" if port == HTTPS_PORT else f"https://{shown}:{port}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return CallbackUrl(text, origin, host, port, target)


def _host(netloc: str, host: str, port: int, rules: AddressRules) -> str:
    if netloc.startswith("["):
        literal = _address(host)
        if not isinstance(literal, ipaddress.IPv6Address) or literal.scope_id is not None:
            raise CallbackRefusedError("its host is no IPv6 address")
        _check_literal(literal, host, port, rules)
        return literal.compressed
    if not host or len(host) > _MAX_NAME:
        raise CallbackRefusedError("it has no host, or one that is too long")
    if host.endswith("."):
        raise CallbackRefusedError("its host must not end in a dot")
    labels = host.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise CallbackRefusedError("its host is no name of letters, digits and hyphens")
    if _NUMBER.fullmatch(labels[-1]):
        literal = _address(host)
        if literal is None:
            raise CallbackRefusedError("its host is an address in an unusual notation")
        _check_literal(literal, host, port, rules)
        return host
    local = len(labels) == 1 or any(host.endswith(f".{suffix}") for suffix in _LOCAL_SUFFIXES)
    if local and not rules.allows_host(host, port):
        raise CallbackRefusedError("its host is a local name, which only WEBHOOK_ALLOWED_HOSTS can open")
    return host


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _check_literal(address: Address, host: str, port: int, rules: AddressRules) -> None:
    if not rules.may_reach(address, allowed_host=rules.allows_host(host, port)):
        raise CallbackRefusedError("its host is not a public address")
