"""Change records of the fan identity table: which of them are ARAI responses, and whom to score for them."""

from typing import Any

import msgspec

from .activity import MIN_EPOCH_MS, MalformedRecordError, parse_time_ms
from .arai import ARAI_TYPE, Arai, arai_of
from .messages import Cause, ScoringMessage, caused_by
from .typed_json import plain

_RELEVANT = ("INSERT", "MODIFY")


class _Change(msgspec.Struct, rename="camel"):
    """A record of a DynamoDB stream, as Lambda shows it and as Kinesis Data Streams for DynamoDB carries it."""

    event_name: str
    dynamodb: dict[str, Any]


_decoder = msgspec.json.Decoder(_Change)


class AraiChange(msgspec.Struct, frozen=True):
    """A new ARAI response: score its user with it."""

    message: ScoringMessage
    arai: Arai


def select_arai_response(body: bytes, request_id: str) -> AraiChange | None:
    """The reference's ``selectAraiResponses`` for one change record: inserts and updates of type ``arai``.

    Args:
        body: the change record, JSON with DynamoDB's typed values.
        request_id: of the batch, kept with the score.

    Returns:
        None where the record is another change (a removal, a score).

    Raises:
        MalformedRecordError: it is no change record, or an ARAI item that cannot be read.
    """
    try:
        change = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedRecordError(f"not a change record: {error}") from None
    image = change.dynamodb.get("NewImage")
    if change.event_name not in _RELEVANT or not isinstance(image, dict):
        return None
    if image.get("type") != {"S": ARAI_TYPE}:  # pyright: ignore[reportUnknownMemberType]
        return None
    item = plain(image)  # pyright: ignore[reportUnknownArgumentType]
    user, updated, response, sk = (item.get(name) for name in ("globalUserId", "dateUpdated", "araiResponse", "SK"))
    if not isinstance(user, str) or not user.strip():
        raise MalformedRecordError("the ARAI item has no globalUserId")
    if not isinstance(updated, str | int) or isinstance(updated, bool):
        raise MalformedRecordError("the ARAI item has no dateUpdated")
    if not isinstance(response, dict):
        raise MalformedRecordError("the ARAI item has no araiResponse")
    time_ms = max(parse_time_ms(updated), MIN_EPOCH_MS)
    message = caused_by(Cause.ARAI_CHANGE, user, f"araiChange:{sk}", time_ms, request_id)
    return AraiChange(message, arai_of(response, time_ms))  # pyright: ignore[reportUnknownArgumentType]
