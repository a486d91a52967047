"""Events of Amazon S3 that tell of new objects, in whatever envelope they reach us.

S3 itself notifies SQS, SNS and Lambda with ``{"Records": [{"eventSource": "aws:s3", …}]}``; through EventBridge the
same comes as ``Object Created``. Both are taken bare, in SNS's notification, and as a Lambda gets them from SQS or SNS.
Sources: Amazon S3 user guide, "Event message structure" and "EventBridge event message structure"; Lambda developer
guide, "SQS" and "SNS".
"""

from typing import Any, Final, cast
from urllib.parse import unquote_plus

import msgspec

from .activity import MalformedRecordError, parse_time_ms
from .envelopes import Opened, opened

_MOST_DEPTH: Final = 4
_CREATED: Final = "ObjectCreated:"
_CREATED_DETAIL: Final = "Object Created"
_TEST: Final = "s3:TestEvent"
_LIMIT_EXCEEDED: Final = "not an S3 event: too many envelopes in each other"

_decode: Final = msgspec.json.Decoder().decode


class S3Object(msgspec.Struct, frozen=True):
    """A new object.

    Attributes:
        bucket: its bucket's name.
        key: its key, decoded.
        size: in bytes.
        event_time: when it was written, epoch milliseconds.
    """

    bucket: str
    key: str
    size: int
    event_time: int

    @property
    def address(self) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"


def objects_created(body: bytes) -> list[S3Object]:
    """The new objects an event tells of, in its order.

    Events of S3 that tell of something else (a deletion, the test event a new notification begins with), and the empty
    objects that consoles make for folders, bring none.

    Args:
        body: JSON: an event, a list of them, or either in envelopes.

    Raises:
        MalformedRecordError: it is no event of S3, or one without bucket, key or time.
    """
    return [created for created in _of_body(body, _MOST_DEPTH) if not (created.key.endswith("/") and not created.size)]


def _of_body(body: bytes, depth: int) -> list[S3Object]:
    if not depth:
        raise MalformedRecordError(_LIMIT_EXCEEDED)
    event = opened(body)
    try:
        value: Any = _decode(event.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise MalformedRecordError("not an S3 event: no JSON") from None
    try:
        return _of_value(value, event, depth)
    except (KeyError, TypeError, AttributeError):
        raise MalformedRecordError("an S3 event without what S3 puts into it: bucket, key, time") from None
    except UnicodeError:
        raise MalformedRecordError("an S3 event whose key is no UTF-8") from None


def _of_value(value: Any, event: Opened, depth: int) -> list[S3Object]:
    if isinstance(value, list):
        return [
            each for member in cast("list[Any]", value) for each in _of_body(msgspec.json.encode(member), depth - 1)
        ]
    if event.detail_type is not None and "bucket" in value and "object" in value:
        return [_of_detail(value, event)] if event.detail_type == _CREATED_DETAIL else []
    if value.get("Event") == _TEST:
        return []
    records: list[dict[str, Any]] = value["Records"]
    return [each for record in records for each in _of_record(record, depth)]


def _of_record(record: dict[str, Any], depth: int) -> list[S3Object]:
    source = record.get("eventSource", record.get("EventSource"))
    if source == "aws:sqs":
        return _of_body(_text(record["body"]).encode(), depth - 1)
    if source == "aws:sns":
        return _of_body(_text(record["Sns"]["Message"]).encode(), depth - 1)
    if source != "aws:s3":
        raise MalformedRecordError("not an event of S3")
    if not _text(record["eventName"]).startswith(_CREATED):
        return []
    told: dict[str, Any] = record["s3"]["object"]
    # A key is form-encoded here, unlike in EventBridge: a plus sign is a space.
    key = unquote_plus(_text(told["key"]), errors="strict")
    return [_checked(record["s3"]["bucket"]["name"], key, told.get("size"), parse_time_ms(record["eventTime"]))]


def _of_detail(detail: dict[str, Any], event: Opened) -> S3Object:
    told: dict[str, Any] = detail["object"]
    return _checked(detail["bucket"]["name"], told["key"], told.get("size"), event.time_ms)


def _checked(bucket: Any, key: Any, size: Any, time_ms: int | None) -> S3Object:
    if not _text(bucket) or not _text(key) or time_ms is None:
        raise TypeError
    return S3Object(bucket, key, size if isinstance(size, int) else 0, time_ms)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
