"""Identity verification results: what a provider (IDV) found out about a fan."""

from enum import StrEnum
from typing import Any

import msgspec

from .activity import MalformedRecordError, format_time_ms, parse_time_ms
from .keys import causal_version, user_pk, verification_sk

VERIFIED_SK = "VERIFICATION"
"""The sort key of a user's newest verification."""


class Status(StrEnum):
    """What a verification can end in."""

    PENDING = "PENDING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


class Verification(msgspec.Struct, frozen=True):
    """One IDV result.

    Attributes:
        verification_id: the provider's name for it.
        global_user_id: whose.
        status: what it ended in.
        time_ms: when, epoch milliseconds.
        provider: who verified, or None.
    """

    verification_id: str
    global_user_id: str
    status: Status
    time_ms: int
    provider: str | None = None

    @property
    def version(self) -> str:
        """Orders a user's verifications: a greater text is newer."""
        return causal_version(self.time_ms, f"{self.verification_id}#{self.status}")


class _Event(msgspec.Struct, rename="camel"):
    verification_id: str
    global_user_id: str
    status: str
    occurred_at: int | float | str | None = None
    provider: str | None = None


_decoder = msgspec.json.Decoder(_Event)


def decode_verification(body: bytes, sent_at_ms: int) -> Verification:
    """Reads a result.

    Args:
        body: JSON with ``verificationId``, ``globalUserId``, ``status`` and, where known, ``occurredAt``, ``provider``.
        sent_at_ms: the time of the event, for one that does not say.

    Raises:
        MalformedRecordError: it is none, or its status is unknown.
    """
    try:
        event = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedRecordError(f"not a verification result: {error}") from None
    if not event.verification_id.strip() or not event.global_user_id.strip():
        raise MalformedRecordError("verificationId or globalUserId is blank")
    try:
        status = Status(event.status.upper())
    except ValueError:
        raise MalformedRecordError(f"status is none of {', '.join(Status)}") from None
    time_ms = sent_at_ms if event.occurred_at is None else parse_time_ms(event.occurred_at)
    return Verification(event.verification_id, event.global_user_id, status, time_ms, event.provider)


def verification_item(verification: Verification, written_at_ms: int) -> dict[str, Any]:
    """The item of one result; the same result always has the same keys."""
    return {
        "PK": user_pk(verification.global_user_id),
        "SK": verification_sk(verification.time_ms, f"{verification.verification_id}#{verification.status}"),
        "type": "verification",
        "globalUserId": verification.global_user_id,
        "verificationId": verification.verification_id,
        "status": verification.status.value,
        "provider": verification.provider,
        "occurredAt": format_time_ms(verification.time_ms),
        "dateUpdated": format_time_ms(written_at_ms),
    }


def newest_verification_item(item: dict[str, Any]) -> dict[str, Any]:
    """A result's item as the user's newest: the same under a fixed sort key."""
    return {**item, "SK": VERIFIED_SK, "verificationSK": item["SK"]}
