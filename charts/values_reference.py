"""Writes what follows from the chart's values.yaml: their schema, and their reference in docs/values.md.

    python charts/values_reference.py [CHART] [DOCS]

A value's type is that of its default. A mapping written in braces is free: Kubernetes or the processes check
what is in it. All others hold the keys that are there, and no more: so a slip of the finger is refused. What
a default cannot tell stands in `MORE`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]

_KEY: Final = re.compile(r"( *)([A-Za-z][A-Za-z0-9]*):(?: (.*))?")

PORT: Final = {"type": "integer", "minimum": 1, "maximum": 65_535}
PORTS: Final = {"items": PORT, "minItems": 1}
NAMES: Final = {"items": {"type": "string", "minLength": 1}}
OBJECTS: Final = {"items": {"type": "object"}}
POSITIVE: Final = {"type": "integer", "minimum": 1}
NOT_NEGATIVE: Final = {"type": "integer", "minimum": 0}
SECONDS: Final = {"type": ["number", "string"], "minimum": 0, "pattern": "^[0-9]+([.][0-9]+)?$"}
"""Helm's --set makes a text of 0.5."""

BUDGET: Final = {"type": ["integer", "string"], "pattern": "^[0-9]+%?$"}

ORIGIN: Final = {"pattern": "^(https?://[^/]+/?)?$"}
"""Scheme and host only, as presigned URLs begin."""

BUCKET: Final = {"pattern": "^[^/:]*$"}

SECURITY: Final = {"properties": {"runAsUser": {"type": ["integer", "null"], "minimum": 1}}}
"""All pods run as somebody: `runAsNonRoot` would let none start otherwise."""

MORE: Final[Mapping[str, Mapping[str, Any]]] = {
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "extraObjects": {"items": {"type": ["object", "string"]}},
    "external.s3.forcePathStyle": {"type": ["string", "boolean"], "enum": ["", "true", "false", True, False]},
    "external.s3.endpoint": ORIGIN,
    "external.s3.publicEndpoint": ORIGIN,
    "bundled.objectStore.publicEndpoint": ORIGIN,
    "external.s3.bucket": BUCKET,
    "external.s3.resultsBucket": BUCKET,
    "bundled.objectStore.bucket": {"pattern": "^[^/:]+$"},
    "bundled.redis.maxMemory": {"pattern": "^[0-9]+([kKmMgG][bB]?)?$"},
    # A name or an address: neither a URL nor a port. An IPv6 address has two colons at least.
    "external.redis.host": {"pattern": "^([^:/@ ]*|[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,})$"},
    "external.redis.port": PORT,
    "external.redis.sentinels": NAMES,
    "operator.mirrorApiJobs": {"enum": ["none", "active", "all"]},
    "operator.watchNamespaces": NAMES,
    "operator.userIdNamespaces": NAMES,
    "operator.peering.priority": {"type": "integer", "minimum": 0, "maximum": 32_767},
    "bundled.objectStore.kind": {"enum": ["seaweedfs", "minio"]},
    "worker.concurrency": {"type": "integer", "minimum": 1, "maximum": 64},
    "worker.autoscaling.mode": {"enum": ["Scale", "Recommend"]},
    "worker.autoscaling.min": NOT_NEGATIVE,
    "worker.autoscaling.max": POSITIVE,
    "worker.autoscaling.targetWaitSeconds": SECONDS,
    "worker.autoscaling.cooldownSeconds": SECONDS,
    "worker.autoscaling.staleSeconds": SECONDS,
    "worker.autoscaling.podStartSeconds": SECONDS,
    "api.replicas": NOT_NEGATIVE,
    "api.autoscaling.minReplicas": POSITIVE,
    "api.autoscaling.maxReplicas": POSITIVE,
    "api.autoscaling.targetCPUUtilizationPercentage": {"type": "integer", "minimum": 1},
    "api.ingress.hosts": NAMES,
    "api.httpRoute.hostnames": NAMES,
    "networkPolicy.redisPorts": PORTS,
    "networkPolicy.s3Ports": PORTS,
    "networkPolicy.apiServerPorts": PORTS,
    "networkPolicy.dnsPorts": PORTS,
    "tests.fileIds": {"items": {"type": "integer", "minimum": 10_000, "maximum": 100_000_000}},
    "tests.timeoutSeconds": POSITIVE,
}
"""By the path, or by its last part (below): what the type of the default does not say."""

OPEN: Final = frozenset({"global", "settings"})
"""Groups that may hold other keys than those that are there."""

EVERYWHERE: Final[Mapping[str, Mapping[str, Any]]] = {
    "podSecurityContext": SECURITY,
    "digest": {"pattern": "^(sha256:[0-9a-f]{64})?$"},
    "repository": {"minLength": 1},
    "tag": {"type": "string"},
    "drainSeconds": NOT_NEGATIVE,
    "metricsPort": PORT,
    "port": PORT,
    "maxUnavailable": BUDGET,
    "maxSurge": BUDGET,
    "type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    **dict.fromkeys(
        ("extraEnv", "extraEnvFrom", "extraVolumes", "extraVolumeMounts", "tolerations"), OBJECTS
    ),
    **dict.fromkeys(("topologySpreadConstraints", "pullSecrets", "imagePullSecrets", "tls"), OBJECTS),
    **dict.fromkeys(("parentRefs", "filters", "apiFrom", "metricsFrom", "objectStoreFrom"), OBJECTS),
    **dict.fromkeys(("externalTo", "apiServerTo"), OBJECTS),
}


@dataclass(frozen=True, slots=True)
class Value:
    """One line of values.yaml.

    Attributes:
        path: its keys, with dots between.
        written: what stands behind its colon.
        about: the comment above it.
    """

    path: str
    written: str
    about: str

    @property
    def free(self) -> bool:
        """Whether any keys may be in it."""
        return self.written.startswith("{")

    @property
    def group(self) -> bool:
        """Whether it has keys of its own."""
        return not self.written


def values_of(text: str) -> Iterator[Value]:
    """All values in the order of the file, groups before what is in them."""
    stack: list[tuple[int, str]] = []
    about: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            about.append(stripped[1:].removeprefix(" "))
            continue
        found = _KEY.fullmatch(line)
        if found is None:
            if stripped:
                raise SystemExit(f"This line is neither a comment nor a key: {line!r}")
            about.clear()
            continue
        indent = len(found[1])
        while stack and stack[-1][0] >= indent:
            stack.pop()
        stack.append((indent, found[2]))
        yield Value(".".join(key for _, key in stack), found[3] or "", _joined(about))
        about.clear()


def _joined(lines: list[str]) -> str:
    """Lines of a comment as one; those that are indented, such as a list of choices, as sentences."""
    text = ""
    for line in lines:
        if line.startswith("  "):
            name, _, meaning = line.strip().partition(" ")
            text += f"{' ' if text.endswith((':', ';')) else '; '}`{name}` {meaning.strip()}"
        else:
            text += (" " if text else "") + line.strip()
    return text.replace(":; ", ": ")


def schema_of(values: Mapping[str, Any], lines: Mapping[str, Value], path: str = "") -> dict[str, Any]:
    """The JSON Schema (draft 7, as Helm 3 and 4 read it) of a group."""
    properties = {}
    for name, value in values.items():
        inner = f"{path}.{name}" if path else name
        line = lines[inner]
        if isinstance(value, Mapping) and not line.free:
            properties[name] = schema_of(value, lines, inner)
        else:
            properties[name] = _leaf(value) | EVERYWHERE.get(name, {}) | MORE.get(inner, {})
        if line.about:
            properties[name]["description"] = line.about
    return {"type": "object", "additionalProperties": path in OPEN, "properties": properties}


def _leaf(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer"}
    if isinstance(value, float):
        return {"type": "number"}
    if isinstance(value, str):
        return {"type": "string"}
    return {"type": "array"} if isinstance(value, list) else {"type": "object"}


def reference_of(values: list[Value]) -> str:
    """The page for people."""
    lines = [
        "# Values of the chart",
        "",
        "All values of `charts/downloadjobs`, with their defaults. This page and `values.schema.json`, by",
        "which Helm refuses what cannot be meant, are written by `make values` from",
        "[values.yaml](../charts/downloadjobs/values.yaml). [Installing](install.md) says how they go",
        "together.",
    ]
    section = ""
    told: set[str] = set()
    for value in values:
        top = value.path.split(".")[0]
        title = top if value.group or "." in value.path else "In general"
        if title != section:
            section = title
            lines += ["", f"## {title}"]
            if value.group and value.about:
                lines += ["", value.about]
            lines += ["", "| value | default | |", "| --- | --- | --- |"]
        if value.group and (value.path == top or not value.about):
            continue
        told.add(value.path)
        default = "" if value.group else f"`{value.written}`"
        lines.append(f"| `{value.path}` | {default} | {value.about.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both."""
    chart = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "charts" / "downloadjobs"
    docs = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs"  # noqa: PLR2004 - the second argument
    text = (ROOT / "charts" / "downloadjobs" / "values.yaml").read_text(encoding="utf-8")
    values = list(values_of(text))
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of downloadjobs",
        **schema_of(yaml.safe_load(text), {value.path: value for value in values}),
    }
    document = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    (chart / "values.schema.json").write_text(document, encoding="utf-8")
    (docs / "values.md").write_text(reference_of(values), encoding="utf-8")


if __name__ == "__main__":
    main()
