"""The OpenAPI 3.1 document, made of the table of operations and the models that validate.

https://spec.openapis.org/oas/v3.1.1.html. Schemas are JSON Schema 2020-12, as pydantic writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from downloadjobs_api import problems
from downloadjobs_api.answers import Initiated, Problem
from downloadjobs_api.identity import USER_HEADER
from downloadjobs_api.operations import HTML, JOB_ID, JSON, Answered, Operation, Parameter, Tag, Who
from downloadjobs_api.problems import Kind
from downloadjobs_api.settings import AuthMode
from downloadjobs_core import __version__

REF: Final = "#/components/schemas/{model}"
SCHEME: Final = "user"

HEADERS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "Location": ("Where the job's status is.", {"type": "string", "format": "uri-reference"}),
    "Retry-After": ("Seconds to wait before asking again.", {"type": "integer", "minimum": 0}),
    "X-Request-ID": (
        "The client's, if it is a sane token of at most 128 characters, or a new one. Logs have more by it.",
        {"type": "string", "maxLength": 128},
    ),
}

_ANY: Final[Mapping[str, dict[str, Any]]] = {JSON: {"type": "object"}, HTML: {"type": "string"}}
"""The schema of an answer without a model, by its media type."""

_ALL: Final = (problems.BAD_REQUEST, problems.INTERNAL_ERROR, problems.DRAINING)
_WITH_BODY: Final = (
    problems.INVALID_JSON,
    problems.INVALID_BODY,
    problems.BODY_TOO_LARGE,
    problems.UNSUPPORTED_MEDIA_TYPE,
)
_WITH_USER: Final = (problems.UNAUTHENTICATED, problems.RESERVED_USER)

_SCHEMES: Final[Mapping[AuthMode, dict[str, Any]]] = {
    AuthMode.HEADER: {
        "type": "apiKey",
        "in": "header",
        "name": USER_HEADER,
        "description": "The user's id. The ingress sets it, and strips it from what clients send.",
    },
}
"""How a user is named, by `AUTH_MODE`; without an entry, nobody is asked."""


def document(operations: Iterable[Operation], mode: AuthMode, *, anonymous_start: bool) -> dict[str, Any]:
    """The whole document.

    Args:
        operations: the table.
        mode: how users are known.
        anonymous_start: whether `start` answers without one.
    """
    operations = tuple(operations)
    schemas = _Schemas(operations)
    linked = [operation.name for operation in operations if JOB_ID in operation.parameters]
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        signed_in = mode in _SCHEMES and asks_for_user(operation.who, anonymous_start=anonymous_start)
        described = _operation(operation, schemas, linked, signed_in=signed_in)
        paths.setdefault(_public(operation.path), {})[operation.method.lower()] = described
    components: dict[str, Any] = {
        "schemas": schemas.definitions,
        "headers": {
            name: {"description": description, "schema": schema}
            for name, (description, schema) in HEADERS.items()
        },
    }
    if mode in _SCHEMES:
        components["securitySchemes"] = {SCHEME: _SCHEMES[mode]}
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "downloadjobs",
            "version": __version__,
            "summary": "Prepares large downloads: many files become one zip.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag.value} for tag in Tag],
        "paths": paths,
        "components": components,
    }


def asks_for_user(who: Who, *, anonymous_start: bool) -> bool:
    """Whether an operation is refused without a user, where users are known by a header."""
    return who is Who.USER or (who is Who.START and not anonymous_start)


class _Titleless(GenerateJsonSchema):
    """Fields without the titles that pydantic makes of their names: they say nothing new."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


class _Schemas:
    """The schemas of the models that operations name, and what refers to each."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        models: dict[type[BaseModel], None] = {Problem: None}
        for operation in operations:
            wanted = (operation.body, *(answer.model for answer in operation.answers.values()))
            models |= dict.fromkeys(model for model in wanted if model is not None)
        self._references, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template=REF, schema_generator=_Titleless
        )
        self.definitions: dict[str, Any] = dict(sorted(definitions["$defs"].items()))

    def reference(self, model: type[BaseModel]) -> dict[str, Any]:
        return self._references[model, "validation"]


def _public(path: str) -> str:
    """A path as clients read it: `{jobId}`, not `{job_id}`."""
    return path.replace("{job_id}", "{jobId}")


def _operation(
    operation: Operation, schemas: _Schemas, linked: Sequence[str], *, signed_in: bool
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag.value],
        "summary": operation.summary,
    }
    if operation.description:
        described["description"] = operation.description
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body is not None:
        reference = schemas.reference(operation.body)
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
    described["responses"] = _answers(operation, schemas, linked, signed_in=signed_in)
    described["security"] = [{SCHEME: []}] if signed_in else []
    return described


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": "jobId" if parameter.name == "job_id" else parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _answers(
    operation: Operation, schemas: _Schemas, linked: Sequence[str], *, signed_in: bool
) -> dict[str, Any]:
    described = {
        str(status): _answer(answer, schemas, linked) for status, answer in sorted(operation.answers.items())
    }
    by_status: dict[int, list[Kind]] = {}
    for kind in sorted(
        set(_kinds(operation, signed_in=signed_in)), key=lambda kind: (kind.status, kind.code)
    ):
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in by_status.items():
        if str(status) in described:
            continue  # an answer with a body of its own, such as /health's
        described[str(status)] = {
            "description": " ".join(f"{kind.title} (`{kind.code}`)." for kind in kinds),
            "headers": _headers(("X-Request-ID",)),
            "content": {problems.CONTENT_TYPE: {"schema": schemas.reference(Problem)}},
        }
    return described


def _kinds(operation: Operation, *, signed_in: bool) -> Iterable[Kind]:
    yield from _ALL
    yield from operation.problems
    if operation.body is not None:
        yield from _WITH_BODY
    if signed_in:
        yield from _WITH_USER


def _answer(answer: Answered, schemas: _Schemas, linked: Sequence[str]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": answer.description,
        "headers": _headers((*answer.headers, "X-Request-ID")),
    }
    schema = schemas.reference(answer.model) if answer.model is not None else _ANY[answer.media_type]
    described["content"] = {answer.media_type: {"schema": schema}}
    if answer.model is Initiated:
        described["links"] = {name: _link(name) for name in linked}
    return described


def _link(name: str) -> dict[str, Any]:
    """What may be asked next about the job that an answer names."""
    return {"operationId": name, "parameters": {"jobId": "$response.body#/jobId"}}


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
