"""The S3 adapter and what real servers rarely do: a small HTTP server plays each fault."""

from __future__ import annotations

import gzip
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider

from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    UploadNotFoundError,
)
from downloadjobs_core.objectstore.protocol import Part
from downloadjobs_core.objectstore.s3 import S3Config, S3ObjectStore, connect
from downloadjobs_core.objectstore.s3_credentials import _TranslatedProvider, credentials
from support_objectstore_contract import read_all
from support_tools import require_tool

SECRET = "nobody-may-read-this"
READ_SECONDS = 0.4


@dataclass
class Answer:
    """What the server says, whatever it is asked.

    Attributes:
        length: the Content-Length, if it is not the body's.
        slow: how long the server takes to read each 256 KiB of a request, seconds.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    slow: float = 0.0


@dataclass
class Scripted:
    """A server with its next answer; it keeps what it was asked."""

    url: str
    answer: Answer = field(default_factory=Answer)
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)


def xml(code: str, message: str = "a message") -> Answer:
    """An error as S3 has it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(400, {"Content-Type": "application/xml"}, body.encode())


def handler(scripted: Scripted) -> type[BaseHTTPRequestHandler]:
    """Answers as scripted."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            left = int(self.headers.get("Content-Length", "0"))
            body = b""
            while left > 0:
                piece = self.rfile.read(min(left, 256 * 1024))
                left -= len(piece)
                body += piece
                time.sleep(scripted.answer.slow)
            scripted.asked.append((self.command, self.path, body))
            answer = scripted.answer
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Transfer-Encoding" not in answer.headers:
                self.send_header(
                    "Content-Length", str(len(answer.body) if answer.length is None else answer.length)
                )
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
            self.close_connection = answer.length is not None

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has in the base
            """Say nothing."""

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    return Handler


class QuietServer(ThreadingHTTPServer):
    """Takes a client that hangs up for granted."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """Run a server on loopback."""
    scripted = Scripted("")
    server = QuietServer(("127.0.0.1", 0), handler(scripted))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scripted.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield scripted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server without TLS."""
    with serving() as scripted:
        yield scripted


def config_for(server: Scripted, ca_file: Path | None = None) -> S3Config:
    """How to reach it, with little patience."""
    return S3Config(
        endpoint=server.url,
        access_key="key",
        secret_key=SECRET,
        ca_file=ca_file,
        connect_timeout_seconds=READ_SECONDS,
        read_timeout_seconds=READ_SECONDS,
    )


@pytest.fixture
def store(server: Scripted) -> Iterator[S3ObjectStore]:
    """The store on it."""
    with closing(connect(config_for(server), "files")) as store:
        yield store


def fault_of(store: S3ObjectStore, server: Scripted, answer: Answer) -> ObjectStoreError:
    """What opening an object raises when the server answers so."""
    server.answer = answer
    with pytest.raises(ObjectStoreError) as caught:
        store.open("a.zip")
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
    return caught.value


@pytest.mark.parametrize(
    ("code", "status", "kind", "words"),
    [
        ("NoSuchKey", 404, ObjectNotFoundError, "a.zip"),
        ("NoSuchBucket", 404, BucketNotFoundError, "files .* S3_BUCKET_NAME"),
        ("PreconditionFailed", 412, ObjectChangedError, "a.zip"),
        ("NoSuchUpload", 404, UploadNotFoundError, "completed or aborted"),
        ("InvalidPart", 400, UploadNotFoundError, "a part is not there"),
        ("AccessDenied", 403, ObjectStoreDeniedError, "lack a permission"),
        ("InvalidAccessKeyId", 403, CredentialsRefusedError, "correct S3_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, CredentialsRefusedError, "correct S3_SECRET_ACCESS_KEY"),
        ("RequestTimeTooSkewed", 403, CredentialsRefusedError, "clock"),
        ("ExpiredToken", 400, CredentialsRefusedError, "expired"),
        ("InvalidToken", 400, CredentialsRefusedError, "session token"),
        ("Unheard", 401, ObjectStoreDeniedError, "S3_ACCESS_KEY_ID"),
        ("SlowDown", 503, ObjectStoreUnavailableError, "SlowDown"),
        ("InternalError", 500, ObjectStoreUnavailableError, "InternalError"),
        ("RequestTimeout", 400, ObjectStoreUnavailableError, "RequestTimeout"),
        ("TooManyRequests", 429, ObjectStoreUnavailableError, "TooManyRequests"),
        ("XMinioStorageFull", 507, ObjectStoreUnavailableError, "XMinioStorageFull"),
        ("AuthorizationHeaderMalformed", 400, ObjectStoreError, "S3_REGION"),
        ("PermanentRedirect", 301, ObjectStoreError, "S3_REGION"),
        ("EntityTooSmall", 400, ObjectStoreError, "EntityTooSmall"),
    ],
)
def test_codes(
    store: S3ObjectStore,
    server: Scripted,
    *,
    code: str,
    status: int,
    kind: type[ObjectStoreError],
    words: str,
) -> None:
    """Each error code of S3 is one of the domain's errors, which says what to do."""
    answer = xml(code)
    answer.status = status
    error = fault_of(store, server, answer)
    assert type(error) is kind
    assert error.retryable is kind.retryable
    assert pytest.raises(type(error), match=words).matches(error)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (
            Answer(404, {"Content-Type": "text/html"}, b"<html>no</html>"),
            ObjectStoreUnavailableError,
            "S3_ENDPOINT",
        ),
        (Answer(403, {"Content-Type": "text/plain"}, b"no"), ObjectStoreUnavailableError, "S3_ENDPOINT"),
        (
            Answer(502, {"Content-Type": "text/html"}, b"<html>"),
            ObjectStoreUnavailableError,
            "cannot work now",
        ),
        (Answer(503), ObjectStoreUnavailableError, "cannot work now"),
        (
            Answer(400, {"Content-Type": "application/xml"}, b"<broken"),
            ObjectStoreUnavailableError,
            "S3_ENDPOINT",
        ),
        (
            Answer(400, {"Content-Type": "application/xml"}, b"\xff\xfe"),
            ObjectStoreUnavailableError,
            "S3_ENDPOINT",
        ),
        (Answer(400, {}, b"\xff\xfe"), ObjectStoreUnavailableError, "S3_ENDPOINT"),
    ],
)
def test_answers_that_are_not_s3(
    store: S3ObjectStore, server: Scripted, answer: Answer, kind: type[ObjectStoreError], words: str
) -> None:
    """Another kind of server is told from an S3 server that is down; its page is not in the message."""
    error = fault_of(store, server, answer)
    assert type(error) is kind
    assert pytest.raises(type(error), match=words).matches(error)
    assert "html" not in str(error)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"<a><b></a>", b"", b"\xff"])
def test_lists_that_are_not_s3(store: S3ObjectStore, server: Scripted, body: bytes) -> None:
    """A server that answers anything with 200 and a page of its own is found out."""
    server.answer = Answer(200, {"Content-Type": "text/html"}, body)
    with pytest.raises(ObjectStoreUnavailableError, match="not an S3 server"):
        list(store.list(""))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ObjectStoreDeniedError),
        (403, ObjectStoreDeniedError),
        (404, ObjectNotFoundError),
        (412, ObjectChangedError),
        (500, ObjectStoreUnavailableError),
        (429, ObjectStoreUnavailableError),
        (409, ObjectStoreUnavailableError),
    ],
)
def test_answers_to_head(
    store: S3ObjectStore, server: Scripted, status: int, kind: type[ObjectStoreError]
) -> None:
    """The answer to HEAD has no body, so its status alone tells (minio-py itself trips over 409)."""
    server.answer = Answer(status)
    with pytest.raises(kind):
        store.stat("a.zip")


def test_check_asks_why(store: S3ObjectStore, server: Scripted) -> None:
    """A check that HEAD denies asks again in a way whose answer says why."""
    server.answer = xml("InvalidAccessKeyId")
    server.answer.status = 403
    with pytest.raises(CredentialsRefusedError, match="correct S3_ACCESS_KEY_ID"):
        store.check()
    assert [method for method, _, _ in server.asked] == ["HEAD", "GET"]


def test_redirects_are_not_followed(store: S3ObjectStore, server: Scripted) -> None:
    """A redirect tells of a wrong region and is not followed: elsewhere the signature is worth nothing."""
    server.answer = xml("TemporaryRedirect")
    server.answer.status = 307
    server.answer.headers |= {"Location": f"{server.url}/elsewhere", "x-amz-bucket-region": "eu-west-1"}
    with pytest.raises(ObjectStoreError, match="S3_REGION"):
        store.put("a.zip", b"x")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [500, 503])
def test_faults_are_not_retried_here(store: S3ObjectStore, server: Scripted, status: int) -> None:
    """Whoever asked decides whether to ask again: the adapter asks once."""
    server.answer = Answer(status)
    with pytest.raises(ObjectStoreUnavailableError):
        store.put("a.zip", b"x")
    assert len(server.asked) == 1


def test_complete_that_fails_after_its_headers(store: S3ObjectStore, server: Scripted) -> None:
    """An error inside an answer that began with 200, as AWS may give it, is an error."""
    server.answer = xml("InternalError")
    server.answer.status = 200
    with pytest.raises(ObjectStoreUnavailableError, match=r"complete a\.zip"):
        store.complete_upload("a.zip", "upload", [Part(1, "etag")])


@pytest.mark.parametrize("piece", [1, 4, 1000])
def test_body_that_ends_early(store: S3ObjectStore, server: Scripted, piece: int) -> None:
    """A body shorter than was announced is an error, never an early end."""
    server.answer = Answer(200, {"ETag": '"e"'}, b"0123456789", length=15)
    with store.open("a.zip") as reader:
        assert reader.stat.size == 15
        with pytest.raises(ObjectStoreUnavailableError, match=r"a\.zip") as caught:
            read_all(reader, piece)
    assert caught.value.retryable


@pytest.mark.parametrize("headers", [{"Transfer-Encoding": "chunked"}, {"Content-Range": "bytes 0-9/10"}])
def test_answer_without_length_or_range(
    store: S3ObjectStore, server: Scripted, headers: dict[str, str]
) -> None:
    """An answer that does not say how long it is, or begins elsewhere than asked, is not read."""
    server.answer = Answer(206, headers, b"a\r\n0123456789\r\n0\r\n\r\n")
    with pytest.raises(ObjectStoreUnavailableError, match="proxy"):
        store.open("a.zip", offset=3)


def test_a_range_shorter_than_asked_for_is_not_read(store: S3ObjectStore, server: Scripted) -> None:
    """An answer that leaves out the object's end (RFC 9110, 15.3.7) is an error, never an early end."""
    server.answer = Answer(206, {"Content-Range": "bytes 3-5/10"}, b"345")
    with pytest.raises(ObjectStoreUnavailableError, match="3 of the 7 bytes"):
        store.open("a.zip", offset=3)


def test_bytes_come_as_they_are_stored(store: S3ObjectStore, server: Scripted) -> None:
    """An object that was stored with a Content-Encoding is read as it was stored, not unpacked."""
    packed = gzip.compress(b"hello")
    server.answer = Answer(200, {"Content-Encoding": "gzip", "ETag": '"e"'}, packed)
    with store.open("a.zip") as reader:
        assert reader.read(1000) == packed


def test_slow_upload(server: Scripted) -> None:
    """A body may take far longer than both time-outs, as long as it gets on."""
    data = memoryview(bytearray(16 << 20))
    config = replace(config_for(server), connect_timeout_seconds=0.2, read_timeout_seconds=2)
    server.answer = Answer(200, {"ETag": '"e"'}, slow=0.05)
    began = time.monotonic()
    with closing(connect(config, "files")) as store:
        assert store.upload_part("a.zip", "upload", 1, data).etag == "e"
    assert time.monotonic() - began > 3
    assert server.asked[0][2] == data


def test_upload_that_gets_stuck(store: S3ObjectStore, server: Scripted) -> None:
    """A body that does not get on is given up after the read time-out."""
    server.answer = Answer(slow=5 * READ_SECONDS)
    began = time.monotonic()
    with pytest.raises(ObjectStoreUnavailableError, match="did not answer in time"):
        store.upload_part("a.zip", "upload", 1, bytes(32 << 20))
    assert time.monotonic() - began < 5 * READ_SECONDS


@pytest.mark.parametrize("key", ["a/../b", "./a"])
def test_keys_that_no_client_can_name(store: S3ObjectStore, key: str) -> None:
    """A key that a URL cannot hold is the caller's mistake, not the server's."""
    with pytest.raises(ValueError, match="segment"):
        store.stat(key)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *(
                require_tool("openssl"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ),
            *("-noenc", "-days", "1", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(path), "-out", str(path.with_suffix(".crt"))),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[Scripted]:
    """A server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as scripted:
        yield scripted


def test_untrusted_certificate(tls_server: Scripted) -> None:
    """A certificate that is not trusted is named as the cause, with the setting that mends it."""
    with (
        closing(connect(config_for(tls_server), "files")) as store,
        pytest.raises(ObjectStoreUnavailableError, match="S3_CA_FILE") as caught,
    ):
        store.check()
    assert "not trusted" in str(caught.value)


def test_ca_file(tls_server: Scripted, certificate: Path) -> None:
    """With S3_CA_FILE the server is trusted, and takes whole parts out of a buffer."""
    data = memoryview(bytearray(range(256)) * 20_000)[100:]
    tls_server.answer = Answer(200, {"ETag": '"e"'})
    with closing(connect(config_for(tls_server, certificate), "files")) as store:
        store.check()
        assert store.upload_part("a.zip", "upload", 1, data).etag == "e"
    assert tls_server.asked[-1][2] == data


def test_certificate_for_another_host(tls_server: Scripted, certificate: Path) -> None:
    """A trusted certificate of another host is no matter of S3_CA_FILE."""
    tls_server.url = tls_server.url.replace("127.0.0.1", "localhost")
    with (
        closing(connect(config_for(tls_server, certificate), "files")) as store,
        pytest.raises(ObjectStoreUnavailableError, match="host in S3_ENDPOINT") as caught,
    ):
        store.check()
    assert "S3_CA_FILE" not in str(caught.value)


def test_tls_to_a_server_without(server: Scripted) -> None:
    """`https://` to a server that speaks plain HTTP says to look at the scheme."""
    server.url = server.url.replace("http:", "https:")
    with (
        closing(connect(config_for(server), "files")) as store,
        pytest.raises(ObjectStoreUnavailableError, match="scheme and port of S3_ENDPOINT"),
    ):
        store.check()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (S3Config(endpoint="s3.example.com"), "http"),
        (S3Config(endpoint="http://h/path"), "without a path"),
        (S3Config(public_endpoint="h:1"), "h:1"),
        (S3Config(region="no region"), "S3_REGION"),
        (S3Config(access_key="a"), "Set both"),
        (S3Config(secret_key=SECRET), "Set both"),
        (S3Config(ca_file=Path("/no/such/file")), "S3_CA_FILE"),
        (S3Config(ca_file=Path(__file__)), "S3_CA_FILE"),
    ],
)
def test_settings_that_cannot_be(config: S3Config, words: str) -> None:
    """Settings that can never work are refused at once, by name."""
    with pytest.raises(ObjectStoreError, match=words) as caught:
        connect(config, "files")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("bucket", ["", "a", "UP PER", "a..b", "192.168.1.1"])
def test_bucket_names_that_cannot_be(bucket: str) -> None:
    """A bucket's name that S3 does not allow is refused at once."""
    with pytest.raises(ObjectStoreError, match="S3_BUCKET_NAME"):
        connect(S3Config(access_key="a", secret_key="b"), bucket)


def test_config_hides_keys() -> None:
    """Printing the configuration shows neither key."""
    shown = repr(S3Config(access_key="visible-key", secret_key=SECRET))
    assert "us-east-1" in shown
    assert "visible-key" not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("config", "begins"),
    [
        (S3Config(), "https://files.s3.us-east-1.amazonaws.com/a.zip?"),
        (S3Config(region="cn-north-1"), "https://files.s3.cn-north-1.amazonaws.com.cn/a.zip?"),
        (S3Config(force_path_style=True), "https://s3.us-east-1.amazonaws.com/files/a.zip?"),
        (S3Config(endpoint="https://s3.test"), "https://s3.test/files/a.zip?"),
        (S3Config(endpoint="https://s3.test:9000/"), "https://s3.test:9000/files/a.zip?"),
        (S3Config(endpoint="https://s3.test", force_path_style=False), "https://files.s3.test/a.zip?"),
        (S3Config(endpoint="http://in:9000", public_endpoint="https://out"), "https://out/files/a.zip?"),
    ],
)
def test_where_the_bucket_stands(monkeypatch: pytest.MonkeyPatch, config: S3Config, begins: str) -> None:
    """The bucket is in the host's name on AWS, in the path elsewhere, and as S3_FORCE_PATH_STYLE says."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    url = connect(config, "files").presign_get("a.zip", expires_seconds=60)
    assert url.startswith(begins)
    assert "Credential=from-the-environment%2F" in url


def test_no_credentials_anywhere(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials, calls say which settings give them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    server.answer = Answer(404)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials")
    with pytest.raises(CredentialsRefusedError, match="S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY"):
        connect(S3Config(endpoint=server.url), "files").check()


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")  # minio-py 7.2.20
def test_credentials_of_the_platform(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys in the settings, those that the platform hands out are taken, and kept while good."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    body = b'{"AccessKeyId":"role","SecretAccessKey":"s","Token":"t","Expiration":"2999-01-01T00:00:00Z"}'
    server.answer = Answer(200, {}, body)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials")
    provider = credentials(None, None, "us-east-1")
    assert [provider.retrieve().access_key for _ in range(2)] == ["role", "role"]
    assert [path for _, path, _ in server.asked] == ["/credentials"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError(f"https://sts?WebIdentityToken={SECRET} failed"), CredentialsRefusedError),
        (OSError(f"https://sts?WebIdentityToken={SECRET}"), ObjectStoreUnavailableError),
    ],
)
def test_credentials_leak_nothing(error: Exception, kind: type[ObjectStoreError]) -> None:
    """An error while credentials are fetched, which can hold the identity token, leaves no trace."""

    class Broken(Provider):
        def retrieve(self) -> Credentials:
            raise error

    with pytest.raises(kind) as caught:
        _TranslatedProvider(Broken()).retrieve()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
