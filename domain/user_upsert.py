"""``user.upsert`` events: what a fan entered, published by the API; the newest one is the fan's profile item."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .activity import MalformedRecordError, format_time_ms, parse_time_ms
from .keys import causal_version, user_pk

PROFILE_SK: Final = "PROFILE"
"""The sort key of a fan's profile item, in the fan identity table."""


class UserUpsert(msgspec.Struct, frozen=True, rename="camel"):
    """What a fan entered, as the API publishes it. Fields that are not listed here are not kept.

    Attributes:
        global_user_id: who.
        message_id: names the event; the same event twice is one.
        occurred_at: when, as sent: ISO 8601 or epoch milliseconds. Use ``time_ms``.
        member_id: the account's, from the fan's token. The others as entered; None where not given.
    """

    global_user_id: str
    message_id: str
    occurred_at: int | float | str
    member_id: str | None = None
    event_id: str | None = None
    sale_id: str | None = None
    email: str | None = None
    phone_number: str | None = None
    postal_code: str | None = None
    marketing_consent: bool | None = None

    @property
    def time_ms(self) -> int:
        """When, epoch milliseconds. Raises MalformedRecordError where ``occurred_at`` is no time."""
        return parse_time_ms(self.occurred_at)

    @property
    def version(self) -> str:
        """Orders a fan's entries: a greater text is newer."""
        return causal_version(self.time_ms, self.message_id)


_decoder = msgspec.json.Decoder(UserUpsert)


def decode_upsert(detail: bytes) -> UserUpsert:
    """Reads an event's detail: JSON as ``serving/functions/upsert_user.py`` writes it.

    Raises:
        MalformedRecordError: it is none; names the field, never its value.
    """
    try:
        upsert = _decoder.decode(detail)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedRecordError(f"not a user.upsert event: {error}") from None
    if not upsert.global_user_id.strip() or not upsert.message_id.strip():
        raise MalformedRecordError("globalUserId or messageId is blank")
    parse_time_ms(upsert.occurred_at)
    return upsert


def profile_item(upsert: UserUpsert, written_at_ms: int) -> dict[str, Any]:
    """The fan's profile item as of an entry: what was entered, and nothing of earlier entries."""
    entered: dict[str, Any] = msgspec.to_builtins(upsert)
    return {
        "PK": user_pk(upsert.global_user_id),
        "SK": PROFILE_SK,
        "type": "profile",
        **{name: value for name, value in entered.items() if value is not None},
        "occurredAt": format_time_ms(upsert.time_ms),
        "dateUpdated": format_time_ms(written_at_ms),
    }


def version_of_profile(item: Mapping[str, Any]) -> str:
    """The version of the entry a profile item is of."""
    return causal_version(parse_time_ms(item["occurredAt"]), item["messageId"])
