"""The queue's message: an activity to score, with what is needed to route and trace it."""

import hashlib
from enum import StrEnum
from typing import Any

import msgspec

from .activity import MIN_EPOCH_MS, TYPE_INDEX, MalformedRecordError, decode_activity, parse_time_ms
from .records import DecodedRecord
from .traceparent import parse_traceparent


class Cause(StrEnum):
    """Why a user is scored. What is no activity stands in ``activityType`` under this name."""

    ACTIVITY = "activity"
    ON_DEMAND = "onDemand"
    ARAI_CHANGE = "araiChange"
    RESCORE = "rescore"


_NO_ACTIVITY = msgspec.Raw(b"null")


class ScoringMessage(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """One message of accountActivityQueue.

    Attributes:
        global_user_id: whose activity.
        activity_id: the activity that causes the score; of another cause, what names it.
        activity_type: its type; of another cause, the cause.
        occurred_at: when it happened, epoch milliseconds.
        request_id: the request that enqueued it; scores and dead letters keep it.
        worker: the worker that enqueued it.
        activity: the activity's original JSON, unknown fields included; ``null`` where no activity is the cause.
        cause: why the user is scored.
        traceparent: W3C trace context of what caused it, a text, or None; what else came in its place was ignored.
    """

    global_user_id: str
    activity_id: str
    activity_type: str
    occurred_at: int
    request_id: str
    worker: str
    activity: msgspec.Raw = _NO_ACTIVITY
    cause: Cause = Cause.ACTIVITY
    traceparent: Any = None  # read as anything: it is no reason to refuse a message


_decoder = msgspec.json.Decoder(ScoringMessage)
_encoder = msgspec.json.Encoder()


def message_of(record: DecodedRecord, request_id: str, worker: str, traceparent: str = "") -> ScoringMessage:
    """The message for a scorable activity (whose ``global_user_id`` is set), of a trace where one is given."""
    activity = record.activity
    if activity.global_user_id is None or record.raw.body is None:
        raise ValueError("a message needs a user and a body: filter before enqueueing")
    return ScoringMessage(
        global_user_id=activity.global_user_id,
        activity_id=activity.activity_id,
        activity_type=activity.activity_type,
        occurred_at=record.time_ms,
        request_id=request_id,
        worker=worker,
        activity=msgspec.Raw(record.raw.body),
        traceparent=traceparent or None,
    )


def encode_message(message: ScoringMessage) -> bytes:
    """The message as JSON in UTF-8."""
    return _encoder.encode(message)


def decode_message(body: bytes) -> ScoringMessage:
    """Reads a message.

    Raises:
        MalformedRecordError: not a message of ours, or one that could never be scored.
    """
    try:
        message = _decoder.decode(body)
        parse_time_ms(message.occurred_at)
        by_activity = message.cause is Cause.ACTIVITY
        if by_activity and decode_activity(bytes(message.activity)).activity_type not in TYPE_INDEX:
            raise MalformedRecordError("activityType is not one of those scored")
        if not message.global_user_id.strip():
            raise MalformedRecordError("globalUserId is blank")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, MalformedRecordError) as error:
        raise MalformedRecordError(f"not a scoring message: {error}") from None
    if message.traceparent is None:
        return message
    trace = parse_traceparent(message.traceparent)
    return msgspec.structs.replace(message, traceparent=None if trace is None else str(trace))


class _OnDemand(msgspec.Struct, rename="camel"):
    """The reference's message of onDemandScoringQueue: a user, and whatever else its sender likes."""

    global_user_id: str
    activity_id: str | None = None
    request_id: str | None = None


_on_demand_decoder = msgspec.json.Decoder(_OnDemand)


def decode_request(body: bytes, message_id: str, sent_at_ms: int, request_id: str) -> ScoringMessage:
    """Reads what a scoring queue holds: a message of ours, or a request to score a user now.

    Args:
        body: ``{"globalUserId": …}`` without an ``activityId`` is such a request.
        message_id: the queue's name for the message; a request delivered again causes the same score.
        sent_at_ms: when it was sent: the time of the request's score.
        request_id: of the batch, for a request that has none.

    Raises:
        MalformedRecordError: neither.
    """
    try:
        request = _on_demand_decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return decode_message(body)
    if request.activity_id is not None:
        return decode_message(body)
    if not request.global_user_id.strip():
        raise MalformedRecordError("globalUserId is blank")
    return caused_by(
        Cause.ON_DEMAND, request.global_user_id, f"onDemand:{message_id}", sent_at_ms, request.request_id or request_id
    )


def caused_by(cause: Cause, global_user_id: str, name: str, time_ms: int, request_id: str) -> ScoringMessage:
    """The message of a score that no activity causes.

    Args:
        cause: anything but ``ACTIVITY``.
        global_user_id: whom to score.
        name: names what caused it; the same name and time give the same score item.
        time_ms: the time of the score, epoch milliseconds.
        request_id: kept with the score.
    """
    return ScoringMessage(
        global_user_id=global_user_id,
        activity_id=name,
        activity_type=cause.value,
        occurred_at=time_ms,
        request_id=request_id,
        worker="",
        cause=cause,
    )


_canonical = msgspec.json.Encoder(order="deterministic")


def precedence(record: DecodedRecord) -> bytes:
    """Orders two activities that claim one id: the earlier one first, then by what they say (16 bytes).

    Not by their bytes: one activity read from JSON, CSV or Parquet is one activity, however its time is written.
    """
    content = msgspec.structs.replace(record.activity, occurred_at=record.time_ms)
    digest = hashlib.blake2b(_canonical.encode(content), digest_size=8).digest()
    return (record.time_ms - MIN_EPOCH_MS).to_bytes(8, "big") + digest
