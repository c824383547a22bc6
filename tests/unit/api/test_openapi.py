"""The OpenAPI document and its page describe the API as it is."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import falcon.inspect
import pytest

from downloadjobs_api import answers, problems
from downloadjobs_api.app import create_app
from downloadjobs_api.drain import Drain
from downloadjobs_api.event_documents import event_document, overview_document
from downloadjobs_api.jobs import item_document, job_document
from downloadjobs_api.openapi import document
from downloadjobs_api.operation_table import OPERATIONS
from downloadjobs_api.reference_page import render
from downloadjobs_api.settings import ApiSettings, AuthMode
from downloadjobs_core.event_stream import JobEvent
from downloadjobs_core.job import Job
from downloadjobs_core.states import JobState
from downloadjobs_core.webhooks import payload

NOT_DESCRIBED = {
    "/dashboard",  # a page, for people
    "/dashboard/{name}",
    "/dashboard/config.json",
    "/docs/style.css",  # part of the page
    "/v1/mock/{token}",  # stands in for S3, whose URLs are no part of the API either
}

BY_THE_SERVER = {
    problems.METHOD_NOT_ALLOWED,  # no operation
    problems.RANGE_NOT_SATISFIABLE,  # of mock storage's links
    problems.PRECONDITION_FAILED,  # the same
}


@pytest.fixture(scope="module", params=list(AuthMode))
def described(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The document, for each way that users are known."""
    return document(OPERATIONS, request.param, anonymous_start=False)


@pytest.mark.contract("openapi")
def test_every_route_is_described() -> None:
    """Each method of each path that the app answers is an operation, and there is no other."""
    app = create_app(ApiSettings(allow_mock_storage=True), Drain())
    routes = {
        (method.method, route.path)
        for route in falcon.inspect.inspect_routes(app)
        for method in route.methods
        if not method.internal
        and method.method not in {"HEAD", "OPTIONS"}
        and route.path not in NOT_DESCRIBED
    }
    assert routes == {(operation.method, operation.path) for operation in OPERATIONS}


def test_names_are_distinct() -> None:
    """Clients are generated with a function for each name."""
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_every_problem_is_described(described: dict[str, Any]) -> None:
    """Each kind of problem stands in an operation's answers, under its status."""
    kinds = {kind for kind in vars(problems).values() if isinstance(kind, problems.Kind)}
    told = {
        (int(status), word)
        for methods in described["paths"].values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        for word in answer["description"].split("`")[1::2]
    }
    scheme = described["components"].get("securitySchemes", {}).get("user", {}).get("type")
    left_out = set(BY_THE_SERVER)
    if scheme is None:
        left_out |= {problems.UNAUTHENTICATED, problems.RESERVED_USER}
    if scheme != "http":
        left_out.add(problems.SIGN_IN_UNAVAILABLE)
    assert {(kind.status.value, kind.code) for kind in kinds - left_out} == told


@pytest.mark.parametrize(
    ("header", "statuses"),
    [("Retry-After", {"429", "503", "504"}), ("WWW-Authenticate", {"401"})],
)
def test_problems_have_their_headers(described: dict[str, Any], header: str, statuses: set[str]) -> None:
    """Answers that mean another try, or a sign-in, are described with the header that says how."""
    left_out = [
        (path, status)
        for path, methods in described["paths"].items()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        if problems.CONTENT_TYPE in answer.get("content", ())
        if status in statuses and header not in answer["headers"]
    ]
    assert not left_out


def test_references_lead_somewhere(described: dict[str, Any]) -> None:
    """Each `$ref` names a component that is there, and each component is referred to."""
    found = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                found.add(node["$ref"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(described)
    components = described["components"]
    assert found == {
        f"#/components/{sort}/{name}" for sort in ("schemas", "headers") for name in components[sort]
    }


def test_it_is_json(described: dict[str, Any]) -> None:
    """The document holds nothing but JSON."""
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize(("anonymous", "security"), [(True, []), (False, [{"user": []}])])
def test_start_says_whether_it_asks_for_a_user(anonymous: bool, security: list[object]) -> None:  # noqa: FBT001
    """`ALLOW_ANONYMOUS_START` shows in the document."""
    start = document(OPERATIONS, AuthMode.HEADER, anonymous_start=anonymous)["paths"]["/v1/download/start"]
    assert start["post"]["security"] == security


def shaped(schema: dict[str, Any], value: dict[str, Any], described: dict[str, Any]) -> None:
    """Check a value against a model that the document names; the document has each of its members."""
    name = schema["$ref"].rpartition("/")[2]
    getattr(answers, name).model_validate_json(json.dumps(value))
    assert set(value) <= set(described["components"]["schemas"][name]["properties"])


def test_streams_say_what_their_events_hold(described: dict[str, Any]) -> None:
    """The data of every kind of event has the shape that the document gives it."""
    fields = {
        "at_us": "1700000000000000", "files_done": "1", "files_total": "2", "bytes_done": "3",
        "bytes_total": "4", "attempt": "1", "deliveries": "1", "worker": "w", "error_code": "internal",
        "due_us": "1700000001000000", "files_failed": "1",
    }  # fmt: skip
    kinds = {
        path: described["paths"][path]["get"]["responses"]["200"]["content"]["text/event-stream"][
            "x-event-data"
        ]
        for path in ("/v1/jobs/{jobId}/events", "/v1/events")
    }
    for of_stream in kinds.values():
        for kind in ("queued", "progress", "finished", "retrying"):
            event = JobEvent("1-0", "j", kind, "ada", "processing", fields)
            shaped(of_stream["*"], event_document(event), described)
    job = Job(job_id="j", user="ada", state=JobState.QUEUED, created_us=1, updated_us=1)
    shaped(kinds["/v1/events"]["snapshot"], overview_document([item_document(job, None)]), described)
    shaped(kinds["/v1/jobs/{jobId}/events"]["snapshot"], job_document(job, None), described)


def test_webhooks_are_described(described: dict[str, Any]) -> None:
    """What a webhook carries has the shape that the document gives it, for each way that a job ends."""
    call = described["webhooks"]["jobEnded"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    ends = ("completed", "completed_with_errors", "failed", "cancelled", "expired")
    for state in ends:
        told = {"job": "j", "state": state, "at_us": "1700000000000000", "error_code": "internal"}
        shaped(call, payload(told), described)
    kinds = described["components"]["schemas"]["WebhookCall"]["properties"]["type"]["enum"]
    assert kinds == [f"job.{state}" for state in ends]


class _Page(HTMLParser):
    """Collects what a page links to, what it names, and which elements are open."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.add(tag)
        if tag not in {"meta", "link"}:
            self.open.append(tag)
        for name, value in attrs:
            assert name != "style", "the page's policy refuses styles of single elements"
            if name == "href":
                self.links.add(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        """Elements end in the order in which they began."""
        assert self.open.pop() == tag


def test_the_page_is_whole(described: dict[str, Any]) -> None:
    """Its elements are closed, its links lead to what it has, and it holds no script."""
    page = _Page()
    page.feed(render(described))
    assert not page.open
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not page.tags & {"script", "style", "img", "iframe"}
    assert {operation.name for operation in OPERATIONS} <= set(page.ids)


def test_the_page_escapes(described: dict[str, Any]) -> None:
    """Text of the document is text on the page."""
    hostile = "<script>alert('`x`')</script>"
    info = {**described["info"], "title": hostile, "summary": hostile}
    assert "<script" not in render({**described, "info": info})
