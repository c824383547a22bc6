"""One try to send a webhook: to a receiver that behaves, to hostile ones, and to where none may go."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from downloadjobs_core.webhook_addresses import AddressRules
from downloadjobs_worker.webhook_sending import (
    MAX_HEAD,
    Answer,
    SendError,
    WebhookSender,
    retry_after_of,
    tls_context,
)
from support_webhooks import Receiver, make_certificate, receiving

HEADERS = {"webhook-id": "msg_1"}
BODY = b'{"type":"job.completed"}'
IMPOSSIBLE = (
    "Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
    "Mon, 01 Jan 2020 00:00:00 -9999",
    "Mon, 01 Jan 99999999999 00:00:00 GMT",
    "Mon, 01 Jan 2020 99:00:00 -0000",
)
"""Dates that a `Retry-After` may be made of, and that are none."""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver that behaves, by the names localhost and hooks.example.com."""
    with receiving(tmp_path_factory.mktemp("receiver"), "localhost", "hooks.example.com") as receiver:
        yield receiver


def sender_to(receiver: Receiver, host: str = "localhost", seconds: float = 5) -> WebhookSender:
    """A sender whose platform team allows this receiver."""
    return WebhookSender(
        AddressRules((f"{host}:{receiver.port}",)), seconds, tls_context(str(receiver.authority))
    )


class Trap:
    """A listening socket that every connection ends in, whatever its address: it must stay empty."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0)
        self.asked: list[tuple[str, int]] = []

    def connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        """Connect to the trap instead."""
        self.asked.append(address)
        return socket.create_connection(self._socket.getsockname(), timeout)

    @property
    def empty(self) -> bool:
        """Whether nobody connected."""
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return not self.asked
        return False

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    """A trap of the test's own."""
    trap = Trap()
    yield trap
    trap.close()


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["10.0.0.7"],
        ["169.254.169.254"],
        ["100.64.1.1"],
        ["0.0.0.0"],  # noqa: S104 - an address that is refused
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["fe80::1%lo"],
        ["fd00::1"],
        ["64:ff9b::a00:1"],
        ["2002:7f00:1::"],
        ["8.8.8.8", "10.0.0.7"],
        ["2606:4700::1111", "::1"],
    ],
)
def test_a_name_with_an_address_that_is_not_public_is_not_contacted(trap: Trap, answers: list[str]) -> None:
    """One such address among a name's is enough, and no connection is opened to any of them."""
    sender = WebhookSender(AddressRules(), 5, resolve=lambda *_: answers, connect=trap.connect)
    with pytest.raises(SendError) as refused:
        sender.send("https://hooks.example.com/", HEADERS, BODY)
    assert refused.value.code == "refused"
    assert trap.empty


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://2130706433/", "http://hooks.example.com/", "https://[::1]/",
            "https://user@hooks.example.com/", "https://hooks.example.com/\r\nX: 1"]
)  # fmt: skip
def test_a_hostile_url_that_came_into_the_queue_is_not_even_looked_up(trap: Trap, url: str) -> None:
    """The text is judged again at each try: rules may have changed since the job was accepted."""

    def resolve(*_: object) -> list[str]:
        raise AssertionError("looked up")

    sender = WebhookSender(AddressRules(), 5, resolve=resolve, connect=trap.connect)
    with pytest.raises(SendError, match=r".") as refused:
        sender.send(url, HEADERS, BODY)
    assert refused.value.code == "refused"
    assert trap.empty


def test_the_address_that_was_checked_is_the_one_connected_to(receiver: Receiver) -> None:
    """A name that changes its answer (DNS rebinding) is looked up once, and connected to by that answer."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        return socket.create_connection(("127.0.0.1", receiver.port), timeout)

    sender = WebhookSender(
        AddressRules(),
        5,
        tls_context(str(receiver.authority)),
        resolve=lambda *_: next(answers),
        connect=connect,
    )
    # The certificate is checked for the name, though the connection is to an address.
    assert sender.send("https://hooks.example.com/once", HEADERS, BODY) == Answer(204)
    assert asked == [("93.184.216.34", 443)]
    assert receiver.received[-1].headers["host"] == "hooks.example.com"
    with pytest.raises(SendError) as refused:
        sender.send("https://hooks.example.com/twice", HEADERS, BODY)
    assert refused.value.code == "refused"
    assert len(asked) == 1


def test_a_name_of_the_world_is_absolute() -> None:
    """The pod's search list is not used for it; an allowed name may need it."""
    asked: list[str] = []

    def resolve(name: str, _port: int) -> list[str]:
        asked.append(name)
        return []

    for rules in (AddressRules(), AddressRules(("hooks.example.com",))):
        with pytest.raises(SendError, match="looked up"):
            WebhookSender(rules, 5, resolve=resolve).send("https://hooks.example.com/", HEADERS, BODY)
    assert asked == ["hooks.example.com.", "hooks.example.com"]


def test_a_receiver_gets_the_body_and_headers(receiver: Receiver) -> None:
    """A POST of JSON arrives with what signs it; path and query are those of the URL."""
    answer = sender_to(receiver).send(receiver.url("/a//b?key=s&x=%20"), HEADERS, BODY)
    came = receiver.received[-1]
    assert (answer.status, came.path, came.body) == (204, "/a//b?key=s&x=%20", BODY)
    assert came.headers["webhook-id"] == "msg_1"
    assert came.headers["content-type"] == "application/json"
    assert came.headers["host"] == f"localhost:{receiver.port}"
    assert came.headers["user-agent"].startswith("downloadjobs/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(receiver: Receiver, trap: Trap, status: int) -> None:
    """A redirect is an answer like others; nobody connects to where it points."""
    port = trap._socket.getsockname()[1]
    before = len(receiver.received)
    receiver.answer = lambda _: (status, {"location": f"https://127.0.0.1:{port}/"})
    try:
        assert sender_to(receiver).send(receiver.url(), HEADERS, BODY).status == status
    finally:
        receiver.answer = lambda _: (204, {})
    assert len(receiver.received) == before + 1
    assert trap.empty


def test_proxies_of_the_environment_are_ignored(
    receiver: Receiver, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY and its like do not lead webhooks anywhere."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{trap._socket.getsockname()[1]}")
    assert sender_to(receiver).send(receiver.url(), HEADERS, BODY).status == 204
    assert trap.empty


@pytest.mark.parametrize(("names", "trusted"), [(("other.example",), True), (("localhost",), False)])
def test_a_wrong_certificate_is_refused(tmp_path: Path, names: tuple[str, ...], trusted: bool) -> None:  # noqa: FBT001
    """One for another name, or of an unknown authority, ends the try before anything is sent."""
    with receiving(tmp_path, *names) as receiver:
        sender = sender_to(receiver)
        if not trusted:
            sender = replace(sender, tls=tls_context(None))
        with pytest.raises(SendError) as refused:
            sender.send(receiver.url(), HEADERS, BODY)
        assert refused.value.code == "tls"
        assert not receiver.received


@contextmanager
def raw_server(folder: Path, behave: Callable[[ssl.SSLSocket], None]) -> Iterator[Receiver]:
    """A TLS server that does what a test says once a request has come."""
    served, authority = make_certificate(folder, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            plain, _ = listener.accept()
            plain.settimeout(20)
            with context.wrap_socket(plain, server_side=True) as secured:
                secured.recv(65_536)
                behave(secured)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Receiver(port=listener.getsockname()[1], authority=authority)
    finally:
        listener.close()
        thread.join(20)
        assert not thread.is_alive()


def _dripping(what: bytes) -> Callable[[ssl.SSLSocket], None]:
    def behave(secured: ssl.SSLSocket) -> None:
        while True:
            secured.sendall(what)
            time.sleep(0.05)

    return behave


@pytest.mark.parametrize("drip", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_slow_answers_end_with_the_deadline(tmp_path: Path, drip: bytes) -> None:
    """A head that comes byte by byte, or that is announced for ever, is not waited for."""
    with raw_server(tmp_path, _dripping(drip)) as receiver:
        began = time.monotonic()
        with pytest.raises(SendError) as failed:
            sender_to(receiver, seconds=1).send(receiver.url(), HEADERS, BODY)
        assert failed.value.code == "timeout"
        assert time.monotonic() - began < 3


def test_an_endless_head_is_not_read(tmp_path: Path) -> None:
    """A head beyond the limit ends the try."""
    with raw_server(
        tmp_path, lambda one: one.sendall(b"HTTP/1.1 200 OK\r\nx: " + b"a" * (4 * MAX_HEAD))
    ) as receiver:
        with pytest.raises(SendError) as failed:
            sender_to(receiver).send(receiver.url(), HEADERS, BODY)
        assert failed.value.code == "answer"


def test_an_endless_body_is_not_read(tmp_path: Path) -> None:
    """Once the head has come, the answer is known, and the connection ends."""

    def behave(secured: ssl.SSLSocket) -> None:
        secured.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        while True:
            secured.sendall(b"x" * 65_536)

    with raw_server(tmp_path, behave) as receiver:
        assert sender_to(receiver).send(receiver.url(), HEADERS, BODY).status == 200


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 20\r\n\r\n", b"HTTP/2 200\r\n\r\n"])
def test_an_answer_that_is_no_http_is_told(tmp_path: Path, answer: bytes) -> None:
    """Whatever else comes back is a failed try."""
    with raw_server(tmp_path, lambda one: one.sendall(answer)) as receiver:
        with pytest.raises(SendError) as failed:
            sender_to(receiver).send(receiver.url(), HEADERS, BODY)
        assert failed.value.code in {"answer", "connect"}


def test_a_silent_server_does_not_hold_a_thread() -> None:
    """A server that accepts and never shakes hands is left at the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        sender = WebhookSender(AddressRules((f"localhost:{port}",)), 1)
        began = time.monotonic()
        with pytest.raises(SendError) as failed:
            sender.send(f"https://localhost:{port}/", HEADERS, BODY)
        assert failed.value.code == "timeout"
        assert time.monotonic() - began < 3


def test_a_look_up_that_hangs_ends_with_the_deadline(trap: Trap) -> None:
    """Name servers that do not answer cost a try, and no thread beyond it."""
    released = threading.Event()

    def resolve(*_: object) -> list[str]:
        released.wait(20)
        return ["8.8.8.8"]

    sender = WebhookSender(AddressRules(), 1, resolve=resolve, connect=trap.connect)
    with pytest.raises(SendError) as failed:
        sender.send("https://hooks.example.com/", HEADERS, BODY)
    released.set()
    assert failed.value.code == "timeout"
    assert trap.empty


def test_an_allowed_network_is_connected_to(receiver: Receiver) -> None:
    """An address that a platform team's network holds is like a public one."""
    rules = AddressRules(networks=(ip_network("127.0.0.0/8"),))
    sender = WebhookSender(
        rules,
        5,
        tls_context(str(receiver.authority)),
        resolve=lambda *_: ["127.0.0.1"],
        connect=lambda _address, timeout: socket.create_connection(("127.0.0.1", receiver.port), timeout),
    )
    assert sender.send("https://hooks.example.com/", HEADERS, BODY).status == 204


def test_a_proxy_is_asked_for_the_name(receiver: Receiver) -> None:
    """With a proxy the tunnel is asked for by name, and the certificate is still checked through it."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listener.accept()
        asked.append(client.recv(65_536))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with client, socket.create_connection(("127.0.0.1", receiver.port)) as upstream:
            back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
            back.start()
            pump(client, upstream)
            back.join(10)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def resolve(*_: object) -> list[str]:
        raise AssertionError("looked up")

    with listener:
        sender = WebhookSender(
            AddressRules(), 5, tls_context(str(receiver.authority)), listener.getsockname(), resolve=resolve
        )
        assert sender.send("https://hooks.example.com/", HEADERS, BODY).status == 204
        thread.join(10)
    assert asked[0].startswith(b"CONNECT hooks.example.com:443 HTTP/1.1\r\n")


def test_retry_after_is_read(receiver: Receiver) -> None:
    """Seconds and dates are understood; anything else counts for nothing."""
    receiver.answer = lambda _: (503, {"Retry-After": "17"})
    try:
        assert sender_to(receiver).send(receiver.url(), HEADERS, BODY) == Answer(503, 17)
    finally:
        receiver.answer = lambda _: (204, {})
    assert retry_after_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for text in ("soon", "-1", "1.5", "²", "Wed, 99 Oct 2015", *IMPOSSIBLE):
        assert retry_after_of(text) is None


@pytest.mark.parametrize("wanted", IMPOSSIBLE)
@pytest.mark.parametrize("status", [200, 404, 429, 503])
def test_no_retry_after_is_a_fault(receiver: Receiver, status: int, wanted: str) -> None:
    """Whatever a receiver writes there, its answer is the status."""
    receiver.answer = lambda _: (status, {"Retry-After": wanted})
    try:
        assert sender_to(receiver).send(receiver.url(), HEADERS, BODY) == Answer(status)
    finally:
        receiver.answer = lambda _: (204, {})


@pytest.mark.parametrize(("status", "seconds"), [(204, None), (302, None), (404, None), (429, 17), (500, 17)])
def test_retry_after_counts_where_it_says_when_to_try_again(
    receiver: Receiver, status: int, seconds: float | None
) -> None:
    """Of 429 and 5xx alone."""
    receiver.answer = lambda _: (status, {"Retry-After": "17"})
    try:
        assert sender_to(receiver).send(receiver.url(), HEADERS, BODY) == Answer(status, seconds)
    finally:
        receiver.answer = lambda _: (204, {})
