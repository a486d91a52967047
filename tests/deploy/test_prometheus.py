"""The alert rules, the scrape configuration and the dashboard of deploy/: checked by Prometheus's own tool, and asked
of a real Prometheus that scrapes a worker and a server.
"""

import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
import yaml

from fan_identity.domain.measures import MEASURES, OTHER, Kind

from ..conftest import until_true

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "fan-identity.json").read_text())
ALERTS = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "30s")
        .replace("$worker", ".*")
        for panel in PANELS
        for target in panel["targets"]
    },
    **{rule["alert"]: rule["expr"] for rule in ALERTS},
}
SERIES = {
    measure.prometheus_name + suffix: measure
    for measure in MEASURES
    for suffix in (("_bucket", "_sum", "_count") if measure.kind is Kind.HISTOGRAM else ("",))
}
FILLED = {
    "Records A",
    "Scores A",
    "Rejections A",
    *(f"Batch latency {which}" for which in "ABC"),
    "Queue depth A",
    "Since the last batch A",
    "Breakers A",
    "Requests A",
    *(f"ARM latency {which}" for which in "ABC"),
    "Latency by operation A",
    "Refused and failed A",
    "Cache A",
    "Processes A",
    "Processes B",
}
"""Queries that find something while a worker scores and a server answers, with no other part around."""
PATIENCE = 90.0


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; Debian has it in the package prometheus")
    return found


def test_prometheus_s_own_tool_takes_configuration_and_rules():
    done = subprocess.run(
        [tool("promtool"), "check", "config", "prometheus.yml"],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(ALERTS)} rules found" in done.stdout


def test_each_alert_fires_where_it_should_and_stays_quiet_beside():
    done = subprocess.run(
        [tool("promtool"), "test", "rules", "alerts_test.yml"],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    cases = [(case["alertname"], bool(case.get("exp_alerts"))) for test in tests for case in test["alert_rule_test"]]
    assert sorted(cases) == sorted((rule["alert"], fires) for rule in ALERTS for fires in (False, True))


@pytest.mark.parametrize("name", QUERIES)
def test_queries_ask_for_metrics_labels_and_values_there_are(name):
    query = QUERIES[name]
    for series in re.findall(r"fan_identity_\w+", query):
        assert series in SERIES, f"there is no metric {series}"
    for series, selector in re.findall(r"(fan_identity_\w+)\{([^}]*)\}", query):
        labels = {label.name: {*label.values, OTHER} for label in SERIES[series].labels}
        for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', selector):
            assert label in labels, f"{series} has no label {label}"
            if value != ".*":
                assert set(value.split("|")) <= labels[label], f"{label} is never {value} ({operator})"
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
    named = {label.name for series in re.findall(r"fan_identity_\w+", query) for label in SERIES[series].labels}
    assert grouped <= named | {"le"}


def test_every_metric_is_on_the_dashboard_or_in_an_alert():
    shown = {SERIES[series].name for query in QUERIES.values() for series in re.findall(r"fan_identity_\w+", query)}
    assert {measure.name for measure in MEASURES} == shown


def test_the_dashboard_is_whole():
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie on each other"
    assert all(panel["description"] for panel in PANELS)


def test_every_alert_s_runbook_is_there():
    page = (ROOT / "docs" / "metrics.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    for rule in ALERTS:
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert path == "docs/metrics.md"
        assert anchor in headings, rule["alert"]


class Prometheus:
    """A Prometheus of a test's own."""

    def __init__(self, folder: Path, targets: list[str], until) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "1s"},
            "rule_files": [str(PROMETHEUS / "alerts.yml")],
            "scrape_configs": [{"job_name": "fan-identity", "static_configs": [{"targets": targets}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._base = f"http://127.0.0.1:{port}"
        with (folder / "prometheus.log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        until(self._answers, "Prometheus answers", PATIENCE)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "Prometheus ended"
        try:
            with urllib.request.urlopen(self._base + "/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> dict:
        url = f"{self._base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def query(self, expression: str) -> list:
        return self.ask("query", query=expression)["result"]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("prometheus")


@pytest.fixture(scope="module")
def prometheus(folder, commands, sale):
    """A Prometheus that scrapes a worker with something to score, and a server that is asked."""
    tool("prometheus")
    store = f"sqlite:///{folder / 'fans.db'}"
    lines = sale(fans=40, bots=4, seed=7)
    (folder / "activities.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    [(fan, _)] = Counter(re.findall(rb'"globalUserId": ?"(user-\d+)"', b"".join(lines))).most_common(1)
    commands("run", "enqueueFromStream", "--source", f"file://{folder / 'activities.jsonl'}", "--store", store)
    quick = {"FAN_IDENTITY_BATCH_SIZE": "20"}
    worker = commands.start("run", "scoreUsers", "--store", store, "--streaming", "--metrics-port", "0", env=quick)
    out = folder / "serve.json"
    serve = ("serve", "--port", "0", "--store", store, "--development", "--json", "--metrics-port", "0")
    server = commands.start(*serve, out=str(out))
    targets = [address_of(running) for running in (worker, server)]
    told = json.loads(server.until(lambda: out.exists() and out.read_text().strip(), "it serves"))
    found = Prometheus(folder, targets, until_true)
    missing = sorted(FILLED)
    try:

        def ask_the_server() -> bool:
            for path in (f"/arm/{fan.decode()}", "/arm/fan-2?detail=what", "/graphql", "/health"):
                request = urllib.request.Request(
                    told["address"] + path, headers={"Authorization": f"Bearer {told['tokens']['service']}"}
                )
                try:
                    urllib.request.urlopen(request, timeout=20).close()
                except urllib.error.HTTPError as error:
                    error.close()
            missing[:] = [name for name in missing if not found.query(QUERIES[name])]
            return not missing

        until_true(ask_the_server, "every query that has something to find finds it", PATIENCE)
        yield found
    finally:
        found.end()
        commands.end_all()


def address_of(running) -> str:
    """Where a command says it answers Prometheus."""
    pattern = r"metrics are at http://([\d.:]+)/metrics"
    return running.until(lambda: re.search(pattern, running.err), "it told its port")[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUERIES)
def test_a_real_prometheus_answers_every_query(prometheus, name):
    found = prometheus.query(QUERIES[name])
    assert found or name not in FILLED


@pytest.mark.slow
def test_a_real_prometheus_scrapes_without_a_complaint(prometheus):
    targets = prometheus.ask("targets")["activeTargets"]
    assert [(target["health"], target["lastError"]) for target in targets] == [("up", "")] * 2
    assert {rule["health"] for group in prometheus.ask("rules")["groups"] for rule in group["rules"]} == {"ok"}


@pytest.mark.slow
def test_only_listed_labels_are_in_a_real_prometheus(prometheus):
    labels = {label.name for measure in MEASURES for label in measure.labels}
    for label in labels:
        listed = {value for measure in MEASURES for one in measure.labels if one.name == label for value in one.values}
        found = prometheus.ask(f"label/{label}/values", **{"match[]": '{__name__=~"fan_identity_.*"}'})
        assert set(found) <= listed | {OTHER}
