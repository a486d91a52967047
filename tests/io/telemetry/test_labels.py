"""No label can come from a record or a request: hostile values are given everywhere, and only listed ones come out."""

import json

from fan_identity.domain.measures import MEASURES, OTHER
from fan_identity.io.breaker import Breaker
from fan_identity.io.settings import load_settings
from fan_identity.io.telemetry import instruments, metrics, start
from fan_identity.io.telemetry.polling import Polled
from fan_identity.io.telemetry.totals import totals_of

from ...otlp_receiver import otlp_receiver
from .conftest import scraped

HOSTILE = [
    "fan-00042",
    'a"} 1\nfan_identity_records_total{worker="scoreUsers',
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "'; DROP TABLE fans; --",
    "\x00\x1b[31m",
    "ünïcödé 😀",
    "x" * 10_000,
    "",
]
LISTED = {
    (name, label.name): {*label.values, OTHER}
    for measure in MEASURES
    for name in (measure.name, *(measure.prometheus_name + suffix for suffix in ("", "_bucket", "_sum", "_count")))
    for label in measure.labels
}


def give_everything(text: str) -> None:
    for name in (text, f"rejected.{text}", f"dead_lettered.{text}"):
        totals_of(text).count(name, 3)
        totals_of("scoreUsers").count(name, 3)
    totals_of(text).finished(1)
    metrics.observe_batch(text, 0.1, failed=True)
    metrics.observe_call(text, 0.1, text, attempts=3)
    metrics.observe_capacity(text, text, 0.5)
    metrics.observe_throttling(text)
    metrics.observe_request(text, 0.1, text)
    metrics.observe_lookup(text, text)
    metrics.observe_export_failure(text)
    metrics.set_probe(text, up=True, seconds=0.1)


def test_only_listed_labels_are_told_whatever_was_given(quiet):
    with otlp_receiver() as collector:
        quiet.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        quiet.setenv("OTEL_TRACES_EXPORTER", "none")
        start.start("scoreUsers", load_settings(metrics_port=0))
        breakers = [Breaker(lambda: 0.0, service=text) for text in HOSTILE]
        for text in HOSTILE:
            give_everything(text)
        samples = [sample for sample in scraped() if sample.name.startswith("fan_identity_")]
        start.shutdown()
        collector.wait_for(lambda it: it.points("fan_identity.batch.duration"))
        sent = [
            (metric.name, point)
            for metric in collector.metrics()
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]
        bodies = b"".join(collector.bodies)
    assert len(breakers) == len(HOSTILE)

    names = {name for sample in samples for name in sample.labels}
    assert names >= {"worker", "reason", "event", "operation", "outcome", "service", "table", "kind", "cache", "part"}
    for sample in samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        assert all(value in LISTED[sample.name, name] for name, value in labels.items()), sample
    for name, point in sent:
        for attribute in point.attributes:
            assert attribute.value.string_value in LISTED[name, attribute.key], (name, attribute)
    told = json.dumps([sample.labels for sample in samples])
    for text in filter(None, HOSTILE):
        assert json.dumps(text)[1:-1] not in told
        assert text.encode() not in bodies


def test_what_is_not_listed_is_counted_as_other_and_not_lost(scrape):
    totals_of("scoreUsers").count("dead_lettered.fan-1", 2)
    totals_of("scoreUsers").count("dead_lettered.fan-2", 3)
    totals_of("scoreUsers").count("dead_lettered.malformed", 4)
    found = {
        sample.labels["reason"]: sample.value
        for sample in scrape()
        if sample.name == "fan_identity_dead_letters_total" and sample.value
    }
    assert found == {"other": 5, "malformed": 4}


def test_hostile_values_take_no_memory(quiet):
    metrics.switch.on = True
    for number in range(1_000):
        metrics.observe_request(f"/fans/{number}", 0.001, "ok")
    told = {labels for labels, cell in metrics.requests.items() if any(cell.snapshot()[0])}
    assert told == {("other", "ok")}


def test_polled_numbers_are_listed_too(quiet):
    reads = instruments._polled({"fan-1": Polled(lambda: 3.0)})
    assert list(reads) == [(("fan-1",), 3.0)]
    observed = instruments._callback(instruments.measures.QUEUE_DEPTH, lambda: reads)(None)
    assert [one.attributes for one in observed] == [{"queue": "other"}]
