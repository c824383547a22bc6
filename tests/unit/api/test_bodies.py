"""Bodies: what is taken, what is refused, and that neither holds up the others."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from downloadjobs_api.bodies import MAX_BODY_BYTES, USUAL_BYTES, FileBody, InitiateBody, read_body
from downloadjobs_api.problems import ProblemError
from downloadjobs_core.job import MAX_FILE_ID, MAX_FILES
from downloadjobs_core.webhook_addresses import MAX_URL

PADDING = b" " * USUAL_BYTES
LISTS = b"[" + b"[]," * 300_000 + b"1]"


def taken(body: bytes, model: type[Any] = InitiateBody) -> Any:  # noqa: ANN401 - of the model
    """What is read of a body."""

    async def whole(_limit: int) -> bytes:
        return body

    request = SimpleNamespace(
        content_type="application/json",
        content_length=len(body),
        get_header=lambda _name: None,
        stream=SimpleNamespace(read=whole),
    )
    assert len(body) <= MAX_BODY_BYTES
    return asyncio.run(read_body(cast("Any", request), model))


def refused(body: bytes, model: type[Any] = InitiateBody) -> tuple[str, list[str]]:
    """The kind of problem that a body is, and the fields at fault."""
    with pytest.raises(ProblemError) as problem:
        taken(body, model)
    return problem.value.kind.code, [fault["field"] for fault in problem.value.errors]


@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
def test_whole_numbers_are_integers(padding: bytes) -> None:
    """`10003.0` is one, and each fault beside it is listed, however large the body is."""
    body = taken(
        b'{"file_ids": [10003.0, ' + padding + b'1e4], "priority": "low", "callbackUrl": "x", "y": {}}'
    )
    assert (body.file_ids, body.priority, body.callback_url) == ([10_003, 10_000], "low", "x")
    faults = b'{"file_ids": [10003.0, "10003", 5.0, 1.5, null, [1e4], 1e400, 1e4], "callbackUrl": ""}'
    listed = [*(f"file_ids.{place}" for place in range(1, 7)), "callbackUrl"]
    assert refused(faults + padding) == ("invalid-body", listed)
    assert taken(b'{"file_id": 10003.0}' + padding, FileBody).file_id == 10_003
    assert refused(b'{"file_id": 10003.5}' + padding, FileBody) == ("invalid-body", ["file_id"])


@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
@pytest.mark.parametrize(
    ("body", "kind", "fields"),
    [
        (b"{", "invalid-json", []),
        (b"nonsense", "invalid-json", []),
        (b"[]", "invalid-body", ["body"]),
        (b"null", "invalid-body", ["body"]),
        (b"{}", "invalid-body", ["file_ids"]),
        (b'{"file_ids": []}', "invalid-body", ["file_ids"]),
        (b'{"file_ids": 10003}', "invalid-body", ["file_ids"]),
        (b'{"file_ids": [' + b"10003, " * MAX_FILES + b"10003]}", "invalid-body", ["file_ids"]),
    ],
)
def test_a_fault_is_told_of_any_size(body: bytes, kind: str, fields: list[str], padding: bytes) -> None:
    """What is wrong with a small body is wrong with a large one, too."""
    assert refused(body + padding) == (kind, fields)


def test_the_largest_members_are_usual() -> None:
    """A valid body may be as large as any: all its ids, the longest URL, and white space between."""
    ids = b",".join(b" %d.0 " % MAX_FILE_ID + b" " * 900 for _ in range(MAX_FILES))
    body = taken(b'{"callbackUrl": "' + b"\\ud83d\\ude00" * MAX_URL + b'", "file_ids": [' + ids + b"]}")
    assert body.file_ids == [MAX_FILE_ID] * MAX_FILES
    assert len(body.callback_url) == MAX_URL


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param(b'{"file_ids": [10003.0], "x": [' + b"1.5," * 250_000 + b"1]}", None, id="numbers"),
        pytest.param(b'{"file_ids": [10003.0], "x": ' + LISTS + b"}", None, id="lists"),
        pytest.param(
            b'{"file_ids": [10003.0], ' + b",".join(b'"%d":1' % n for n in range(80_000)) + b"}",
            None,
            id="members",
        ),
        pytest.param(b'{"file_ids": [10003.0, ' + LISTS + b"]}", ["file_ids"], id="lists for an id"),
        pytest.param(b'{"file_ids": ' + LISTS + b"}", ["file_ids"], id="lists for ids"),
        pytest.param(b'{"file_ids": {"a": ' + LISTS + b"}}", ["file_ids"], id="an object for ids"),
        pytest.param(
            b'{"file_ids": [10003], "callbackUrl": ' + LISTS + b"}", ["callbackUrl"], id="lists for a text"
        ),
        pytest.param(b'{"file_ids": [' + b"1," * 500_000 + b"1]}", ["file_ids"], id="ids"),
        pytest.param(b'{"file_ids": [1.' + b"0" * 1_000_000 + b"]}", ["file_ids"], id="digits"),
        pytest.param(LISTS, ["body"], id="no object"),
    ],
)
def test_no_body_takes_long(body: bytes, fields: list[str] | None) -> None:
    """Taken or refused, a body of 1 MiB takes some milliseconds; to make objects of it takes 40 to 150."""
    took = []
    for _ in range(3):
        began = time.process_time()
        if fields is None:
            assert taken(body).file_ids == [10_003]
        else:
            assert refused(body) == ("invalid-body", fields)
        took.append(time.process_time() - began)
    assert min(took) < 0.03
