"""The REST client: what it sends, what it understands, and how it names what went wrong."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from downloadjobs_cli.client import ApiClient, Login, retry_after_seconds
from downloadjobs_cli.errors import CliError, RefusedError, TransientError
from downloadjobs_cli.exit_codes import ExitCode

Handler = Callable[[httpx.Request], httpx.Response]

STATUS = {"jobId": "j1", "status": "processing", "progress": {"processed": 1, "total": 2}}


def client(handler: Handler, login: Login | None = None) -> ApiClient:
    """A client whose network is a function."""
    return ApiClient(login or Login("http://api.test/base", user="ann"), httpx.MockTransport(handler))


def problem(status: int, **members: object) -> httpx.Response:
    """An error as the API answers it."""
    body = {"error": "some-code", "message": "Something is so.", "requestId": "r1", **members}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


def error_of(response: httpx.Response, login: Login | None = None) -> CliError:
    """What the client makes of an answer that is no status."""
    with pytest.raises(CliError) as caught, client(lambda _request: response, login) as api:
        api.status("j1")
    return caught.value


def test_initiate_sends_ids_and_user_below_the_apis_path() -> None:
    """Initiate is a POST of the ids in the order given, with the user in x-user-id, below --api's path."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(
            202, json={"jobId": "j1", "status": "queued", "totalFileIds": 2, "estimatedTime": "1-3 seconds"}
        )

    with client(answer) as api:
        reply = api.initiate([10010, 10003])
    assert reply.value.job_id == "j1"
    assert str(seen[0].url) == "http://api.test/base/v1/download/initiate"
    assert seen[0].headers["x-user-id"] == "ann"
    assert json.loads(seen[0].content) == {"file_ids": [10010, 10003]}


ACCEPTED = {"jobId": "j1", "status": "queued", "totalFileIds": 2, "estimatedTime": "1-3 seconds"}


def test_each_request_for_a_job_has_a_key_of_its_own() -> None:
    """Initiate and retry send a new UUID as Idempotency-Key; what only reads sends none."""
    keys: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("idempotency-key"))
        return httpx.Response(202, json=ACCEPTED if request.method == "POST" else STATUS)

    with client(answer) as api:
        api.initiate([10010])
        api.initiate([10010])
        api.retry("j1")
        api.status("j1")
    assert keys[3] is None
    assert len({uuid.UUID(key) for key in keys[:3]}) == 3


@pytest.mark.parametrize("fault", [httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError])
def test_a_lost_answer_is_asked_for_again(
    fault: type[httpx.TransportError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the connection breaks after the request went out, it is sent again with the same key."""
    monkeypatch.setattr("downloadjobs_cli.client.AGAIN_SECONDS", (0, 0))
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) < 3:
            raise fault("it broke")
        return httpx.Response(202, json=ACCEPTED)

    with client(answer) as api:
        assert api.initiate([10010]).value.job_id == "j1"
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("fault", "times"), [(httpx.ReadError, 3), (httpx.ConnectError, 1), (httpx.ConnectTimeout, 1)]
)
def test_a_lost_answer_is_given_up_on(
    fault: type[httpx.TransportError], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three tries the API is taken to be away; one that cannot be reached at all is asked once."""
    monkeypatch.setattr("downloadjobs_cli.client.AGAIN_SECONDS", (0, 0))
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        raise fault("it broke")

    with client(answer) as api, pytest.raises(TransientError):
        api.initiate([10010])
    assert len(requests) == times


def test_token_is_sent_as_bearer() -> None:
    """A token goes into the Authorization header, and no user is made up."""
    headers = Login("http://api.test", token="t").headers()
    assert headers["Authorization"] == "Bearer t"
    assert "x-user-id" not in headers


def test_members_that_are_unknown_are_left_alone_and_kept() -> None:
    """An answer with new members is understood, and --json can still print all of it."""
    progress = {"processed": 1, "total": 2, "bytes": 5, "bytesTotal": 9}
    document = {**STATUS, "progress": progress, "brandNew": [1]}
    with client(lambda _request: httpx.Response(200, json=document, headers={"Retry-After": "2"})) as api:
        reply = api.status("j1")
    assert reply.value.progress.bytes_total == 9
    assert reply.document == document
    assert reply.retry_after == 2.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 415])
def test_a_refusal_ends_with_4_and_the_apis_own_words(status: int) -> None:
    """A 4xx is shown by its message, carries the API's code and request id, and exits with 4."""
    error = error_of(problem(status))
    assert isinstance(error, RefusedError)
    assert error.exit_code is ExitCode.REFUSED
    assert error.message == "Something is so."
    assert error.document() == {"error": "some-code", "message": "Something is so.", "requestId": "r1"}


def test_not_signed_in_says_how_to() -> None:
    """A 401 without a user tells of --user; with one it does not."""
    assert "--user" in error_of(problem(401), Login("http://api.test")).message
    assert "--user" not in error_of(problem(401)).message


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_may_pass(status: int) -> None:
    """A 5xx can be tried again, and otherwise exits with 3."""
    error = error_of(problem(status))
    assert isinstance(error, TransientError)
    assert error.exit_code is ExitCode.UNREACHABLE


def test_the_rate_limit_may_pass_and_says_when() -> None:
    """A 429 can be tried again after its Retry-After, and otherwise counts as refused."""
    response = problem(429)
    response.headers["Retry-After"] = "7"
    error = error_of(response)
    assert isinstance(error, TransientError)
    assert error.retry_after == 7.0
    assert error.exit_code is ExitCode.REFUSED


def test_nobody_answers() -> None:
    """A refused connection exits with 3, names the address, and says what to check."""

    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    with pytest.raises(TransientError) as caught, client(refuse) as api:
        api.check(10003)
    assert "http://api.test/base does not answer (Connection refused)" in caught.value.message
    assert "--api" in caught.value.message


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json={"jobId": 5}),
        httpx.Response(200, json=[]),
        httpx.Response(404, text="nginx"),
        httpx.Response(302, headers={"Location": "/login"}),
    ],
    ids=["html", "other-json", "list", "not-a-problem", "redirect"],
)
def test_another_server_is_found_out(response: httpx.Response) -> None:
    """What is no downloadjobs API is said to be none, and --api is named."""
    error = error_of(response)
    assert error.exit_code is ExitCode.REFUSED
    assert "--api" in error.message


def test_a_jobs_id_cannot_leave_its_place_in_the_path() -> None:
    """An id with a slash is encoded, not followed."""
    paths: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(200, json=STATUS)

    with client(answer) as api:
        api.status("../x y")
    assert paths == [b"/base/v1/download/status/..%2Fx%20y"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("Tue, 24 Nov 2026 12:00:10 GMT", 10.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Retry-After is read in both of its forms, a past date is now, and nonsense is nothing."""
    assert retry_after_seconds(value, datetime(2026, 11, 24, 12, tzinfo=UTC)) == seconds
