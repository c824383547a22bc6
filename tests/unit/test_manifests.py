"""The definition of DownloadJob, what the chart renders, the samples, and the pages about them agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

import support_chart
from downloadjobs_cli.main import cli
from downloadjobs_core.job import MAX_FILE_ID, MAX_FILES, MIN_FILE_ID
from downloadjobs_core.states import JobState, Priority
from downloadjobs_operator import conditions
from downloadjobs_operator.admission import MOST_ATTEMPTS, USER_ID
from downloadjobs_operator.autoscaler.decision import Limits
from downloadjobs_operator.autoscaler.limits import parse
from downloadjobs_operator.downloadjob import BACKOFF_LIMIT, GROUP, KIND, PLURAL, VERSION
from downloadjobs_operator.explaining import camel_case, phase_of
from downloadjobs_operator.status import PENDING, WORKER_CHARACTERS
from support_chart import CHART, ROOT, SECRETS
from support_tools import require_tool

MANIFESTS = ROOT / "manifests"
DOCS = ROOT / "docs"
OPERATOR = ROOT / "operator" / "downloadjobs_operator"

DEFINITION: Final = yaml.safe_load((CHART / "files" / "crd.yaml").read_text(encoding="utf-8"))
(DEFINED,) = DEFINITION["spec"]["versions"]
SCHEMA: Final = DEFINED["schema"]["openAPIV3Schema"]
SPEC: Final = SCHEMA["properties"]["spec"]
STATUS: Final = SCHEMA["properties"]["status"]

SAMPLES: Final = sorted((MANIFESTS / "samples").glob("*.yaml"))
YAMLS: Final = sorted(MANIFESTS.rglob("*.yaml"))

TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
}

BOUNDS: Final = {"minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength", "pattern"}


def load(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of YAML."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def page(name: str) -> str:
    """A page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The examples of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def table(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose first column has this head."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found, f"no table with the head {head!r}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def ticked(cell: str) -> list[str]:
    """What stands in ticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def nodes(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every part of a schema, by its path; `[]` stands for the items of a list."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


NODES: Final = dict(nodes(SCHEMA, ""))


def faults(schema: Mapping[str, Any], value: object, path: str) -> Iterator[str]:
    """What a value has against its schema, by the JSON Schema that the definition uses."""
    kind = TYPES[schema["type"]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        yield f"{path}: {value!r} is no {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if isinstance(value, dict):
        yield from _faults_of_object(schema, value, path)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{path}: {len(value)} items"
        for number, inner in enumerate(value):
            yield from faults(schema["items"], inner, f"{path}[{number}]")
    elif isinstance(value, str):
        yield from _faults_of_text(schema, value, path)
    elif isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value} is out of range"


def _faults_of_object(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from (f"{path}: {name} is missing" for name in schema.get("required", []) if name not in value)
    for name, inner in value.items():
        if name not in schema["properties"]:
            yield f"{path}: {name} is unknown"
        elif path or name != "metadata":
            yield from faults(schema["properties"][name], inner, f"{path}.{name}".lstrip("."))


def _faults_of_text(schema: Mapping[str, Any], value: str, path: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if schema.get("format") == "date-time" and not _is_moment(value):
        yield f"{path}: {value!r} is no time"


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def test_the_check_finds_faults() -> None:
    """The check that the tests below rely on sees every kind of fault."""
    spec = {
        "fileIds": [9999, "10000", True],
        "userId": "a,b",
        "priority": "urgent",
        "backoffLimit": 20,
        "surprise": 1,
        "result": [],
    }
    status = {"startTime": "yesterday", "conditions": [{"type": "Finished", "reason": ""}]}
    found = list(faults(SCHEMA, {"spec": spec, "status": status}, ""))
    for fault in (
        "spec.fileIds[0]: 9999 is out of range",
        "spec.fileIds[1]: '10000' is no integer",
        "spec.fileIds[2]: True is no integer",
        "spec.priority: 'urgent' is none of",
        "spec.backoffLimit: 20 is out of range",
        "spec: surprise is unknown",
        "spec.result: [] is no object",
        "spec.userId: 'a,b' does not match",
        "status.startTime: 'yesterday' is no time",
        "status.conditions[0]: status is missing",
        "status.conditions[0].reason: 0 characters",
    ):
        assert any(one.startswith(fault) for one in found), fault
    assert "spec.fileIds: 1001 items" in faults(SPEC, {"fileIds": [10000] * 1001}, "spec")
    assert "spec: fileIds is missing" in faults(SPEC, {}, "spec")


def test_names_are_the_operators() -> None:
    """The definition has the names that the operator asks for."""
    names = DEFINITION["spec"]["names"]
    assert (DEFINITION["spec"]["group"], DEFINED["name"], names["plural"], names["kind"]) == (
        GROUP, VERSION, PLURAL, KIND,
    )  # fmt: skip
    assert DEFINITION["metadata"]["name"] == f"{PLURAL}.{GROUP}"


def test_every_field_is_described() -> None:
    """Each field has a description that is more than a word; Kubernetes itself describes metadata."""
    for path, schema in NODES.items():
        if path != "metadata":
            assert len(schema.get("description", "").split()) >= 4, path
    for column in DEFINED["additionalPrinterColumns"]:
        assert column["description"].endswith(".")


def test_nothing_unknown_is_kept() -> None:
    """No part of the schema keeps fields that it does not name, or leaves its type open."""
    text = (CHART / "files" / "crd.yaml").read_text(encoding="utf-8")
    assert "preserve" not in text
    assert "additionalProperties" not in text
    assert all(schema["type"] in TYPES for schema in NODES.values())


def test_every_wish_is_bounded() -> None:
    """Each text, number and list of the spec has bounds, so that no object is beyond measure."""
    for path, schema in NODES.items():
        if not path.startswith("spec") or "enum" in schema:
            continue
        wanted = {
            "string": {"maxLength", "pattern"},
            "integer": {"minimum", "maximum"},
            "array": {"minItems", "maxItems"},
        }.get(schema["type"], set())
        assert wanted <= set(schema), path


def test_no_bound_stands_in_the_way_of_a_status() -> None:
    """Beside conditions, bounded as everywhere, only what the operator itself cuts has bounds; no duties."""
    bounds = {
        "status.message": {"maxLength": conditions.MESSAGE_CHARACTERS},
        "status.worker": {"maxLength": WORKER_CHARACTERS},
        "status.jobId": {"maxLength": 253},
        "status.conditions": {"maxItems": 32},
        "status.progress.percent": {"maxLength": 4, "pattern": "^(100|[0-9]{1,2})%$"},
    }
    for path, schema in NODES.items():
        if path.startswith("status") and not path.startswith("status.conditions[]"):
            assert {name: schema[name] for name in BOUNDS & set(schema)} == bounds.get(path, {}), path
            assert "required" not in schema, path
            assert path == "status.phase" or "enum" not in schema, path
    assert NODES["status.progress.bytes"]["format"] == NODES["status.result.bytes"]["format"] == "int64"


def test_rules_are_those_of_the_core() -> None:
    """The schema's bounds are those that the core and the operator check themselves."""
    ids = NODES["spec.fileIds"]
    assert (ids["maxItems"], ids["items"]["minimum"], ids["items"]["maximum"]) == (
        MAX_FILES, MIN_FILE_ID, MAX_FILE_ID,
    )  # fmt: skip
    assert NODES["spec.userId"]["pattern"] == f"^{USER_ID.pattern}$"
    assert set(NODES["spec.priority"]["enum"]) == {priority.value for priority in Priority}
    backoff = NODES["spec.backoffLimit"]
    assert (backoff["default"], backoff["maximum"]) == (BACKOFF_LIMIT, MOST_ATTEMPTS - 1)
    assert set(NODES["status.phase"]["enum"]) == {PENDING, *map(phase_of, JobState)}


def test_later_rules_say_what_to_do() -> None:
    """Each CEL rule is on `spec`, names its field, and has a message that tells a way out."""
    assert {path for path, schema in NODES.items() if "x-kubernetes-validations" in schema} == {"spec"}
    for rule in SPEC["x-kubernetes-validations"]:
        field = rule["fieldPath"].removeprefix(".")
        assert f"spec.{field}" in NODES
        assert rule["message"].startswith(field)
        assert re.search(r"create another|leave userId out", rule["message"])


def test_manifests_have_the_charts_definition() -> None:
    """manifests/crd.yaml is the chart's, byte by byte."""
    assert (MANIFESTS / "crd.yaml").read_bytes() == (CHART / "files" / "crd.yaml").read_bytes()


def test_manifests_are_what_the_chart_renders(tmp_path: Path) -> None:
    """`make manifests` gives what is committed."""
    helm = require_tool(os.environ.get("HELM") or "helm")
    make = require_tool("make", "gmake")
    command = [make, "--silent", "manifests", f"HELM={helm}", f"MANIFESTS={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["crd.yaml", "downloadjobs.yaml", "policies.yaml", "workloads.yaml"]
    for name in made:
        assert (tmp_path / name).read_text(encoding="utf-8") == (MANIFESTS / name).read_text(encoding="utf-8")


EXTERNAL: Final = (
    "bundled.redis.enabled=false",
    "bundled.objectStore.enabled=false",
    "external.redis.host=redis.example.com",
    "external.s3.bucket=films",
)


def render(*settings: str) -> subprocess.CompletedProcess[str]:
    """What Helm says with some values, where the bundled servers' Secrets are there."""
    return support_chart.render(*SECRETS, *settings)


def rendered(*settings: str) -> list[dict[str, Any]]:
    """The objects that the chart renders then."""
    return support_chart.rendered(*SECRETS, *settings)


def test_the_chart_has_the_definition_by_default() -> None:
    """The chart has the definition, to outlive the release, unless it is told not to have it."""
    (definition,) = (one for one in rendered() if one["kind"] == "CustomResourceDefinition")
    assert definition["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert definition == DEFINITION
    assert not any(one["kind"] == "CustomResourceDefinition" for one in rendered("crd.enabled=false"))


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("operator.watchNamespaces={a,b}", "operator.peering.enabled=true"),
        ("operator.mirrorApiJobs=active", "operator.mirrorNamespace=m", "operator.peering.enabled=true"),
    ],
    ids=["default", "namespaces", "mirrors"],
)
def test_the_chart_has_no_rights_for_the_cluster(settings: tuple[str, ...]) -> None:
    """Unless told to, the chart gives no rights in the whole cluster; and never any for Secrets or all."""
    objects = rendered("crd.enabled=false", "admissionPolicy.enabled=false", *settings)
    assert all("namespace" in one["metadata"] for one in objects)
    rights = {one["kind"] for one in objects if one["apiVersion"].startswith("rbac")}
    assert rights == {"Role", "RoleBinding"}
    wide = rendered("operator.clusterWide=true", "operator.peering.enabled=true")
    for one in [*objects, *wide]:
        for rule in one.get("rules", []):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "secrets" not in rule["resources"]


def peerings(objects: list[dict[str, Any]]) -> set[str]:
    """The resources of kopf that rules are about."""
    rules = [rule for one in objects for rule in one.get("rules", [])]
    return {resource for rule in rules if "kopf.dev" in rule["apiGroups"] for resource in rule["resources"]}


def test_rights_for_peerings_come_with_peering() -> None:
    """Peering objects may be touched where peering is on alone: the namespaces' or the cluster's."""
    on = "operator.peering.enabled=true"
    assert peerings(rendered("operator.clusterWide=true")) == peerings(rendered()) == set()
    assert peerings(rendered(on)) == {"kopfpeerings"}
    assert peerings(rendered(on, "operator.clusterWide=true")) == {"clusterkopfpeerings"}


@pytest.mark.parametrize("mode", ["active", "all"])
def test_mirrors_are_created_in_their_namespace_only(mode: str) -> None:
    """The right to create DownloadJobs comes with mirrors, and stands in their namespace alone."""

    def may_create(*settings: str) -> list[str]:
        return [
            one["metadata"]["namespace"]
            for one in rendered(*settings)
            for rule in one.get("rules", [])
            if "downloadjobs" in rule["resources"] and "create" in rule["verbs"]
        ]

    mirrors = "operator.mirrorNamespace=mirrors"
    assert may_create(f"operator.mirrorApiJobs={mode}", mirrors) == ["mirrors"]
    assert may_create("operator.mirrorApiJobs=none", mirrors) == []


def test_the_policy_can_be_left_out() -> None:
    """Admission policies, which take an admin, can be left out; that of mirrors comes only with mirrors."""

    def policies(*settings: str) -> list[tuple[str, str]]:
        return sorted(
            (one["kind"].removeprefix("ValidatingAdmissionPolicy"), one["metadata"]["name"])
            for one in rendered(*settings)
            if one["kind"].startswith("ValidatingAdmissionPolicy")
        )

    mirrors = ("operator.mirrorApiJobs=all", "operator.mirrorNamespace=mirrors")
    off = "admissionPolicy.enabled=false"
    pods, shown = "own-try-downloadjobs-pods", "own-try-downloadjobs-mirrors"
    assert policies(*mirrors, off) == []
    assert policies() == [("", pods), ("Binding", pods)]
    assert policies(*mirrors) == [("", shown), ("", pods), ("Binding", shown), ("Binding", pods)]


def pod_specs(*settings: str) -> dict[str, dict[str, Any]]:
    """The pods' specs of all Deployments, by component."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["spec"]
        for one in rendered(*settings)
        if one["kind"] == "Deployment"
    }


def environment(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A pod's environment: values, or where they come from."""
    (container,) = spec["containers"]
    names = [one["name"] for one in container["env"]]
    assert len(names) == len(set(names)), "a variable is given twice"
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def test_pods_are_restricted() -> None:
    """Every pod obeys the Pod Security profile `restricted`, and writes only to volumes."""
    specs = pod_specs()
    assert set(specs) == {"api", "worker", "operator", "redis", "s3"}
    for component, spec in specs.items():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is (component == "operator")
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]
        assert not {"hostPath"} & {kind for volume in spec["volumes"] for kind in volume}


def test_workers_are_the_autoscalers() -> None:
    """No number of workers is rendered, nobody evicts a busy one, and they have time to drain."""
    (worker,) = (
        one
        for one in rendered()
        if (one["kind"], one["metadata"]["name"]) == ("Deployment", "try-downloadjobs-worker")
    )
    assert "replicas" not in worker["spec"]
    # On a full node a new one comes only when an old one goes.
    assert worker["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}
    template = worker["spec"]["template"]
    assert template["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert template["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert template["spec"]["terminationGracePeriodSeconds"] == 120
    assert environment(template["spec"])["DRAIN_SECONDS"] == "100"
    assert environment(template["spec"])["POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    specs = pod_specs("worker.drainSeconds=600")
    assert specs["worker"]["terminationGracePeriodSeconds"] == 620


def test_the_autoscalers_file() -> None:
    """The operator reads all settings of the autoscaler from one file, and a change of it replaces no pod."""

    def one(kind: str, *settings: str) -> dict[str, Any]:
        (found,) = (
            one
            for one in rendered(*settings)
            if one["kind"] == kind and one["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"
        )
        return found

    limits = parse(yaml.safe_load(one("ConfigMap")["data"]["autoscaler.yaml"]))
    assert limits == Limits()
    changed = ("worker.autoscaling.max=500000", "worker.concurrency=8", "worker.autoscaling.staleSeconds=2.5")
    text = one("ConfigMap", *changed)["data"]["autoscaler.yaml"]
    assert yaml.safe_load(text) | {"max": 500_000, "concurrency": 8, "staleSeconds": 2.5} == yaml.safe_load(
        text
    )
    assert one("Deployment", *changed) == one("Deployment")
    (container,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    mounted = {mount["name"]: mount for mount in container["volumeMounts"]}["autoscaler"]
    assert "subPath" not in mounted
    told = environment(one("Deployment")["spec"]["template"]["spec"])
    assert told["AUTOSCALER_FILE"] == f"{mounted['mountPath']}/autoscaler.yaml"
    assert told["WORKER_DEPLOYMENT"] == "try-downloadjobs-worker"


def test_recommending_takes_no_rights_to_change() -> None:
    """An operator that only recommends may change neither the Deployment's scale nor its pods."""

    def verbs(*settings: str) -> dict[str, set[str]]:
        (role,) = (
            one
            for one in rendered(*settings)
            if one["kind"] == "Role" and one["metadata"]["name"].endswith("-autoscaler")
        )
        return {rule["resources"][0]: set(rule["verbs"]) for rule in role["rules"]}

    scales, tells = verbs(), verbs("worker.autoscaling.mode=Recommend")
    assert scales.pop("deployments/scale") == {"patch"}
    assert scales["pods"] == {"list", "watch", "patch"}
    assert tells == {**scales, "pods": {"list", "watch"}}


def test_the_operator_needs_no_storage() -> None:
    """The operator is told the buckets' names, and has no keys; API and workers have keys of their own."""
    keys = {"external.s3.workerSecret=w", "external.s3.apiSecret=a", "external.redis.existingSecret=r"}
    for settings in ((), (*EXTERNAL, *keys)):
        told = {component: environment(spec) for component, spec in pod_specs(*settings).items()}
        assert {name for name in told["operator"] if name.startswith("S3_")} == {"S3_BUCKET_NAME"}
        secrets = {
            component: told[component]["S3_SECRET_ACCESS_KEY"]["secretKeyRef"]["name"]
            for component in ("api", "worker")
        }
        assert len(set(secrets.values())) == 2


def test_settings_reach_the_processes() -> None:
    """Settings are given as written, a component's over everybody's."""
    told = {
        component: environment(spec)
        for component, spec in pod_specs(
            "settings.LOG_LEVEL=debug",
            "worker.settings.LOG_LEVEL=warning",
            "worker.settings.PART_BYTES=536870912",
            "worker.settings.RETRY_FACTOR=1.5",
            "api.settings.ALLOW_ANONYMOUS_START=true",
        ).items()
    }
    assert told["api"]["LOG_LEVEL"] == told["operator"]["LOG_LEVEL"] == "debug"
    assert told["worker"]["LOG_LEVEL"] == "warning"
    assert told["worker"]["PART_BYTES"] == "536870912"
    assert told["worker"]["RETRY_FACTOR"] == "1.5"
    assert told["api"]["ALLOW_ANONYMOUS_START"] == "true"
    assert told["api"]["ENVIRONMENT"] == "production"


def test_variables_are_settings() -> None:
    """Each variable that the chart sets is a setting of its process."""
    told = pod_specs(
        *EXTERNAL, "external.redis.sentinels={a:1}", "external.redis.sentinelMaster=m",
        "external.redis.tls=true", "external.redis.username=u", "external.redis.caSecret=c",
        "external.s3.caSecret=c",
        "external.s3.endpoint=https://s3", "external.s3.publicEndpoint=https://s3", "external.s3.region=r",
        "external.s3.resultsBucket=b", "external.s3.forcePathStyle=true", "operator.mirrorApiJobs=all",
        "operator.mirrorNamespace=m", "operator.userIdNamespaces={a}", "operator.peering.enabled=true",
    )  # fmt: skip
    text = page("settings.md")
    others = {"POD_NAMESPACE"}  # what the pods themselves are
    for component in ("api", "worker", "operator"):
        for name in set(environment(told[component])) - others:
            assert f"`{name}`" in text, (component, name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("operator.mirrorApiJobs=some",),
            "'/operator/mirrorApiJobs': value must be one of 'none', 'active', 'all'",
        ),
        (("operator.mirrorApiJobs=all",), "operator.mirrorNamespace must name a namespace"),
        (
            ("operator.mirrorApiJobs=all", "operator.mirrorNamespace=own"),
            "operator.mirrorNamespace must be a namespace of its own, and own is a watched one",
        ),
        (
            ("operator.clusterWide=true", "operator.watchNamespaces={a}"),
            "leave operator.watchNamespaces empty",
        ),
        (
            ("worker.autoscaling.mode=Off",),
            "'/worker/autoscaling/mode': value must be one of 'Scale', 'Recommend'",
        ),
        (("worker.autoscaling.min=11",), "worker.autoscaling.min must not be above worker.autoscaling.max"),
        (("bundled.objectStore.kind=files",), "must be one of"),
        (("bundled.redis.enabled=false",), "there is no Redis: give external.redis.host"),
        (("external.redis.host=redis",), "say bundled.redis.enabled=false"),
        (("bundled.objectStore.enabled=false",), "there is no bucket: give external.s3.bucket"),
        (("external.s3.bucket=films",), "say bundled.objectStore.enabled=false"),
        ((*EXTERNAL, "external.redis.urlKey=url"), "name that in external.redis.existingSecret"),
        ((*EXTERNAL, "external.redis.sentinelMaster=m"), "give both external.redis.sentinels and"),
        (
            ("bundled.redis.existingSecret=",),
            "are made once and kept, which takes a cluster to look them up in",
        ),
    ],
    ids=[
        "mode",
        "nowhere",
        "watched",
        "wide",
        "scaling",
        "bounds",
        "store",
        "no-redis",
        "two-redis",
        "no-bucket",
        "two-buckets",
        "no-url",
        "no-sentinels",
        "no-secrets",
    ],
)
def test_values_that_make_no_sense_are_refused(settings: tuple[str, ...], message: str) -> None:
    """The chart says what is wrong with values that cannot be meant."""
    done = render(*settings)
    assert done.returncode
    assert message in done.stderr


def test_old_clusters_are_refused() -> None:
    """The chart wants a Kubernetes that knows selectable fields; a provider's suffix does not matter."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["kubeVersion"] == ">=1.31-0"


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.relative_to(MANIFESTS).as_posix())
def test_manifests_are_yaml(path: Path) -> None:
    """Each file of manifests/ holds objects, each with a kind and, but for kustomize's own, a name."""
    for one in load(path):
        assert one["kind"] == "Kustomization" or one["metadata"]["name"]


def test_the_whole_installation_is_listed() -> None:
    """The kustomization names files that are there, and all but the roles for people and the samples."""
    (kustomization,) = load(MANIFESTS / "kustomization.yaml")
    there = {path.name for path in MANIFESTS.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == there
    (namespace,) = load(MANIFESTS / "namespace.yaml")
    others = {
        one["metadata"]["namespace"]
        for name in ("downloadjobs.yaml", "policies.yaml", "workloads.yaml")
        for one in load(MANIFESTS / name)
        if not one["kind"].startswith("ValidatingAdmissionPolicy")
    }
    assert others == {namespace["metadata"]["name"]}


def test_the_manifests_images_can_be_made() -> None:
    """install.md has images built with the tag that the manifests name."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    assert f"$ make images TAG={version}\n" in page("install.md")
    named = {
        container["image"].split(":")[1]
        for one in load(MANIFESTS / "workloads.yaml")
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
        if container["image"].startswith("downloadjobs/")
    }
    assert named == {version}


def test_images_cannot_be_listed_without_helm() -> None:
    """Without Helm `make images-list` says what is missing, not what the shell makes of it."""
    make = require_tool("make", "gmake")
    done = subprocess.run(
        [make, "--silent", "images-list", "HELM=no-helm-here"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode
    assert "this needs Helm 3 or 4, and there is no 'no-helm-here'" in done.stderr
    assert "make images-list HELM=path/to/helm" in done.stderr


def test_an_overlay_puts_it_into_another_namespace(tmp_path: Path) -> None:
    """The kustomization of install.md moves all of it, and names other images: nothing stays behind."""
    kubectl = require_tool("kubectl")
    (told,) = (text for text in blocks(page("install.md"), "yaml") if "namespace: films" in text)
    there = os.path.relpath(MANIFESTS, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(told.replace("../manifests", there), encoding="utf-8")
    done = subprocess.run(
        [kubectl, "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    objects = list(yaml.safe_load_all(done.stdout))
    (namespace,) = (one for one in objects if one["kind"] == "Namespace")
    assert namespace["metadata"]["name"] == "films"
    assert {one["metadata"].get("namespace", "films") for one in objects} == {"films"}
    for one in objects:
        for subject in one.get("subjects", []):
            assert subject["namespace"] == "films", one["metadata"]["name"]
        if one["kind"].startswith("ValidatingAdmissionPolicy"):
            # Its own name has the old one in it, and means nothing.
            assert "downloadjobs" not in json.dumps(one["spec"].get("matchResources", {}))
    (operator,) = (
        one
        for one in objects
        if (one["kind"], one["metadata"]["name"]) == ("Deployment", "downloadjobs-operator")
    )
    for one in objects:
        if one["kind"] == "Deployment":
            for container in one["spec"]["template"]["spec"]["containers"]:
                assert container["image"].endswith(":dev") or "downloadjobs/" not in container["image"]
    variables = environment(operator["spec"]["template"]["spec"])
    for name in ("WATCH_NAMESPACES", "OPERATOR_NAMESPACE"):
        assert variables[name]["fieldRef"] == {"fieldPath": "metadata.namespace"}
    (policy,) = (one for one in objects if one["kind"] == "ValidatingAdmissionPolicy")
    (condition,) = policy["spec"]["matchConditions"]
    assert condition["expression"] == (
        "request.userInfo.username == 'system:serviceaccount:' + request.namespace + ':downloadjobs-operator'"
    )


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_obey_the_schema(path: Path) -> None:
    """Each sample obeys the schema, names no namespace, and asks for nothing that only some may have."""
    objects = load(path)
    jobs = [one for one in objects if one["kind"] == KIND]
    assert jobs
    for one in objects:
        assert "namespace" not in one["metadata"]
    for job in jobs:
        assert list(faults(SCHEMA, job, "")) == []
        assert "userId" not in job["spec"]
        assert job["spec"].get("priority") != "high"


def test_samples_ask_for_seeded_files() -> None:
    """The samples' ids are among the files that `downloadjobs seed` makes, as `up` and `demo` do."""
    defaults: dict[str | None, Any] = {option.name: option.default for option in cli.commands["seed"].params}
    seeded = range(defaults["first_id"], defaults["first_id"] + defaults["count"])
    asked = {
        file_id
        for path in SAMPLES
        for one in load(path)
        if one["kind"] == KIND
        for file_id in one["spec"]["fileIds"]
    }
    assert asked <= set(seeded)


def test_samples_go_together() -> None:
    """All samples can be applied at once: they have different names, and the quota comes last."""
    names = [(one["kind"], one["metadata"]["name"]) for path in SAMPLES for one in load(path)]
    assert len(names) == len(set(names))
    assert [kind for kind, _ in names] == [KIND] * (len(names) - 1) + ["ResourceQuota"]


def test_one_sample_shows_everything() -> None:
    """The sample `full` has every field of the spec but the three that not everybody can use."""
    (job,) = load(MANIFESTS / "samples" / "full.yaml")
    assert set(SPEC["properties"]) - set(job["spec"]) == {"userId", "cancel", "callbackUrl"}
    assert set(job["spec"]["result"]) == set(NODES["spec.result"]["properties"])


EXAMPLE: Final = yaml.safe_load(blocks(page("downloadjob.md"), "yaml")[0])


def test_the_example_is_whole() -> None:
    """The example of downloadjob.md obeys the schema, and shows all of a spec and an ended job's status."""
    assert list(faults(SCHEMA, EXAMPLE, "")) == []
    assert set(EXAMPLE["spec"]) == set(SPEC["properties"])
    assert set(STATUS["properties"]) - set(EXAMPLE["status"]) == {"queuePosition", "eta", "worker"}
    assert set(EXAMPLE["status"]["result"]) == set(NODES["status.result"]["properties"])
    assert "http" not in yaml.safe_dump(EXAMPLE["status"])
    assert EXAMPLE["status"]["jobId"] == EXAMPLE["metadata"]["uid"]


def leaves(part: str) -> set[str]:
    """The fields of `spec` or `status` that hold values, without those of conditions."""
    return {
        path.removeprefix(f"{part}.")
        for path, schema in NODES.items()
        if path.startswith(f"{part}.") and "[]" not in path and schema["type"] != "object"
    }


@pytest.mark.parametrize("part", ["spec", "status"])
def test_fields_are_told(part: str) -> None:
    """downloadjob.md has every field of the spec and of the status."""
    told = [name for row in table(page("downloadjob.md"), f"field of `{part}`") for name in ticked(row[0])]
    assert sorted(told) == sorted(leaves(part))


def test_bounds_are_told() -> None:
    """downloadjob.md has the bounds and defaults of the schema."""
    told = {ticked(row[0])[0]: row[1] for row in table(page("downloadjob.md"), "field of `spec`")}
    for name, text in told.items():
        schema = NODES[f"spec.{name}"]
        for keyword in ("minimum", "maximum"):
            if keyword in schema:
                assert f"{schema[keyword]:,}" in text, name
        for value in schema.get("enum", []):
            assert f"`{value}`" in text, name
        if "default" in schema:
            assert f"{schema['default']}`" in text or f"{schema['default']} by default" in text, name


def test_what_stays_is_told() -> None:
    """downloadjob.md says of each field whether it can be changed, as the CEL rules have it."""
    rules = {
        rule["fieldPath"].removeprefix(".")
        for rule in SPEC["x-kubernetes-validations"]
        if "oldSelf" in rule["rule"]
    }
    rows = table(page("downloadjob.md"), "field of `spec`")
    assert {ticked(row[0])[0] for row in rows if row[2] != "may change"} == rules
    assert all(("stays" in row[2]) == (row[2] != "may change") for row in rows)


def test_phases_and_conditions_are_told() -> None:
    """downloadjob.md and the schema's descriptions have every phase and every condition."""
    phases = [ticked(row[0])[0] for row in table(page("downloadjob.md"), "phase")]
    assert sorted(phases) == sorted(NODES["status.phase"]["enum"])
    told = [ticked(row[0])[0] for row in table(page("downloadjob.md"), "condition")]
    assert told == [kind.value for kind in conditions.Type]
    for path in ("status.conditions", "status.conditions[].type"):
        for kind in conditions.Type:
            assert kind.value in NODES[path]["description"]


def test_reasons_are_told_as_they_are() -> None:
    """Each reason in downloadjob.md is one that the operator gives."""
    source = "".join(path.read_text(encoding="utf-8") for path in OPERATOR.glob("*.py"))
    given = set(re.findall(r'"([A-Z][A-Za-z]+)"', source)) | {phase_of(state) for state in JobState}
    told = {name for row in table(page("downloadjob.md"), "condition") for name in ticked(row[2])}
    assert told <= given


def test_reasons_of_failures_are_told() -> None:
    """downloadjob.md has the reason of each refusal of the operator, and of each failure of a worker."""
    told = {name for row in table(page("downloadjob.md"), "reason") for name in ticked(row[0])}
    refusals = {
        reason
        for path in OPERATOR.glob("*.py")
        for reason in re.findall(r'RefusedError\(\s*"([A-Za-z]+)"', path.read_text(encoding="utf-8"))
    }
    attempt = (OPERATOR.parents[1] / "worker" / "downloadjobs_worker" / "attempt.py").read_text(
        encoding="utf-8"
    )
    codes = {
        *re.findall(r'Failure\(\s*"([a-z-]+)"', attempt),
        "no-file-found",
        "dead-letter",
        "deadline-exceeded",
    }
    assert told == refusals | {camel_case(code) for code in codes} | {"RecordLost"}


def test_the_schema_tells_the_numbers() -> None:
    """What has bounds tells them in its description, which is what `kubectl explain` shows."""
    for path in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        node = NODES[f"spec.{path}"]
        assert str(node["maximum"]) in node["description"], path
    ids = NODES["spec.fileIds"]
    for number in (f"{ids['maxItems']:,}", ids["items"]["minimum"], ids["items"]["maximum"]):
        assert str(number) in ids["description"]


HEALTHS: Final = [
    ("not seen yet", None, "Progressing"),
    ("waits", {"Queued": "True", "Finished": "False"}, "Progressing"),
    ("runs", {"Queued": "False", "Finished": "False", "Suspended": "False"}, "Progressing"),
    ("held", {"Queued": "False", "Finished": "False", "Suspended": "True"}, "Suspended"),
    ("done", {"Queued": "False", "Finished": "True", "Complete": "True"}, "Healthy"),
    ("cancelled", {"Finished": "True", "Complete": "False", "Failed": "False"}, "Healthy"),
    ("late", {"Finished": "True", "Failed": "True", "Stalled": "False"}, "Degraded"),
    ("failed", {"Finished": "True", "Failed": "True", "Stalled": "True"}, "Degraded"),
]


def lua_value(value: object) -> str:
    """A value as Lua writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"[{lua_value(key)}] = {lua_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(lua_value, value)) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def health(lua: str, status: Mapping[str, Any] | None, generation: int = 1) -> str:
    """What the health check of argocd.md says, run by Lua 5.1, the version that Argo CD has."""
    program = require_tool("lua5.1", "lua51", "lua-5.1")
    found = {"metadata": {"generation": generation}, **({} if status is None else {"status": status})}
    text = f"local obj = {lua_value(found)}\nlocal function check()\n{lua}\nend\nlocal found = check()\n"
    text += "print(found.status)\nassert(type(found.message) == 'string')"
    ran = subprocess.run([program, "-"], input=text, capture_output=True, text=True, timeout=10, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def told_check() -> str:
    """The health check of argocd.md."""
    (text,) = yaml.safe_load(blocks(page("argocd.md"), "yaml")[0])["data"].values()
    assert isinstance(text, str)
    return text


def status_with(types: Mapping[str, str], **fields: object) -> dict[str, Any]:
    """A status with these conditions."""
    return {
        "observedGeneration": 1,
        "message": "told",
        "conditions": [{"type": kind, "status": value} for kind, value in types.items()],
        **fields,
    }


@pytest.mark.parametrize(("name", "types", "expected"), HEALTHS, ids=[row[0] for row in HEALTHS])
def test_health_in_argo_cd(name: str, types: Mapping[str, str] | None, expected: str) -> None:
    """The health check of argocd.md gives each job the health that the page promises."""
    assert health(told_check(), None if types is None else status_with(types)) == expected, name


def test_health_of_the_example() -> None:
    """The job that downloadjob.md shows is healthy, and degraded by the line for those who want an alarm."""
    lua = told_check()
    assert health(lua, EXAMPLE["status"]) == "Healthy"
    (alarm,) = blocks(page("argocd.md"), "lua")
    line = 'elseif so("Finished") then'
    assert lua.count(line) == 1
    stricter = lua.replace(line, f"{alarm}{line}")
    assert health(stricter, EXAMPLE["status"]) == "Degraded"
    assert health(stricter, status_with({"Finished": "True"}, phase="Completed")) == "Healthy"


def test_health_of_a_change() -> None:
    """A change that the operator has not seen yet is progress; what has ended stays as it is."""
    lua = told_check()
    assert health(lua, status_with({"Suspended": "True", "Finished": "False"}), generation=2) == "Progressing"
    assert health(lua, status_with({"Finished": "True"}), generation=2) == "Healthy"


def test_the_quota_is_the_samples() -> None:
    """The quota that downloadjob.md shows is that of the sample."""
    shown = yaml.safe_load(blocks(page("downloadjob.md"), "yaml")[1])
    assert shown in load(MANIFESTS / "samples" / "team-quota.yaml")
