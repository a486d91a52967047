"""Telemetry of commands: every process of a run tells, a collector in trouble holds nothing up, Ctrl-C stays clean."""

import re
import signal
import urllib.request
from collections import defaultdict

import pytest

from ..otlp_receiver import OtlpReceiver, attributes_of, otlp_receiver

FANS, BOTS = 60, 6


@pytest.fixture
def activities(tmp_path, sale):
    path = tmp_path / "activities.jsonl"
    lines = sale(fans=FANS, bots=BOTS, seed=3)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path, len(lines)


def records_by_process(collector: OtlpReceiver, event: str) -> dict[str, float]:
    """The last count each process told."""
    found: dict[str, float] = defaultdict(float)
    for request in collector._metrics:
        for resource in request.resource_metrics:
            process = attributes_of(resource.resource)["process.pid"]
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == "fan_identity.records":
                        points = {attributes_of(point)["event"]: point.as_double for point in metric.sum.data_points}
                        found[process] = max(found[process], points.get(event, 0))
    return dict(found)


@pytest.mark.slow
def test_every_worker_process_of_a_runner_tells(cli, store, activities):
    path, number = activities
    beam = ("--", "--direct_num_workers=2", "--direct_running_mode=multi_processing")
    with otlp_receiver() as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "APP_NAME": "enqueueFromStream"}
        done = cli("run", "enqueueFromStream", "--source", f"file://{path}", *store.flag, *beam, env=environment)
        assert done.code in (0, 1), done
        told = records_by_process(collector, "read")
    assert len(told) >= 2, "the submitting process and its workers"
    assert sum(told.values()) == number


def test_each_serving_process_has_a_port_of_its_own(cli, store):
    serve = ("serve", "--port", "0", "--development", "--workers", "2", "--metrics-port", "0")
    server = cli.start(*serve, *store.flag)
    pattern = r"metrics are at (http://[\d.:]+/metrics)"
    ports = server.until(
        lambda: len(set(re.findall(pattern, server.err))) == 2 and re.findall(pattern, server.err), "2"
    )
    processes = set()
    for port in ports:
        with urllib.request.urlopen(port, timeout=30) as answer:
            processes |= set(re.findall(r'process_pid="(\d+)"', answer.read().decode()))
    assert len(processes) == 2
    server.signal(signal.SIGINT)
    assert server.wait().code == 0


def test_ctrl_c_is_clean_while_a_collector_hangs(cli, store, activities):
    path, number = activities
    with otlp_receiver() as collector:
        collector.hanging.set()
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "100"}
        follow = (
            "run",
            "enqueueFromStream",
            "--source",
            f"file://{path}",
            "--streaming",
            "--horizon",
            "9999d",
            "--json",
        )
        worker = cli.start(*follow, *store.flag, env=environment)
        worker.until(lambda: store.sent() > 0.5 * number, "it enqueues though nobody takes its metrics")
        worker.signal(signal.SIGINT)
        done = worker.wait()
        assert collector.requests == 0  # every export hangs still
    assert done.code in (0, 1), done
    assert "Traceback" not in done.err
    assert done.json["enqueued"] > 0.5 * number
