"""What a real API server makes of DownloadJobs: each rule of the schema refuses, and says what is wrong."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from support_cluster import Cluster

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CRD = ROOT / "charts" / "downloadjobs" / "files" / "crd.yaml"
DEFINITION: Final = yaml.safe_load(CRD.read_text(encoding="utf-8"))
VERSION: Final = DEFINITION["spec"]["versions"][0]
SCHEMA: Final = VERSION["schema"]["openAPIV3Schema"]["properties"]

IDS: Final = {"fileIds": [10000]}
"""The least that a spec may say."""

WHOLE: Final[Mapping[str, Any]] = {
    "fileIds": [10000, 10001],
    "userId": "ada",
    "priority": "low",
    "callbackUrl": "https://hooks.example.com/downloads?key=7f3a",
    "suspend": True,
    "cancel": False,
    "backoffLimit": 5,
    "activeDeadlineSeconds": 3600,
    "ttlSecondsAfterFinished": 600,
    "result": {"expirationSeconds": 3600, "deletionPolicy": "Retain"},
}
CONDITION: Final = {
    "type": "Finished",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-11-24T08:00:00Z",
    "reason": "Succeeded",
    "message": "",
}
WHOLE_STATUS: Final[Mapping[str, Any]] = {
    "observedGeneration": 1,
    "phase": "CompletedWithErrors",
    "message": "1 of 3 files is missing.",
    "startTime": "2026-11-24T08:00:00Z",
    "completionTime": "2026-11-24T08:01:00Z",
    "progress": {"processed": 3, "total": 3, "bytes": 5_000_000_000_000, "percent": "42%"},
    "queuePosition": 7,
    "eta": "2026-11-24T08:00:50Z",
    "jobId": "52888d96-1374-4e7d-a3b7-8d5793b90221",
    "attempts": 2,
    "workerSeconds": 12,
    "workerBytes": 5_000_000_000_000,
    "worker": "downloadjobs-worker-x7k2p",
    "result": {
        "bucket": "downloads",
        "key": "results/52888d96/1795498075729500.zip",
        "bytes": 5_000_000_000_000,
        "files": 2,
        "failedFiles": 1,
        "expiresAt": "2026-11-25T08:01:00Z",
    },
    "conditions": [CONDITION],
}

OTHER_TYPE: Final = {"object": "text", "array": "text", "string": 5, "integer": "text", "boolean": "text"}
"""For each type, a value that is none."""

CREATE_ANOTHER: Final = "create another DownloadJob"


class Refusal(NamedTuple):
    """A rule, an object that it refuses, and what the API server says then."""

    rule: str
    """A path in the schema and its keyword; of CEL rules that compare with the old object: `immutable`."""

    value: Mapping[str, Any]
    message: str


def spec(**fields: object) -> dict[str, Any]:
    """A spec with these fields beside the ids."""
    return {**IDS, **fields}


def in_condition(**fields: object) -> dict[str, Any]:
    """A status with one condition that differs in these fields; None leaves a field out."""
    changed = {name: value for name, value in {**CONDITION, **fields}.items() if value is not None}
    return {"conditions": [changed]}


def nested(path: str, value: object) -> dict[str, Any]:
    """{"a": {"b": value}} of a.b."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


REFUSED_SPECS: Final = [
    Refusal("spec.fileIds required", {"priority": "low"}, "spec.fileIds: Required value"),
    Refusal("spec.fileIds minItems", {"fileIds": []}, "spec.fileIds in body should have at least 1 items"),
    Refusal(
        "spec.fileIds maxItems",
        {"fileIds": [*range(10000, 11001)]},
        "spec.fileIds: Too many: 1001: must have at most 1000 items",
    ),
    Refusal(
        "spec.fileIds[] minimum",
        {"fileIds": [10000, 9999]},
        "spec.fileIds[1] in body should be greater than or equal to 10000",
    ),
    Refusal(
        "spec.fileIds[] maximum",
        {"fileIds": [100000001]},
        "spec.fileIds[0] in body should be less than or equal to 100000000",
    ),
    Refusal("spec.userId minLength", spec(userId=""), "spec.userId in body should be at least 1 chars long"),
    Refusal(
        "spec.userId maxLength",
        spec(userId="a" * 129),
        "spec.userId: Too long: may not be more than 128 bytes",
    ),
    Refusal("spec.userId pattern", spec(userId="ada,bob"), "spec.userId in body should match"),
    Refusal("spec.userId pattern", spec(userId="ada bob"), "spec.userId in body should match"),
    Refusal("spec.userId pattern", spec(userId="ada\n"), "spec.userId in body should match"),
    Refusal("spec.userId pattern", spec(userId="adà"), "spec.userId in body should match"),
    Refusal(
        "spec.userId cel",
        spec(userId="k8s:team-a"),
        'spec.userId: Invalid value: "object": userId must not begin with k8s:, which names namespaces; '
        "leave userId out",
    ),
    Refusal(
        "spec.priority enum",
        spec(priority="urgent"),
        'spec.priority: Unsupported value: "urgent": supported values: "low", "normal", "high"',
    ),
    Refusal(
        "spec.callbackUrl minLength",
        spec(callbackUrl=""),
        "spec.callbackUrl in body should be at least 1 chars long",
    ),
    Refusal(
        "spec.callbackUrl maxLength",
        spec(callbackUrl="https://" + "a" * 2041),
        "spec.callbackUrl: Too long: may not be more than 2048 bytes",
    ),
    *(
        Refusal("spec.callbackUrl pattern", spec(callbackUrl=url), "spec.callbackUrl in body should match")
        for url in ("http://hooks.example.com", "https://", "https://hooks.example.com/a b", "https://häks")
    ),
    Refusal(
        "spec.backoffLimit minimum",
        spec(backoffLimit=-1),
        "spec.backoffLimit in body should be greater than or equal to 0",
    ),
    Refusal(
        "spec.backoffLimit maximum",
        spec(backoffLimit=20),
        "spec.backoffLimit in body should be less than or equal to 19",
    ),
    Refusal(
        "spec.activeDeadlineSeconds minimum",
        spec(activeDeadlineSeconds=0),
        "spec.activeDeadlineSeconds in body should be greater than or equal to 1",
    ),
    Refusal(
        "spec.activeDeadlineSeconds maximum",
        spec(activeDeadlineSeconds=31536001),
        "spec.activeDeadlineSeconds in body should be less than or equal to 31536000",
    ),
    Refusal(
        "spec.ttlSecondsAfterFinished minimum",
        spec(ttlSecondsAfterFinished=-1),
        "spec.ttlSecondsAfterFinished in body should be greater than or equal to 0",
    ),
    Refusal(
        "spec.ttlSecondsAfterFinished maximum",
        spec(ttlSecondsAfterFinished=31536001),
        "spec.ttlSecondsAfterFinished in body should be less than or equal to 31536000",
    ),
    Refusal(
        "spec.result.expirationSeconds minimum",
        spec(result={"expirationSeconds": 59}),
        "spec.result.expirationSeconds in body should be greater than or equal to 60",
    ),
    Refusal(
        "spec.result.expirationSeconds maximum",
        spec(result={"expirationSeconds": 604801}),
        "spec.result.expirationSeconds in body should be less than or equal to 604800",
    ),
    Refusal(
        "spec.result.deletionPolicy enum",
        spec(result={"deletionPolicy": "Keep"}),
        'spec.result.deletionPolicy: Unsupported value: "Keep": supported values: "Delete", "Retain"',
    ),
]

ACCEPTED_SPECS: Final[Mapping[str, Mapping[str, Any]]] = {
    "one id": IDS,
    "all fields": WHOLE,
    "1,000 ids": {"fileIds": [*range(99_999_001, 100_000_001)]},
    "an id twice": {"fileIds": [10000, 10000]},
    "the longest userId": spec(userId="~" * 128),
    "a userId with signs": spec(userId="!ada@example.org/k8s:x"),
    "the least numbers": spec(
        backoffLimit=0,
        activeDeadlineSeconds=1,
        ttlSecondsAfterFinished=0,
        result={"expirationSeconds": 60, "deletionPolicy": "Delete"},
    ),
    "the greatest numbers": spec(
        backoffLimit=19,
        activeDeadlineSeconds=31536000,
        ttlSecondsAfterFinished=31536000,
        result={"expirationSeconds": 604800},
    ),
    "priority normal": spec(priority="normal"),
    "priority high": spec(priority="high"),
    "cancelled from the start": spec(cancel=True),
    "the longest callbackUrl": spec(callbackUrl="https://" + "a" * 2040),
}

REFUSED_STATUSES: Final = [
    Refusal(
        "status.phase enum",
        {"phase": "Done"},
        'status.phase: Unsupported value: "Done": supported values: "Pending", "Queued", "Processing", '
        '"Retrying", "Completed", "CompletedWithErrors", "Failed", "Cancelled", "Expired"',
    ),
    *(
        Refusal(f"status.{field} format", value, f"{field} in body must be of type date-time")
        for field, value in (
            ("startTime", {"startTime": "yesterday"}),
            ("completionTime", {"completionTime": "2026-11-24"}),
            ("eta", {"eta": "5m"}),
            ("result.expiresAt", {"result": {"expiresAt": "never"}}),
        )
    ),
    *(
        Refusal(
            f"status.{field} maxLength", nested(field, "w" * (most + 1)), f"not be more than {most} bytes"
        )
        for field, most in (("jobId", 253), ("worker", 1_024), ("message", 32_768))
    ),
    Refusal(
        "status.progress.percent maxLength",
        {"progress": {"percent": "9" * 5_000 + "%"}},
        "status.progress.percent: Too long: may not be more than 4 bytes",
    ),
    Refusal(
        "status.progress.percent pattern",
        {"progress": {"percent": "101%"}},
        "progress.percent in body should match",
    ),
    Refusal(
        "status.conditions maxItems",
        {"conditions": [{**CONDITION, "type": f"Type{number}"} for number in range(33)]},
        "status.conditions: Too many: 33: must have at most 32 items",
    ),
    Refusal(
        "status.conditions[] list-map-keys",
        {"conditions": [CONDITION, CONDITION]},
        "status.conditions[1]: Duplicate value",
    ),
    *(
        Refusal(
            f"status.conditions[].{field} required",
            in_condition(**{field: None}),
            f"status.conditions[0].{field}: Required value",
        )
        for field in ("type", "status", "lastTransitionTime", "reason", "message")
    ),
    Refusal(
        "status.conditions[].type maxLength",
        in_condition(type="F" * 317),
        "status.conditions[0].type: Too long: may not be more than 316 bytes",
    ),
    Refusal(
        "status.conditions[].type pattern",
        in_condition(type="all done"),
        "conditions[0].type in body should match",
    ),
    Refusal(
        "status.conditions[].status enum",
        in_condition(status="Yes"),
        'status.conditions[0].status: Unsupported value: "Yes": supported values: "True", "False", "Unknown"',
    ),
    Refusal(
        "status.conditions[].observedGeneration minimum",
        in_condition(observedGeneration=-1),
        "conditions[0].observedGeneration in body should be greater than or equal to 0",
    ),
    Refusal(
        "status.conditions[].lastTransitionTime format",
        in_condition(lastTransitionTime="now"),
        "conditions[0].lastTransitionTime in body must be of type date-time",
    ),
    Refusal(
        "status.conditions[].reason minLength",
        in_condition(reason=""),
        "conditions[0].reason in body should be at least 1 chars long",
    ),
    Refusal(
        "status.conditions[].reason maxLength",
        in_condition(reason="R" * 1025),
        "status.conditions[0].reason: Too long: may not be more than 1024 bytes",
    ),
    Refusal(
        "status.conditions[].reason pattern",
        in_condition(reason="It went well"),
        "conditions[0].reason in body should match",
    ),
    Refusal(
        "status.conditions[].message maxLength",
        in_condition(message="m" * 32769),
        "status.conditions[0].message: Too long: may not be more than 32768 bytes",
    ),
]


class Change(NamedTuple):
    """A spec, a merge patch of it, and what the API server says; nothing, if it is taken."""

    rule: str
    before: Mapping[str, Any]
    patch: Mapping[str, Any]
    message: str = ""


IMMUTABLE: Final = {
    "fileIds": ([10000], [10000, 10001]),
    "userId": ("ada", "bob"),
    "priority": ("low", "normal"),
    "callbackUrl": ("https://a.example.com", "https://b.example.com"),
    "result.expirationSeconds": (60, 61),
}
"""Fields that stay as they were created: two values of each."""


REFUSED_CHANGES: Final = [
    *(
        Change(
            f"spec.{path} immutable",
            spec(**nested(path, first)),
            nested(path, second),
            f"spec.{path}: Forbidden",
        )
        for path, (first, second) in IMMUTABLE.items()
    ),
    # Taking a field away is refused, so that it cannot be set anew by a next request.
    *(
        Change(
            f"spec.{path} immutable",
            spec(**nested(path, first)),
            nested(path, None),
            f"spec.{path}: Forbidden",
        )
        for path, (first, _) in IMMUTABLE.items()
        if path != "fileIds"
    ),
    *(
        Change(f"spec.{path} immutable", IDS, nested(path, first), f"spec.{path}: Forbidden")
        for path, (first, _) in IMMUTABLE.items()
        if path != "fileIds"
    ),
    Change(
        "spec.fileIds immutable", {"fileIds": [10000, 10001]}, {"fileIds": [10001, 10000]}, CREATE_ANOTHER
    ),
    Change("spec.fileIds required", IDS, {"fileIds": None}, "spec.fileIds: Required value"),
    Change(
        "spec.backoffLimit immutable", IDS, {"backoffLimit": 3}, "spec.backoffLimit: Forbidden: backoffLimit"
    ),
    Change("spec.backoffLimit immutable", spec(backoffLimit=3), {"backoffLimit": 4}, CREATE_ANOTHER),
    # Without it, it is the default, which is another one.
    Change(
        "spec.backoffLimit immutable", spec(backoffLimit=3), {"backoffLimit": None}, "(without it, it is 2)"
    ),
    Change(
        "spec.result.expirationSeconds immutable",
        spec(result={"expirationSeconds": 60}),
        {"result": None},
        "spec.result.expirationSeconds: Forbidden",
    ),
    Change(
        "spec.cancel one-way",
        spec(cancel=True),
        {"cancel": False},
        "spec.cancel: Forbidden: cancel cannot be",
    ),
    Change("spec.cancel one-way", spec(cancel=True), {"cancel": None}, CREATE_ANOTHER),
]

ACCEPTED_CHANGES: Final = [
    Change("suspended", IDS, {"suspend": True}),
    Change("resumed", spec(suspend=True), {"suspend": False}),
    Change("resumed by taking suspend away", spec(suspend=True), {"suspend": None}),
    Change("cancelled", IDS, {"cancel": True}),
    Change("cancelled, where it said false", spec(cancel=False), {"cancel": True}),
    Change("cancel: false taken away", spec(cancel=False), {"cancel": None}),
    Change("suspended when cancelled", spec(cancel=True), {"suspend": True}),
    Change("a deadline", IDS, {"activeDeadlineSeconds": 60}),
    Change("another deadline", spec(activeDeadlineSeconds=60), {"activeDeadlineSeconds": 61}),
    Change("no deadline any more", spec(activeDeadlineSeconds=60), {"activeDeadlineSeconds": None}),
    Change("a time to live", IDS, {"ttlSecondsAfterFinished": 60}),
    Change("another time to live", spec(ttlSecondsAfterFinished=60), {"ttlSecondsAfterFinished": 0}),
    Change("no time to live any more", spec(ttlSecondsAfterFinished=60), {"ttlSecondsAfterFinished": None}),
    Change("the result kept", IDS, {"result": {"deletionPolicy": "Retain"}}),
    Change(
        "the result not kept",
        spec(result={"deletionPolicy": "Retain"}),
        {"result": {"deletionPolicy": "Delete"}},
    ),
    Change("no policy any more", spec(result={"deletionPolicy": "Retain"}), {"result": None}),
    Change("the default backoffLimit taken away", spec(backoffLimit=2), {"backoffLimit": None}),
    Change("the defaults said", IDS, {"backoffLimit": 2, "result": {"deletionPolicy": "Delete"}}),
    Change("the same again", WHOLE, WHOLE),
]


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace on a server that knows DownloadJobs."""
    cluster.kubectl("apply", "--server-side", f"--filename={CRD}")
    cluster.kubectl(
        "wait", "--for=condition=Established", "--timeout=30s", f"crd/{DEFINITION['metadata']['name']}"
    )
    with cluster.namespace("schema") as name:
        yield name


def manifest(fields: object, name: str | None = None, **others: object) -> str:
    """A DownloadJob, as JSON, with a name that is new unless it is given."""
    metadata = {"name": name or f"dj-{secrets.token_hex(4)}"}
    head = {"apiVersion": "downloadjobs.dev/v1", "kind": "DownloadJob", "metadata": metadata}
    return json.dumps({**head, "spec": fields, **others})


def create(cluster: Cluster, namespace: str, fields: object = IDS) -> str:
    """Create a DownloadJob; its name."""
    made = cluster.kubectl("create", "-f-", "-n", namespace, "-o", "json", stdin=manifest(fields))
    name: str = json.loads(made.stdout)["metadata"]["name"]
    return name


def patched(cluster: Cluster, namespace: str, name: str, patch: object, *options: str) -> str:
    """Patch a DownloadJob; what the server complains of, or nothing."""
    place = ("patch", "dj", name, "-n", namespace, "--type=merge", f"--patch={json.dumps(patch)}")
    done = cluster.kubectl(*place, *options, check=False)
    assert bool(done.returncode) == bool(done.stderr), done
    return done.stderr


def patched_status(cluster: Cluster, namespace: str, name: str, status: object, *options: str) -> str:
    """Patch a DownloadJob's status; what the server complains of, or nothing."""
    return patched(cluster, namespace, name, {"status": status}, "--subresource=status", *options)


def read(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """A DownloadJob, as it is."""
    return cluster.get_json("dj", name, "-n", namespace)


def nodes(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every part of a schema, by its path; `[]` stands for the items of a list."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


NODES: Final = [node for part in ("spec", "status") for node in nodes(SCHEMA[part], part)]


def at(path: str, value: object) -> object:
    """The value where a path leads to, below `spec` or `status`; a list has it as its only item."""
    for name in reversed(path.split(".")[1:]):
        for _ in range(name.count("[]")):
            value = [value]
        value = {name.removesuffix("[]"): value}
    return value


@pytest.mark.parametrize("case", REFUSED_SPECS, ids=lambda case: case.rule)
def test_a_spec_is_refused(cluster: Cluster, namespace: str, case: Refusal) -> None:
    """What a rule of the spec does not allow cannot be created; the answer names the field and the rule."""
    refused = cluster.kubectl(
        "create", "-f-", "-n", namespace, "--dry-run=server", stdin=manifest(case.value), check=False
    )
    assert refused.returncode
    assert case.message in refused.stderr


@pytest.mark.parametrize("name", ACCEPTED_SPECS)
def test_a_spec_is_accepted(cluster: Cluster, namespace: str, name: str) -> None:
    """What stands at the edge of the rules can be created, and stays as it was written."""
    asked = ACCEPTED_SPECS[name]
    made = read(cluster, namespace, create(cluster, namespace, asked))["spec"]
    assert {**made, **asked, "result": made["result"] | asked.get("result", {})} == made


def test_defaults(cluster: Cluster, namespace: str) -> None:
    """Unsaid, backoffLimit is 2 and a result goes with its object; nothing else is filled in."""
    made = read(cluster, namespace, create(cluster, namespace))
    assert made["spec"] == {**IDS, "backoffLimit": 2, "result": {"deletionPolicy": "Delete"}}
    partly = read(cluster, namespace, create(cluster, namespace, spec(result={"expirationSeconds": 60})))
    assert partly["spec"]["result"] == {"expirationSeconds": 60, "deletionPolicy": "Delete"}


def test_spec_is_required(cluster: Cluster, namespace: str) -> None:
    """There is no DownloadJob without a spec, and it cannot be taken away."""
    bare = json.loads(manifest(IDS))
    del bare["spec"]
    refused = cluster.kubectl("create", "-f-", "-n", namespace, stdin=json.dumps(bare), check=False)
    assert "spec: Required value" in refused.stderr
    name = create(cluster, namespace)
    assert "spec: Required value" in patched(cluster, namespace, name, {"spec": None})


@pytest.mark.parametrize(("path", "schema"), NODES, ids=[path for path, _ in NODES])
def test_a_type_is_kept(cluster: Cluster, namespace: str, path: str, schema: Mapping[str, Any]) -> None:
    """Each field takes values of its type only."""
    part, value = path.partition(".")[0].removesuffix("[]"), at(path, OTHER_TYPE[schema["type"]])
    name = create(cluster, namespace)
    options = ["--subresource=status"] if part == "status" else []
    complaint = patched(cluster, namespace, name, {part: value}, *options)
    assert f"{path.replace('[]', '[0]')}: Invalid value" in complaint
    expected = "date-time" if schema.get("format") == "date-time" else schema["type"]
    assert f"must be of type {expected}" in complaint


def test_an_integer_is_whole(cluster: Cluster, namespace: str) -> None:
    """A number with a fraction is no id."""
    refused = cluster.kubectl(
        "create", "-f-", "-n", namespace, stdin=manifest({"fileIds": [10000.5]}), check=False
    )
    assert "spec.fileIds[0] in body must be of type integer" in refused.stderr


@pytest.mark.parametrize("field", ["spec.fileIDs", "spec.result.expiry", "spec.callbackURL", "spec.status"])
def test_unknown_fields_are_refused_by_kubectl(cluster: Cluster, namespace: str, field: str) -> None:
    """A misspelt field is refused, as kubectl asks for it by default."""
    value = at(field, "x")
    assert isinstance(value, dict)
    refused = cluster.kubectl("create", "-f-", "-n", namespace, stdin=manifest(IDS | value), check=False)
    assert f'unknown field "{field}"' in refused.stderr


def test_unknown_fields_are_not_kept(cluster: Cluster, namespace: str) -> None:
    """A field that the schema does not know is dropped where a client does not ask for strictness."""
    text = manifest(spec(surprise=1, result={"surprise": {"deep": True}}))
    made = json.loads(
        cluster.kubectl(
            "create", "-f-", "-n", namespace, "--validate=ignore", "-o", "json", stdin=text
        ).stdout
    )
    assert "surprise" not in json.dumps(made["spec"])


@pytest.mark.parametrize("case", REFUSED_CHANGES, ids=lambda case: f"{case.rule} {json.dumps(case.patch)}")
def test_a_change_is_refused(cluster: Cluster, namespace: str, case: Change) -> None:
    """What stands from the creation on is neither changed, nor removed, nor added; the answer says so."""
    name = create(cluster, namespace, case.before)
    before = read(cluster, namespace, name)
    complaint = patched(cluster, namespace, name, {"spec": case.patch})
    assert case.message in complaint
    assert read(cluster, namespace, name) == before


@pytest.mark.parametrize("case", ACCEPTED_CHANGES, ids=lambda case: case.rule)
def test_a_change_is_accepted(cluster: Cluster, namespace: str, case: Change) -> None:
    """One can suspend, resume and cancel, and change deadline, time to live and deletion policy."""
    name = create(cluster, namespace, case.before)
    assert patched(cluster, namespace, name, {"spec": case.patch}) == ""
    made = read(cluster, namespace, name)["spec"]
    for field, value in case.patch.items():
        if isinstance(value, dict):
            assert value.items() <= made[field].items()
        elif value is not None:
            assert made[field] == value


@pytest.mark.parametrize("path", IMMUTABLE)
def test_a_message_says_what_to_do(cluster: Cluster, namespace: str, path: str) -> None:
    """Whoever may not change a field hears that another DownloadJob is the way, and by which field's rule."""
    first, second = IMMUTABLE[path]
    name = create(cluster, namespace, spec(**nested(path, first)))
    complaint = patched(cluster, namespace, name, {"spec": nested(path, second)})
    assert f"spec.{path}: Forbidden: {path} cannot be " in complaint
    assert "create another" in complaint


@pytest.mark.parametrize("path", [path for path in IMMUTABLE if path != "fileIds"])
def test_a_field_is_not_removed_and_set_anew(cluster: Cluster, namespace: str, path: str) -> None:
    """Two requests cannot do together what one may not: remove the field, then set it to another value."""
    first, second = IMMUTABLE[path]
    name = create(cluster, namespace, spec(**nested(path, first)))
    pointer = "/spec/" + path.replace(".", "/")
    for steps in (
        [{"op": "remove", "path": pointer}],
        [{"op": "add", "path": pointer, "value": second}],
        [{"op": "remove", "path": pointer}, {"op": "add", "path": pointer, "value": second}],
    ):
        patch = ("patch", "dj", name, "-n", namespace, "--type=json", f"--patch={json.dumps(steps)}")
        assert f"spec.{path}: Forbidden" in cluster.kubectl(*patch, check=False).stderr


@pytest.mark.parametrize("side", ["client", "server"])
def test_apply_without_user_id_is_refused(cluster: Cluster, namespace: str, side: str) -> None:
    """A manifest that lost its userId cannot be applied over one that had it."""
    name = f"apply-{side}"
    apply = ("apply", "-f-", "-n", namespace, f"--server-side={'true' if side == 'server' else 'false'}")
    cluster.kubectl(*apply, stdin=manifest(spec(userId="ada"), name))
    assert "spec.userId: Forbidden" in cluster.kubectl(*apply, stdin=manifest(IDS, name), check=False).stderr


@pytest.mark.parametrize("side", ["client", "server"])
def test_apply_again_changes_nothing(cluster: Cluster, namespace: str, side: str) -> None:
    """A manifest applied again makes no new generation and differs in nothing, for all the defaults."""
    name = f"again-{side}"
    flag = f"--server-side={'true' if side == 'server' else 'false'}"
    text = manifest(spec(result={"expirationSeconds": 60}), name)
    for _ in range(2):
        cluster.kubectl("apply", "-f-", "-n", namespace, flag, stdin=text)
    assert read(cluster, namespace, name)["metadata"]["generation"] == 1
    assert cluster.kubectl("diff", "-f-", "-n", namespace, flag, stdin=text, check=False).stdout == ""


@pytest.mark.parametrize("side", ["client", "server"])
def test_apply_leaves_a_cancel_alone(cluster: Cluster, namespace: str, side: str) -> None:
    """A job that somebody cancelled stays so when its manifest, silent on it, is applied again."""
    name = f"cancel-{side}"
    apply = ("apply", "-f-", "-n", namespace, f"--server-side={'true' if side == 'server' else 'false'}")
    cluster.kubectl(*apply, stdin=manifest(IDS, name))
    assert patched(cluster, namespace, name, {"spec": {"cancel": True}}) == ""
    cluster.kubectl(*apply, stdin=manifest(IDS, name))
    assert read(cluster, namespace, name)["spec"]["cancel"] is True


def test_rules_bear_the_largest_object(cluster: Cluster, namespace: str) -> None:
    """With 1,000 ids the rules are within the API server's budget, and find the one id that differs."""
    ids = [*range(99_999_001, 100_000_001)]
    name = create(cluster, namespace, {**WHOLE, "fileIds": ids, "userId": "u" * 128})
    assert patched(cluster, namespace, name, {"spec": {"suspend": False}}) == ""
    complaint = patched(cluster, namespace, name, {"spec": {"fileIds": [*ids[:-1], 10000]}})
    assert "spec.fileIds: Forbidden" in complaint


def test_samples_can_be_applied(cluster: Cluster, namespace: str) -> None:
    """`kubectl apply -f manifests/samples/` takes all of them in a new namespace, and again in the same."""
    assert namespace  # the resource is there
    with cluster.namespace("samples") as fresh:
        apply = ("apply", f"--filename={ROOT / 'manifests' / 'samples'}", "-n", fresh)
        assert cluster.kubectl(*apply).stdout.count(" created\n") == 5
        assert cluster.kubectl(*apply).stdout.count(" unchanged\n") == 5


def test_a_name_may_be_a_uuid(cluster: Cluster, namespace: str) -> None:
    """An object's name may be the id of a job that came by REST."""
    name = "0d4a8f6b-6f0e-4a53-9f0c-7e112f1c8a52"
    cluster.kubectl("create", "-f-", "-n", namespace, stdin=manifest(IDS, name))
    assert read(cluster, namespace, name)["metadata"]["name"] == name


@pytest.mark.parametrize("case", REFUSED_STATUSES, ids=lambda case: case.rule)
def test_a_status_is_refused(cluster: Cluster, namespace: str, case: Refusal) -> None:
    """What a rule of the status does not allow cannot be written there."""
    name = create(cluster, namespace)
    assert case.message in patched_status(cluster, namespace, name, case.value)


def test_a_whole_status_is_kept(cluster: Cluster, namespace: str) -> None:
    """Every field of the status is kept as it is written, and the spec stays as it was."""
    name = create(cluster, namespace)
    before = read(cluster, namespace, name)
    assert patched_status(cluster, namespace, name, WHOLE_STATUS) == ""
    after = read(cluster, namespace, name)
    assert after["status"] == WHOLE_STATUS
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], 1)
    told = {path for path, _ in nodes(SCHEMA["status"], "status")}
    assert told == {path for path, _ in _shape(after["status"], "status")}


def _shape(value: object, path: str) -> Iterator[tuple[str, object]]:
    yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _shape(inner, f"{path}.{name}")
    if isinstance(value, list):
        for inner in value:
            yield from _shape(inner, f"{path}[]")


@pytest.mark.parametrize("phase", SCHEMA["status"]["properties"]["phase"]["enum"])
def test_a_phase_is_accepted(cluster: Cluster, namespace: str, phase: str) -> None:
    """Each phase can be written."""
    assert patched_status(cluster, namespace, create(cluster, namespace), {"phase": phase}) == ""


def test_bounds_of_a_status_are_wide(cluster: Cluster, namespace: str) -> None:
    """What the operator counts and quotes is taken, up to where it cuts: a refused one helps nobody."""
    most = 2**63 - 1
    status = {
        "message": "m" * 32_768,
        "worker": "w" * 1_024,
        "attempts": most,
        "queuePosition": 0,
        "progress": {"processed": most, "total": most, "bytes": most, "percent": "100%"},
        "result": {"key": "k" * 2_000, "bytes": most},
    }
    name = create(cluster, namespace)
    assert patched_status(cluster, namespace, name, status) == ""
    assert read(cluster, namespace, name)["status"] == status


def test_status_is_written_by_its_own_way_only(cluster: Cluster, namespace: str) -> None:
    """A status in a manifest or in a common patch is ignored, and a patch of the status changes no spec."""
    text = manifest(IDS, "own-way", status={"phase": "Completed"})
    cluster.kubectl("create", "-f-", "-n", namespace, stdin=text)
    assert patched(cluster, namespace, "own-way", {"status": {"phase": "Completed"}}) == ""
    both = {"spec": {"suspend": True}, "status": {"phase": "Queued"}}
    assert patched(cluster, namespace, "own-way", both, "--subresource=status") == ""
    made = read(cluster, namespace, "own-way")
    assert made["status"] == {"phase": "Queued"}
    assert "suspend" not in made["spec"]


def test_a_refused_spec_hinders_no_status(cluster: Cluster, namespace: str) -> None:
    """Rules of the spec do not stand in the way of a status."""
    name = create(cluster, namespace, {**WHOLE, "cancel": True})
    assert patched_status(cluster, namespace, name, {"phase": "Cancelled"}) == ""


def columns(text: str) -> list[str]:
    """The cells of a line that kubectl prints, which stand three spaces apart."""
    return [cell.strip() for cell in text.split("   ") if cell.strip()]


@pytest.mark.parametrize(
    "resource", ["dj", "djob", "downloadjob", "downloadjobs", "downloadjobs.downloadjobs.dev"]
)
def test_names_of_the_resource(cluster: Cluster, namespace: str, resource: str) -> None:
    """The resource goes by its names, short and long."""
    cluster.kubectl("get", resource, "-n", namespace)


def test_get_all_shows_download_jobs(cluster: Cluster, namespace: str) -> None:
    """`kubectl get all` shows DownloadJobs too."""
    name = create(cluster, namespace)
    assert f"/{name} " in cluster.kubectl("get", "all", "-n", namespace).stdout


def test_columns(cluster: Cluster, namespace: str) -> None:
    """`kubectl get dj` tells phase, progress, files, attempts and age; `-o wide` more."""
    name = create(cluster, namespace)
    assert patched_status(cluster, namespace, name, WHOLE_STATUS) == ""
    head, line = map(columns, cluster.kubectl("get", "dj", name, "-n", namespace).stdout.splitlines())
    assert head == ["NAME", "PHASE", "PROGRESS", "FILES", "ATTEMPTS", "AGE"]
    assert line[:-1] == [name, "CompletedWithErrors", "42%", "3", "2"]
    head, line = map(
        columns, cluster.kubectl("get", "dj", name, "-n", namespace, "-owide").stdout.splitlines()
    )
    assert head[5:] == ["AGE", "WORKER", "QUEUE POSITION", "MESSAGE"]
    assert line[6:] == ["downloadjobs-worker-x7k2p", "7", "1 of 3 files is missing."]


def test_field_selector(cluster: Cluster) -> None:
    """`kubectl get dj --field-selector status.phase=Completed` finds those, and only those."""
    with cluster.namespace("selector") as namespace:
        done, waiting = create(cluster, namespace), create(cluster, namespace)
        assert patched_status(cluster, namespace, done, {"phase": "Completed"}) == ""
        assert patched_status(cluster, namespace, waiting, {"phase": "Queued"}) == ""
        create(cluster, namespace)
        for selector, names in (
            ("status.phase=Completed", [f"downloadjob.downloadjobs.dev/{done}"]),
            ("status.phase=Failed", []),
        ):
            found = cluster.kubectl("get", "dj", "-n", namespace, f"--field-selector={selector}", "-oname")
            assert found.stdout.split() == names


@pytest.mark.parametrize("part", ["spec", "spec.result", "status", "status.progress", "status.result"])
def test_explain(cluster: Cluster, namespace: str, part: str) -> None:
    """`kubectl explain` says something about every field."""
    assert namespace  # the resource is there
    schema = dict(NODES)[part]
    told = cluster.kubectl("explain", f"dj.{part}").stdout
    assert " ".join(schema["description"].split()) in " ".join(told.split())
    fields = told.partition("FIELDS:")[2]
    for name, field in schema["properties"].items():
        assert f"  {name}\t" in fields
        assert " ".join(field["description"].split()) in " ".join(fields.split())


def test_every_rule_has_an_object_that_it_refuses() -> None:
    """The tables above have a case for each rule of the schema; types have a test of their own."""
    tried = {case.rule for case in REFUSED_SPECS + REFUSED_STATUSES} | {case.rule for case in REFUSED_CHANGES}
    rules = set()
    for path, schema in NODES:
        for keyword in set(schema) & {
            "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength", "pattern", "enum",
        }:  # fmt: skip
            rules.add(f"{path} {keyword}")
        if schema.get("format") == "date-time":
            rules.add(f"{path} format")
        rules |= {f"{path}.{name} required" for name in schema.get("required", [])}
        if "x-kubernetes-list-map-keys" in schema:
            rules.add(f"{path}[] list-map-keys")
        for rule in schema.get("x-kubernetes-validations", []):
            kind = "cel" if "oldSelf" not in rule["rule"] else "immutable"
            kind = "one-way" if rule["fieldPath"] == ".cancel" else kind
            rules.add(f"{path}{rule['fieldPath']} {kind}")
    assert tried == rules
