"""Downloads a result by its presigned URL, going on where an earlier try broke off.

Only GET is used: a URL that is signed for GET answers HEAD with 403. A break is resumed by Range with
If-Match, so that bytes of two different results are never joined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx

from downloadjobs_cli.client import USER_AGENT, why_silent
from downloadjobs_cli.errors import RefusedError, TransientError
from downloadjobs_cli.http_clients import http_client
from downloadjobs_cli.partial_file import Origin, PartialFile, continues, resume_offset, strong
from downloadjobs_cli.patience import Patience

TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
"""Seconds; for reads it is the longest silence, not the whole download."""

FRESH_URLS: Final = 2
"""How many URLs in a row may be refused without a byte between: one can expire on the way, two did not."""

RESTARTS: Final = 3
"""How often the result may prove to be another one than before, until that is an error."""

EXPIRED: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
"""What stores answer once a URL, or the credentials it was signed with, have expired."""


class Listener(Protocol):
    """Told how a download goes on."""

    def __call__(self, done: int, total: int | None) -> None:
        """Bytes on disk, and in all where that is known."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A finished download: its bytes, how many of them were there before, and how often it broke."""

    size: int
    resumed_from: int
    breaks: int


class Fetcher:
    """Downloads one job's result.

    Args:
        job_id: whose result it is.
        url: asks the API for a fresh presigned URL.
        patience: what to do while the store does not answer.
        listener: told how it goes on.
        store: where to connect instead of the URL's host, which is still named to it (a URL is signed for its
            host); None for that host itself.
        transport: stands in for the network in tests.
    """

    def __init__(
        self,
        job_id: str,
        url: Callable[[], str],
        patience: Patience,
        listener: Listener = lambda done, total: None,  # noqa: ARG005 - nobody listens
        *,
        store: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._job_id = job_id
        self._store = store
        self._new_url = url
        self._patience = patience
        self._listener = listener
        self._transport = transport
        self._url: str | None = None
        self._refused_urls = 0
        self._restarts = 0

    def fetch(self, partial: PartialFile) -> Fetched:
        """Download until the file is whole; what is there of an earlier try is kept.

        Raises:
            TransientError: the store did not answer, or gave nothing new, for longer than the patience.
            RefusedError: the store or the API refuses it.
            OSError: the disk is full, or the path cannot be written.
        """
        found = resume_offset(partial.origin, self._job_id, partial.size)
        breaks = 0
        # A call that gains something ends well, so only calls that gain nothing wear patience out.
        while not self._patience.call(lambda: self._advance(partial)):
            breaks += 1
        return Fetched(partial.size, found, breaks)

    def _advance(self, partial: PartialFile) -> bool:
        """Download as much as one connection gives. True if that was the rest."""
        offset = resume_offset(partial.origin, self._job_id, partial.size)
        origin = partial.origin if offset else None
        if origin is not None and offset == origin.size:
            return True
        if self._url is None:
            self._url = self._new_url()
            if not self._url.startswith(("http://", "https://")):
                raise _unusable()
        before = offset
        try:
            with self._open(self._url, offset, origin) as response:
                offset = self._accept(response, partial, origin, offset)
                before = offset
                total = _total(response, offset)
                # Chunks as they come: gathered ones would be lost when the connection breaks.
                for chunk in response.iter_raw():
                    partial.append(chunk)
                    offset += len(chunk)
                    self._listener(offset, total)
        except httpx.TransportError as error:
            if offset > before and partial.origin is not None:
                return False
            raise TransientError(_silent(self._url, error)) from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise _unusable() from error
        if total is not None and offset != total:
            raise TransientError("The object store's answer ended too early.")
        return True

    def _open(self, url: str, offset: int, origin: Origin | None) -> _Stream:
        headers = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        if origin is not None:
            headers |= {"Range": f"bytes={offset}-", "If-Match": origin.etag}
        if self._store is not None:
            parts = urlsplit(url)
            headers["Host"] = parts.netloc
            url = f"{self._store}{parts.path}?{parts.query}"
        return _Stream(url, headers, self._transport)

    def _accept(
        self, response: httpx.Response, partial: PartialFile, origin: Origin | None, offset: int
    ) -> int:
        """Decide what an answer means. Returns the offset at which its body begins."""
        status = response.status_code
        etag = response.headers.get("ETag")
        if origin is not None and continues(
            origin, offset, status, response.headers.get("Content-Range"), etag
        ):
            self._refused_urls = 0
            return offset
        if status == HTTPStatus.OK:
            self._refused_urls = 0
            if origin is not None and etag != origin.etag:
                self._restart()
            partial.begin(self._origin_of(response))
            return 0
        if origin is not None and (
            response.is_success
            or status in {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}
        ):
            self._restart()
            partial.begin(None)
            raise TransientError("The result is another one than before; the download begins anew.")
        if status in EXPIRED:
            self._url = None
            self._refused_urls += 1
            if self._refused_urls < FRESH_URLS:
                raise TransientError("The download URL has expired; asking for a new one.")
            raise RefusedError(
                f"The object store refuses a fresh download URL ({status}). Its clock, or the public"
                " endpoint that URLs are signed for, may be wrong: tell who runs it.",
                status=status,
                code="url-refused",
            )
        if status == HTTPStatus.NOT_FOUND:
            raise RefusedError("The result is gone: it has expired.", status=status, code="result-expired")
        if response.is_server_error or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise TransientError(f"The object store cannot answer now ({status}).")
        raise RefusedError(
            f"The object store answered {status} to the download.", status=status, code="store-refused"
        )

    def _origin_of(self, response: httpx.Response) -> Origin | None:
        """What a whole answer's bytes are from; None if a later range could not be joined to them."""
        size, etag = _total(response, 0), strong(response.headers.get("ETag"))
        if size is None or etag is None:
            return None
        return Origin(job_id=self._job_id, etag=etag, size=size)

    def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > RESTARTS:
            raise RefusedError(
                "The result changes again and again while it is downloaded.", code="result-changes"
            )


class _Stream:
    """One GET whose body is read as it comes; closes its connection with it.

    The user's headers for the API are not in it: a store must not learn a token.
    """

    def __init__(self, url: str, headers: Mapping[str, str], transport: httpx.BaseTransport | None) -> None:
        self._client = http_client(url, timeout=TIMEOUT, transport=transport, follow_redirects=True)
        self._response: httpx.Response | None = None
        self._request = self._client.build_request("GET", url, headers=headers)

    def __enter__(self) -> httpx.Response:
        try:
            self._response = self._client.send(self._request, stream=True)
        except BaseException:
            self._client.close()
            raise
        return self._response

    def __exit__(self, *_error: object) -> None:
        if self._response is not None:
            self._response.close()
        self._client.close()


def _total(response: httpx.Response, offset: int) -> int | None:
    length = response.headers.get("Content-Length")
    return offset + int(length) if length is not None and length.isdecimal() else None


def _silent(url: str, error: httpx.TransportError) -> str:
    """What to say when nothing comes: of the URL, which is a secret, only the host."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    where = host if parts.port is None else f"{host}:{parts.port}"
    text = f"The object store at {where} does not answer{why_silent(error)}."
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        # It may be an address within the cluster: the API signs for what it is told.
        text += (
            " If that cannot be reached from here, S3_PUBLIC_ENDPOINT of the API must name what can:"
            " tell who runs it."
        )
    return text


def _unusable() -> RefusedError:
    return RefusedError("The download URL that the API gave cannot be used.", code="url-unusable")
