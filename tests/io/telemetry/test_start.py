"""Telemetry on and off: the port, the collector, forks, and the end of a process."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request

import pytest

from fan_identity.domain.measures import MEASURES, Kind
from fan_identity.io.errors import UsageError
from fan_identity.io.settings import load_settings
from fan_identity.io.telemetry import metrics, start, tracing
from fan_identity.io.telemetry.totals import totals_of

from ...otlp_receiver import otlp_receiver


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FAN_IDENTITY_"))}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**own, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def tell_something() -> None:
    totals_of("scoreUsers").count("scored", 7)
    metrics.observe_batch("scoreUsers", 0.02, failed=False)
    metrics.observe_call("model", 0.3, "timeout", attempts=2)
    metrics.observe_capacity("table", "write", 2.5)
    metrics.observe_throttling("table")
    metrics.observe_request("arm", 0.0004, "ok")
    metrics.observe_lookup("arm", "hit")
    metrics.observe_export_failure("metrics")
    metrics.set_probe("cache", up=True, seconds=0.01)


def test_off_nothing_is_kept_and_nothing_imported():
    said = run_python(
        """
        import sys
        from fan_identity.io.settings import load_settings
        from fan_identity.io.telemetry import metrics, start, tracing
        start.start("scoreUsers", load_settings())
        metrics.observe_request("arm", 0.1, "ok")
        metrics.observe_call("model", 0.1, "ok")
        print(metrics.switch.on, start.metrics_port(), [f.measure.name for f in metrics.all_families() if f])
        print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "prometheus_client"))])
        """
    ).stdout
    assert said == "False None []\n[]\n"


def test_prometheus_is_told_every_number(scrape):
    tell_something()
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in scrape()}

    def value(name, **labels):
        return found[name, frozenset(labels.items())]

    assert value("fan_identity_records_total", worker="scoreUsers", event="scored") == 7
    assert value("fan_identity_records_total", worker="scoreUsers", event="received") == 0
    assert value("fan_identity_batch_duration_seconds_count", worker="scoreUsers", outcome="ok") == 1
    assert value("fan_identity_batch_duration_seconds_sum", worker="scoreUsers", outcome="ok") == 0.02
    assert value("fan_identity_batch_duration_seconds_bucket", worker="scoreUsers", outcome="ok", le="0.01") == 0
    assert value("fan_identity_batch_duration_seconds_bucket", worker="scoreUsers", outcome="ok", le="0.025") == 1
    assert value("fan_identity_call_duration_seconds_count", service="model", outcome="timeout") == 1
    assert value("fan_identity_call_retries_total", service="model") == 1
    assert value("fan_identity_table_capacity_total", table="table", kind="write") == 2.5
    assert value("fan_identity_table_throttled_total", table="table") == 1
    assert value("fan_identity_request_duration_seconds_count", operation="arm", outcome="ok") == 1
    assert value("fan_identity_cache_lookups_total", cache="arm", outcome="hit") == 1
    assert value("fan_identity_probe_up", part="cache") == 1


def test_the_catalogue_is_what_prometheus_sees(scrape):
    tell_something()
    told = {sample.name for sample in scrape()}
    suffixes = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
    for name in told - {"target_info"}:
        assert any(
            name == measure.prometheus_name + suffix
            for measure in MEASURES
            for suffix in suffixes.get(measure.kind, ("",))
        ), name


def test_a_collector_is_sent_the_same_with_who_tells(quiet):
    with otlp_receiver() as collector:
        quiet.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{collector.endpoint}/v1/metrics")
        start.start("scoreUsers", load_settings())
        tell_something()
        start.shutdown()  # sends what is left
        collector.wait_for(lambda it: it.points("fan_identity.batch.duration"))
    ((labels, point),) = collector.points("fan_identity.batch.duration")
    assert labels == {"worker": "scoreUsers", "outcome": "ok"}
    assert (point.count, point.sum, sum(point.bucket_counts)) == (1, 0.02, 1)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    records = {labels["event"]: point.as_double for labels, point in collector.points("fan_identity.records")}
    assert records["scored"] == 7
    (resource,) = collector.resources()
    assert resource["service.name"] == "fan-identity.scoreUsers"
    assert resource["process.pid"] == str(os.getpid())
    assert {"service.version", "service.instance.id"} <= set(resource)


def test_a_port_that_is_taken_leads_to_the_next(quiet, caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        start.start("scoreUsers", load_settings(metrics_port=port))
        found = start.metrics_port()
        assert found is not None
        assert port < found <= port + 15
        assert f"metrics are at http://127.0.0.1:{found}/metrics" in caplog.text


def test_a_host_of_another_machine_is_said(quiet):
    with pytest.raises(UsageError, match="metrics-host"):
        start.start("scoreUsers", load_settings(metrics_port=0, metrics_host="203.0.113.7"))
    assert not metrics.switch.on


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_SDK_DISABLED": "true", "FAN_IDENTITY_METRICS_PORT": "0"},
        {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_opentelemetry_s_own_switches_turn_it_off(quiet, environment):
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **environment}.items():
        quiet.setenv(name, value)
    start.start("scoreUsers", load_settings())
    assert not metrics.switch.on
    assert start.metrics_port() is None


def test_started_twice_is_started_once(scrape):
    port = start.metrics_port()
    start.start("scoreUsers", load_settings(metrics_port=0))
    assert start.metrics_port() == port


def test_many_threads_that_start_it_start_it_once(quiet, caplog):
    caplog.set_level("INFO")
    together = threading.Barrier(8)

    def begin() -> None:
        together.wait(60)
        start.start("scoreUsers", load_settings(metrics_port=0))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert caplog.text.count("metrics are at") == 1


def test_a_process_forked_while_another_thread_starts_telemetry_can_start_its_own(quiet):
    with start._lock:
        child = os.fork()
        if not child:  # pragma: no cover - in the child
            os._exit(0 if start._lock.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_traces_and_metrics_end_side_by_side(quiet, monkeypatch):
    together = threading.Barrier(2)
    start.start("scoreUsers", load_settings(metrics_port=0))
    readers = start._readers[os.getpid()]
    assert readers is not None
    end = readers.shutdown
    monkeypatch.setattr(tracing, "shutdown", lambda: together.wait(60))
    monkeypatch.setattr(readers, "shutdown", lambda seconds: (together.wait(1), end(seconds)))
    start.shutdown()
    assert not together.broken


def test_a_forked_process_starts_its_own(scrape):
    tell_something()
    parent = start.metrics_port()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover - in the child
        told: dict[str, object] = {
            "on": metrics.switch.on,
            "kept": sum(sum(cell.snapshot()[0]) for cell in metrics.batches.values()),
        }
        start.start("scoreUsers", load_settings(metrics_port=0))
        metrics.observe_batch("scoreUsers", 0.1, failed=True)
        with urllib.request.urlopen(f"http://127.0.0.1:{start.metrics_port()}/metrics", timeout=20) as answer:
            told |= {"port": start.metrics_port(), "text": answer.read().decode()}
        os.write(writing, json.dumps(told).encode() + b"\n")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = json.loads(pipe.readline())
    os.waitpid(child, 0)
    assert (told["on"], told["kept"]) == (False, 0)
    assert told["port"] != parent
    assert 'fan_identity_batch_duration_seconds_count{outcome="failed",worker="scoreUsers"} 1.0' in told["text"]
    assert 'outcome="ok"' not in told["text"]
    assert any(sample.labels.get("outcome") == "ok" for sample in scrape())  # the parent answers as before


PRODUCER = """
    from fan_identity.io.settings import load_settings
    from fan_identity.io.telemetry import metrics, start, tracing
    start.start("scoreUsers", load_settings())
    for _ in range(1_000):
        metrics.observe_batch("scoreUsers", 0.1, failed=False)
    print("done", flush=True)
"""


def test_a_collector_that_hangs_holds_up_neither_the_work_nor_the_end_of_a_process():
    with otlp_receiver() as collector:
        collector.hanging.set()
        said = run_python(
            PRODUCER, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, OTEL_METRIC_EXPORT_INTERVAL="50"
        )  # returns while every request hangs still
        assert collector.requests == 0
    assert said.stdout == "done\n"


def test_a_collector_that_refuses_is_counted(quiet):
    with otlp_receiver() as collector:
        collector.status = 400
        quiet.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        quiet.setenv("OTEL_TRACES_EXPORTER", "none")
        start.start("scoreUsers", load_settings())
        start.flush()
        collector.wait_for(lambda it: it.requests)
        collector.status = 200
        start.flush()
        collector.wait_for(lambda it: it.points("fan_identity.telemetry.export_failures"))
    ((labels, point),) = collector.points("fan_identity.telemetry.export_failures")
    assert labels == {"signal": "metrics"}
    assert point.as_double >= 1
