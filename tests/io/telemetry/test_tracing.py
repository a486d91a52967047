"""When spans are recorded, and that nothing happens where they are not."""

import subprocess
import sys

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource

from fan_identity.io.errors import UsageError
from fan_identity.io.telemetry import metrics, tracing
from fan_identity.io.telemetry.destinations import destination
from fan_identity.io.telemetry.span_export import CountingExporter
from fan_identity.io.telemetry.tracing import NOTHING, child_span, current_span, new_span, outgoing, service_span

from ...otlp_receiver import otlp_receiver
from .recording import recording

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_TRACES_SAMPLER": "always_off"}, False),
        ({**ENDPOINT, "OTEL_TRACES_SAMPLER_ARG": "0"}, True),  # what a parent chose is still recorded
    ],
)
def test_a_collector_and_a_sampler_are_asked_for(environment, wanted):
    assert tracing.is_wanted(environment) is wanted


def test_a_protocol_we_do_not_speak_is_named(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(UsageError, match="OTEL_EXPORTER_OTLP_PROTOCOL: http/protobuf"):
        tracing.start(None)
    assert not tracing.switch.on


def test_spans_are_sent_to_the_collector_and_those_it_refuses_are_counted(monkeypatch):
    failures = metrics.export_failures["traces",]
    before = failures.value or 0
    with otlp_receiver() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        tracing.start(Resource({"service.name": "fan-identity.test"}))
        try:
            new_span("first").end()
            tracing.flush()
            assert [span.name for span in collector.spans()] == ["first"]
            assert collector.resources()[0]["service.name"] == "fan-identity.test"
            collector.status = 400
            new_span("second").end()
            tracing.flush()
        finally:
            tracing.shutdown()
    assert failures.value == before + 1


def test_off_nothing_of_opentelemetry_is_imported():
    code = (
        "import sys\n"
        "import fan_identity.serving.lambda_handler, fan_identity.serving.arm_handler, fan_identity.serving.appsync\n"
        "import fan_identity.io.steps, fan_identity.io.sqs.queue, fan_identity.io.dynamodb.table\n"
        "from fan_identity.io.telemetry import tracing\n"
        "with tracing.service_span('x') as span:\n"
        "    span.set({'a': 1}); span.fail('b'); span.link(None)\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'opentelemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_off_there_is_no_span():
    assert service_span("x") is NOTHING
    assert child_span("x") is NOTHING
    assert current_span() is NOTHING
    assert outgoing() == {}
    assert NOTHING.place is None


def test_outside_of_a_recorded_span_there_is_none_either():
    with recording() as recorded:
        with service_span("x"), child_span("y"):
            assert outgoing() == {}
        assert not recorded.spans


def test_a_services_span_is_part_of_the_current_one_and_goes_on_in_what_it_asks():
    with recording() as recorded:
        with new_span("root"), service_span("model") as span:
            header = outgoing()["traceparent"]
            tracing.note_http("POST", "model.example", 443, 200)
            tracing.link_current(f"00-{'c' * 32}-{'d' * 16}-01")
            tracing.link_current({"not": "one"})
        assert header == str(span.place)
        model = recorded.one("model")
    assert recorded.parent(model) == "root"
    assert [f"{link.context.trace_id:x}" for link in model.links] == ["c" * 32]
    assert dict(model.attributes) == {
        "http.request.method": "POST",
        "server.address": "model.example",
        "server.port": 443,
        "http.response.status_code": 200,
    }


@pytest.mark.parametrize(
    ("source", "system", "name", "partition"),
    [
        ("kafka://a:1,b:2/topic?x=y", "kafka", "topic", None),
        ("kafka://a:1/topic#12", "kafka", "topic", "12"),
        ("kinesis://purchases#shardId-1", "aws_kinesis", "purchases", "shardId-1"),
        ("sqs://q.fifo?endpoint=http://x", "aws_sqs", "q.fifo", None),
        ("pubsub://project/sub?endpoint=x", "gcp_pubsub", "sub", None),
        ("dynamodb-streams://table#shard", "aws_dynamodb_streams", "table", "shard"),
        ("sqlite:///a/b.db", "sqlite", None, None),
        ("/data/in/activities.jsonl", "file", "activities.jsonl", None),
        ("arn:aws:sqs:eu-west-1:1:q.fifo", "aws_sqs", "q.fifo", None),
        ("arn:aws:kinesis:eu-west-1:1:stream/purchases", "aws_kinesis", "purchases", None),
        ("arn:aws:dynamodb:eu-west-1:1:table/fans/stream/2026", "aws_dynamodb_streams", "fans", None),
        ("arn:nonsense", "other", "nonsense", None),
        ("com.example.idv", "aws_eventbridge", "com.example.idv", None),
        ("kafka:topic#0", "kafka", "topic", "0"),
        ("", "aws_eventbridge", None, None),
    ],
)
def test_sources_by_the_names_of_messaging(source, system, name, partition):
    expected = {
        "messaging.system": system,
        "messaging.destination.name": name,
        "messaging.destination.partition.id": partition,
    }
    assert destination(source) == {key: value for key, value in expected.items() if value is not None}


def test_an_export_that_raises_is_counted_too(monkeypatch):
    def broken(self, spans):
        raise RuntimeError("telemetry is broken")

    failures = metrics.export_failures["traces",]
    before = failures.value or 0
    monkeypatch.setattr(OTLPSpanExporter, "export", broken)
    with pytest.raises(RuntimeError):
        CountingExporter(endpoint="http://127.0.0.1:9/v1/traces").export([])
    assert failures.value == before + 1
