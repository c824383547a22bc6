"""Updates that go wrong, or have no room: nothing stops for them, and nothing is lost."""

from __future__ import annotations

import re
import secrets
from typing import Any, Final

import pytest

from support_e2e import RELEASE, Installation, Installer, InstallError, Object, until

FILES: Final = {10_003: 40_000}

SLOW: Final[dict[str, Any]] = {
    "worker": {
        "concurrency": 1,
        "settings": {
            "DOWNLOAD_DELAY_ENABLED": "true",
            "DOWNLOAD_DELAY_MIN_MS": "8000",
            "DOWNLOAD_DELAY_MAX_MS": "9000",
        },
        "autoscaling": {"max": 2, "targetWaitSeconds": 2, "cooldownSeconds": 5, "podStartSeconds": 3},
    }
}

SHARE: Final = 0.4
"""Of a node's free CPU, for one worker: two find room, and a third does not."""


def millicores(text: str) -> int:
    """What Kubernetes writes as `250m` or `2`."""
    return int(text.removesuffix("m")) if text.endswith("m") else int(float(text) * 1000)


def free_millicores(installation: Installation) -> int:
    """CPU of the one node that nobody has asked for."""
    nodes = installation.cluster.get_json("nodes")["items"]
    if len(nodes) != 1:
        pytest.skip("takes a cluster of one node, which can be filled")
    pods = installation.cluster.get_json("pods", "--all-namespaces")["items"]
    asked = sum(
        millicores(container.get("resources", {}).get("requests", {}).get("cpu", "0"))
        for pod in pods
        if pod["status"].get("phase") in {"Running", "Pending"}
        for container in pod["spec"]["containers"]
    )
    return millicores(nodes[0]["status"]["allocatable"]["cpu"]) - asked


def has_no_room(pod: Object) -> bool:
    """Whether the scheduler says so."""
    return any(one.get("reason") == "Unschedulable" for one in pod["status"].get("conditions", []))


def test_a_rollout_on_a_full_node_ends(installer: Installer) -> None:
    """New workers without room wait for idle ones, which go then; no job is interrupted for it."""
    with installer.installed(SLOW, persistence=False) as own:
        own.seed(FILES)
        share = f"{int(free_millicores(own) * SHARE)}m"
        own.upgrade({"worker": {"resources": {"requests": {"cpu": share}}}})
        jobs = [own.initiate([10_003]) for _ in range(4)]
        until(lambda: own.scale().ready == 2, 60, "two workers at work")
        own.upgrade({"worker": {"podAnnotations": {"turn": secrets.token_hex(4)}}}, wait=False)
        until(lambda: any(map(has_no_room, own.pods("worker"))), 30, "a new worker without room")
        until(lambda: all(own.job(job)["state"] == "completed" for job in jobs), 120, "all jobs done")
        assert {own.job(job)["attempt"] for job in jobs} == {1}
        until(lambda: own.scale() == (0, 0, 0), 60, "no worker of either kind")
        own.kubectl("rollout", "status", f"deploy/{RELEASE}-worker", "--timeout=10s")
        own.wait_job(own.initiate([10_003]))
        text = own.exec("operator", "python", "-c", METRICS)
        busy = re.search(r'autoscaler_victims_total{state="busy"} (\S+)', text)
        assert busy is not None
        assert float(busy[1]) == 0


METRICS: Final = (
    "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
)


def test_a_wrong_image_takes_nobody_away(installation: Installation) -> None:
    """With an image that is not there the old operator goes on, until a good one takes over."""
    before = set(installation.pod_names("operator"))
    installation.upgrade({"operator": {"image": {"tag": "nowhere"}}}, wait=False)
    try:
        until(lambda: len(installation.pods("operator")) == 2, 30, "a second operator")
        installation.seed(FILES)
        name = f"meanwhile-{secrets.token_hex(3)}"
        installation.apply_job(name, [10_003])
        assert installation.wait_finished(name)["phase"] == "Completed"
        assert before <= set(installation.pod_names("operator"))
    finally:
        installation.upgrade({"operator": {"image": {"tag": ""}}})
    installation.upgrade({"operator": {"podAnnotations": {"turn": secrets.token_hex(4)}}})
    until(lambda: not before & set(installation.pod_names("operator")), 60, "another operator")
    name = f"after-{secrets.token_hex(3)}"
    installation.apply_job(name, [10_003])
    assert installation.wait_finished(name)["phase"] == "Completed"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"crd": {"enabled": True}}, "the definition of DownloadJob is there already"),
        (
            {
                "bundled": {"redis": {"enabled": False}},
                "external": {"redis": {"host": "redis", "existingSecret": f"{RELEASE}-redis"}},
            },
            "this upgrade would delete it",
        ),
    ],
    ids=["definition", "secret"],
)
def test_an_upgrade_that_would_break_is_refused(
    installation: Installation, values: dict[str, Any], words: str
) -> None:
    """What the cluster already has is looked at before anything is changed."""
    before = installation.values
    try:
        with pytest.raises(InstallError, match=words):
            installation.upgrade(values)
    finally:
        installation.values = before
