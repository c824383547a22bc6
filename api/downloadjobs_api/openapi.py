"""The OpenAPI 3.1 document, made of the table of operations and the models that validate.

https://spec.openapis.org/oas/v3.1.1.html. Schemas are JSON Schema 2020-12, as pydantic writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from downloadjobs_api import problems
from downloadjobs_api.answers import Initiated, Problem, WebhookCall
from downloadjobs_api.identity import USER_HEADER
from downloadjobs_api.operations import EVENTS, HTML, JOB_ID, JSON, Answered, Operation, Parameter, Tag, Who
from downloadjobs_api.problems import Kind
from downloadjobs_api.settings import AuthMode
from downloadjobs_core import __version__

REF: Final = "#/components/schemas/{model}"
SCHEME: Final = "user"

CHALLENGE: Final = "WWW-Authenticate"

HEADERS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "Location": ("Where the job's status is.", {"type": "string", "format": "uri-reference"}),
    "ETag": ("Which state of things the answer shows.", {"type": "string"}),
    "Preference-Applied": ("How long the answer could be held.", {"type": "string"}),
    "RateLimit-Limit": ("Requests that a client may make in a window.", {"type": "integer", "minimum": 1}),
    "RateLimit-Remaining": ("How many of them are left.", {"type": "integer", "minimum": 0}),
    "RateLimit-Reset": ("Seconds until the window ends.", {"type": "integer", "minimum": 0}),
    "RateLimit-Policy": ("The same limit, as the newer draft has it.", {"type": "string"}),
    "RateLimit": ("The same state, as the newer draft has it.", {"type": "string"}),
    "Retry-After": ("Seconds to wait before asking again.", {"type": "integer", "minimum": 0}),
    CHALLENGE: ("How to sign in, and what is wrong with the token if there is one.", {"type": "string"}),
    "X-Request-ID": (
        "The client's, if it is a sane token of at most 128 characters, or a new one. Logs have more by it.",
        {"type": "string", "maxLength": 128},
    ),
}

_ANY: Final[Mapping[str, dict[str, Any]]] = {
    JSON: {"type": "object"},
    HTML: {"type": "string"},
    EVENTS: {"type": "string"},
}
"""The schema of an answer without a model, by its media type."""

_ALL: Final = (
    problems.BAD_REQUEST,
    problems.INTERNAL_ERROR,
    problems.DRAINING,
    problems.REQUEST_TIMEOUT,
)
_WITH_BODY: Final = (
    problems.INVALID_JSON,
    problems.INVALID_BODY,
    problems.BODY_TOO_LARGE,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.BODY_TOO_SLOW,
)
_WITH_USER: Final = (problems.UNAUTHENTICATED, problems.RESERVED_USER)

_COME_BACK: Final = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)

_WEBHOOK_HEADERS: Final = {
    "webhook-id": "The call's id, the same on every try",
    "webhook-timestamp": "When this try was made, in seconds since 1970",
    "webhook-signature": "`v1a,` and base64 (Ed25519); several with spaces between",
}

_LIMITS: Final = tuple(name for name in HEADERS if name.startswith("RateLimit"))

_SCHEMES: Final[Mapping[AuthMode, dict[str, Any]]] = {
    AuthMode.HEADER: {
        "type": "apiKey",
        "in": "header",
        "name": USER_HEADER,
        "description": "The user's id. The ingress sets it, and strips it from what clients send.",
    },
    AuthMode.JWT: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the installation's issuer (RFC 6750).",
    },
}
"""How a user is named, by `AUTH_MODE`; without an entry, nobody is asked."""


def document(operations: Iterable[Operation], mode: AuthMode, *, anonymous_start: bool) -> dict[str, Any]:
    """The whole document.

    Args:
        operations: the table.
        mode: how users are known.
        anonymous_start: whether `start` answers without one, where users are known by a header.
    """
    return _Writer(tuple(operations), mode, anonymous_start=anonymous_start).document()


class _Titleless(GenerateJsonSchema):
    """Fields without the titles that pydantic makes of their names: they say nothing new."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


class _Schemas:
    """The schemas of the models that operations name, and what refers to each."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        models: dict[type[BaseModel], None] = {Problem: None, WebhookCall: None}
        for operation in operations:
            wanted = [operation.body]
            for answer in operation.answers.values():
                wanted += [answer.model, *answer.events.values()]
            models |= dict.fromkeys(model for model in wanted if model is not None)
        self._references, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template=REF, schema_generator=_Titleless
        )
        self.definitions: dict[str, Any] = dict(sorted(definitions["$defs"].items()))

    def of(self, answer: Answered) -> dict[str, Any]:
        if answer.model is not None:
            return self.reference(answer.model)
        return _ANY[answer.media_type or JSON]

    def reference(self, model: type[BaseModel]) -> dict[str, Any]:
        return self._references[model, "validation"]


class _Writer:
    """Writes the document of one installation."""

    def __init__(self, operations: tuple[Operation, ...], mode: AuthMode, *, anonymous_start: bool) -> None:
        self._operations = operations
        self._mode = mode
        self._schemas = _Schemas(operations)
        self._with_user = {Who.USER}
        if mode is AuthMode.JWT:
            self._with_user |= {Who.START, Who.FILES}
        elif not anonymous_start:
            self._with_user.add(Who.START)
        # What may be asked next about the job that an answer names; whoever holds a stream never comes back.
        self._linked = [
            one.name
            for one in operations
            if JOB_ID in one.parameters
            and all(answer.media_type != EVENTS for answer in one.answers.values())
        ]

    def document(self) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        for operation in self._operations:
            paths.setdefault(_public(operation.path), {})[operation.method.lower()] = self._operation(
                operation
            )
        components: dict[str, Any] = {
            "schemas": self._schemas.definitions,
            "headers": {
                name: {"description": description, "schema": schema}
                for name, (description, schema) in HEADERS.items()
                if name != CHALLENGE or self._mode in _SCHEMES
            },
        }
        if self._mode in _SCHEMES:
            components["securitySchemes"] = {SCHEME: _SCHEMES[self._mode]}
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
            "webhooks": {"jobEnded": {"post": self._webhook()}},
            "components": components,
        }

    def _webhook(self) -> dict[str, Any]:
        return {
            "summary": "A job has ended, or its result's time is over",
            "description": "To `callbackUrl`, where one was given; tried again until it is answered by 2xx.",
            "parameters": [
                {
                    "name": name,
                    "in": "header",
                    "required": True,
                    "description": description,
                    "schema": {"type": "string"},
                }
                for name, description in _WEBHOOK_HEADERS.items()
            ],
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": self._schemas.reference(WebhookCall)}},
            },
            "responses": {
                "2XX": {"description": "It was received."},
                "410": {"description": "The receiver wants no more tries."},
            },
            "security": [],
        }

    def _signed_in(self, operation: Operation) -> bool:
        return self._mode in _SCHEMES and operation.who in self._with_user

    def _operation(self, operation: Operation) -> dict[str, Any]:
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
            schema = self._schemas.reference(operation.body)
            described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
        described["responses"] = {**self._answers(operation), **self._problems(operation)}
        described["security"] = [{SCHEME: []}] if self._signed_in(operation) else []
        return described

    def _answers(self, operation: Operation) -> dict[str, Any]:
        found = {}
        for status, answer in sorted(operation.answers.items()):
            described: dict[str, Any] = {
                "description": answer.description,
                "headers": _headers(operation, answer.headers),
            }
            if answer.media_type is not None:
                described["content"] = {answer.media_type: {"schema": self._schemas.of(answer)}}
            if answer.media_type is not None and answer.events:
                # OpenAPI has no word for it before 3.2.
                described["content"][answer.media_type]["x-event-data"] = {
                    name: self._schemas.reference(model) for name, model in answer.events.items()
                }
            if answer.model is not None and issubclass(answer.model, Initiated):
                described["links"] = {name: _link(name) for name in self._linked}
            found[str(status)] = described
        return found

    def _problems(self, operation: Operation) -> dict[str, Any]:
        by_status: dict[int, list[Kind]] = {}
        for kind in sorted(set(self._kinds(operation)), key=lambda kind: (kind.status, kind.code)):
            if kind.status.value not in operation.answers:  # one with a body of its own, such as /health's
                by_status.setdefault(kind.status.value, []).append(kind)
        return {
            str(status): {
                "description": " ".join(f"{kind.title} (`{kind.code}`)." for kind in kinds),
                "headers": _headers(operation, _of_problems(status, kinds)),
                "content": {problems.CONTENT_TYPE: {"schema": self._schemas.reference(Problem)}},
            }
            for status, kinds in by_status.items()
        }

    def _kinds(self, operation: Operation) -> Iterable[Kind]:
        yield from _ALL
        yield from operation.problems
        if operation.limited:
            yield problems.RATE_LIMITED
        if operation.body is not None:
            yield from _WITH_BODY
        if self._signed_in(operation):
            yield from _WITH_USER
        if self._mode is AuthMode.JWT:
            yield problems.SIGN_IN_UNAVAILABLE


def _public(path: str) -> str:
    """A path as clients read it: `{jobId}`, not `{job_id}`."""
    return path.replace("{job_id}", "{jobId}")


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": "jobId" if parameter.name == "job_id" else parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _link(name: str) -> dict[str, Any]:
    return {"operationId": name, "parameters": {"jobId": "$response.body#/jobId"}}


def _of_problems(status: int, kinds: Sequence[Kind]) -> Sequence[str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return (CHALLENGE,)
    return ("Retry-After",) if status in _COME_BACK or problems.RESULT_NOT_READY in kinds else ()


def _headers(operation: Operation, names: Sequence[str]) -> dict[str, Any]:
    limits = _LIMITS if operation.limited else ()
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, *limits, "X-Request-ID")}
