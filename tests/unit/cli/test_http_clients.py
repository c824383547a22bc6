"""HTTP clients by the environment: whose proxy is used, and what is said of settings that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from socksio.exceptions import ProtocolError

from downloadjobs_cli.client import ApiClient, Login
from downloadjobs_cli.errors import TransientError
from downloadjobs_cli.http_clients import http_client, uses_proxy
from downloadjobs_cli.main import run

FILES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is the test's own."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in FILES:
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("http://localhost:3000", False),
        ("http://127.0.0.1:9/x", False),
        ("http://[::1]:3000", False),
        ("https://downloads.example.com", True),
        ("http://10.0.0.1", True),
    ],
)
def test_no_proxy_for_this_machine(url: str, used: bool) -> None:  # noqa: FBT001 - a table's column
    """HTTP_PROXY counts for other machines, never for loopback."""
    assert uses_proxy(url) is used


@pytest.mark.parametrize("api", ["http://api.test", "https://api.test"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks4://ann:secret@127.0.0.1:1"),
        ("HTTP_PROXY", "ftp://ann:secret@x"),
        ("HTTPS_PROXY", "http://ann:secret@[::1"),
        ("https_proxy", "x:secret"),
        ("NO_PROXY", "localhost,[::1"),
        ("SSL_CERT_FILE", "/no/such/file"),
        ("SSL_CERT_FILE", "{folder}"),
        ("SSL_CERT_FILE", "{folder}/no-certificate"),
        ("SSLKEYLOGFILE", "/no/such/file"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    api: str,
    name: str,
    value: str,
) -> None:
    """It is a wrong setting, exit code 2; its value is not shown, since a proxy's has a password."""
    (tmp_path / "no-certificate").write_text("nothing")
    monkeypatch.setenv(name, value.format(folder=tmp_path))
    assert run(["--api", api, "status", "j1"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {name} names ")
    assert "orrect it" in err
    assert "secret" not in err


def test_other_proxies_are_not_blamed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of several variables the wrong one is named."""
    monkeypatch.setenv("HTTP_PROXY", "proxy.test:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:x")
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.test")
    assert run(["--api", "http://api.test", "status", "j1"]) == 2
    assert capsys.readouterr().err.startswith("error: HTTPS_PROXY names no proxy")


@pytest.mark.parametrize("operator", ["http://operator.test", "https://operator.test"])
def test_the_operator_is_asked_by_such_a_client_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], operator: str
) -> None:
    """`autoscaler explain` names the variable as well."""
    monkeypatch.setenv("ALL_PROXY", "ftp://x")
    assert run(["autoscaler", "explain", "--operator", operator]) == 2
    assert "ALL_PROXY names no proxy" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_can_be_used(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """ALL_PROXY may name a SOCKS proxy."""
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://127.0.0.1:1")
    http_client("http://api.test").close()


def test_a_proxy_that_does_not_speak_socks_does_not_answer() -> None:
    """An answer that is not SOCKS, or none, is one more way in which the API cannot be reached."""

    def garbled(_request: httpx.Request) -> httpx.Response:
        raise ProtocolError("Malformed reply")

    with (
        ApiClient(Login("http://api.test"), httpx.MockTransport(garbled)) as api,
        pytest.raises(TransientError, match="not SOCKS"),
    ):
        api.status("j1")
