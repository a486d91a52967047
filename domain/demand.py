"""Demand: which events are wanted how much, and what a fan registered for; keys and items of the demand table."""

from collections.abc import Mapping
from typing import Any, Final

from .activity import format_time_ms
from .keys import user_token

MAX_ID_CHARACTERS: Final = 200
"""Event and sale ids beyond this are refused; DynamoDB allows 1,024 bytes in a sort key."""

DISCO_SK: Final = "disco"
"""The sort key of an event's item that holds its discovery event id."""

EVENT_SK: Final = "demand"
"""The sort key of an event's item that holds how much it is wanted."""


def is_event_id(text: str) -> bool:
    """Whether it can name an event or a sale: not blank, not too long. Its characters are data."""
    return bool(text.strip()) and len(text) <= MAX_ID_CHARACTERS


def event_pk(event_id: str) -> str:
    """The partition key of an event's items: ``event:{eventId}``."""
    return f"event:{event_id}"


def fan_pk(global_user_id: str) -> str:
    """The partition key of what a fan registered for: ``fan:{globalUserId}``."""
    return "fan:" + user_token(global_user_id)


def demand_sk(event_id: str, sale_id: str) -> str:
    """The sort key of what a fan registered for: ``demand#{eventId}-{saleId}``.

    A hyphen in the event id is escaped, so that no two pairs share a key.

    >>> demand_sk("evt123", "sale456"), demand_sk("a-b", "c"), demand_sk("a", "b-c")
    ('demand#evt123-sale456', 'demand#a%2Db-c', 'demand#a-b-c')
    """
    return f"demand#{event_id.replace('%', '%25').replace('-', '%2D')}-{sale_id}"


def demand_item(
    existing: Mapping[str, Any] | None, wanted: Mapping[str, Any], global_user_id: str, now_ms: int
) -> dict[str, Any]:
    """What a fan registered for, merged with what was stored before: what is not said anew stays.

    Args:
        existing: the stored item, or None.
        wanted: ``eventId``, ``saleId`` and what else is known: ``discoEventId``, ``demandLevel``, ``email``,
            ``memberId``; None where it is not.
        global_user_id: whose.
        now_ms: the time, epoch milliseconds.

    Returns:
        The item, without its revision.
    """
    kept = {name: value for name, value in (existing or {}).items() if name != "revision"}
    said = {name: value for name, value in wanted.items() if value is not None}
    now = format_time_ms(now_ms)
    return {
        **kept,
        **said,
        "PK": fan_pk(global_user_id),
        "SK": demand_sk(str(wanted["eventId"]), str(wanted["saleId"])),
        "type": "demand",
        "globalUserId": global_user_id,
        "dateCreated": kept.get("dateCreated", now),
        "dateUpdated": now,
    }
