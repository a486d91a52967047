"""Identity verification results: what a provider (IDV) found out about a fan."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from .activity import MalformedRecordError, format_time_ms, parse_time_ms
from .event_signature import check_signature
from .keys import causal_version, user_pk, verification_sk

VERIFIED_SK: Final = "VERIFICATION"
"""The sort key of a user's newest result."""

RESULT_PREFIX: Final = "VERIFICATION#"
"""How the sort keys of a user's results begin."""

CONSUMED_SK: Final = "VERIFICATION-CONSUMED"
"""The sort key of how far a user's results are consumed: stored, and the Identity Service told."""

MAX_AGE_MS: Final = 180 * 24 * 60 * 60_000
"""A result older than this says nothing any more: accounts are sold, and with them who was verified."""


class Status(StrEnum):
    """What a verification can end in."""

    PENDING = "PENDING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


MOST_KEPT: Final = 32
"""Of a user's results so many are repeated with the newest: a user has a handful, and all are read as one unit."""

_LONGEST_KEPT_ID: Final = 64
_HASHED: Final = "sha256:"

_RANK: Final = {
    status: rank
    for rank, status in enumerate((Status.PENDING, Status.CANCELLED, Status.PASSED, Status.EXPIRED, Status.FAILED))
}
"""Of two results of one millisecond the later one here is newer: a check begins as PENDING, and doubt wins."""


class Verification(msgspec.Struct, frozen=True):
    """One IDV result.

    Attributes:
        verification_id: the provider's name for the check; its results carry it one after the other.
        global_user_id: whose.
        status: what it ended in, so far.
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
        return causal_version(self.time_ms, f"{_RANK[self.status]}#{self.verification_id}")


class _Event(msgspec.Struct, rename="camel"):
    verification_id: str
    global_user_id: str
    status: str
    occurred_at: int | float | str | None = None
    provider: str | None = None
    signature: str | None = None


_decoder = msgspec.json.Decoder(_Event)


def decode_verification(body: bytes, sent_at_ms: int, secrets: Sequence[str] = ()) -> Verification:
    """Reads a result.

    Args:
        body: JSON with ``verificationId``, ``globalUserId``, ``status`` and, where known, ``occurredAt``, ``provider``,
            ``signature``.
        sent_at_ms: the time of the event, for one that does not say.
        secrets: where there are any, the result must be signed with one of them; see ``event_signature``.

    Raises:
        MalformedRecordError: it is none, or its status is unknown.
        RefusedEventError: ``forged``: its signature is missing or of something else.
    """
    try:
        event = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedRecordError(f"not a verification result: {error}") from None
    if not event.verification_id.strip() or not event.global_user_id.strip():
        raise MalformedRecordError("verificationId or globalUserId is blank")
    if secrets:
        fields = (event.verification_id, event.global_user_id, event.status, event.occurred_at)
        check_signature(event.signature, fields, secrets)
    time_ms = sent_at_ms if event.occurred_at is None else parse_time_ms(event.occurred_at)
    return Verification(event.verification_id, event.global_user_id, _status(event.status), time_ms, event.provider)


def _status(text: str) -> Status:
    # Only ASCII: in Unicode other texts have PASSED as their upper case too.
    if text.isascii() and text.upper() in Status.__members__:
        return Status[text.upper()]
    raise MalformedRecordError(f"status is none of {', '.join(Status)}")


def verification_item(verification: Verification, written_at_ms: int) -> dict[str, Any]:
    """The item of one result; the same result always has the same keys."""
    return {
        "PK": user_pk(verification.global_user_id),
        "SK": result_sk(verification),
        "type": "verification",
        "globalUserId": verification.global_user_id,
        "verificationId": verification.verification_id,
        "status": verification.status.value,
        "provider": verification.provider,
        "occurredAt": format_time_ms(verification.time_ms),
        "dateUpdated": format_time_ms(written_at_ms),
    }


def result_sk(verification: Verification) -> str:
    """The sort key of a result's own item."""
    return verification_sk(verification.time_ms, f"{verification.verification_id}#{verification.status}")


def newest_verification_item(items: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """What one read needs to know of a user: the newest result under a fixed sort key, and those before it in short.

    Args:
        items: all of the user's results, as ``verification_item`` makes them, in any order; at least one.

    Returns:
        The item's version, greater with each further result, and the item: the same for the same results.
    """
    newest_first = sorted(items, key=lambda item: verification_of(item).version, reverse=True)
    kept = [
        {"verificationId": _short(item["verificationId"]), "status": item["status"], "occurredAt": item["occurredAt"]}
        for item in newest_first[:MOST_KEPT]
    ]
    newest = newest_first[0]
    item = {**newest, "SK": VERIFIED_SK, "verificationSK": newest["SK"], "results": len(items), "known": kept}
    # A letter, so that it is greater than the versions of items that repeat the newest result only.
    return f"r{len(items):012d}", item


def _short(verification_id: str) -> str:
    """A check's name as it is kept with others: the item has a bound, ids have none."""
    if len(verification_id) > _LONGEST_KEPT_ID or verification_id.startswith(_HASHED):
        return _HASHED + hashlib.sha256(verification_id.encode()).hexdigest()
    return verification_id


def consumed_item(verification: Verification, written_at_ms: int) -> dict[str, Any]:
    """The item that says: this result and those before it are consumed."""
    return {
        "PK": user_pk(verification.global_user_id),
        "SK": CONSUMED_SK,
        "type": "verificationConsumed",
        "globalUserId": verification.global_user_id,
        "verificationSK": result_sk(verification),
        "through": verification.version,
        "dateUpdated": format_time_ms(written_at_ms),
    }


def verification_of(item: Mapping[str, Any]) -> Verification:
    """The result of an item of ``verification_item``, or the newest one of ``newest_verification_item``."""
    return Verification(
        verification_id=item["verificationId"],
        global_user_id=item["globalUserId"],
        status=Status(item["status"]),
        time_ms=parse_time_ms(item["occurredAt"]),
        provider=item.get("provider"),
    )


def is_decided(verification: Verification) -> bool:
    """Whether a check that ended so says something of the fan."""
    return verification.status in (Status.PASSED, Status.FAILED)


def deciding(verifications: Iterable[Verification], as_of_ms: int) -> Verification | None:
    """The result that says who the fan is, as of a moment; None where none does.

    Of each check its newest result counts, of the checks that PASSED or FAILED the newest one. So a check that is under
    way, was called off or ran out says nothing, and does not wipe out what another one said: a fan who failed does not
    get rid of that by beginning anew. A PASSED that EXPIRED later is one no more.

    Args:
        verifications: a user's, in any order.
        as_of_ms: later results are not known yet; those over 180 days older count no more. Epoch milliseconds.
    """
    ended: set[str] = set()
    for verification in sorted(verifications, key=lambda each: each.version, reverse=True):
        if verification.time_ms > as_of_ms or as_of_ms - verification.time_ms > MAX_AGE_MS:
            continue
        if verification.verification_id in ended:
            continue
        if is_decided(verification):
            return verification
        ended.add(verification.verification_id)
    return None


class Known(NamedTuple):
    """What a user's results say as of a moment.

    Attributes:
        verification: the result that ``deciding`` chose, or None.
        results: how many had happened by then; see ``causal_version``.
    """

    verification: Verification | None = None
    results: int = 0


NOTHING_KNOWN: Final = Known()


def known_of_results(verifications: Sequence[Verification], as_of_ms: int) -> Known:
    """What all of a user's results say as of a moment, epoch milliseconds."""
    return Known(deciding(verifications, as_of_ms), sum(each.time_ms <= as_of_ms for each in verifications))


def known_of_item(item: Mapping[str, Any], as_of_ms: int) -> Known | None:
    """The same by what ``newest_verification_item`` keeps; None where only all of the user's results can say."""
    newest = verification_of(item)
    if newest.time_ms <= as_of_ms and is_decided(newest):
        return Known(deciding([newest], as_of_ms), item.get("results", 1))
    if "known" not in item:  # it was written before others were kept beside the newest
        return None
    kept = [verification_of({**each, "globalUserId": item["globalUserId"]}) for each in item["known"]]
    found = deciding(kept, as_of_ms)
    if found is None and item["results"] > len(kept) and as_of_ms - kept[-1].time_ms <= MAX_AGE_MS:
        return None
    return Known(found, item["results"] - sum(each.time_ms > as_of_ms for each in kept))
