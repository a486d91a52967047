"""The events AWS invokes a Lambda with, and the records in them: the reference's four input transformations.

Sources: AWS Lambda developer guide, the event shapes of Kinesis, SQS, Kafka (MSK and self-managed) and DynamoDB.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import msgspec

from .activity import MalformedRecordError
from .kpl import MalformedAggregateError, is_aggregate, user_records


class EventKind(Enum):
    """What invoked the Lambda."""

    KINESIS = "kinesis"
    SQS = "sqs"
    KAFKA = "kafka"
    DYNAMODB = "dynamodb"
    EVENTBRIDGE = "eventbridge"


class InputRecord(msgspec.Struct, frozen=True):
    """One record of an event.

    Attributes:
        payload: its bytes, for the dead letter.
        body: what it says, as JSON bytes; None where ``error`` is set.
        source: the ARN or topic it came from.
        position: where in the source, for people.
        meta: what the event says about it: ``sequenceNumber``, ``offset`` …
        error: why its encoding could not be read, or None.
        message_id: of an SQS message; "" else.
        group_id: of an SQS FIFO message; its message id else.
        receive_count: of an SQS message; 1 else.
        sent_at_ms: epoch milliseconds; 0 where the event does not say.
        trace: the W3C traceparent that travelled beside it, as it came; "" where there is none.
    """

    payload: bytes
    body: bytes | None
    source: str
    position: str
    meta: Mapping[str, Any]
    error: str | None = None
    message_id: str = ""
    group_id: str = ""
    receive_count: int = 1
    sent_at_ms: int = 0
    trace: str = ""


_encode = msgspec.json.Encoder(order="sorted").encode


def transform_input(event: Mapping[str, Any]) -> tuple[EventKind, list[InputRecord]]:
    """Takes an event apart by its shape.

    Raises:
        MalformedRecordError: it has none of the shapes above.
    """
    try:
        if isinstance(event.get("records"), dict):
            return EventKind.KAFKA, list(transform_kafka_records(event))
        records: Any = event.get("Records")
        if isinstance(records, list) and records:
            first: Any = event["Records"][0]
            source = str(first.get("eventSource", first.get("EventSource", "")))
            if source == "aws:kinesis":
                return EventKind.KINESIS, list(transform_kinesis_records(event))
            if source == "aws:sqs":
                return EventKind.SQS, list(transform_sqs_records(event))
            if source == "aws:dynamodb":
                return EventKind.DYNAMODB, list(transform_dynamodb_records(event))
        if isinstance(event.get("detail"), dict) and "detail-type" in event:
            name = f"event {event.get('id', '')}"
            body = _encode(event)
            return EventKind.EVENTBRIDGE, [InputRecord(body, body, str(event.get("source", "")), name, {})]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise MalformedRecordError(f"an event without what AWS puts into it: {type(error).__name__}") from None
    raise MalformedRecordError("not an event of Kinesis, SQS, Kafka, DynamoDB or EventBridge")


def transform_kinesis_records(event: Mapping[str, Any]) -> Iterator[InputRecord]:
    """``{kinesis: {data: base64}}`` → decoded data and meta; aggregated records (KPL) are taken apart."""
    for record in event["Records"]:
        kinesis = record["kinesis"]
        source, sequence = str(record.get("eventSourceARN", "")), str(kinesis.get("sequenceNumber", ""))
        position = f"sequence {sequence}"
        meta = {name: value for name, value in kinesis.items() if name != "data"}
        data, error = _decoded(kinesis["data"])
        if error is not None:
            yield InputRecord(data, None, source, position, meta, error)
            continue
        try:
            parts = user_records(data) if is_aggregate(data) else [data]
        except MalformedAggregateError as problem:
            yield InputRecord(data, None, source, position, meta, str(problem))
            continue
        for number, part in enumerate(parts):
            place = position if len(parts) == 1 else f"{position} part {number}"
            yield InputRecord(part, part, source, place, meta)


def transform_sqs_records(event: Mapping[str, Any]) -> Iterator[InputRecord]:
    """``{body: '{"globalUserId": …}'}`` → the body, with what a queue says of a delivery."""
    for record in event["Records"]:
        attributes = record.get("attributes", {})
        name, body = str(record["messageId"]), str(record["body"]).encode()
        yield InputRecord(
            body,
            body,
            str(record.get("eventSourceARN", "")),
            f"message {name}",
            attributes,
            message_id=name,
            group_id=str(attributes.get("MessageGroupId", name)),
            receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
            sent_at_ms=int(attributes.get("SentTimestamp", 0)),
            trace=_attribute_trace(record.get("messageAttributes")),
        )


def transform_kafka_records(event: Mapping[str, Any]) -> Iterator[InputRecord]:
    """``{value: base64, offset}`` by topic and partition → value and meta, each partition in its order."""
    for records in event["records"].values():
        for record in records:
            topic, partition, offset = str(record["topic"]), record["partition"], record["offset"]
            meta = {"topic": topic, "partition": partition, "offset": offset}
            source, position = f"kafka:{topic}#{partition}", f"offset {offset}"
            if record.get("value") is None:
                yield InputRecord(b"", None, source, position, meta, "a record without a value (tombstone)")
                continue
            data, error = _decoded(record["value"])
            trace = _header_trace(record.get("headers"))
            yield InputRecord(data, None if error else data, source, position, meta, error, trace=trace)


def transform_dynamodb_records(event: Mapping[str, Any]) -> Iterator[InputRecord]:
    """``{dynamodb: {NewImage}, eventName}`` → the change record as JSON, as ``select_arai_response`` takes it."""
    for record in event["Records"]:
        change = record["dynamodb"]
        body = _encode({"eventName": record["eventName"], "dynamodb": change})
        sequence = str(change.get("SequenceNumber", ""))
        meta = {"eventName": record["eventName"], "sequenceNumber": sequence}
        yield InputRecord(body, body, str(record.get("eventSourceARN", "")), f"sequence {sequence}", meta)


def _attribute_trace(attributes: Any) -> str:
    """The traceparent of an SQS message's attributes: ``{traceparent: {stringValue}}``."""
    try:
        return str(attributes["traceparent"]["stringValue"])
    except (KeyError, TypeError):
        return ""


def _header_trace(headers: Any) -> str:
    """The traceparent of a Kafka record's headers: ``[{traceparent: [48, 48, …]}]``; of several, none."""
    try:
        found = [header["traceparent"] for header in headers or () if "traceparent" in header]
        return bytes(found[0]).decode("ascii") if len(found) == 1 else ""
    except (TypeError, ValueError, KeyError):
        return ""


def _decoded(text: Any) -> tuple[bytes, str | None]:
    raw = str(text).encode()
    try:
        return base64.b64decode(raw, validate=True), None
    except (binascii.Error, ValueError):
        return raw, "the data is not base64"
