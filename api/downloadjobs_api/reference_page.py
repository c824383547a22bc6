"""The OpenAPI document as a page for people: plain HTML, no script, nothing loaded but its own style sheet.

It works without JavaScript, offline and under the strictest Content-Security-Policy, which the usual viewers
of OpenAPI do not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from http import HTTPStatus
from typing import Any, Final

Node = Mapping[str, Any]

STYLE_SHEET: Final = "/docs/style.css"

_HEAD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} API</title>
<link rel="stylesheet" href="{style}">
</head>
<body>
<a class="skip" href="#main">To the operations</a>
"""


def render(document: Node) -> str:
    """The whole page."""
    page = _Page(document)
    return "\n".join(page.lines())


class _Page:
    """Writes HTML for one document, whose schemas refer to each other."""

    def __init__(self, document: Node) -> None:
        self._document = document
        self._schemas: Node = document["components"]["schemas"]

    def lines(self) -> Iterator[str]:
        info = self._document["info"]
        yield _HEAD.format(title=escape(info["title"]), style=STYLE_SHEET)
        yield f"<header><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        yield f"<p>{escape(info['summary'])} <a href='/openapi'>The same as OpenAPI 3.1</a>.</p>"
        yield from self._security()
        yield "</header>"
        yield from self._contents()
        yield "<main id='main'>"
        for tag, operations in self._by_tag():
            yield f"<section aria-labelledby='tag-{_slug(tag)}'><h2 id='tag-{_slug(tag)}'>{escape(tag)}</h2>"
            for path, method, operation in operations:
                yield from self._operation(path, method, operation)
            yield "</section>"
        yield "<section aria-labelledby='schemas'><h2 id='schemas'>Schemas</h2>"
        for name, schema in self._schemas.items():
            yield from self._schema(name, schema)
        yield "</section></main></body></html>"

    def _security(self) -> Iterator[str]:
        for scheme in self._document["components"].get("securitySchemes", {}).values():
            yield f"<p>{_text(scheme.get('description', ''))}</p>"

    def _by_tag(self) -> Iterator[tuple[str, list[tuple[str, str, Node]]]]:
        for tag in self._document["tags"]:
            yield (
                tag["name"],
                [
                    (path, method, operation)
                    for path, methods in self._document["paths"].items()
                    for method, operation in methods.items()
                    if tag["name"] in operation["tags"]
                ],
            )

    def _contents(self) -> Iterator[str]:
        yield "<nav aria-label='Operations'><ul>"
        for tag, operations in self._by_tag():
            yield f"<li>{escape(tag)}<ul>"
            for path, method, operation in operations:
                name = escape(operation["operationId"])
                yield f"<li><a href='#{name}'>{_method(method)} <code>{escape(path)}</code></a></li>"
            yield "</ul></li>"
        yield "<li><a href='#schemas'>Schemas</a></li></ul></nav>"

    def _operation(self, path: str, method: str, operation: Node) -> Iterator[str]:
        name = escape(operation["operationId"])
        yield f"<article aria-labelledby='{name}'>"
        yield f"<h3 id='{name}'>{_method(method)} <code>{escape(path)}</code></h3>"
        description = _text(operation.get("description", ""))
        yield f"<p><strong>{_text(operation['summary'])}.</strong> {description}</p>"
        yield "<p>Asks for a user.</p>" if operation["security"] else "<p>Needs no user.</p>"
        example = escape(self._curl(path, method, operation))
        yield f"<pre tabindex='0' role='group' aria-label='Example'><code>{example}</code></pre>"
        parameters = operation.get("parameters", [])
        if parameters:
            yield from _table(
                "Parameters",
                ("Name", "In", "Type", ""),
                (
                    (
                        f"<code>{escape(parameter['name'])}</code>",
                        escape(parameter["in"]),
                        self._type(parameter["schema"]),
                        _text(parameter["description"]),
                    )
                    for parameter in parameters
                ),
            )
        if "requestBody" in operation:
            (content,) = operation["requestBody"]["content"].values()
            yield f"<p>Body: {self._type(content['schema'])}</p>"
        yield from _table(
            "Answers",
            ("Status", "", "Body"),
            (self._answer(*item) for item in operation["responses"].items()),
        )
        yield "</article>"

    def _answer(self, status: str, answer: Node) -> tuple[str, str, str]:
        bodies = (
            f"{self._type(content['schema'])} <small>{escape(media_type)}</small>"
            for media_type, content in answer.get("content", {}).items()
        )
        phrase = HTTPStatus(int(status)).phrase
        return (
            f"{escape(status)} <small>{escape(phrase)}</small>",
            _text(answer["description"]),
            " ".join(bodies),
        )

    def _schema(self, name: str, schema: Node) -> Iterator[str]:
        name = escape(name)
        yield f"<article aria-labelledby='schema-{name}'><h3 id='schema-{name}'>{name}</h3>"
        yield f"<p>{_text(schema.get('description', ''))}</p>"
        if "properties" not in schema:
            yield f"<p>{self._type(schema)}</p></article>"
            return
        required = schema.get("required", ())
        yield from _table(
            "Members",
            ("Name", "Type", ""),
            (
                (
                    f"<code>{escape(member)}</code>",
                    self._type(kind) + ("" if member in required else " <small>may be absent</small>"),
                    _text(kind.get("description", "")),
                )
                for member, kind in schema["properties"].items()
            ),
        )
        yield "</article>"

    def _type(self, schema: Node) -> str:
        """A schema in a few words."""
        if "$ref" in schema:
            name = escape(schema["$ref"].rpartition("/")[2])
            return f"<a href='#schema-{name}'>{name}</a>"
        if "anyOf" in schema:
            return " or ".join(self._type(one) for one in schema["anyOf"])
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            return " ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
        if schema.get("type") == "array":
            return f"array of {self._type(schema.get('items', {}))}{_limits(schema)}"
        if "additionalProperties" in schema and "properties" not in schema:
            return f"object of {self._type(schema['additionalProperties'])}"
        return f"{escape(schema.get('format') or schema.get('type', 'any'))}{_limits(schema)}"

    def _curl(self, path: str, method: str, operation: Node) -> str:
        words = ["curl"]
        if method != "get":
            words.append(f"-X {method.upper()}")
        schemes = self._document["components"].get("securitySchemes", {})
        words += (self._credentials(schemes[name]) for required in operation["security"] for name in required)
        if "requestBody" in operation:
            (content,) = operation["requestBody"]["content"].values()
            body = json.dumps(self._example(content["schema"]))
            words.append(f"-H 'content-type: application/json' -d '{body}'")
        words.append(f'"$API{path.replace("{jobId}", "$JOB")}"')
        return " ".join(words)

    @staticmethod
    def _credentials(scheme: Node) -> str:
        if scheme["type"] == "http":
            return '-H "authorization: Bearer $TOKEN"'
        return f"-H '{scheme['name']}: ada'"

    def _example(self, schema: Node) -> Any:  # noqa: ANN401 - any JSON
        """A value that the schema allows: its own example, or one made of the members that must be there."""
        if "$ref" in schema:
            return self._example(self._schemas[schema["$ref"].rpartition("/")[2]])
        if schema.get("examples"):
            return schema["examples"][0]
        if schema.get("type") == "array":
            return [self._example(schema["items"])]
        if schema.get("type") == "object":
            return {name: self._example(schema["properties"][name]) for name in schema.get("required", ())}
        return schema.get("minimum", "…")


def _table(caption: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield f"<div class='scroll' tabindex='0' role='group' aria-label='{escape(caption)}'><table>"
    yield f"<caption>{escape(caption)}</caption><thead><tr>"
    yield "".join(f"<th scope='col'>{escape(cell) or 'Meaning'}</th>" for cell in head)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
    yield "</tbody></table></div>"


def _method(method: str) -> str:
    return f"<span class='method {escape(method)}'>{escape(method.upper())}</span>"


def _slug(name: str) -> str:
    return escape(name.lower().replace(" ", "-"))


def _text(text: str) -> str:
    """Escaped, with what stands between backquotes as code."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))


def _limits(schema: Node) -> str:
    """The least and the most of a schema, in words."""
    names = (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    )
    for least, most, unit in names:
        if least in schema and most in schema:
            return f" <small>{schema[least]:,} to {schema[most]:,}{unit}</small>"
        if most in schema:
            return f" <small>at most {schema[most]:,}{unit}</small>"
    return ""
