"""What the chart brings for Prometheus and Grafana: monitors, alerts with runbooks and tests, a dashboard."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from downloadjobs_cli.main import cli
from support_chart import CHART, ROOT, SECRETS, render, rendered
from support_monitoring import (
    ALERTS,
    DASHBOARDS,
    FROM_PROMETHEUS,
    Query,
    alert,
    dashboard,
    of_kind,
    panel_queries,
    queries,
)
from support_tools import require_tool

DOCS: Final = ROOT / "docs"
RUNBOOKS: Final = DOCS / "runbooks"
TESTS: Final = ROOT / "tests" / "alerts"
QUIET: Final = sorted((TESTS / "quiet").glob("*.yaml"))

RULES: Final = "monitoring.prometheusRule.enabled=true"
MONITORS: Final = "monitoring.podMonitor.enabled=true"
DASHBOARD: Final = "monitoring.dashboard.enabled=true"

QUESTIONS: Final = [
    "Are users waiting?",
    "Why?",
    "What is the autoscaler doing?",
    "What fails?",
    "Is the storage the limit?",
]

PARTS: Final = ("What it means", "What users see", "How to look", "How to mend it", "When to silence it")

COMPONENT: Final = "app.kubernetes.io/component"

NAMES: Final = [path.stem for path in ALERTS]
(BOARD,) = (dashboard(path) for path in DASHBOARDS)
PANELS: Final = [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def test_nothing_is_installed_unless_asked_for() -> None:
    """By default nothing needs the Prometheus Operator's definitions, and there is no dashboard."""
    objects = rendered(*SECRETS)
    assert not any("monitoring.coreos.com" in one["apiVersion"] for one in objects)
    assert not any(one["metadata"]["name"].endswith("-dashboard") for one in objects)


# What is scraped.


def test_each_process_is_scraped_at_its_port() -> None:
    """Each PodMonitor selects one component's pods, and names the port on which those tell their metrics."""
    objects = rendered(*SECRETS, MONITORS, "worker.metricsPort=9191")
    pods = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]
        for one in objects
        if one["kind"] == "Deployment"
    }
    scraped = set()
    for monitor in (one for one in objects if one["kind"] == "PodMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"]
        component = labels["app.kubernetes.io/component"]
        (chosen,) = (pod for pod in pods.values() if labels.items() <= pod["metadata"]["labels"].items())
        (container,) = chosen["spec"]["containers"]
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        environment = {one["name"]: one.get("value") for one in container["env"]}
        told = environment["PORT" if component == "operator" else "METRICS_PORT"]
        assert str(ports[endpoint["port"]]) == told, component
        assert monitor["spec"]["jobLabel"] in chosen["metadata"]["labels"]
        scraped.add(component)
    assert scraped == {"api", "operator", "worker"}


@pytest.mark.parametrize(
    ("kind", "enabled", "values"),
    [
        ("PodMonitor", MONITORS, "monitoring.podMonitor"),
        ("PrometheusRule", RULES, "monitoring.prometheusRule"),
    ],
    ids=["monitors", "rules"],
)
def test_prometheus_finds_it_by_labels(kind: str, enabled: str, values: str) -> None:
    """The labels of the values are added, so that a Prometheus' selector finds it."""
    for one in of_kind(kind, enabled, f"{values}.labels.release=stack"):
        assert one["metadata"]["labels"]["release"] == "stack"
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "try"
        assert one["metadata"]["namespace"] == "own"


def test_intervals_are_given() -> None:
    """The values' interval and time-out reach the endpoints; without them Prometheus' own hold."""
    given = of_kind("PodMonitor", MONITORS, "monitoring.podMonitor.interval=7s")
    assert {one["spec"]["podMetricsEndpoints"][0]["interval"] for one in given} == {"7s"}
    empty = ("monitoring.podMonitor.interval=", "monitoring.podMonitor.scrapeTimeout=")
    for one in of_kind("PodMonitor", MONITORS, *empty):
        assert not {"interval", "scrapeTimeout"} & set(one["spec"]["podMetricsEndpoints"][0])


# Alerts.


@cache
def rules(*settings: str) -> dict[str, dict[str, Any]]:
    """The alerts as they are installed, by their files' names."""
    (one,) = of_kind("PrometheusRule", RULES, *settings)
    (group,) = one["spec"]["groups"]
    return {kebab(rule["alert"]): rule for rule in group["rules"]}


def kebab(name: str) -> str:
    """An alert's name as its file has it."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name.removeprefix("DownloadJobs")).lower()


def camel(name: str) -> str:
    """An alert's name as the values have it."""
    first, *others = name.split("-")
    return first + "".join(word.title() for word in others)


def test_there_is_one_alert_in_each_file() -> None:
    """Each file of files/alerts/ is one alert of that name, and all of them are installed."""
    assert [kebab(alert(path)["alert"]) for path in ALERTS] == NAMES
    assert sorted(rules()) == NAMES
    assert all(alert(path)["alert"].startswith("DownloadJobs") for path in ALERTS)


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_says_what_is_wrong(name: str) -> None:
    """An alert has a severity, a summary, a description that names the installation, and its runbook."""
    rule = rules()[name]
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    assert told["summary"].endswith(".")
    assert "$labels.namespace" in told["description"]
    assert "$labels.job" in told["description"]
    assert "$value" in told["description"] or rule["for"] in told["description"], "no number"
    assert told["runbook_url"].endswith(f"/{name}")
    assert "<<" not in yaml.safe_dump(rule)


@pytest.mark.parametrize("path", ALERTS, ids=NAMES)
def test_an_alert_is_about_its_own_release(path: Path) -> None:
    """Each metric is asked of this release only, so that two of them do not tell of each other."""
    text = alert(path)["expr"]
    named = re.findall(r"downloadjobs_\w+", text)
    assert re.findall(r"(downloadjobs_\w+)\{<<selector>>[,}]", text) == named
    assert 'namespace="own",job="try"' in rules()[path.stem]["expr"]
    assert 'job="mine"' in rules("monitoring.prometheusRule.job=mine")[path.stem]["expr"]


def test_thresholds_are_those_of_the_values() -> None:
    """Each number that a file asks for has a default, none is there in vain, and all may be changed."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    thresholds = values["monitoring"]["prometheusRule"]["thresholds"]
    for path in ALERTS:
        asked = set(re.findall(r"<<(\w+)>>", path.read_text(encoding="utf-8"))) - {"selector", "runbook"}
        assert set(thresholds[camel(path.stem)]) == asked, path.stem
    assert set(thresholds) == set(map(camel, NAMES))
    changed = "monitoring.prometheusRule.thresholds.queueWaitLong"
    rule = rules(f"{changed}.seconds=1000000", f"{changed}.for=1h")["queue-wait-long"]
    assert "> 1000000\n" in rule["expr"]
    assert rule["for"] == "1h"


def test_alerts_can_be_left_out() -> None:
    """A disabled alert is not installed, and a name that there is not is refused."""
    assert set(rules("monitoring.prometheusRule.disabled={statusLag}")) == set(NAMES) - {"status-lag"}
    done = render(*SECRETS, RULES, "monitoring.prometheusRule.disabled={status-lag}")
    assert done.returncode
    assert "names the alert status-lag, and there is none; there are apiAbsent, apiErrors" in done.stderr
    assert render(*SECRETS, RULES, "monitoring.prometheusRule.thresholds.statusLagg.seconds=1").returncode


def test_runbooks_are_where_the_values_say() -> None:
    """The name of an alert is put into the address of the values."""
    rule = rules("monitoring.prometheusRule.runbookUrl=https://wiki/{name}.md")["no-leader"]
    assert rule["annotations"]["runbook_url"] == "https://wiki/no-leader.md"


@pytest.mark.parametrize("path", ALERTS, ids=NAMES)
def test_an_alert_has_a_runbook(path: Path) -> None:
    """The runbook of an alert has its name as title, its severity, and all parts."""
    text = (RUNBOOKS / f"{path.stem}.md").read_text(encoding="utf-8")
    rule = alert(path)
    assert text.startswith(f"# {rule['alert']}\n\n{rule['labels']['severity'].capitalize()}. ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(PARTS)


@pytest.mark.parametrize("path", ALERTS, ids=NAMES)
def test_a_runbook_tells_commands_that_there_are(path: Path) -> None:
    """What a runbook has the command line do it can, and the objects that it names are the chart's."""
    text = (RUNBOOKS / f"{path.stem}.md").read_text(encoding="utf-8")
    commands = "".join(re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert all(line.startswith("$ ") for line in commands.splitlines())
    for group, name in re.findall(r"-- downloadjobs (\w+) (\w+)", text):
        found = cli.commands[group]
        assert isinstance(found, click.Group)
        assert name in found.commands
    named = {(one["kind"], one["metadata"]["name"]) for one in chart()}
    for name in re.findall(r"\bdeploy/(downloadjobs-[\w-]+)", commands):
        assert ("Deployment", name.replace("downloadjobs-", "try-downloadjobs-")) in named
    for component in re.findall(r"component=(\w+)", commands):
        assert any(one["metadata"].get("labels", {}).get(COMPONENT) == component for one in chart()), (
            component
        )


@cache
def chart() -> list[dict[str, Any]]:
    """All objects, with the default values."""
    return rendered(*SECRETS)


def test_the_page_lists_the_alerts() -> None:
    """monitoring.md lists each alert with its severity, and a link to its runbook."""
    page = (DOCS / "monitoring.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\(runbooks/([\w-]+)\.md\) \| (\w+) \|", page, re.MULTILINE)
    known = {(alert(path)["alert"], path.stem, alert(path)["labels"]["severity"]) for path in ALERTS}
    assert set(listed) == known
    assert len(listed) == len(known)


def test_alerts_are_good_rules(tmp_path: Path) -> None:
    """Prometheus takes all alerts."""
    (one,) = of_kind("PrometheusRule", RULES)
    promtool(tmp_path, "check", one["spec"])


def promtool(folder: Path, command: str, rules: object, test: object = None) -> None:
    """Have promtool check rules, or test them. Fails with what it says."""
    program = require_tool("promtool")
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    (folder / "test.yaml").write_text(yaml.safe_dump(test), encoding="utf-8")
    files = {
        "check": ["check", "rules", "--lint-fatal", "rules.yaml"],
        "test": ["test", "rules", "test.yaml"],
    }
    done = subprocess.run(
        [program, *files[command]], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of an alert, as its file has them."""
    found: list[dict[str, Any]] = yaml.safe_load((TESTS / f"{name}.yaml").read_text(encoding="utf-8"))[
        "tests"
    ]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_fires_and_does_not(name: str) -> None:
    """The cases of each alert have one in which it fires, and one in which it never does."""
    fires = [any(one["exp_alerts"] for one in case["alert_rule_test"]) for case in cases(name)]
    assert {True, False} == set(fires)
    assert len({case["name"] for case in cases(name)}) == len(fires)
    for case in cases(name):  # 0x10 without quotes is the number 16 in YAML
        assert all(isinstance(one["values"], str) for one in case["input_series"])


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_does_what_its_cases_say(name: str, tmp_path: Path) -> None:
    """Over the series of its cases an alert fires when it should, and says what it should."""
    rule = rules()[name]
    common = {key: rule["annotations"][key] for key in ("summary", "runbook_url")}
    labels = {"namespace": "own", "job": "try", **rule["labels"]}
    tests = cases(name)
    for case in tests:
        case["interval"] = "1m"
        for one in case["alert_rule_test"]:
            one["alertname"] = rule["alert"]
            one["exp_alerts"] = [
                {
                    "exp_labels": labels | expected.get("exp_labels", {}),
                    "exp_annotations": common | expected["exp_annotations"],
                }
                for expected in one["exp_alerts"]
            ]
    written = {"groups": [{"name": "alerts", "rules": [rule]}]}
    promtool(tmp_path, "test", written, {"rule_files": ["rules.yaml"], "tests": tests})


def test_all_alerts_have_cases() -> None:
    """There are cases for the alerts that there are."""
    assert sorted(path.stem for path in TESTS.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("path", QUIET, ids=lambda path: path.stem)
def test_no_alert_fires(path: Path, tmp_path: Path) -> None:
    """Over the series of a situation in which nothing is wrong, none of all alerts fires at any minute."""
    series = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert all(isinstance(one["values"], str) for one in series)
    written = {"groups": [{"name": "alerts", "rules": list(rules().values())}]}
    silence = [
        {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{minute}m", "exp_samples": []}
        for minute in range(60)
    ]
    case = {"interval": "1m", "input_series": series, "promql_expr_test": silence}
    promtool(tmp_path, "test", written, {"rule_files": ["rules.yaml"], "tests": [case]})


# The dashboard.


def test_the_sidecar_finds_the_dashboard() -> None:
    """The ConfigMap has the sidecar's label, the folder as its annotation, and the file as it is."""

    def config_map(*settings: str) -> dict[str, Any]:
        (found,) = (
            one
            for one in of_kind("ConfigMap", DASHBOARD, *settings)
            if one["metadata"]["name"] == "try-downloadjobs-dashboard"
        )
        return found

    found = config_map("monitoring.dashboard.folder=Platform", "monitoring.dashboard.annotations.team=files")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Platform", "team": "files"}
    assert {name: json.loads(text) for name, text in found["data"].items()} == {DASHBOARDS[0].name: BOARD}
    assert "annotations" not in config_map()["metadata"]


def test_the_dashboard_answers_five_questions() -> None:
    """The rows are the questions, from top to bottom; none is empty; monitoring.md tells them."""
    rows = [panel for panel in BOARD["panels"] if panel["type"] == "row"]
    assert [row["title"] for row in rows] == QUESTIONS
    assert not any(row["collapsed"] for row in rows)
    kinds = "".join("r" if panel["type"] == "row" else "p" for panel in BOARD["panels"])
    assert re.fullmatch(r"(rp+)+", kinds)
    page = (DOCS / "monitoring.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \*\*(.+)\*\* \|", page, re.MULTILINE) == QUESTIONS


def test_the_dashboard_can_be_provisioned() -> None:
    """It has a uid, no id of a database, and panels with ids of their own that do not overlap."""
    assert BOARD["uid"] == "downloadjobs"
    assert "id" not in BOARD
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_dashboard_names_no_data_source() -> None:
    """Whatever is asked is asked of the data source that the reader chose."""
    variables = {one["name"]: one for one in BOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "job"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    asking = [*variables.values()][1:] + PANELS + [one for panel in PANELS for one in panel["targets"]]
    assert all(one["datasource"] == chosen for one in asking)
    assert json.dumps(BOARD).count('"datasource": ') == len(asking)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    """Each panel has a title, a description that ends with a full stop, a unit, and a name for each line."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] == "timeseries":
        assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("query", panel_queries(), ids=lambda query: query.where)
def test_a_panel_is_about_what_was_chosen(query: Query) -> None:
    """Each metric of a panel is asked of the chosen namespaces and releases."""
    assert query.metrics
    for name, labels in query.metrics:
        assert labels.get("namespace") == "$namespace", name
        assert labels.get("job") == "$job", name


def test_panels_ask_what_prometheus_understands(tmp_path: Path) -> None:
    """Prometheus can parse the query of each panel."""
    asked = [
        {"record": f"panel:{number}", "expr": query.text} for number, query in enumerate(panel_queries())
    ]
    promtool(tmp_path, "check", {"groups": [{"name": "panels", "rules": asked}]})


# Metrics. That the page says what processes tell is the contract's test, which looks at these queries, too.

TICKED: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def told_words() -> set[str]:
    """Every word in ticks in the pages about metrics, the autoscaler and the queue."""
    pages = "".join(
        (DOCS / name).read_text(encoding="utf-8") for name in ("metrics.md", "autoscaler.md", "queue.md")
    )
    return set(TICKED.findall(pages))


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)
def test_values_of_labels_are_told(query: Query) -> None:
    """Each value that a query asks for by its name is one that the pages tell of."""
    known = told_words() | {"5xx"}  # of "2xx, 4xx and so on"
    for name, labels in query.metrics:
        for label, text in labels.items():
            if label in FROM_PROMETHEUS or label == "route":
                continue
            assert set(text.split("|")) <= known, f"{name}: {label}={text}"
