"""Makes HTTP clients: what the environment says of proxies and certificates is read here."""

from __future__ import annotations

import ipaddress
import os
import ssl
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from socksio.exceptions import SOCKSError

from downloadjobs_cli.errors import SettingsError

PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")


def uses_proxy(url: str) -> bool:
    """Whether a proxy from the environment may be used: never for this machine itself."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return False
    with suppress(ValueError):
        return not ipaddress.ip_address(host).is_loopback
    return True


class _Client(httpx.Client):
    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx' own
        try:
            return super().send(request, **options)
        except SOCKSError as error:  # httpx lets it through, where a proxy does not speak SOCKS
            raise httpx.ProxyError(f"the proxy's answer is not SOCKS: {error}", request=request) from error


def http_client(url: str, **options: Any) -> httpx.Client:  # noqa: ANN401 - httpx' own
    """A client for a host, by the environment's proxies and certificates where it is another machine.

    Args:
        url: where its requests go.
        options: those of `httpx.Client`.

    Raises:
        SettingsError: a variable of the environment, which is named, holds what cannot be used.
    """
    try:
        return _Client(**options, trust_env=uses_proxy(url))
    except OSError as error:  # of TLS: a file that is wrong is an SSLError, which is one too
        raise SettingsError(_wrong_file(error)) from error
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise SettingsError(_wrong_proxy()) from error


def _wrong_file(error: OSError) -> str:
    why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror or str(error)
    keys = os.environ.get("SSLKEYLOGFILE")
    if keys and error.filename == keys:
        return f"SSLKEYLOGFILE names a file that cannot be written: {why}. Correct it, or unset it."
    return (
        f"SSL_CERT_FILE names a file of certificates that cannot be used: {why}."
        " Correct it, or unset it to trust the usual authorities."
    )


def _wrong_proxy() -> str:
    """Which variable is wrong. Its value is not shown: it may have a password."""
    for name, value in os.environ.items():
        if name.lower() in PROXIES and value and not _is_proxy(value):
            return (
                f"{name} names no proxy that can be used. It must be such as http://proxy.example.com:3128 or"
                " socks5://proxy.example.com:1080. Correct it, or unset it."
            )
    name = next((name for name in os.environ if name.lower() == "no_proxy"), "NO_PROXY")
    return f"{name} names what is no host. It must be such as localhost,.example.com,10.0.0.1: correct it."


def _is_proxy(value: str) -> bool:
    try:
        httpx.HTTPTransport(proxy=value if "://" in value else f"http://{value}", trust_env=False).close()
    except (ImportError, ValueError, httpx.InvalidURL):
        return False
    return True
