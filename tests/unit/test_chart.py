"""The chart's switches: what each adds, leaves out, or refuses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

import support_chart
from support_chart import CHART, ROOT

EXTERNAL: Final[dict[str, Any]] = {
    "bundled": {"redis": {"enabled": False}, "objectStore": {"enabled": False}},
    "external": {"redis": {"host": "redis.example.com"}, "s3": {"bucket": "films"}},
}

BUNDLED: Final[dict[str, Any]] = {
    "bundled": {
        "redis": {"existingSecret": "redis"},
        "objectStore": {"workerSecret": "s3-worker", "apiSecret": "s3-api"},
    }
}

FREE: Final = {"DOWNLOADJOBS_API", "ENVIRONMENT"}
"""Variables that are no process' settings, or not the chart's own."""

INGRESS: Final = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Values of Helm, later ones over earlier ones."""
    result = dict(base)
    for name, value in more.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if both else value
    return result


def render(values: Mapping[str, Any], base: Mapping[str, Any] = EXTERNAL) -> subprocess.CompletedProcess[str]:
    """What Helm says with some values, over those of servers outside or of bundled ones."""
    return support_chart.render(values=merged(base, values))


def rendered(
    values: Mapping[str, Any] | None = None, base: Mapping[str, Any] = EXTERNAL
) -> list[dict[str, Any]]:
    """The objects that the chart renders then."""
    return support_chart.rendered(values=merged(base, values or {}))


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """One object, which must be there."""
    (found,) = (one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def kinds(objects: list[dict[str, Any]]) -> set[str]:
    """What kinds there are."""
    return {one["kind"] for one in objects}


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The specs of all pods, by component."""
    found = {}
    for one in objects:
        if one["kind"] in {"Deployment", "Job"}:
            labels, spec = one["spec"]["template"]["metadata"]["labels"], one["spec"]["template"]["spec"]
            found[labels["app.kubernetes.io/component"]] = spec
        elif one["kind"] == "Pod":
            found[one["metadata"]["labels"]["app.kubernetes.io/component"]] = one["spec"]
    return found


# Values.


def test_schema_and_reference_are_those_of_the_values(tmp_path: Path) -> None:
    """`make values` gives what is committed."""
    command = [sys.executable, str(ROOT / "charts" / "values_reference.py"), str(tmp_path), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    for made, kept in (("values.schema.json", CHART), ("values.md", ROOT / "docs")):
        assert (tmp_path / made).read_text(encoding="utf-8") == (kept / made).read_text(encoding="utf-8")


def test_the_reference_tells_what_each_value_is() -> None:
    """No value of the reference is without a word, but for alerts, whose names are their pages'."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| .* \| (.*) \|$", (ROOT / "docs" / "values.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 200
    assert {path for path, meaning in rows if not meaning.strip() and ".thresholds." not in path} == set()


def test_defaults_obey_the_schema() -> None:
    """What the chart itself says is valid, with bundled servers and with others."""
    assert rendered()
    assert rendered(base=BUNDLED)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wroker": {}}, "'wroker' not allowed"),
        ({"worker": {"autoscaling": {"maximum": 3}}}, "'maximum' not allowed"),
        ({"worker": {"autoscaling": {"max": 0}}}, "/worker/autoscaling/max"),
        ({"worker": {"concurrency": 65}}, "/worker/concurrency"),
        ({"image": {"tag": 1.0}}, "/image/tag"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"api": {"image": {"digest": "abc"}}}, "/api/image/digest"),
        ({"api": {"podDisruptionBudget": {"maxUnavailable": "some"}}}, "maxUnavailable"),
        ({"operator": {"mirrorApiJobs": "some"}}, "/operator/mirrorApiJobs"),
        ({"external": {"redis": {"port": 0}}}, "/external/redis/port"),
        ({"networkPolicy": {"s3Ports": []}}, "/networkPolicy/s3Ports"),
        ({"tests": {"fileIds": [5]}}, "/tests/fileIds"),
        ({"external": {"s3": {"endpoint": "s3.example.com"}}}, "/external/s3/endpoint"),
        ({"external": {"s3": {"publicEndpoint": "https://s3.example.com/films"}}}, "publicEndpoint"),
        ({"external": {"s3": {"bucket": "s3://films"}}}, "/external/s3/bucket"),
        ({"bundled": {"objectStore": {"publicEndpoint": "localhost:8333"}}}, "publicEndpoint"),
        ({"external": {"redis": {"host": "redis://redis.example.com"}}}, "/external/redis/host"),
        ({"external": {"redis": {"host": "redis.example.com:6379"}}}, "/external/redis/host"),
        ({"worker": {"podSecurityContext": {"runAsUser": 0}}}, "/worker/podSecurityContext/runAsUser"),
        ({"api": {"trustedProxies": ["foo"]}}, "/api/trustedProxies"),
        ({"api": {"ingress": {"hosts": ["https://a.b"]}}}, "/api/ingress/hosts"),
        ({"api": {"httpRoute": {"hostnames": ["a.b:443"]}}}, "/api/httpRoute/hostnames"),
        ({"bundled": {"redis": {"persistence": {"size": "4GB"}}}}, "/bundled/redis/persistence/size"),
        ({"worker": {"rollout": {"maxSurge": "some"}}}, "/worker/rollout/maxSurge"),
        ({"bundled": {"redis": {"maxMemory": "384Mi"}}}, "/bundled/redis/maxMemory"),
        ({"worker": {"podAnnotations": {"x": 2}}}, "/worker/podAnnotations/x"),
        ({"api": {"podLabels": {"x": True}}}, "/api/podLabels/x"),
        ({"operator": {"serviceAccount": {"annotations": {"x": 2}}}}, "/serviceAccount/annotations/x"),
        ({"monitoring": {"dashboard": {"labels": {"x": 1}}}}, "/monitoring/dashboard/labels/x"),
        ({"bundled": {"redis": {"nodeSelector": {"x": False}}}}, "/bundled/redis/nodeSelector/x"),
    ],
)
def test_the_schema_refuses(values: dict[str, Any], message: str) -> None:
    """A slip of the finger, a wrong type and a number out of bounds are refused."""
    done = render(values)
    assert done.returncode
    assert message in done.stderr


@pytest.mark.parametrize("host", ["redis", "redis.example.com", "10.0.0.1", "fd00::1"])
def test_hosts_of_all_kinds_are_taken(host: str) -> None:
    """A name, and addresses of both kinds, are hosts."""
    assert rendered({"external": {"redis": {"host": host}}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"settings": {"S3_BUCKET_NAME": "b"}},
            "settings.S3_BUCKET_NAME is set by the chart: use external.s3.bucket",
        ),
        (
            {"api": {"settings": {"REDIS_URL": "r"}}},
            "api.settings.REDIS_URL is set by the chart: use external",
        ),
        (
            {"worker": {"settings": {"POD_UID": "u"}}},
            "worker.settings.POD_UID is set by the chart: leave it out",
        ),
        (
            {"operator": {"settings": {"WATCH_NAMESPACES": "a"}}},
            "operator.settings.WATCH_NAMESPACES is set by the chart: use operator.watchNamespaces",
        ),
        (
            {"worker": {"extraEnv": [{"name": "S3_ENDPOINT", "value": "e"}]}},
            "worker.extraEnv.S3_ENDPOINT is set by the chart: use external.s3.endpoint",
        ),
        ({"external": {"s3": {"workerSecret": "s"}}}, "give both external.s3.workerSecret and"),
        (
            {"monitoring": {"prometheusRule": {"disabled": ["typo"]}}},
            "monitoring.prometheusRule.disabled names the alert typo",
        ),
        ({"api": {"metricsPort": 3000}}, "api.metricsPort must not be 3000"),
        (
            {"worker": {"podDisruptionBudget": {"maxUnavailable": 0}}},
            "worker.podDisruptionBudget.maxUnavailable must not be 0",
        ),
        (
            {"worker": {"rollout": {"maxSurge": 0, "maxUnavailable": "0%"}}},
            "must not both be 0",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, Any], message: str) -> None:
    """The chart names the value that is wrong, and what to say instead."""
    done = render(values)
    assert done.returncode
    assert message in done.stderr


def test_every_variable_of_the_chart_is_refused_as_a_setting() -> None:
    """Whatever a pod gets from the chart, a setting of that name would stand there twice, or be dropped."""
    everything: dict[str, Any] = {
        "operator": {
            "userIdNamespaces": ["a"],
            "mirrorApiJobs": "all",
            "mirrorNamespace": "m",
            "peering": {"enabled": True},
        },
        "external": {
            "redis": {"username": "u", "tls": True, "existingSecret": "s", "caSecret": "c"},
            "s3": {
                "endpoint": "https://s3",
                "publicEndpoint": "https://s3",
                "region": "r",
                "resultsBucket": "b",
                "forcePathStyle": True,
                "caSecret": "c",
                "workerSecret": "w",
                "apiSecret": "a",
            },
        },
    }
    sentinel = {"external": {"redis": {"host": "", "sentinels": ["s:1"], "sentinelMaster": "m"}}}
    url = {"external": {"redis": {"host": "", "existingSecret": "s", "urlKey": "url"}}}
    found = {
        (component, variable["name"])
        for values in (everything, sentinel, url)
        for component, spec in pods(rendered(values)).items()
        if component in {"api", "worker", "operator"}
        for variable in spec["containers"][0]["env"]
    } - {(component, name) for component in ("api", "worker", "operator") for name in FREE}
    assert len(found) > 40
    settings: dict[str, Any] = {}
    for component, name in found:
        settings.setdefault(component, {"settings": {}})["settings"][name] = "x"
    said = render(settings).stderr
    for component, name in found:
        assert f"{component}.settings.{name} is set by the chart" in said, name


def test_all_faults_are_told_at_once() -> None:
    """Whoever has made several mistakes need not find them one by one, with or without a cluster."""
    done = support_chart.render(
        "external.redis.host=redis", "worker.autoscaling.min=11", "settings.PORT=1", values={}
    )
    assert done.returncode
    assert "4 of the values cannot be meant:" in done.stderr
    for words in (
        "say bundled.redis.enabled=false",
        "worker.autoscaling.min must",
        "settings.PORT",
        "Secrets",
    ):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("memory", "limit", "good"),
    [
        ("384mb", "768Mi", True),
        ("768mb", "768Mi", False),
        ("1gb", "768Mi", False),
        ("1gb", "1.5Gi", True),
        ("402653184", "384Mi", False),
    ],
)
def test_redis_is_full_before_it_is_killed(memory: str, limit: str, good: bool) -> None:  # noqa: FBT001
    """The bundled Redis may hold less than its container: else it is killed, where it should refuse."""
    redis = {"maxMemory": memory, "resources": {"limits": {"memory": limit}}}
    done = render({"bundled": {"redis": redis}}, BUNDLED)
    assert (done.returncode == 0) is good
    if not good:
        assert f"bundled.redis.maxMemory ({memory}) must be well below" in done.stderr


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("redis", {"external": {"redis": {"existingSecret": "try-downloadjobs-redis"}}}),
        ("s3-api", {"external": {"s3": {"workerSecret": "w", "apiSecret": "try-downloadjobs-s3-api"}}}),
    ],
)
def test_an_upgrade_would_delete_its_own_secrets(name: str, values: dict[str, Any]) -> None:
    """Helm deletes what the chart has made and makes no more: a Secret of that name would be gone."""
    assert rendered(values)
    done = support_chart.render(values=merged(EXTERNAL, values), upgrade=True)
    assert done.returncode
    assert f"names try-downloadjobs-{name}, which is what the chart calls a Secret" in done.stderr
    assert f"such as my-{name}" in done.stderr


def test_other_settings_and_globals_are_free() -> None:
    """Settings are the processes' own to check; `global` belongs to all charts."""
    assert rendered({"settings": {"LOG_LEVEL": "debug"}, "global": {"another": 1}})


def test_images_come_from_another_registry() -> None:
    """`global.imageRegistry` goes before every image; `image.registry` wins; a digest is for a tag."""
    digest = f"sha256:{'0' * 64}"
    values: dict[str, Any] = {
        "global": {"imageRegistry": "mirror.example.com/all/", "imagePullSecrets": [{"name": "key"}]}
    }
    for spec in pods(rendered(values, BUNDLED)).values():
        assert spec["containers"][0]["image"].startswith("mirror.example.com/all/")
        assert spec["imagePullSecrets"] == [{"name": "key"}]
    values |= {"image": {"registry": "own.example.com"}, "worker": {"image": {"digest": digest}}}
    assert pods(rendered(values))["worker"]["containers"][0]["image"] == (
        f"own.example.com/downloadjobs/worker@{digest}"
    )


# Pods.


@pytest.mark.parametrize("store", ["seaweedfs", "minio"])
def test_all_pods_are_restricted(store: str) -> None:
    """Every pod, also of the test and of Jobs, obeys the Pod Security profile `restricted`."""
    found = pods(rendered({"bundled": {"objectStore": {"kind": store}}}, BUNDLED))
    assert set(found) == {"api", "worker", "operator", "redis", "s3", "test"} | (
        {"setup"} if store == "minio" else set()
    )
    for component, spec in found.items():
        assert spec["securityContext"]["runAsNonRoot"] is True, component
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is (component == "operator")
        assert spec["enableServiceLinks"] is False
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize(
    ("limit", "heap", "uploads"),
    [
        ("1Gi", "716MiB", 64),
        ("1.5Gi", "1075MiB", 96),
        ("2000M", "1335MiB", 119),
        ("524288Ki", "358MiB", 32),
        (1073741824, "716MiB", 64),
        ("1e9", "667MiB", 59),
        ("64Mi", "44MiB", 8),
    ],
)
def test_the_bundled_store_keeps_within_its_memory(limit: str | int, heap: str, uploads: int) -> None:
    """Whatever unit its limit has: the heap gets 70 % of it, and parts under way a sixteenth, or one part."""
    values = {"bundled": {"objectStore": {"resources": {"limits": {"memory": limit}}}}}
    container = pods(rendered(values, BUNDLED))["s3"]["containers"][0]
    assert {"name": "GOMEMLIMIT", "value": heap} in container["env"]
    assert f" -s3.concurrentUploadLimitMB={uploads}\n" in container["args"][0]
    minio = merged(values, {"bundled": {"objectStore": {"kind": "minio"}}})
    assert {"name": "GOMEMLIMIT", "value": heap} in pods(rendered(minio, BUNDLED))["s3"]["containers"][0][
        "env"
    ]


@pytest.mark.parametrize("resources", [None, {"limits": None}, {"limits": {"memory": "512m"}}])
def test_without_a_limit_the_bundled_store_has_no_bounds(resources: dict[str, Any] | None) -> None:
    """What cannot be read as memory bounds nothing, rather than everything."""
    container = pods(rendered({"bundled": {"objectStore": {"resources": resources}}}, BUNDLED))["s3"][
        "containers"
    ][0]
    assert "GOMEMLIMIT" not in {one["name"] for one in container["env"]}
    assert "concurrentUploadLimitMB" not in container["args"][0]


@pytest.mark.parametrize("component", ["api", "worker", "operator"])
def test_pods_take_more(component: str) -> None:
    """A pod's place, priority, labels, variables and volumes are the installer's to add."""
    more: dict[str, Any] = {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "podLabels": {"team": "films", "app.kubernetes.io/component": "not this"},
        "podAnnotations": {"note": "n"},
        "extraEnv": [{"name": "EXTRA", "value": "1"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    }
    template = named(rendered({component: more}), "Deployment", f"try-downloadjobs-{component}")["spec"][
        "template"
    ]
    labels, spec = template["metadata"]["labels"], template["spec"]
    assert (labels["team"], labels["app.kubernetes.io/component"]) == ("films", component)
    assert template["metadata"]["annotations"]["note"] == "n"
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[name] == more[name]
    (container,) = spec["containers"]
    assert more["extraEnv"][0] in container["env"]
    assert container["envFrom"] == more["extraEnvFrom"]
    assert more["extraVolumes"][0] in spec["volumes"]
    assert more["extraVolumeMounts"][0] in container["volumeMounts"]


@pytest.mark.parametrize("component", ["api", "worker"])
def test_replicas_are_spread(component: str) -> None:
    """Pods of one kind go to different zones and nodes, where that can be; values may say otherwise."""
    keys = [one["topologyKey"] for one in pods(rendered())[component]["topologySpreadConstraints"]]
    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    own = [{"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]
    assert (
        pods(rendered({component: {"topologySpreadConstraints": own}}))[component][
            "topologySpreadConstraints"
        ]
        == own
    )


def test_a_wrong_image_takes_nobody_away() -> None:
    """Of API and operator a new pod is ready before the old one goes; of workers, all but a quarter go on."""
    objects = rendered()
    for component, unavailable in (("api", 0), ("operator", 0), ("worker", "25%")):
        strategy = named(objects, "Deployment", f"try-downloadjobs-{component}")["spec"]["strategy"]
        assert strategy["type"] == "RollingUpdate"
        assert strategy["rollingUpdate"]["maxUnavailable"] == unavailable
    own = {"maxSurge": 2, "maxUnavailable": 1}
    worker = named(rendered({"worker": {"rollout": own}}), "Deployment", "try-downloadjobs-worker")
    assert worker["spec"]["strategy"]["rollingUpdate"] == own


def test_the_operator_watches_its_own_namespace_wherever_it_is() -> None:
    """Without more it watches the namespace it stands in; else those that are named, and no other."""

    def watched(**operator: object) -> dict[str, Any]:
        (found,) = (
            one
            for one in pods(rendered({"operator": operator}))["operator"]["containers"][0]["env"]
            if one["name"] == "WATCH_NAMESPACES"
        )
        return dict(found)

    assert watched()["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    assert watched(watchNamespaces=["b", "a", "b"])["value"] == "b,a"
    assert watched(clusterWide=True)["value"] == "*"


def test_drains_take_a_few_pods_at_once() -> None:
    """API and workers have disruption budgets; a single API pod has none, or no node could be drained."""
    objects = rendered()
    assert {one["metadata"]["name"] for one in objects if one["kind"] == "PodDisruptionBudget"} == {
        "try-downloadjobs-api",
        "try-downloadjobs-worker",
    }
    alone = rendered({"api": {"replicas": 1}, "worker": {"podDisruptionBudget": {"enabled": False}}})
    assert "PodDisruptionBudget" not in kinds(alone)


def test_the_api_scales_by_cpu() -> None:
    """With an HPA the chart renders no replicas of the API; bounds in the wrong order are refused."""
    objects = rendered({"api": {"autoscaling": {"enabled": True, "maxReplicas": 9}}})
    hpa = named(objects, "HorizontalPodAutoscaler", "try-downloadjobs-api")
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (2, 9)
    assert "replicas" not in named(objects, "Deployment", "try-downloadjobs-api")["spec"]
    done = render({"api": {"autoscaling": {"enabled": True, "minReplicas": 9}}})
    assert "minReplicas must not be above" in done.stderr


# Ways in.


def test_an_ingress() -> None:
    """An Ingress leads all of a host, or a part of it, to the API."""
    ingress = {
        "enabled": True,
        "className": "nginx",
        "hosts": ["downloads.example.com"],
        "annotations": {"a": "b"},
        "tls": [{"secretName": "tls", "hosts": ["downloads.example.com"]}],
    }
    objects = rendered({"api": {"ingress": ingress}, "networkPolicy": {"apiFrom": INGRESS}})
    spec = named(objects, "Ingress", "try-downloadjobs-api")["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == ingress["tls"]
    (rule,) = spec["rules"]
    assert rule["host"] == "downloads.example.com"
    (path,) = rule["http"]["paths"]
    assert path["path"] == "/"
    assert path["backend"]["service"] == {"name": "try-downloadjobs-api", "port": {"name": "http"}}


def test_a_route_of_the_gateway_api() -> None:
    """An HTTPRoute does it by a Gateway, which may set the user's header."""
    setting = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-user-id"]}}]
    route = {
        "enabled": True,
        "parentRefs": [{"name": "public"}],
        "hostnames": ["d.example.com"],
        "filters": setting,
    }
    objects = rendered({"api": {"httpRoute": route}, "networkPolicy": {"apiFrom": INGRESS}})
    spec = named(objects, "HTTPRoute", "try-downloadjobs-api")["spec"]
    assert spec["parentRefs"] == [{"name": "public"}]
    assert spec["rules"][0]["filters"] == setting
    assert spec["rules"][0]["backendRefs"] == [{"name": "try-downloadjobs-api", "port": 80}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"api": {"ingress": {"enabled": True}}, "networkPolicy": {"apiFrom": INGRESS}}, "api.ingress.hosts"),
        (
            {"api": {"httpRoute": {"enabled": True}}, "networkPolicy": {"apiFrom": INGRESS}},
            "api.httpRoute.parentRefs",
        ),
        ({"api": {"ingress": {"enabled": True, "hosts": ["a"]}}}, "networkPolicy.apiFrom"),
    ],
)
def test_a_way_in_that_leads_nowhere_is_refused(values: dict[str, Any], message: str) -> None:
    """A route without a host or a Gateway, and one whose controller could not reach the API, are refused."""
    done = render(values)
    assert done.returncode
    assert message in done.stderr


# The network.


def policies(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The specs of all NetworkPolicies, by the component that they are about."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]
        for one in objects
        if one["kind"] == "NetworkPolicy"
    }


def ports(rules: list[dict[str, Any]]) -> set[int]:
    """All ports of some rules."""
    return {port["port"] for rule in rules for port in rule["ports"]}


def peers(rule: dict[str, Any]) -> set[str]:
    """The components that a rule names."""
    found = [*rule.get("from", []), *rule.get("to", [])]
    return {
        peer["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component", "all of the namespace")
        for peer in found
        if "podSelector" in peer
    }


def test_nothing_is_let_through_by_default() -> None:
    """One policy denies everything to and from all pods of the release."""
    deny = policies(rendered())["network"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny
    assert "egress" not in deny
    assert deny["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "downloadjobs",
        "app.kubernetes.io/instance": "try",
    }


def test_every_pod_has_a_policy() -> None:
    """Each component has a policy of its own, which selects just its pods."""
    objects = rendered({"bundled": {"objectStore": {"kind": "minio"}}}, BUNDLED)
    found = policies(objects)
    assert set(found) == {*pods(objects), "network"}
    for component in pods(objects):
        selected = found[component]["podSelector"]["matchLabels"]
        assert selected["app.kubernetes.io/component"] == component


def test_redis_is_for_our_processes_alone() -> None:
    """The bundled Redis is reached by API, workers and operator, and reaches nothing."""
    redis = policies(rendered(base=BUNDLED))["redis"]
    (rule,) = redis["ingress"]
    assert peers(rule) == {"api", "worker", "operator"}
    assert ports([rule]) == {6379}
    assert "egress" not in redis


def test_only_the_store_s_guarded_port_is_open() -> None:
    """Of the bundled object store only S3's port can be reached: the others ask nobody for a key."""
    store = policies(rendered(base=BUNDLED))["s3"]
    assert ports(store["ingress"]) == {8333}
    assert "from" not in store["ingress"][0]
    narrow = policies(rendered({"networkPolicy": {"objectStoreFrom": INGRESS}}, BUNDLED))["s3"]
    assert INGRESS[0] in narrow["ingress"][0]["from"]
    assert {"api", "worker", "test"} <= peers(narrow["ingress"][0])


def test_the_api_is_for_its_namespace_or_whom_one_names() -> None:
    """Without more only the release's namespace reaches the API: whoever reaches it can say who they are."""
    (first, _) = policies(rendered())["api"]["ingress"]
    assert ports([first]) == {3000}
    assert "all of the namespace" in peers(first)
    (first, _) = policies(rendered({"networkPolicy": {"apiFrom": INGRESS}}))["api"]["ingress"]
    assert INGRESS[0] in first["from"]
    assert peers(first) == {"operator", "test"}


def test_what_processes_may_reach() -> None:
    """API and workers reach names, Redis and the store; the operator Redis, the API server and the API."""
    found = policies(rendered(base=BUNDLED))
    for component in ("api", "worker"):
        assert [peers(rule) for rule in found[component]["egress"]] == [set(), {"redis"}, {"s3"}]
        assert ports(found[component]["egress"]) == {53, 6379, 8333}
    assert ports(found["operator"]["egress"]) == {53, 6379, 443, 6443, 3000}
    assert not any("s3" in peers(rule) for rule in found["operator"]["egress"])


def test_servers_outside_are_reached_by_their_ports() -> None:
    """Ports follow from the addresses of your servers, and can be bound to networks."""
    network = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    values = {
        "external": {"redis": {"port": 7000}, "s3": {"endpoint": "https://s3.example.com:9443"}},
        "networkPolicy": {"externalTo": network, "extraEgress": {"worker": [{"to": INGRESS}]}},
    }
    egress = policies(rendered(values))["worker"]["egress"]
    assert {7000, 9443} <= ports(egress[:3])
    assert [rule["to"] for rule in egress[1:3]] == [network, network]
    assert egress[3] == {"to": INGRESS}


def test_policies_can_be_left_out() -> None:
    """A cluster with policies of its own gets none."""
    assert "NetworkPolicy" not in kinds(rendered({"networkPolicy": {"enabled": False}}))


# What else.


def notes(folder: Path, values: Mapping[str, Any]) -> str:
    """What Helm says after an installation, as text of an object, which it renders without a cluster."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart, dirs_exist_ok=True)
    text = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (chart / "templates" / "notes.yaml").write_text(
        '{{- define "notes" }}'
        + text
        + '{{ end }}\nkind: Notes\nmetadata: {name: n}\ntext: {{ include "notes" . | toJson }}\n',
        encoding="utf-8",
    )
    found: str = named(support_chart.rendered(values=merged(EXTERNAL, values), chart=chart), "Notes", "n")[
        "text"
    ]
    return found


def test_the_notes_name_the_namespaces_that_are_served(tmp_path: Path) -> None:
    """Each served namespace has its command, and a warning says so if the release's own is none of them."""
    own, others = notes(tmp_path, {}), notes(tmp_path, {"operator": {"watchNamespaces": ["films", "songs"]}})
    assert "kubectl --namespace own get downloadjobs" in own
    for name in ("films", "songs"):
        assert f"kubectl --namespace {name} get downloadjobs" in others
    assert "kubectl --namespace own get downloadjobs" not in others
    assert "those of own, its own namespace, are NOT run" in others
    both = notes(tmp_path, {"operator": {"watchNamespaces": ["own", "films"]}})
    everywhere = notes(tmp_path, {"operator": {"clusterWide": True}})
    assert "kubectl get downloadjobs --all-namespaces" in everywhere
    assert "NOT run" not in own + both + everywhere


@pytest.mark.parametrize(
    ("mode", "word"),
    [("header", "believes the header"), ("jwt", "bearer tokens"), ("anonymous", "one and the same user")],
)
def test_the_notes_say_who_users_are(mode: str, word: str, tmp_path: Path) -> None:
    """Each mode has its own sentence, and none of another."""
    jwt = {"issuer": "https://sso", "audience": "us", "jwksUrl": "https://sso/keys"}
    said = notes(tmp_path, {"api": {"auth": {"mode": mode, "jwt": jwt}}})
    told = [one for one in ("believes the header", "bearer tokens", "one and the same user") if one in said]
    assert told == [word]


def test_the_notes_name_the_hosts_of_a_route(tmp_path: Path) -> None:
    """Where an HTTPRoute has host names, they are printed."""
    route = {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["d.example.com"]}
    values = {"api": {"httpRoute": route}, "networkPolicy": {"apiFrom": INGRESS}}
    assert "at d.example.com/" in notes(tmp_path, values)


def test_servers_on_other_ports_may_be_reached() -> None:
    """Sentinels may be reached by who asks them, and the public endpoint by the test, on their own ports."""
    external = {
        "redis": {"sentinels": ["a.example.com:26400", "b.example.com"], "sentinelMaster": "m"},
        "s3": {"publicEndpoint": "https://downloads.example.com:9443"},
    }
    found = {
        name: ports(spec.get("egress", []))
        for name, spec in policies(rendered({"external": external})).items()
    }
    for component in ("api", "worker", "operator"):
        assert {26400, 26379} <= found[component]
        assert 9443 not in found[component]
    assert 9443 in found["test"]


def test_the_test_runs_a_whole_job() -> None:
    """`helm test` seeds files as a worker may, and asks for a job as a user; or it takes files of yours."""
    pod = named(rendered(base=BUNDLED), "Pod", "try-downloadjobs-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    script = container["args"][0]
    assert "downloadjobs seed --count 40 --size 300k --first-id 10000" in script
    assert "--get" in script
    assert {one["name"] for one in container["env"]} >= {
        "DOWNLOADJOBS_API",
        "DOWNLOADJOBS_STORE",
        "S3_ENDPOINT",
    }
    own = named(rendered({"tests": {"fileIds": [10_000, 10_007]}}), "Pod", "try-downloadjobs-test")
    script = own["spec"]["containers"][0]["args"][0]
    assert "seed" not in script
    assert 'ids="10000 10007"' in script
    ours = named(rendered(), "Pod", "try-downloadjobs-test")["spec"]["containers"][0]["args"][0]
    assert "--count 3 --size 300k --first-id 99990001" in ours
    assert "Pod" not in kinds(rendered({"tests": {"enabled": False}}))


@pytest.mark.parametrize(("code", "tries"), [(2, 1), (4, 10), (3, 14)])
def test_the_test_gives_up(code: int, tries: int, tmp_path: Path) -> None:
    """A wrong setting ends it at once, a store that refuses later; one that is away is waited for."""
    pod = named(rendered(base=BUNDLED), "Pod", "try-downloadjobs-test")
    (container,) = pod["spec"]["containers"]
    programs = {
        # Its 14th try works: a store that is away comes back.
        "downloadjobs": 'echo "$1" >>calls; [ "$1" = submit ] || [ "$(grep -c seed calls)" -ge 14 ] || exit '
        + str(code),
        "sleep": "",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        [*container["command"], *container["args"]],
        cwd=tmp_path,
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    calls = (tmp_path / "calls").read_text(encoding="utf-8").split()
    assert calls.count("seed") == tries
    assert done.returncode == (0 if "submit" in calls else code)
    assert ("submit" in calls) is (code == 3)


def test_its_policy_goes_with_the_test() -> None:
    """Without the test there is no policy for it."""
    assert "test" in policies(rendered())
    assert "test" not in policies(rendered({"tests": {"enabled": False}}))


def test_minio_gets_a_user_who_only_reads() -> None:
    """With MinIO a Job makes the bucket and the API's user, whose policy lets it read and nothing else."""
    objects = rendered({"bundled": {"objectStore": {"kind": "minio", "bucket": "films"}}}, BUNDLED)
    job = named(objects, "Job", "try-downloadjobs-s3-setup")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    script = container["args"][0]
    compile(script, "setup", "exec")
    assert '["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"]' in script
    assert {"name": "BUCKET", "value": "films"} in container["env"]


def test_objects_of_ones_own() -> None:
    """`extraObjects` are objects, or templates of such."""
    own = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-one"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-two}",
    ]
    objects = rendered({"extraObjects": own})
    for name in ("try-one", "try-two"):
        assert named(objects, "ConfigMap", name)


WEBHOOKS: dict[str, Any] = {"webhooks": {"enabled": True, "existingSecret": "keys"}}


def test_webhooks_are_off_by_default() -> None:
    """Nothing of them is rendered: no key, and no way out into the world."""
    assert "WEBHOOK" not in render({}).stdout
    assert "0.0.0.0/0" not in render({}).stdout


def test_each_process_gets_its_half_of_the_webhook_keys() -> None:
    """Workers have the private key alone, the API the public one alone, the operator neither."""
    found = pods(rendered(WEBHOOKS))
    for component, key in (("worker", "signing.pem"), ("api", "public.pem")):
        spec = next(spec for name, spec in found.items() if name.endswith(component))
        (volume,) = (one for one in spec["volumes"] if one["name"] == "webhooks")
        assert volume["secret"] == {"secretName": "keys", "items": [{"key": key, "path": key}]}
        environment = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
        named = "WEBHOOK_SIGNING_KEY_FILE" if component == "worker" else "WEBHOOK_PUBLIC_KEY_FILE"
        assert environment[named] == f"/etc/downloadjobs-webhooks/{key}"
    operator = next(spec for name, spec in found.items() if name.endswith("operator"))
    assert not [one for one in operator["volumes"] if one["name"] == "webhooks"]
    environment = {one["name"]: one.get("value") for one in operator["containers"][0]["env"]}
    assert environment["WEBHOOKS_ENABLED"] == "true"


def test_webhooks_reach_public_addresses_alone() -> None:
    """Of all pods only workers get out, to port 443, and to no private network that is not named."""
    values = {"webhooks": {**WEBHOOKS["webhooks"], "allowedNetworks": ["10.20.0.0/16"]}}
    found = policies(rendered(values))
    for name, policy in found.items():
        world = [
            rule
            for rule in policy.get("egress", [])
            if any(to.get("ipBlock", {}).get("cidr") == "0.0.0.0/0" for to in rule.get("to", []))
        ]
        assert bool(world) == name.endswith("worker")
        for rule in world:
            assert [one["port"] for one in rule["ports"]] == [443]
            blocks = {one["ipBlock"]["cidr"]: one["ipBlock"].get("except", []) for one in rule["to"]}
            assert set(blocks) == {"0.0.0.0/0", "2000::/3", "64:ff9b::/96", "10.20.0.0/16"}
            assert {"10.0.0.0/8", "169.254.0.0/16", "127.0.0.0/8"} <= set(blocks["0.0.0.0/0"])


def test_a_key_for_webhooks_is_not_made_anew_by_each_rendering() -> None:
    """Where nothing can be looked up, the Secret must be named."""
    refused = render({"webhooks": {"enabled": True}})
    assert refused.returncode
    assert "webhooks.existingSecret" in refused.stderr


JWT = {
    "auth": {
        "mode": "jwt",
        "jwt": {"issuer": "https://sso", "audience": "us", "jwksUrl": "https://sso:8443/keys"},
    }
}


def api_environment(objects: list[dict[str, Any]]) -> dict[str, str]:
    """The variables of the API's container that are plain values. A name that stands twice is an error."""
    pod = named(objects, "Deployment", "try-downloadjobs-api")["spec"]["template"]["spec"]
    listed = pod["containers"][0]["env"]
    assert len({entry["name"] for entry in listed}) == len(listed)
    return {entry["name"]: entry.get("value", "") for entry in listed}


def test_tokens_are_set_up() -> None:
    """In the mode jwt the API is told of the issuer, and may reach the port of its keys, and no other."""
    objects = rendered(values={"api": JWT})
    told = api_environment(objects)
    assert told["AUTH_MODE"] == "jwt"
    assert told["JWT_JWKS_URL"] == "https://sso:8443/keys"
    assert (told["JWT_ISSUER"], told["JWT_AUDIENCE"], told["JWT_USER_CLAIM"]) == ("https://sso", "us", "sub")
    ports = [
        rule["ports"] for rule in named(objects, "NetworkPolicy", "try-downloadjobs-api")["spec"]["egress"]
    ]
    assert [{"protocol": "TCP", "port": 8443}] in ports
    worker = named(objects, "NetworkPolicy", "try-downloadjobs-worker")["spec"]["egress"]
    assert [{"protocol": "TCP", "port": 8443}] not in [rule["ports"] for rule in worker]


def test_the_test_signs_in_by_a_token(tmp_path: Path) -> None:
    """In the mode jwt the release's test takes a token from a Secret; without one there is no test."""
    objects = rendered({"api": JWT, "tests": {"tokenSecret": "visitor"}})
    (container,) = named(objects, "Pod", "try-downloadjobs-test")["spec"]["containers"]
    (token,) = [one for one in container["env"] if one["name"] == "DOWNLOADJOBS_TOKEN"]
    assert token["valueFrom"] == {"secretKeyRef": {"name": "visitor", "key": "token"}}
    assert "--user" not in container["args"][0]
    without = rendered({"api": JWT})
    assert "Pod" not in kinds(without)
    assert "test" not in policies(without)
    said = notes(tmp_path, {"api": JWT})
    assert "tests.tokenSecret" in said
    assert "helm test n" not in said


def test_keys_of_tokens_may_be_a_file() -> None:
    """A ConfigMap with the issuer's keys is mounted, and nothing more may be reached."""
    auth = {"mode": "jwt", "jwt": {"issuer": "i", "audience": "a", "jwksConfigMap": "keys"}}
    objects = rendered(values={"api": {"auth": auth}})
    pod = named(objects, "Deployment", "try-downloadjobs-api")["spec"]["template"]["spec"]
    path = Path(api_environment(objects)["JWT_JWKS_FILE"])
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == str(path.parent)]
    assert {"name": mount["name"], "configMap": {"name": "keys"}} in pod["volumes"]
    policy = named(objects, "NetworkPolicy", "try-downloadjobs-api")
    assert policy == named(rendered(), "NetworkPolicy", "try-downloadjobs-api")


@pytest.mark.parametrize(
    ("jwt", "message"),
    [
        ({"issuer": "i", "jwksUrl": "https://k"}, "audience"),
        ({"issuer": "i", "audience": "a"}, "jwksUrl"),
        ({"issuer": "i", "audience": "a", "jwksUrl": "https://k", "jwksConfigMap": "c"}, "either"),
    ],
)
def test_tokens_that_cannot_be_checked_are_refused(jwt: dict[str, str], message: str) -> None:
    """A mode jwt that lacks something fails before anything is installed, and says what."""
    ran = render(values={"api": {"auth": {"mode": "jwt", "jwt": jwt}}})
    assert ran.returncode != 0
    assert message in ran.stderr


def test_trusted_proxies_are_told() -> None:
    """The networks of `api.trustedProxies` are one variable, with commas between."""
    told = api_environment(rendered(values={"api": {"trustedProxies": ["10.0.0.0/8", "fd00::/8"]}}))
    assert told["TRUSTED_PROXIES"] == "10.0.0.0/8,fd00::/8"
