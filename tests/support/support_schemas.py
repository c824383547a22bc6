"""JSON schemas of all kinds of objects that an API server knows, by its /openapi/v3, for kubeconform.

Run as a program, this file writes them into a folder, by kubectl and its current context, or the one that is
named. It needs nothing but Python's own library.

Other schemas of Kubernetes lag behind, know no definitions of one's own, or let unknown fields pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

Schema = dict[str, Any]

PREFIX: Final = "#/components/schemas/"
KINDS: Final = "x-kubernetes-group-version-kind"
OPEN: Final = "x-kubernetes-preserve-unknown-fields"

PUBLISHED_SECONDS: Final = 60.0

LOCATION: Final = "{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json"
"""kubeconform's name of a file, which `file_name` makes."""


def file_name(group: str, version: str, kind: str) -> str:
    """Where the schema of a kind is. Of Pods and the like, whose group is empty, kubeconform says `v1`."""
    return f"{group or version}_{version}_{kind.lower()}.json"


def references(schema: object) -> Iterator[str]:
    """The names of the schemas that this one refers to."""
    if isinstance(schema, Mapping):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(PREFIX)
        for inner in schema.values():
            yield from references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from references(inner)


def strict(schema: object) -> object:
    """The schema, refusing fields that it does not name; null stands for a field that is not there."""
    if isinstance(schema, list):
        return [strict(inner) for inner in schema]
    if not isinstance(schema, Mapping):
        return schema
    result = {name: strict(inner) for name, inner in schema.items() if not name.startswith("x-")}
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        # By themselves, since a property's own name may be that of a keyword, or begin with x-.
        result["properties"] = {name: strict(inner) for name, inner in properties.items()}
        if not schema.get(OPEN):
            result.setdefault("additionalProperties", False)
    if isinstance(result.get("type"), str):
        result["type"] = [result["type"], "null"]
        if isinstance(schema.get("enum"), list):
            result["enum"] = [*schema["enum"], None]
    return result


def schemas(document: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """The kinds of one group and version: a file's name, and a schema that refers to nothing outside."""
    known: Mapping[str, Schema] = document.get("components", {}).get("schemas", {})
    for name, schema in known.items():
        kinds = schema.get(KINDS, [])
        if len(kinds) == 1:  # what has many, such as DeleteOptions, is no object
            (kind,) = kinds
            needed, waiting = set[str](), [name]
            while waiting:
                one = waiting.pop()
                if one not in needed:
                    needed.add(one)
                    waiting.extend(references(known[one]))
            whole: Schema = {
                "$ref": f"{PREFIX}{name}",
                "components": {"schemas": {one: strict(known[one]) for one in sorted(needed)}},
            }
            yield file_name(kind["group"], kind["version"], kind["kind"]), whole


def _raw(kubectl: list[str], path: str) -> dict[str, Any]:
    done = subprocess.run([*kubectl, "get", "--raw", path], capture_output=True, check=True, timeout=60)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def missing(definitions: Mapping[str, Any], paths: Mapping[str, Any]) -> set[str]:
    """The groups and versions of definitions (apiextensions.k8s.io/v1) that have no page of schemas yet."""
    wanted = {
        f"apis/{one['spec']['group']}/{version['name']}"
        for one in definitions["items"]
        for version in one["spec"]["versions"]
        if version["served"]
    }
    return wanted - paths.keys()


def _published(kubectl: list[str]) -> dict[str, Any]:
    """The pages of schemas. Those of a definition come some time after it is established."""
    end = time.monotonic() + PUBLISHED_SECONDS
    while True:
        paths: dict[str, Any] = _raw(kubectl, "/openapi/v3")["paths"]
        definitions = _raw(kubectl, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
        late = missing(definitions, paths)
        if not late:
            return paths
        if time.monotonic() > end:
            raise SystemExit(f"The API server has no schemas of {', '.join(sorted(late))}.")
        time.sleep(1)


def main(arguments: list[str]) -> None:
    """Write the schemas of a cluster."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kubectl", default="kubectl", help="the program")
    parser.add_argument("--context", help="in place of the kubeconfig's current one")
    options = parser.parse_args(arguments)
    kubectl = [options.kubectl, *([f"--context={options.context}"] if options.context else [])]
    options.folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for path, entry in _published(kubectl).items():
        if not path.startswith(("api/v", "apis/")):
            continue
        for name, schema in schemas(_raw(kubectl, entry["serverRelativeURL"])):
            (options.folder / name).write_text(json.dumps(schema), encoding="utf-8")
            count += 1
    sys.stdout.write(f"{count} schemas in {options.folder}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
