"""Downloading by presigned URL: breaks, expiries, and results that change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from downloadjobs_cli.errors import RefusedError, TransientError
from downloadjobs_cli.fetching import Fetched, Fetcher
from downloadjobs_cli.partial_file import PartialFile
from downloadjobs_cli.patience import Patience

CONTENT = bytes(range(256)) * 40


class Body(httpx.SyncByteStream):
    """A body that comes in one piece, and then ends or breaks off."""

    def __init__(self, data: bytes, *, breaks: bool) -> None:
        self._data = data
        self._breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        if self._data:
            yield self._data
        if self._breaks:
            raise httpx.ReadError("connection reset")


@dataclass
class Store:
    """An S3 server with one result: it heeds Range and If-Match, and breaks when it is told to."""

    content: bytes = CONTENT
    etag: str | None = '"e1"'
    breaks_after: list[int] = field(default_factory=list)
    before: list[Callable[[], httpx.Response | None]] = field(default_factory=list)
    heeds_range: bool = True
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.before:
            answer = self.before.pop(0)()
            if answer is not None:
                return answer
        headers = {} if self.etag is None else {"ETag": self.etag}
        body, status = self.content, 200
        if "Range" in request.headers and self.heeds_range:
            if request.headers["If-Match"] != self.etag:
                return httpx.Response(412)
            first = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            body, status = body[first:], 206
            headers["Content-Range"] = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        headers["Content-Length"] = str(len(body))
        breaks = bool(self.breaks_after)
        sent = body[: self.breaks_after.pop(0)] if breaks else body
        return httpx.Response(status, headers=headers, stream=Body(sent, breaks=breaks))


def fetch(
    store: Store, target: Path, *, urls: list[str] | None = None, patience: float = 5, job_id: str = "j1"
) -> tuple[Fetched, list[str]]:
    """Download from a store in a time that does not pass; returns what was noted as well."""
    now = 0.0
    notes: list[str] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    given = iter(urls or ["http://s3.test/r?sig=1", "http://s3.test/r?sig=2", "http://s3.test/r?sig=3"])
    fetcher = Fetcher(
        job_id,
        lambda: next(given),
        Patience(patience, notes.append, clock=lambda: now, sleep=sleep),
        transport=httpx.MockTransport(store),
    )
    with PartialFile(target) as partial:
        fetched = fetcher.fetch(partial)
        partial.complete()
    return fetched, notes


def answers(response: httpx.Response, count: int = 1) -> list[Callable[[], httpx.Response | None]]:
    """The same answer several times."""
    return [lambda: response] * count


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the result goes."""
    return tmp_path / "j1.zip"


def test_a_download_is_one_get(target: Path) -> None:
    """Undisturbed, one GET without Range brings it all; HEAD is never used."""
    store = Store()
    fetched, _notes = fetch(store, target)
    assert target.read_bytes() == CONTENT
    assert fetched == Fetched(len(CONTENT), 0, 0)
    assert [request.method for request in store.requests] == ["GET"]
    assert "Range" not in store.requests[0].headers


def test_another_way_to_the_store(target: Path) -> None:
    """A store that is reached another way is still told the host that the URL is signed for."""
    store = Store()
    with PartialFile(target) as partial:
        Fetcher(
            "j1",
            lambda: "https://files.example.com/b/k.zip?X-Amz-Signature=1",
            Patience(1, lambda _: None),
            store="http://inside:8333",
            transport=httpx.MockTransport(store),
        ).fetch(partial)
    (request,) = store.requests
    assert str(request.url) == "http://inside:8333/b/k.zip?X-Amz-Signature=1"
    assert request.headers["Host"] == "files.example.com"


def test_a_break_goes_on_where_it_was(target: Path) -> None:
    """After each break only the rest is asked for, by Range and If-Match, with the same URL."""
    store = Store(breaks_after=[1000, 2000])
    fetched, _notes = fetch(store, target)
    assert target.read_bytes() == CONTENT
    assert fetched.breaks == 2
    assert [request.headers.get("Range") for request in store.requests] == [
        None,
        "bytes=1000-",
        "bytes=3000-",
    ]
    assert {request.headers.get("If-Match") for request in store.requests[1:]} == {'"e1"'}
    assert {request.url.query for request in store.requests} == {b"sig=1"}


def test_an_interrupted_download_goes_on_in_the_next_run(target: Path) -> None:
    """What an earlier run left is used: the next one asks for the rest only."""
    with pytest.raises(TransientError):
        fetch(Store(breaks_after=[4000, *[0] * 50]), target)
    store = Store()
    fetched, _notes = fetch(store, target)
    assert target.read_bytes() == CONTENT
    assert fetched.resumed_from == 4000
    assert store.requests[0].headers["Range"] == "bytes=4000-"


def test_what_is_there_whole_is_not_asked_for_again(target: Path) -> None:
    """If only the renaming was missing, no request is made."""
    with pytest.raises(TransientError):
        fetch(Store(breaks_after=[4000, *[0] * 50]), target)
    part = target.with_name("j1.zip.part")
    part.write_bytes(CONTENT)
    store = Store()
    fetch(store, target)
    assert store.requests == []
    assert target.read_bytes() == CONTENT


def test_a_changed_result_begins_anew(target: Path) -> None:
    """A result with another ETag is never joined to the old bytes."""
    with pytest.raises(TransientError):
        fetch(Store(breaks_after=[4000, *[0] * 50]), target)
    fetched, notes = fetch(Store(content=CONTENT[::-1], etag='"e2"'), target)
    assert target.read_bytes() == CONTENT[::-1]
    assert fetched.size == len(CONTENT)
    assert any("begins anew" in note for note in notes)


def test_another_jobs_bytes_are_not_used(target: Path) -> None:
    """A partial file of another job at the same path is dropped."""
    with pytest.raises(TransientError):
        fetch(Store(breaks_after=[4000, *[0] * 50]), target, job_id="j0")
    store = Store()
    fetch(store, target)
    assert "Range" not in store.requests[0].headers
    assert target.read_bytes() == CONTENT


def test_a_store_without_ranges_is_read_from_the_start(target: Path) -> None:
    """Where Range is not heeded, the whole answer replaces what is there."""
    store = Store(breaks_after=[4000], heeds_range=False)
    fetch(store, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"e1"'])
def test_without_a_strong_tag_a_break_begins_anew_and_wears_patience_out(
    target: Path, etag: str | None
) -> None:
    """Bytes that cannot be joined safely are read again; that does not go on for ever."""
    store = Store(etag=etag, breaks_after=[4000])
    fetch(store, target)
    assert target.read_bytes() == CONTENT
    assert "Range" not in store.requests[1].headers
    target.unlink()
    with pytest.raises(TransientError):
        fetch(Store(etag=etag, breaks_after=[4000] * 100), target)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_expired_url_is_replaced(target: Path, status: int) -> None:
    """When the URL expires in the middle, a new one is asked for, and the download goes on."""
    store = Store(breaks_after=[4000], before=[lambda: None, *answers(httpx.Response(status))])
    fetch(store, target)
    assert target.read_bytes() == CONTENT
    assert store.requests[-1].url.query == b"sig=2"
    assert store.requests[-1].headers["Range"] == "bytes=4000-"


def test_a_fresh_url_that_is_refused_is_an_error(target: Path) -> None:
    """Two URLs refused in a row are no expiry: it ends, without printing the URL."""
    with pytest.raises(RefusedError, match="refuses a fresh download URL") as caught:
        fetch(Store(before=answers(httpx.Response(403), 2)), target)
    assert "sig=" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_store_is_waited_for(target: Path, status: int) -> None:
    """429 and 5xx pass."""
    fetch(Store(before=answers(httpx.Response(status), 3)), target, patience=60)
    assert target.read_bytes() == CONTENT


def test_a_store_that_stays_away_is_an_error(target: Path) -> None:
    """Without a byte for longer than the patience, it ends; nothing is left of it."""

    def refuse() -> httpx.Response | None:
        raise httpx.ConnectError("refused")

    with pytest.raises(TransientError, match=r"object store at s3\.test does not answer") as caught:
        fetch(Store(before=[refuse] * 100), target)
    assert "sig=" not in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_a_result_that_is_gone_is_an_error(target: Path) -> None:
    """404 means that the result has expired; trying again would not help."""
    with pytest.raises(RefusedError, match="expired"):
        fetch(Store(before=answers(httpx.Response(404))), target)


def test_a_result_that_always_changes_is_an_error(target: Path) -> None:
    """A download does not begin anew for ever."""
    store = Store(breaks_after=[1000] * 100)

    def change() -> httpx.Response | None:
        store.etag = f'"e{len(store.requests)}"'
        return None

    store.before = [change] * 100
    with pytest.raises(RefusedError, match="again and again"):
        fetch(store, target, patience=600)


@pytest.mark.parametrize("url", ["http://s3.test:port/", "not a url", "ftp://s3.test/r", ""])
def test_a_url_that_is_none_is_an_error(target: Path, url: str) -> None:
    """What can be no URL is refused at once."""
    with pytest.raises(RefusedError, match="cannot be used"):
        fetch(Store(), target, urls=[url])


def test_the_store_learns_nothing_of_the_user(target: Path) -> None:
    """The user's headers for the API are not sent to the store."""
    store = Store()
    fetch(store, target)
    sent = {name.lower() for name in store.requests[0].headers}
    assert not sent & {"authorization", "x-user-id", "cookie"}
