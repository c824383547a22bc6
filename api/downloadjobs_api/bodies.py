"""Request bodies: limited, whole, JSON, and valid, or a problem that says what is wrong."""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Final, TypeVar

import falcon.asgi
import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from downloadjobs_api.problems import (
    BAD_REQUEST,
    BODY_TOO_LARGE,
    INVALID_BODY,
    INVALID_JSON,
    UNSUPPORTED_MEDIA_TYPE,
    ProblemError,
)
from downloadjobs_core.job import MAX_FILE_ID, MAX_FILES, MIN_FILE_ID
from downloadjobs_core.states import Priority
from downloadjobs_core.webhook_addresses import MAX_URL

MAX_BODY_BYTES: Final = 1024 * 1024
USUAL_BYTES: Final = 32 * 1024
"""No member of a valid body is longer, but for white space: 1,000 ids have some 11 kB."""

MOST_ERRORS: Final = 1_000
"""Faults that an answer lists at most: as many as a valid body has ids."""

MAX_JOB_ID: Final = 128
"""Characters; a DownloadJob's uid has 36."""

MIN_NONCE: Final = 32
MAX_NONCE: Final = 128
"""Characters; 256 random bits have 43 in base64 and 64 in hexadecimal."""

EXACT: Final = 2**53
"""Beyond it, a double does not tell whole numbers apart (RFC 8259, 6)."""

ABSENT: Final = msgspec.Raw()

FileId = Annotated[int, Field(ge=MIN_FILE_ID, le=MAX_FILE_ID, examples=[10_003])]
Model = TypeVar("Model", bound=BaseModel)


class InitiateBody(BaseModel):
    """`POST /v1/download/initiate`. Members that are not known are ignored."""

    model_config = ConfigDict(strict=True)

    file_ids: Annotated[
        list[FileId],
        Field(
            min_length=1,
            max_length=MAX_FILES,
            description="The zip has each once, in this order",
        ),
    ]
    priority: Annotated[
        Priority | None,
        Field(strict=False, description="`normal` if it is not given, or the highest that the user may have"),
    ] = None
    callback_url: Annotated[
        str | None,
        Field(
            alias="callbackUrl",
            min_length=1,
            max_length=MAX_URL,
            description="Where a webhook tells of the job's end: https, and a public address",
        ),
    ] = None


class FileBody(BaseModel):
    """`POST /v1/download/check` and `start`."""

    model_config = ConfigDict(strict=True)

    file_id: FileId


class ClaimBody(BaseModel):
    """`POST /v1/claims`."""

    model_config = ConfigDict(strict=True)

    job_id: Annotated[str, Field(alias="jobId", min_length=1, max_length=MAX_JOB_ID)]
    nonce: Annotated[str, Field(min_length=MIN_NONCE, max_length=MAX_NONCE, repr=False)]
    """A secret: never logged, and never told back."""


async def read_body(req: falcon.asgi.Request, model: type[Model]) -> Model:
    """Read and validate a JSON body.

    Raises:
        ProblemError: 415 for another type or an encoding, 413 over `MAX_BODY_BYTES`, 400 for the rest.
    """
    content_type = (req.content_type or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json.")
    body = await whole_body(req)
    if len(body) > USUAL_BYTES:
        body = _reduced(model, body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        return _with_whole_numbers(model, body, error)


async def whole_body(req: falcon.asgi.Request) -> bytes:
    """Read a body of any type, or none.

    Raises:
        ProblemError: 415 for an encoding, 413 over `MAX_BODY_BYTES`, 400 where it is cut short.
    """
    if (req.get_header("content-encoding") or "identity").lower() != "identity":
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, "Send the body without a Content-Encoding.")
    body = await req.stream.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise too_large()
    if req.content_length is not None and len(body) != req.content_length:
        raise ProblemError(BAD_REQUEST, "The body is shorter than its Content-Length.")
    return body


def _reduced(model: type[BaseModel], body: bytes) -> bytes:
    """Of a large body what the model knows, each member cut to a size that a valid one may have.

    What is refused becomes objects, and those of 1 MiB can take 150 ms, in which nobody else is served.

    Raises:
        ProblemError: 400 if it is not JSON, no object, or a member is longer than it can be.
    """
    try:
        members = _members_of(model).decode(body)
    except msgspec.ValidationError:
        raise _one_fault("body", "Input should be an object") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProblemError(INVALID_JSON, f"The body is not JSON: {error}.") from None
    for name in members.__struct_fields__:
        text = bytes(getattr(members, name))
        if len(text) > USUAL_BYTES and text.startswith(b"["):
            if text.count(b",") >= MAX_FILES:
                raise _one_fault(name, f"List should have at most {MAX_FILES} items")
            text = msgspec.json.encode(msgspec.json.decode(text, type=list[msgspec.Raw]))  # no white space
            setattr(members, name, msgspec.Raw(text))
        if len(text) > USUAL_BYTES:
            raise _one_fault(name, "Input is longer than any valid value")
    return msgspec.json.encode(members)


@cache
def _members_of(model: type[BaseModel]) -> msgspec.json.Decoder[msgspec.Struct]:
    """Finds the text of the members that a model knows, and makes nothing of the others."""
    names = [field.alias or name for name, field in model.model_fields.items()]
    fields = [(name, msgspec.Raw, ABSENT) for name in names]
    return msgspec.json.Decoder(msgspec.defstruct(model.__name__, fields, omit_defaults=True))


def _with_whole_numbers(model: type[Model], body: bytes, error: ValidationError) -> Model:
    """Take `10003.0` for 10003, as JSON Schema does (6.1.1: an integer is a number without a fraction).

    Looked at only after a body was refused: almost every client writes integers.
    """
    if not any(fault["type"] == "int_type" for fault in error.errors(include_url=False, include_input=False)):
        raise _invalid(error) from None
    try:
        return model.model_validate(json.loads(body, parse_float=_number))
    except ValidationError as still:
        raise _invalid(still) from None
    except RecursionError:
        raise _invalid(error) from None


def _number(digits: str) -> float:
    number = float(digits)
    return int(number) if number.is_integer() and abs(number) <= EXACT else number


def too_large() -> ProblemError:
    """What refuses a body over `MAX_BODY_BYTES`: here, or by the server where its length is announced."""
    # The rest of the body is not read, so the connection cannot be used again.
    return ProblemError(
        BODY_TOO_LARGE, f"A body may have {MAX_BODY_BYTES} bytes at most.", headers={"Connection": "close"}
    )


def _one_fault(field: str, message: str) -> ProblemError:
    return ProblemError(INVALID_BODY, f"{field}: {message}.", errors=[{"field": field, "message": message}])


def _invalid(error: ValidationError) -> ProblemError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return ProblemError(
            INVALID_JSON, f"The body is not JSON: {faults[0]['msg'].removeprefix('Invalid JSON: ')}."
        )
    listed = [
        {"field": ".".join(str(part) for part in fault["loc"]) or "body", "message": fault["msg"]}
        for fault in faults[:MOST_ERRORS]
    ]
    first = f"{listed[0]['field']}: {listed[0]['message']}"
    more = f" ({len(faults) - 1} more in errors)" if len(faults) > 1 else ""
    return ProblemError(INVALID_BODY, f"{first}{more}.", errors=listed)
