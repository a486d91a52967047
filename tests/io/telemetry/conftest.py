"""Telemetry is one a process; a test that turns it on leaves it off, and its numbers at nothing."""

import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fan_identity.io.settings import load_settings
from fan_identity.io.telemetry import metrics, start, totals

Scrape = Callable[[], list[Sample]]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No collector in the environment, no numbers of other tests."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    before = dict(totals._totals)
    metrics.forget()
    totals._totals.clear()
    yield monkeypatch
    start.shutdown()
    metrics.forget()
    totals._totals.clear()
    totals._totals.update(before)


@pytest.fixture
def scrape(quiet: pytest.MonkeyPatch) -> Scrape:
    """Telemetry with a port of its own, and what it answers there."""
    start.start("scoreUsers", load_settings(metrics_port=0))
    return scraped


def scraped() -> list[Sample]:
    """What this process answers Prometheus, parsed."""
    with urllib.request.urlopen(f"http://127.0.0.1:{start.metrics_port()}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]
