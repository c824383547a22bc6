"""Schemas for kubeconform, made of what an API server says."""

from __future__ import annotations

from typing import Any, Final

from support_schemas import LOCATION, PREFIX, missing, schemas, strict

KIND: Final = "x-kubernetes-group-version-kind"

DOCUMENT: Final[dict[str, Any]] = {
    "components": {
        "schemas": {
            "Pod": {
                "type": "object",
                KIND: [{"group": "", "version": "v1", "kind": "Pod"}],
                "properties": {"spec": {"allOf": [{"$ref": f"{PREFIX}Spec"}], "default": {}}},
            },
            "Spec": {
                "type": "object",
                "properties": {"next": {"$ref": f"{PREFIX}Spec"}, "x-name": {"type": "string"}},
            },
            "Other": {"type": "string"},
            "DeleteOptions": {
                "type": "object",
                KIND: [{"group": name, "version": "v1", "kind": "DeleteOptions"} for name in ("a", "b")],
            },
        }
    }
}


def test_one_file_for_each_kind() -> None:
    """A kind has a file under the name that kubeconform looks for; what is the kind of nothing has none."""
    assert [name for name, _ in schemas(DOCUMENT)] == ["v1_v1_pod.json"]
    assert LOCATION == "{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json"


def test_a_file_is_whole() -> None:
    """A schema holds all that it refers to, though that refers to itself, and nothing else."""
    ((_, schema),) = schemas(DOCUMENT)
    assert schema["$ref"] == f"{PREFIX}Pod"
    assert set(schema["components"]["schemas"]) == {"Pod", "Spec"}


def test_unknown_fields_are_refused() -> None:
    """An object with known fields takes no others, unless it keeps what is unknown."""
    known = {"type": "object", "properties": {"a": {"type": "string"}}}
    made = strict(known)
    assert isinstance(made, dict)
    assert made["additionalProperties"] is False
    kept = strict({**known, "x-kubernetes-preserve-unknown-fields": True})
    assert isinstance(kept, dict)
    assert "additionalProperties" not in kept
    labels = {"type": "object", "additionalProperties": {"type": "string"}}
    assert strict(labels) == {
        "type": ["object", "null"], "additionalProperties": {"type": ["string", "null"]},
    }  # fmt: skip


def test_names_of_fields_are_no_keywords() -> None:
    """A field may be called like something of OpenAPI's own."""
    made = strict({"type": "object", "properties": {"x-kubernetes-list-type": {"type": "string"}}})
    assert isinstance(made, dict)
    assert set(made["properties"]) == {"x-kubernetes-list-type"}


def test_null_is_as_good_as_nothing() -> None:
    """The API server drops a field that is null, so null is allowed, also where only some values are."""
    assert strict({"type": "string", "enum": ["a"]}) == {"type": ["string", "null"], "enum": ["a", None]}


def test_schemas_that_are_still_to_come() -> None:
    """A definition whose schemas are not published yet is waited for; one that is not served is not."""
    versions = [{"name": "v1", "served": True}, {"name": "v1alpha1", "served": False}]
    definitions = {"items": [{"spec": {"group": "downloadjobs.dev", "versions": versions}}]}
    assert missing(definitions, {"apis/apps/v1": {}}) == {"apis/downloadjobs.dev/v1"}
    assert missing(definitions, {"apis/downloadjobs.dev/v1": {}}) == set()
