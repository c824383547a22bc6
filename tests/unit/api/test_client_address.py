"""Where requests come from: trusted proxies are believed, nobody else."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_api.client_address import MOST_HOPS, Address, ClientAddresses, parse_address, parse_networks

PROXIES = ClientAddresses(parse_networks("10.0.0.0/8, fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.9, garbage", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, garbage, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::/64"),
        ("10.0.0.1", "2001:db8::1%eth0", "2001:db8::/64"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("fd00::1%eth0", "203.0.113.9", "203.0.113.9"),
        ("2001:db8:0:0:ffff::1", None, "2001:db8::/64"),
        ("", "203.0.113.9", "unknown"),
    ],
)
def test_whom_a_request_is_from(peer: str, forwarded: str | None, client: str) -> None:
    """The header is read from the right, past trusted proxies alone, and garbage ends the way."""
    assert PROXIES.name(peer, forwarded) == client


def test_nobody_is_trusted_by_default() -> None:
    """Without a setting the header says nothing."""
    assert ClientAddresses().name("10.0.0.1", "203.0.113.9") == "10.0.0.1"


def test_a_unix_socket_is_trusted_if_one_says_so() -> None:
    """A peer without an address is believed with `unix` only."""
    assert ClientAddresses(parse_networks("unix")).name("", "203.0.113.9") == "203.0.113.9"


def test_addresses_of_one_site_are_one_client() -> None:
    """Any address of an IPv6 /64 is the same client; the next /64 is another."""
    names = {PROXIES.name(f"2001:db8:1:2::{number:x}", None) for number in range(50)}
    assert len(names) == 1
    assert PROXIES.name("2001:db8:1:3::1", None) not in names


@given(
    forged=st.lists(st.one_of(st.text(max_size=40), st.ip_addresses().map(str)), max_size=60),
    client=st.ip_addresses(v=4).filter(lambda address: address not in ipaddress.ip_network("10.0.0.0/8")),
    proxies=st.lists(st.ip_addresses(network="10.0.0.0/8").map(str), max_size=5),
)
def test_a_client_cannot_say_who_it_is(
    forged: list[str], client: ipaddress.IPv4Address, proxies: list[str]
) -> None:
    """Whatever a client writes into the header, it is the one whom the first trusted proxy saw."""
    header = ",".join([*forged, str(client), *proxies])
    assert PROXIES.name("10.0.0.1", header) == str(client)


@given(st.text(max_size=300), st.text(max_size=60))
def test_garbage_is_tolerated(header: str, peer: str) -> None:
    """No header and no peer is a fault, and names are short."""
    assert len(PROXIES.name(peer, header)) < 64
    assert len(PROXIES.name("10.0.0.1", header)) < 64


def test_a_long_way_is_not_gone_to_its_end() -> None:
    """Past so many hops nothing is read, so a header of 64 KiB costs no more than a short one."""
    header = ",".join(["203.0.113.9", *["10.9.9.9"] * 5_000])
    assert PROXIES.name("10.0.0.1", header) == "10.9.9.9"
    short = ",".join(["203.0.113.9", *["10.9.9.9"] * (MOST_HOPS - 1)])
    assert PROXIES.name("10.0.0.1", short) == "203.0.113.9"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "nginx", "10.0.0.0/8;fd00::/8"])
def test_what_is_no_network_is_refused(text: str) -> None:
    """A slip in the setting is a fault at the start, not a proxy that is not believed."""
    with pytest.raises(ValueError, match="networks such as"):
        parse_networks(text)


@given(st.ip_addresses())
def test_every_address_is_read_as_it_is_written(address: Address) -> None:
    """With a port, in brackets or bare, it is the same address."""
    expected = getattr(address, "ipv4_mapped", None) or address
    bare = f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address)
    assert {parse_address(text) for text in (str(address), bare, f"{bare}:80", f'"{bare}"')} == {expected}
