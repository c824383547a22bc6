"""Which callback URLs are taken, and which addresses may be reached."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.errors import CallbackRefusedError
from downloadjobs_core.webhook_addresses import MAX_URL, AddressRules, callback_of

WORLD = AddressRules()

HOSTILE_URLS = [
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://hooks.example.com/",
    "javascript:alert(1)",
    "//hooks.example.com/",
    "hooks.example.com",
    "https:/hooks.example.com/",
    "https:hooks.example.com",
    "https://",
    "https:///path",
    "https://:443/",
    # local names
    "https://localhost/",
    "https://LOCALHOST/",
    "https://a.localhost/",
    "https://redis/",
    "https://kubernetes.default.svc/",
    "https://kubernetes.default.svc.cluster.local/",
    "https://metadata.google.internal/",
    "https://printer.local/",
    # addresses
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.0.0.1./",
    "https://0/",
    "https://0x/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://192.0.0.192/",
    "https://192.0.2.1/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://256.256.256.256/",
    "https://1.2.3/",
    "https://1.2.3.4.5/",
    "https://08.8.8.8/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[::127.0.0.1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::7f00:1]/",
    "https://[v1.x]/",
    "https://[::1/",
    "https://[127.0.0.1]/",
    # users, and what readers of URLs disagree about
    "https://user@hooks.example.com/",
    "https://user:secret@hooks.example.com/",
    "https://@hooks.example.com/",
    "https://hooks.example.com@127.0.0.1/",
    "https://127.0.0.1#@hooks.example.com/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://127.0.0.1\\.example.com/",
    "https://hooks.example.com%2f@127.0.0.1/",
    "https://127.0.0.1%00.example.com/",
    "https://%31%32%37.0.0.1/",
    "https://hooks.example.com/#fragment",
    "https://hooks.example.com./",
    "https://hooks..example.com/",
    "https://-hooks.example.com/",
    "https://h*oks.example.com/",
    f"https://{'a' * 64}.example.com/",
    f"https://{'a.' * 130}com/",
    # ports
    "https://hooks.example.com:80/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:6379/",
    "https://hooks.example.com:65536/",
    "https://hooks.example.com:x/",
    "https://hooks.example.com:-1/",
    # characters
    "https://hooks.example.com/\r\nX-Injected: 1",
    "https://hooks.example.com/\nGET / HTTP/1.1",
    "https://hooks.example.com\r\n/",
    "https://hooks.example.com/a b",
    "https://hooks.example.com/\t",
    "\thttps://hooks.example.com/",
    " https://hooks.example.com/",
    "https://hooks.example.com/ ",
    "https://hooks.example.com/\x00",
    "https://hooks.example.com/\x7f",
    "https://hooks.example.com/é",
    "https://bücher.example.com/",
    "https://①②⑦.⓪.⓪.①/",
    "https://127。0。0。1/",
    "https://ⅼocalhost/",  # noqa: RUF001 - that is the point
    "",
    f"https://hooks.example.com/{'a' * MAX_URL}",
]
"""Each is refused by its text alone: no name is looked up."""

NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104 - an address that is refused
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_hostile_urls_are_refused_by_their_text(url: str) -> None:
    """Other schemes, users, ports, notations, local names and addresses, and stray characters are refused."""
    with pytest.raises(CallbackRefusedError):
        callback_of(url, WORLD)


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://hooks.example.com", "https://hooks.example.com", "/"),
        ("https://hooks.example.com/a/b?key=1&x=%20", "https://hooks.example.com", "/a/b?key=1&x=%20"),
        ("HTTPS://Hooks.Example.COM:443/A", "https://hooks.example.com", "/A"),
        ("https://xn--bcher-kva.example/?a", "https://xn--bcher-kva.example", "/?a"),
        ("https://8.8.8.8/", "https://8.8.8.8", "/"),
        ("https://[2606:4700::1111]/x", "https://[2606:4700::1111]", "/x"),
        ("https://hooks.example.com?a=b", "https://hooks.example.com", "/?a=b"),
        ("https://hooks.example.com//evil.example/", "https://hooks.example.com", "//evil.example/"),
        ("https://a.b/@c:d@e", "https://a.b", "/@c:d@e"),
    ],
)
def test_public_urls_are_taken(url: str, origin: str, target: str) -> None:
    """A public https URL is taken; what may be shown of it is its origin alone."""
    callback = callback_of(url, WORLD)
    assert (callback.url, callback.origin, callback.target) == (url, origin, target)


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_addresses_that_are_not_public_are_not_reached(text: str) -> None:
    """No private, local, shared, reserved, documentation, multicast or embedding address is reached."""
    assert not WORLD.may_reach(ipaddress.ip_address(text), allowed_host=False)


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111",
             "2a00:1450::1", "64:ff9b::8.8.8.8"]
)  # fmt: skip
def test_public_addresses_are_reached(text: str) -> None:
    """Global unicast is reached, and so is it through NAT64."""
    assert WORLD.may_reach(ipaddress.ip_address(text), allowed_host=False)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_no_address_is_reached_that_the_standard_library_calls_not_global(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """The rules are never looser than the standard library's, also through a mapped address."""
    if WORLD.may_reach(address, allowed_host=False):
        assert address.is_global
        assert not address.is_multicast
    if address.version == 4 and not address.is_global:
        mapped = ipaddress.IPv6Address(f"::ffff:{address}")
        assert not WORLD.may_reach(mapped, allowed_host=False)


def test_an_allowed_network_counts_as_public() -> None:
    """An address in an allowed network is reached, also as a literal; its neighbour is not."""
    rules = AddressRules(networks=(ipaddress.ip_network("10.1.0.0/16"),))
    assert rules.may_reach(ipaddress.ip_address("10.1.2.3"), allowed_host=False)
    assert rules.may_reach(ipaddress.ip_address("::ffff:10.1.2.3"), allowed_host=False)
    assert not rules.may_reach(ipaddress.ip_address("10.2.0.1"), allowed_host=False)
    assert callback_of("https://10.1.2.3/", rules).host == "10.1.2.3"
    with pytest.raises(CallbackRefusedError):
        callback_of("https://10.2.0.1/", rules)


def test_an_allowed_host_may_be_anywhere_but_link_local() -> None:
    """A name in the allow list may have a private address and its port, but never a metadata server's."""
    rules = AddressRules(("relay.tools.svc:8443", "*.apps.example"))
    assert callback_of("https://relay.tools.svc:8443/x", rules).port == 8443
    assert callback_of("https://a.apps.example/", rules).origin == "https://a.apps.example"
    for url in (
        "https://relay.tools.svc/",
        "https://relay.tools.svc:8444/",
        "https://evil-relay.tools.svc:8443/",
        "https://a.apps.example:8443/",
        "https://apps.example:8443/",
    ):
        with pytest.raises(CallbackRefusedError):
            callback_of(url, rules)
    assert rules.may_reach(ipaddress.ip_address("10.0.0.1"), allowed_host=True)
    for text in (
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "0.0.0.0",  # noqa: S104 - an address that is refused
        "224.0.0.1",
    ):
        assert not rules.may_reach(ipaddress.ip_address(text), allowed_host=True)


@pytest.mark.parametrize(
    "text",
    [
        "64:ff9b::169.254.169.254",       # NAT64
        "64:ff9b:1::169.254.169.254",     # NAT64 of a network of its own
        "2002:a9fe:a9fe::1",              # 6to4
        "2001:0:808:808:0:0:5601:5601",   # Teredo: the client, whose bits are inverted
        "2001:0:a9fe:a9fe::",             # Teredo: the server
        "::169.254.169.254",              # IPv4-compatible
    ],
)  # fmt: skip
def test_no_list_opens_a_link_local_address_within_another(text: str) -> None:
    """An IPv6 address is closed for ever if a translator or tunnel would lead from it to a link-local one."""
    rules = AddressRules(
        ("relay.tools.svc",), (ipaddress.ip_network("::/0"), ipaddress.ip_network("0.0.0.0/0"))
    )
    for allowed_host in (True, False):
        assert not rules.may_reach(ipaddress.ip_address(text), allowed_host=allowed_host)


@pytest.mark.parametrize(
    "text",
    ["64:ff9b::10.0.0.1", "64:ff9b:1::10.0.0.1", "64:ff9b:1:a00:0:100::", "2002:a00:1::1", "::1", "fd00::1"],
)
def test_an_allowed_host_may_be_private_behind_a_translator(text: str) -> None:
    """It is link-local addresses alone that stay closed; and only an allowed host gets there."""
    assert AddressRules().may_reach(ipaddress.ip_address(text), allowed_host=True)
    assert not AddressRules().may_reach(ipaddress.ip_address(text), allowed_host=False)


def test_an_allowed_network_opens_no_other_way_to_it() -> None:
    """Its addresses are meant as they are, not within those of a translator that nobody named."""
    rules = AddressRules(networks=(ipaddress.ip_network("10.1.0.0/16"),))
    assert not rules.may_reach(ipaddress.ip_address("64:ff9b::10.1.2.3"), allowed_host=False)


@given(st.text(max_size=80))
def test_any_text_is_taken_or_refused(text: str) -> None:
    """Whatever is sent, there is a verdict; what is taken cannot end a request's line early."""
    for url in (text, f"https://{text}", f"https://hooks.example.com/{text}"):
        try:
            callback = callback_of(url, WORLD)
        except CallbackRefusedError:
            continue
        assert callback.target.startswith("/")
        assert all("!" <= char <= "~" for char in callback.target + callback.origin)
