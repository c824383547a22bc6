"""One try to send a webhook: look up, check, connect, send, and read no more than the answer's head.

It is written on sockets because each step must obey one deadline and one rule: the address that was checked
is the address that is connected to. An HTTP library would look the name up again, follow redirects, heed
proxies of the environment, and read answers for as long as they last. The certificate is checked for the name
all the same.
"""

from __future__ import annotations

import email.utils
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from downloadjobs_core import __version__
from downloadjobs_core.errors import CallbackRefusedError
from downloadjobs_core.webhook_addresses import Address, AddressRules, CallbackUrl, callback_of

MAX_HEAD: Final = 16 * 1024
"""Bytes of an answer that are read: its head, or not even that."""

MAX_ADDRESSES: Final = 4
"""Of one name, that are tried."""

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\Z")
_RETRY_AFTER: Final = re.compile(
    rb"^retry-after:[ \t]*([^\r\n]{1,64}?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)
Resolver = Callable[[str, int], Sequence[str]]
Connector = Callable[[tuple[str, int], float], socket.socket]


class SendError(Exception):
    """There is no answer.

    Attributes:
        code: why, as one word, for the job's owner: refused, dns, connect, tls, timeout, proxy or answer.
        peace: whether the receiver seems to be in trouble, so that others of its calls should wait.
    """

    def __init__(self, code: str, message: str, *, peace: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.peace = peace


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of a receiver's answer."""

    status: int
    retry_after_seconds: float | None = None


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses of a name, in the order the system prefers."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class _Deadline:
    at: float

    def left(self) -> float:
        """Seconds that are left. Raises `SendError` if none are."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise SendError("timeout", "the try took too long")
        return left


@dataclass(frozen=True, slots=True)
class WebhookSender:
    """Sends webhooks. Several threads may use one.

    Attributes:
        rules: which addresses may be reached.
        timeout_seconds: for a whole try.
        tls: how certificates are checked.
        proxy: host and port of an HTTP proxy, which then looks names up and is the guard.
        resolve: asked once a try; by default the system.
        connect: opens a connection to an address and port, with a time-out in seconds.
    """

    rules: AddressRules
    timeout_seconds: float
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    proxy: tuple[str, int] | None = None
    resolve: Resolver = system_resolver
    connect: Connector = socket.create_connection

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post a body. Raises `SendError`."""
        deadline = _Deadline(time.monotonic() + self.timeout_seconds)
        try:
            callback = callback_of(url, self.rules)
        except CallbackRefusedError as error:
            raise SendError("refused", error.why, peace=False) from None
        try:
            with (
                self._connect(callback, deadline) as plain,
                self._secured(plain, callback, deadline) as secured,
            ):
                secured.settimeout(deadline.left())
                secured.sendall(_request(callback, headers, body))
                return _answer(secured, deadline)
        except TimeoutError:
            raise SendError("timeout", "the try took too long") from None
        except OSError as error:
            raise SendError("connect", f"the connection broke: {error}") from None

    def _secured(self, plain: socket.socket, callback: CallbackUrl, deadline: _Deadline) -> ssl.SSLSocket:
        plain.settimeout(deadline.left())
        try:
            return self.tls.wrap_socket(plain, server_hostname=callback.host)
        except TimeoutError:
            raise
        except (ssl.SSLError, ssl.CertificateError, ValueError) as error:
            raise SendError("tls", f"no secure connection: {error}") from None

    def _connect(self, callback: CallbackUrl, deadline: _Deadline) -> socket.socket:
        if self.proxy is not None:
            return self._through(self.proxy, callback, deadline)
        failure: SendError | None = None
        for address in self.addresses(callback, deadline)[:MAX_ADDRESSES]:
            try:
                return self.connect((str(address), callback.port), deadline.left())
            except TimeoutError:
                failure = SendError("timeout", "it does not accept connections")
            except OSError as error:
                failure = SendError("connect", f"it cannot be reached: {error.strerror or error}")
        raise failure or SendError("dns", "its name has no address")

    def addresses(self, callback: CallbackUrl, deadline: _Deadline) -> list[Address]:
        """Where the receiver is: every address of its name, if each of them may be reached."""
        allowed = self.rules.allows_host(callback.host, callback.port)
        found = [
            ipaddress.ip_address(text.partition("%")[0])
            for text in self._look_up(callback, deadline, allowed)
        ]
        if not all(self.rules.may_reach(address, allowed_host=allowed) for address in found):
            raise SendError("refused", "its name has an address that is not public", peace=False)
        return found

    def _look_up(self, callback: CallbackUrl, deadline: _Deadline, allowed: bool) -> Sequence[str]:  # noqa: FBT001
        try:
            return [str(ipaddress.ip_address(callback.host))]
        except ValueError:
            pass
        # A name of the world is absolute: the pod's search list would ask the cluster for it first.
        name = callback.host if allowed else f"{callback.host}."
        found: list[Sequence[str]] = []
        faults: list[Exception] = []

        def ask() -> None:
            try:
                found.append(self.resolve(name, callback.port))
            except (OSError, UnicodeError) as error:
                faults.append(error)

        # In a thread of its own, since a look-up has no time-out.
        asking = threading.Thread(target=ask, name="webhook-look-up", daemon=True)
        asking.start()
        asking.join(deadline.left())
        if found and found[0]:
            return found[0]
        if asking.is_alive():
            raise SendError("timeout", "its name could not be looked up in time")
        raise SendError("dns", f"its name cannot be looked up: {faults[0] if faults else 'no address'}")

    def _through(self, proxy: tuple[str, int], callback: CallbackUrl, deadline: _Deadline) -> socket.socket:
        """A tunnel through the proxy (RFC 9110, 9.3.6)."""
        try:
            tunnel = self.connect(proxy, deadline.left())
        except TimeoutError:
            raise
        except OSError as error:
            raise SendError("proxy", f"the proxy cannot be reached: {error}", peace=False) from None
        try:
            authority = _authority(callback, with_port=True)
            tunnel.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii"))
            answer = _answer(tunnel, deadline)
        except BaseException:
            tunnel.close()
            raise
        if answer.status != HTTPStatus.OK:
            tunnel.close()
            raise SendError("proxy", f"the proxy answered {answer.status}", peace=False)
        return tunnel


def _authority(callback: CallbackUrl, *, with_port: bool) -> str:
    authority = callback.origin.removeprefix("https://")
    default = authority.endswith("]") or ":" not in authority
    return f"{authority}:{callback.port}" if with_port and default else authority


def _request(callback: CallbackUrl, headers: Mapping[str, str], body: bytes) -> bytes:
    """The whole request. The URL's text has been checked to be visible ASCII, so no line can end early."""
    lines = {
        "host": _authority(callback, with_port=False),
        "user-agent": f"downloadjobs/{__version__}",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "accept-encoding": "identity",
        "connection": "close",
        **headers,
    }
    head = f"POST {callback.target} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in lines.items()
    )
    return head.encode("ascii") + b"\r\n" + body


def _answer(connection: socket.socket, deadline: _Deadline) -> Answer:
    """Read the head of the final answer, and nothing after it on purpose.

    Byte by byte where it would matter, the head of a tunnel: what follows it belongs to TLS.
    """
    step = 1024 if isinstance(connection, ssl.SSLSocket) else 1
    head = b""
    while True:
        end = head.find(b"\r\n\r\n")
        if end >= 0:
            answer = _parsed(head[:end])
            if answer.status >= HTTPStatus.OK:
                return answer
            head = head[end + 4 :]
            continue
        if len(head) > MAX_HEAD:
            raise SendError("answer", "the answer's head is too long")
        connection.settimeout(deadline.left())
        data = connection.recv(step)
        if not data:
            raise SendError("answer", "the connection ended before an answer")
        head += data


def _parsed(head: bytes) -> Answer:
    line, _, fields = head.partition(b"\r\n")
    status = _STATUS_LINE.fullmatch(line)
    if status is None:
        raise SendError("answer", "the answer is not HTTP")
    code = int(status[1])
    # Of any other answer it says nothing about the next try, so whatever stands there is not even read.
    waits = code == HTTPStatus.TOO_MANY_REQUESTS or code >= HTTPStatus.INTERNAL_SERVER_ERROR
    wanted = _RETRY_AFTER.search(fields) if waits else None
    return Answer(code, retry_after_of(wanted[1].decode("latin-1")) if wanted else None)


def retry_after_of(text: str) -> float | None:
    """Seconds to wait by a `Retry-After` (RFC 9110, 10.2.3): a number, or a date; None if it is neither."""
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):  # a zone, or a year, that is none
        return None
    return max(0.0, moment - time.time())


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Certificates of the system, and of a file beside them."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context


def proxy_of(origin: str | None) -> tuple[str, int] | None:
    """Host and port of a proxy."""
    if origin is None:
        return None
    parts = urlsplit(origin)
    return parts.hostname or "", parts.port or 3128
