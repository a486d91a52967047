"""Where sources and queues have a record's traceparent."""

from typing import Any

import pytest
from google.pubsub_v1.types import PubsubMessage, ReceivedMessage

from fan_identity.domain.aws_events import transform_input
from fan_identity.io.kafka_session import _trace_of
from fan_identity.io.pubsub.carrier import PubSubCarrier

SENT = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"
ENDPOINT: Any = None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, ""),
        ({"traceparent": SENT, "googclient_traceparent": OTHER}, SENT),
        ({"googclient_traceparent": OTHER, "deduplicationId": "d"}, OTHER),
    ],
)
def test_pubsub_attributes(attributes, expected):
    received = ReceivedMessage(ack_id="a", message=PubsubMessage(data=b"{}", message_id="m", attributes=attributes))
    delivery = PubSubCarrier(ENDPOINT, 30, 5)._delivery(ReceivedMessage.pb(received))
    assert delivery.message.trace == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, ""),
        ([("x", b"y")], ""),
        ([("x", b"y"), ("traceparent", SENT.encode())], SENT),
        ([("traceparent", SENT.encode()), ("traceparent", OTHER.encode())], ""),
        ([("traceparent", None)], ""),
    ],
)
def test_kafka_headers(headers, expected):
    assert _trace_of(headers) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([{"traceparent": list(SENT.encode())}], SENT),
        ([{"traceparent": list(SENT.encode())}] * 2, ""),
        ([{"traceparent": "text"}], ""),
        ([{"traceparent": [300]}], ""),
        ([7], ""),
        ({"traceparent": [1]}, ""),
        (None, ""),
    ],
)
def test_headers_of_a_kafka_event_of_lambda(headers, expected):
    record = {"topic": "t", "partition": 0, "offset": 1, "value": "e30=", "headers": headers}
    _, (read,) = transform_input({"eventSource": "aws:kafka", "records": {"t-0": [record]}})
    assert (read.trace, read.error) == (expected, None)


@pytest.mark.parametrize("attributes", [None, [], {"traceparent": "x"}, {"traceparent": {}}, {"traceparent": None}])
def test_attributes_of_an_sqs_event_that_are_none(attributes):
    record = {"messageId": "m", "body": "{}", "eventSource": "aws:sqs", "messageAttributes": attributes}
    _, (read,) = transform_input({"Records": [record]})
    assert read.trace == ""
