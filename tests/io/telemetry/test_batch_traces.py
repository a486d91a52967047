"""The spans of batches and their messages, recorded in this process."""

import json
import time

import pytest

from fan_identity.domain.records import DeadLetter, RawRecord, Returned
from fan_identity.io.caller import Caller, RefusedError
from fan_identity.io.ports import ReceivedMessage
from fan_identity.io.telemetry import batch_traces, tracing
from fan_identity.io.telemetry.batch_traces import MOST_LINKS, MOST_OPEN, OpenTraces, Phase, open_trace
from fan_identity.io.telemetry.message_traces import Sending, parent_of
from fan_identity.io.telemetry.totals import totals_of

from .recording import recording

SENT = f"00-{'a' * 32}-{'b' * 16}-01"
UNSAMPLED = f"00-{'a' * 32}-{'b' * 16}-00"
WORKER = "enqueueFromStream"
SOURCE = "kafka://host:9092/activities#3"


def record(number=0, trace="", body=b"{}"):
    return RawRecord(body, f"offset {number}", body, trace=trace)


def letter(position, reason="malformed"):
    return DeadLetter("id", WORKER, reason, "", "", 1, "r", None, SOURCE, position, b"")


def opened(*items):
    return open_trace(WORKER, SOURCE, items, time.time_ns())


def test_a_message_alone_has_its_batch_in_its_trace():
    with recording() as recorded:
        (item,), trace = opened(record(7, SENT))
        with trace.step(Phase.INPUT, "Decode"), tracing.service_span("model"):
            pass
        trace.end()
        process = recorded.one("process activities")
    assert item.trace == str(tracing.TraceParent(process.context.trace_id, process.context.span_id, True))
    assert f"{process.parent.span_id:016x}" == "b" * 16
    assert [recorded.parent(span) for span in recorded.spans] == [
        "Decode",
        "Transform Input",
        WORKER,
        None,
        "process activities",
    ]
    assert dict(process.attributes) == {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.system": "kafka",
        "messaging.destination.name": "activities",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 7,
    }


def test_a_batch_of_many_links_to_its_messages_up_to_a_limit_and_each_of_them_to_it():
    with recording() as recorded:
        items, trace = opened(*(record(number) for number in range(MOST_LINKS + 50)))
        trace.end()
    batch, messages = recorded.one(WORKER), recorded.named("process activities")
    assert len(messages) == len(items) == MOST_LINKS + 50
    assert len(batch.links) == MOST_LINKS
    assert {link.context.span_id for span in messages for link in span.links} == {batch.context.span_id}
    assert len({span.context.trace_id for span in messages}) == len(messages), "each began a trace of its own"
    assert batch.attributes["messaging.batch.message_count"] == len(items)


def test_where_no_message_is_sampled_there_is_no_batch_either():
    with recording(0.0) as recorded:
        items, trace = opened(record(0), record(1, UNSAMPLED), record(2, "rubbish" * 1_000))
    assert trace is None
    assert [item.trace for item in items] == ["", UNSAMPLED, ""], "a choice is told on, rubbish is not"
    assert not recorded.spans


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"traceparent": SENT}, SENT),
        ({"detail-type": "x", "version": "0", "id": "1", "source": "s", "detail": {"traceparent": SENT}}, SENT),
        ({"Type": "Notification", "MessageId": "m", "Message": json.dumps({"traceparent": SENT})}, SENT),
        ({"eventName": "MODIFY", "dynamodb": {"NewImage": {"traceparent": {"S": SENT}}}}, SENT),
        ({"dynamodb": {"NewImage": {"traceparent": {"N": "1"}}}}, None),
        ({"dynamodb": [], "traceparent": None}, None),
        ({"nested": {"traceparent": SENT}}, None),
        ({"traceparent": [SENT]}, None),
    ],
)
def test_a_body_carries_a_trace_also_in_its_envelope(body, expected):
    found = parent_of(record(0, "", json.dumps(body).encode()))
    assert (None if found is None else str(found)) == expected


@pytest.mark.parametrize("body", [b'"traceparent"', b'{"traceparent"', b"\xff" + b'"traceparent"', b"[" * 5_000])
def test_a_body_that_is_nothing_carries_none(body):
    assert parent_of(record(0, "", body + b'"traceparent"')) is None


def test_what_travels_beside_a_record_goes_before_its_body():
    assert parent_of(record(0, UNSAMPLED, json.dumps({"traceparent": SENT}).encode())).sampled is False


def test_dead_letters_and_returned_messages_failed():
    with recording() as recorded:
        _, trace = opened(record(1), record(2))
        trace.end(letters=[letter("offset 2")])
        messages = [ReceivedMessage(f"r{number}", "g", b"{}", 1, f"m{number}") for number in (1, 2)]
        _, trace = open_trace("scoreUsers", "sqs://queue.fifo", messages, time.time_ns())
        trace.end(returned=[Returned("r1", 5)])
    errors = {
        span.attributes.get("messaging.message.id", "record"): span.attributes.get("error.type")
        for span in recorded.spans
    }
    assert [span.attributes.get("error.type") for span in recorded.named("process activities")] == [None, "malformed"]
    assert (errors["m1"], errors["m2"]) == ("returned", None)


def test_an_error_is_told_by_its_type_alone():
    with recording() as recorded:
        _, trace = opened(record(1, SENT))
        with pytest.raises(ValueError, match="canary"), trace.step(Phase.LOGIC, "Score users"):
            raise ValueError("canary-user")
        trace.end(ValueError("canary-user"))
    for span in recorded.spans:
        assert span.attributes["error.type"] == "ValueError"
        assert not span.events
        assert span.status.description is None
        assert "canary" not in span.to_json()


def test_what_is_never_ended_is_ended_by_those_that_come_after_and_counted():
    before = totals_of(WORKER).counts[batch_traces.EVICTED]
    traces = OpenTraces()
    with recording() as recorded:
        for number in range(MOST_OPEN + 3):
            _, trace = opened(record(number))
            traces.add(str(number), trace)
        assert {span.attributes.get("error.type") for span in recorded.named(WORKER)} == {"evicted"}
        assert len(recorded.named(WORKER)) == 3
    assert totals_of(WORKER).counts[batch_traces.EVICTED] - before == 3
    assert traces.take("0") is None
    assert traces.take(str(MOST_OPEN + 2)) is trace
    assert traces.get(str(MOST_OPEN + 2)) is None


def test_a_message_that_is_sent_is_a_span_of_its_causes_trace():
    class Queue:
        place = tracing.database("x", "y") | {"messaging.system": "aws_sqs", "messaging.destination.name": "q.fifo"}

    with recording() as recorded, Sending([SENT, "", UNSAMPLED, SENT], Queue()) as sending:
        sending.failed(3, "too_large")
    first, second = recorded.named("send q.fifo")
    assert sending.traces[0] == f"00-{'a' * 32}-{first.context.span_id:016x}-01"
    assert sending.traces[1:3] == ["", UNSAMPLED]
    assert (first.kind.name, first.attributes.get("error.type")) == ("PRODUCER", None)
    assert second.attributes["error.type"] == "too_large"


def test_calls_of_a_service_are_one_span_with_the_failures_counted():
    async def call(number):
        if number % 2:
            raise RefusedError("model_refused", "no")
        return number

    with recording() as recorded:
        _, trace = opened(record(1, SENT))
        with trace.step(Phase.LOGIC, "Score users"):
            Caller("model").map(range(10), call)
            Caller("accounts").map([1, 3], call)
        trace.end()
    model, accounts = recorded.one("model"), recorded.one("accounts")
    assert dict(model.attributes) == {"fan_identity.calls": 10, "fan_identity.failed_calls": 5}
    assert accounts.attributes["error.type"] == "model_refused"
    assert {recorded.parent(span) for span in (model, accounts)} == {"Score users"}
