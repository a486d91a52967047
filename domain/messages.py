"""The queue's message: an activity to score, with what is needed to route and trace it."""

import hashlib

import msgspec

from .activity import MIN_EPOCH_MS, TYPE_INDEX, MalformedRecordError, decode_activity, parse_time_ms
from .records import DecodedRecord


class ScoringMessage(msgspec.Struct, rename="camel", frozen=True):
    """One message of accountActivityQueue.

    Attributes:
        global_user_id: whose activity.
        activity_id: the activity that causes the score.
        activity_type: its type.
        occurred_at: when it happened, epoch milliseconds.
        request_id: the request that enqueued it; scores and dead letters keep it.
        worker: the worker that enqueued it.
        activity: the activity's original JSON, unknown fields included.
    """

    global_user_id: str
    activity_id: str
    activity_type: str
    occurred_at: int
    request_id: str
    worker: str
    activity: msgspec.Raw


_decoder = msgspec.json.Decoder(ScoringMessage)
_encoder = msgspec.json.Encoder()


def message_of(record: DecodedRecord, request_id: str, worker: str) -> ScoringMessage:
    """The message for a scorable activity (whose ``global_user_id`` is set)."""
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
        if decode_activity(bytes(message.activity)).activity_type not in TYPE_INDEX:
            raise MalformedRecordError("activityType is not one of those scored")
        if not message.global_user_id.strip():
            raise MalformedRecordError("globalUserId is blank")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, MalformedRecordError) as error:
        raise MalformedRecordError(f"not a scoring message: {error}") from None
    return message


_canonical = msgspec.json.Encoder(order="deterministic")


def precedence(record: DecodedRecord) -> bytes:
    """Orders two activities that claim one id: the earlier one first, then by what they say (16 bytes).

    Not by their bytes: one activity read from JSON, CSV or Parquet is one activity, however its time is written.
    """
    content = msgspec.structs.replace(record.activity, occurred_at=record.time_ms)
    digest = hashlib.blake2b(_canonical.encode(content), digest_size=8).digest()
    return (record.time_ms - MIN_EPOCH_MS).to_bytes(8, "big") + digest
