"""The S3 adapter against real servers: the contract, presigned URLs, and what goes wrong."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from downloadjobs_cli.embedded import MinioServer, S3Server, SeaweedServer, free_ports
from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    ObjectStoreDeniedError,
    ObjectStoreUnavailableError,
)
from downloadjobs_core.objectstore.protocol import MIN_PART_BYTES, ObjectReader
from downloadjobs_core.objectstore.s3 import S3Config, S3ObjectStore, connect
from support_objectstore_contract import ObjectStoreContract, Subject, read_all, some_bytes
from support_servers import killed_after
from support_tools import require_tool

SECRET = "nobody-may-read-this"


@pytest.fixture(params=["seaweedfs", "minio"])
def server(request: pytest.FixtureRequest) -> S3Server:
    """Each server in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, S3Server)
    return found


@pytest.fixture
def store(server: S3Server) -> Iterator[S3ObjectStore]:
    """The server's bucket."""
    with closing(connect(server.config, server.bucket)) as store:
        yield store


@pytest.fixture
def subject(store: S3ObjectStore) -> Subject:
    """The server's bucket, with keys of this test's own."""
    return Subject(store, f"{uuid.uuid4()}/", MIN_PART_BYTES)


class TestS3Store(ObjectStoreContract):
    """A bucket of a real server."""


ACTIONS: dict[str, Callable[[S3ObjectStore], object]] = {
    "check": lambda store: store.check(),
    "stat": lambda store: store.stat("a"),
    "open": lambda store: store.open("a"),
    "put": lambda store: store.put("a", b"x" * 3_000_000),
    "delete": lambda store: store.delete("a"),
    "list": lambda store: list(store.list("")),
    "create_upload": lambda store: store.create_upload("a"),
    "pending_uploads": lambda store: list(store.pending_uploads("")),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_wrong_secret(server: S3Server, action: Callable[[S3ObjectStore], object]) -> None:
    """With a wrong secret every call is refused, and no message holds the secret."""
    wrong = replace(server.config, secret_key=SECRET)
    with (
        closing(connect(wrong, server.bucket)) as store,
        pytest.raises(
            (CredentialsRefusedError, ObjectStoreDeniedError), match="S3_SECRET_ACCESS_KEY"
        ) as caught,
    ):
        action(store)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


def test_wrong_access_key(server: S3Server) -> None:
    """The check tells an unknown access key from a wrong secret."""
    wrong = replace(server.config, access_key="nobody")
    with (
        closing(connect(wrong, server.bucket)) as store,
        pytest.raises(CredentialsRefusedError, match="correct S3_ACCESS_KEY_ID"),
    ):
        store.check()


@pytest.mark.parametrize("name", ["check", "open", "put", "delete", "list", "create_upload"])
def test_missing_bucket(server: S3Server, name: str) -> None:
    """A bucket that is not there is named, with the setting that names it, and is not made by writing."""
    with (
        closing(connect(server.config, "no-such-bucket")) as store,
        pytest.raises(BucketNotFoundError, match=r"no-such-bucket .*S3_BUCKET_NAME"),
    ):
        ACTIONS[name](store)


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_no_server(action: Callable[[S3ObjectStore], object]) -> None:
    """Where nobody listens every call says so, names the setting, and can be tried again."""
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    config = S3Config(endpoint=endpoint, access_key="key", secret_key=SECRET)
    with (
        closing(connect(config, "files")) as store,
        pytest.raises(ObjectStoreUnavailableError, match="S3_ENDPOINT") as caught,
    ):
        action(store)
    assert caught.value.retryable
    assert "refused" in str(caught.value)
    assert endpoint in str(caught.value)


def test_host_without_address() -> None:
    """A host name that does not resolve is told from a server that is down."""
    config = S3Config(endpoint="http://no-such-host.invalid", access_key="key", secret_key=SECRET)
    with (
        closing(connect(config, "files")) as store,
        pytest.raises(ObjectStoreUnavailableError, match="does not resolve"),
    ):
        store.check()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[SeaweedServer]:
    """A server that a test may ill-treat."""
    with killed_after(SeaweedServer(tmp_path)) as server:
        yield server


def read_until_it_breaks(reader: ObjectReader, received: bytearray) -> None:
    """Read on, keeping what came."""
    while chunk := reader.read(1 << 20):
        received += chunk


def test_server_dies_during_a_read(own_server: SeaweedServer) -> None:
    """A read that is cut off fails, and goes on from its offset when the server is back."""
    data = some_bytes(64 << 20)
    received = bytearray()
    with closing(connect(own_server.config, own_server.bucket)) as store:
        etag = store.put("a.zip", data)
        with store.open("a.zip") as reader:
            received += reader.read(1 << 20)
            own_server.kill()
            with pytest.raises(ObjectStoreUnavailableError, match=r"a\.zip") as caught:
                read_until_it_breaks(reader, received)
        assert caught.value.retryable
        assert len(received) < len(data)
        with pytest.raises(ObjectStoreUnavailableError):
            store.check()
        own_server.restart()
        received += read_all(opened_when_ready(store, len(received), etag))
    assert received == data


def opened_when_ready(store: S3ObjectStore, offset: int, etag: str) -> ObjectReader:
    """A read of `a.zip` from a server that was killed just now: some look through their files first."""
    until = time.monotonic() + 20
    while True:
        try:
            return store.open("a.zip", offset=offset, if_match=etag)
        except ObjectStoreUnavailableError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.2)


def test_server_that_says_nothing(own_server: SeaweedServer) -> None:
    """A server that holds the connection and does not answer is given up after the read time-out."""
    impatient = replace(own_server.config, connect_timeout_seconds=5, read_timeout_seconds=0.5)
    with closing(connect(own_server.config, own_server.bucket)) as store:
        store.put("a.zip", some_bytes(64 << 20))
    with closing(connect(impatient, own_server.bucket)) as store, store.open("a.zip") as reader:
        reader.read(1 << 20)
        own_server.pause()
        began = time.monotonic()
        with pytest.raises(ObjectStoreUnavailableError, match="did not answer in time"):
            read_until_it_breaks(reader, bytearray())
        with pytest.raises(ObjectStoreUnavailableError, match="did not answer in time"):
            store.put("b.zip", b"x")
        assert time.monotonic() - began < 5


def test_presigned_url(subject: Subject) -> None:
    """Anyone with the URL can read the object, also a range of it, and sees the file's name."""
    subject.store.put(subject.key(), b"0123456789", content_type="application/zip")
    url = subject.store.presign_get(subject.key(), expires_seconds=60, filename='my "best" filés.zip')
    whole = httpx.get(url)
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert whole.headers["content-type"] == "application/zip"
    assert whole.headers["content-disposition"] == (
        "attachment; filename=\"my _best_ fil_s.zip\"; filename*=UTF-8''my%20%22best%22%20fil%C3%A9s.zip"
    )
    part = httpx.get(url, headers={"Range": "bytes=3-5"})
    assert (part.status_code, part.content) == (206, b"345")
    assert part.headers["content-range"] == "bytes 3-5/10"


def test_presigned_url_without_a_name(subject: Subject) -> None:
    """Without a file name the answer carries none."""
    subject.store.put(subject.key(), b"x")
    answer = httpx.get(subject.store.presign_get(subject.key(), expires_seconds=60))
    assert answer.status_code == 200
    assert "content-disposition" not in answer.headers


@pytest.mark.parametrize("name", ["a b.zip", "ä+%.zip"])
def test_presigned_url_of_an_odd_key(subject: Subject, name: str) -> None:
    """The URL of a key with odd signs is signed as it is sent."""
    subject.store.put(subject.key(name), b"x")
    assert httpx.get(subject.store.presign_get(subject.key(name), expires_seconds=60)).content == b"x"


def test_presigned_url_expires(subject: Subject) -> None:
    """After its time the URL is refused."""
    subject.store.put(subject.key(), b"x")
    url = subject.store.presign_get(subject.key(), expires_seconds=1)
    deadline = time.monotonic() + 10
    while (answer := httpx.get(url)).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert answer.status_code == 403


def test_presigned_url_is_for_one_object(subject: Subject) -> None:
    """The URL opens no other object, no other file name, no list of the bucket, and changes nothing."""
    for name in ("mine", "other"):
        subject.store.put(subject.key(name), b"x")
    url = httpx.URL(subject.store.presign_get(subject.key("mine"), expires_seconds=60, filename="mine"))
    bucket = f"/{subject.store.bucket}"
    others = [
        url.copy_with(path=url.path.replace("mine", "other")),
        url.copy_merge_params({"response-content-disposition": "attachment; filename=other"}),
        url.copy_merge_params({"X-Amz-Expires": "600"}),
        url.copy_with(path=bucket),
        url.copy_with(path=bucket).copy_merge_params({"list-type": "2"}),
        url.copy_with(path="/"),
        url.copy_with(query=None),
    ]
    assert [httpx.get(other).status_code for other in others] == [403] * len(others)
    assert httpx.put(url, content=b"changed").status_code == 403
    assert httpx.delete(url).status_code == 403
    assert httpx.get(url).content == b"x"


def test_presigning_asks_nobody() -> None:
    """A URL is made for the public endpoint, without any server being there."""
    config = S3Config(
        endpoint=f"http://127.0.0.1:{free_ports(1)[0]}",
        region="eu-central-1",
        access_key="key",
        secret_key=SECRET,
        public_endpoint="https://files.example.com",
    )
    with closing(connect(config, "files")) as store:
        url = store.presign_get("results/a.zip", expires_seconds=600)
    assert url.startswith("https://files.example.com/files/results/a.zip?")
    assert "eu-central-1" in url
    assert SECRET not in url


@pytest.mark.contract("presigned")
def test_public_endpoint_signs_for_its_own_host(server: S3Server) -> None:
    """A URL for the public endpoint is good there, where the server is known by another name."""
    public = server.endpoint.replace("127.0.0.1", "localhost")
    with closing(connect(replace(server.config, public_endpoint=public), server.bucket)) as store:
        key = f"{uuid.uuid4()}"
        store.put(key, b"x")
        url = store.presign_get(key, expires_seconds=60)
    assert url.startswith(public)
    host = public.removeprefix("http://")
    answer = httpx.get(url.replace("localhost", "127.0.0.1"), headers={"Host": host})
    assert answer.content == b"x"


def test_pending_uploads_of_one_key_outlive_a_restart(tmp_path: Path) -> None:
    """MinIO finds a whole key's uploads also after a restart; by prefix it has forgotten them then."""
    require_tool("minio")
    with (
        killed_after(MinioServer(tmp_path)) as server,
        closing(connect(server.config, server.bucket)) as store,
    ):
        upload_id = store.create_upload("results/a.zip")
        server.restart()
        assert [upload.upload_id for upload in store.pending_uploads("results/a.zip")] == [upload_id]
        assert list(store.pending_uploads("results/")) == []
