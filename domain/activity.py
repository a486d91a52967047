"""Activities: what a fan (or a bot) did, as one JSON object decoded and checked.

The wire format is documented in ``docs/record-formats.md``.
"""

import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

ACTIVITY_TYPES: tuple[str, ...] = (
    "signUp",
    "login",
    "passwordReset",
    "pageView",
    "assetView",
    "search",
    "eventView",
    "queueJoin",
    "addToCart",
    "checkout",
    "purchase",
    "verifiedFanEntry",
    "journeyStep",
    "demandSignal",
)
"""Scorable activity types. Append only: stored profiles refer to a type by its place in this tuple."""

TYPE_INDEX: dict[str, int] = {name: index for index, name in enumerate(ACTIVITY_TYPES)}

_MAX_EPOCH_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last time ISO 8601's four-digit year can write
MIN_EPOCH_MS = -62_135_596_800_000
"""0001-01-01T00:00:00Z, the earliest time an activity can have."""


class MalformedRecordError(ValueError):
    """A record that is no activity: not JSON, a field missing or of the wrong type, an impossible time.

    The message names the field and what was expected, never the value: values are personal data.
    """


class Context(msgspec.Struct, rename="camel", frozen=True):
    """Where an activity came from; each field is None where it is unknown."""

    ip_address: str | None = None
    device_id: str | None = None
    user_agent: str | None = None


class Activity(msgspec.Struct, rename="camel", frozen=True):
    """One activity. Unknown fields are allowed; they travel along in the record's original bytes.

    Attributes:
        activity_id: unique per activity; sending the same activity twice repeats it.
        activity_type: one of ``ACTIVITY_TYPES`` to be scorable.
        occurred_at: as sent: ISO 8601 (UTC where no offset is given) or epoch milliseconds. Use ``time_ms``.
        global_user_id: whose activity; None or blank is not scorable.
        attributes: free-form; ``outcome: "failure"`` marks a failed login, payment or request.
    """

    activity_id: str
    activity_type: str
    occurred_at: int | float | str
    global_user_id: str | None = None
    member_id: str | None = None
    event_id: str | None = None
    sale_id: str | None = None
    context: Context | None = None
    attributes: dict[str, Any] | None = None

    @property
    def time_ms(self) -> int:
        """When it happened, in milliseconds since 1970-01-01T00:00:00Z.

        Raises:
            MalformedRecordError: the time is neither ISO 8601 nor a finite number, or outside the years 1 to 9999.
        """
        return parse_time_ms(self.occurred_at)

    @property
    def failed(self) -> bool:
        """True where ``attributes.outcome`` is ``"failure"``."""
        return self.attributes is not None and self.attributes.get("outcome") == "failure"


_decoder = msgspec.json.Decoder(Activity)


def decode_activity(record: bytes) -> Activity:
    """Decodes and checks one activity.

    Args:
        record: a JSON object in UTF-8.

    Raises:
        MalformedRecordError: naming the field and what was expected of it.
    """
    try:
        activity = _decoder.decode(record)
    except RecursionError:
        raise MalformedRecordError("nested too deeply") from None
    except UnicodeDecodeError:
        raise MalformedRecordError("not UTF-8") from None
    except msgspec.MsgspecError as error:
        raise MalformedRecordError(str(error)) from None
    if not activity.activity_id.strip():
        raise MalformedRecordError("activityId is blank")
    return activity


class _Named(msgspec.Struct, rename="camel"):
    activity_id: str


_name_decoder = msgspec.json.Decoder(_Named)


def readable_activity_id(record: bytes) -> str | None:
    """The activity id of a record that is no activity, where at least that can be read; else None."""
    try:
        return _name_decoder.decode(record).activity_id
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def parse_time_ms(value: int | float | str) -> int:
    """Reads a time as epoch milliseconds.

    Args:
        value: a number is epoch milliseconds (fractions are cut off); a string is ISO 8601, or digits in
            epoch milliseconds as CSV files have them. An ISO time without an offset is UTC.

    Raises:
        MalformedRecordError: not a time, or outside the years 1 to 9999.
    """
    if isinstance(value, str):
        milliseconds = _parse_text_ms(value.strip())
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise MalformedRecordError("occurredAt is not a finite number")
        milliseconds = math.floor(value)
    else:
        milliseconds = value
    if not MIN_EPOCH_MS <= milliseconds <= _MAX_EPOCH_MS:
        raise MalformedRecordError("occurredAt is outside the years 1 to 9999")
    return milliseconds


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _parse_text_ms(text: str) -> int:
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) != len("20240614"):
        # Eight digits are ISO 8601's basic date, not a moment in January 1970.
        if len(digits) > len(str(_MAX_EPOCH_MS)):
            raise MalformedRecordError("occurredAt is outside the years 1 to 9999")
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise MalformedRecordError("occurredAt is neither ISO 8601 nor epoch milliseconds") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    difference = moment - _EPOCH
    # Integer arithmetic: float seconds would round some milliseconds down.
    return (difference.days * 86_400 + difference.seconds) * 1_000 + difference.microseconds // 1_000


def format_time_ms(milliseconds: int) -> str:
    """Writes epoch milliseconds as fixed-width ISO 8601 in UTC, so that text order is time order.

    >>> format_time_ms(1718362800123)
    '2024-06-14T11:00:00.123Z'
    """
    seconds, fraction = divmod(milliseconds, 1_000)
    return f"{_second_text(seconds)}.{fraction:03d}Z"


@lru_cache(maxsize=8_192)  # activities of a batch share seconds, and writing one costs more than looking it up
def _second_text(seconds: int) -> str:
    moment = _EPOCH + timedelta(seconds=seconds)
    return (
        f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"
        f"T{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d}"
    )
