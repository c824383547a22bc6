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
HOSTS: Final = {"items": {"type": "string", "pattern": "^[^/: ]+$"}}
"""A host's name alone: neither a URL nor a port."""

NETWORKS: Final = {"items": {"type": "string", "pattern": "^[0-9A-Fa-f.:]*[.:][0-9A-Fa-f.:]*(/[0-9]{1,3})?$"}}
"""Addresses or networks, such as 10.0.0.0/8 and fd00::/8."""

SIZE: Final = {"pattern": "^[0-9]+([.][0-9]+)?([kMGTPE]|[KMGTPE]i)?$"}
"""A quantity of Kubernetes: 4Gi, not 4GB."""

OBJECTS: Final = {"items": {"type": "object"}}
POSITIVE: Final = {"type": "integer", "minimum": 1}
NOT_NEGATIVE: Final = {"type": "integer", "minimum": 0}
SECONDS: Final = {"type": ["number", "string"], "minimum": 0, "pattern": "^[0-9]+([.][0-9]+)?$"}
"""Helm's --set makes a text of 0.5."""

BUDGET: Final = {"type": ["integer", "string"], "pattern": "^[0-9]+%?$"}

ORIGIN: Final = {"pattern": "^(https?://[^/]+/?)?$"}
"""Scheme and host only, as presigned URLs begin."""

BUCKET: Final = {"pattern": "^[^/:]*$"}

TEXTS: Final = {"additionalProperties": {"type": ["string", "null"]}}
"""Labels and the like: Kubernetes refuses numbers there. Null takes away what earlier values gave."""

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
    "webhooks.allowedHosts": NAMES,
    "webhooks.allowedNetworks": NAMES,
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
    "api.auth.mode": {"enum": ["header", "jwt", "anonymous"]},
    "api.trustedProxies": NETWORKS,
    "api.autoscaling.minReplicas": POSITIVE,
    "api.autoscaling.maxReplicas": POSITIVE,
    "api.autoscaling.targetCPUUtilizationPercentage": {"type": "integer", "minimum": 1},
    "api.ingress.hosts": HOSTS,
    "api.httpRoute.hostnames": HOSTS,
    "networkPolicy.redisPorts": PORTS,
    "networkPolicy.s3Ports": PORTS,
    "networkPolicy.apiServerPorts": PORTS,
    "networkPolicy.dnsPorts": PORTS,
    "tests.fileIds": {"items": {"type": "integer", "minimum": 10_000, "maximum": 100_000_000}},
    "tests.timeoutSeconds": POSITIVE,
}
"""By the path, or by its last part (below): what the type of the default does not say."""

WORDS: Final[Mapping[str, str]] = {
    "repository": "The image's name, without registry and tag.",
    "image.tag": "Empty: `image.tag` of all.",
    "bundled.redis.image.tag": "The version that this chart was tested with.",
    "bundled.objectStore.image.tag": "The version that this chart was tested with.",
    "minioImage.tag": "The version that this chart was tested with.",
    "digest": "sha256:…, in place of the tag.",
    "global.imageRegistry": "Before all repositories.",
    "global.imagePullSecrets": "Names of Secrets: [{name: my-registry}].",
    "image.pullPolicy": "As Kubernetes has it.",
    "settings.ENVIRONMENT": "`production`, `development` or `test`.",
    "api.replicas": "Pods of the API.",
    "jwt.audience": "What tokens have as aud.",
    "webhooks.enabled": "Send them.",
    "headersKey": "The key in that Secret.",
    "dsnKey": "The key in that Secret.",
    "sentryPorts": "Of Sentry.",
    "metricsPort": "Where metrics are.",
    "service.type": "As Kubernetes has it.",
    "service.port": "The Service's; the pods have 3000.",
    "annotations": "Of this object.",
    "requests": "What a pod is sure to get.",
    "limits": "What a pod may take at most. Without a limit of its CPU it takes what is free.",
    "api.autoscaling.minReplicas": "Pods of the API, at least.",
    "api.autoscaling.maxReplicas": "Pods of the API, at most.",
    "targetCPUUtilizationPercentage": "Of what is requested; more pods come above it.",
    "podDisruptionBudget.enabled": "Whether there is one.",
    "podDisruptionBudget.maxUnavailable": "A number, or a share of the pods.",
    "ingress.enabled": "Make an Ingress. It takes networkPolicy.apiFrom.",
    "className": "Empty: the cluster's default.",
    "api.ingress.hosts": "Such as [downloads.example.com].",
    "api.httpRoute.hostnames": "Such as [downloads.example.com].",
    "path": "What begins so goes to the API.",
    "httpRoute.enabled": "Make an HTTPRoute. It takes networkPolicy.apiFrom.",
    "podAnnotations": "More of the pods' annotations.",
    "podLabels": "More of the pods' labels.",
    "extraEnvFrom": "Variables out of ConfigMaps and Secrets.",
    "extraVolumes": "More volumes of the pod.",
    "extraVolumeMounts": "Where the container has them.",
    "podSecurityContext": "More of the pods' security context.",
    "tolerations": "Taints of nodes that are borne.",
    "affinity": "Which nodes, and beside which pods.",
    "priorityClassName": "Before whom it is scheduled.",
    "worker.autoscaling.min": "Pods that are always there.",
    "worker.autoscaling.max": "Pods, at most.",
    "maxSurge": "A number, or a share of the pods.",
    "maxUnavailable": "A number, or a share of the pods.",
    "serviceAccount.annotations": "Of the ServiceAccount.",
    "peering.priority": "Who has more acts; no two may have the same.",
    "bundled.redis.enabled": "Install a Redis (Valkey).",
    "bundled.objectStore.enabled": "Install an object store.",
    "persistence.enabled": "Without it, a new pod begins with nothing.",
    "size": "Of the volume; it can be made larger only where the storage class allows it.",
    "storageClass": "Empty: the cluster's default.",
    "bundled.objectStore.apiSecret": "The same for the API's key.",
    "external.redis.port": "The host's.",
    "external.redis.username": "Empty: Redis' default user.",
    "external.redis.sentinelMaster": "The name by which the Sentinels know the primary.",
    "external.redis.tls": "Whether the server speaks TLS.",
    "external.redis.passwordKey": "The key of the password in that Secret.",
    "external.s3.bucket": "Its name alone. It must be there already.",
    "external.s3.region": "Empty: us-east-1. Requests are signed for it.",
    "external.s3.caSecret": "A Secret with the key `ca.crt`: certificates to trust instead of the system's.",
    "external.s3.apiSecret": "The same for the API's key.",
    "accessKeyIdKey": "The key of the access key's id in those Secrets.",
    "secretAccessKeyKey": "The key of the secret access key in those Secrets.",
    "redisPorts": "Of Redis, and of Sentinels.",
    "s3Ports": "Of the object store.",
    "apiServerTo": "The same for the API server.",
    "apiServerPorts": "Of the API server, as a pod reaches it.",
    "dnsPorts": "Of name servers.",
    "extraEgress.api": "Of the API's pods.",
    "extraEgress.worker": "Of the workers.",
    "extraEgress.operator": "Of the operator.",
    "tests.enabled": "Whether there is such a test.",
    "tests.user": "Who asks for the job. With `api.auth.mode` `jwt` the token says it.",
    "tests.timeoutSeconds": "In which all of it must be done.",
    "podMonitor.enabled": "Make the PodMonitors.",
    "scrapeTimeout": "Below the interval.",
    "prometheusRule.enabled": "Make the PrometheusRule.",
    "dashboard.enabled": "Make the ConfigMap.",
    "dashboard.labels": "By which the sidecar finds it.",
}
"""What a value is that has no comment of its own: by the end of its path, the longest first."""

OPEN: Final = frozenset({"global", "settings"})
"""Groups that may hold other keys than those that are there."""

EVERYWHERE: Final[Mapping[str, Mapping[str, Any]]] = {
    "podSecurityContext": SECURITY,
    "digest": {"pattern": "^(sha256:[0-9a-f]{64})?$"},
    "repository": {"minLength": 1},
    "tag": {"type": "string"},
    "size": SIZE,
    "drainSeconds": NOT_NEGATIVE,
    "metricsPort": PORT,
    "port": PORT,
    "maxUnavailable": BUDGET,
    "maxSurge": BUDGET,
    "type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    **dict.fromkeys(("podAnnotations", "podLabels", "annotations", "labels", "nodeSelector"), TEXTS),
    **dict.fromkeys(
        ("extraEnv", "extraEnvFrom", "extraVolumes", "extraVolumeMounts", "tolerations"), OBJECTS
    ),
    **dict.fromkeys(("topologySpreadConstraints", "pullSecrets", "imagePullSecrets", "tls"), OBJECTS),
    **dict.fromkeys(("parentRefs", "filters", "apiFrom", "metricsFrom", "objectStoreFrom"), OBJECTS),
    **dict.fromkeys(("externalTo", "issuerTo", "apiServerTo"), OBJECTS),
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
    def meaning(self) -> str:
        """The comment, or else what its name says."""
        parts = self.path.split(".")
        ends = [".".join(parts[at:]) for at in range(len(parts))]
        return self.about or next((WORDS[end] for end in ends if end in WORDS), "")

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
        meaning = line.about if line.group else line.meaning
        if meaning:
            properties[name]["description"] = meaning
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
        meaning = value.about if value.group else value.meaning
        lines.append(f"| `{value.path}` | {default} | {meaning.replace('|', chr(92) + '|')} |")
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
