"""Looking for dead letters in DynamoDB: what a filter means to a scan, and pages of a list.

A letter is a partition of its own, so there is no order to read letters in but that of their ids' hashes, and a filter
saves the way of what does not match, not its reading. A page therefore ends after a tenth of a second, with what was
found until then and where to go on.
"""

import re
import time
from collections.abc import Mapping
from typing import Any, Final

from ...domain.dead_letters import LetterFilter
from ..errors import BackendUnavailableError
from ..ports import LetterHead, LetterPage
from .calls import TableCalls
from .values import attribute_of, item_of

PREFIX: Final = "DEADLETTER#"
LETTER_SK: Final = "LETTER"

_SECONDS: Final = 0.1
_MOST_SECONDS: Final = 4.0
_ITEMS_A_REQUEST: Final = 250
_CURSOR: Final = re.compile(r"[\x21-\x7e]{1,200}")
_HEAD: Final = (
    *("deadLetterId", "worker", "reason", "error", "attempts", "writtenAt", "redrivenAt", "source", "position"),
    "codeVersion",
)


def scan_of(where: LetterFilter, prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of a scan for matching letters.

    Args:
        where: which letters.
        prefix: how their ids begin.
        names: the attributes to read.
    """
    aliases = {f"#{name}": name for name in names}
    values: dict[str, Any] = {":sk": LETTER_SK, ":prefix": PREFIX + prefix}
    conditions = ["SK = :sk", "begins_with(PK, :prefix)"]
    for condition, attribute, name, wanted in (
        ("#worker = :worker", "worker", "worker", where.worker),
        ("#reason = :reason", "reason", "reason", where.reason),
        ("contains(#error, :error)", "error", "error", where.error),
        ("#codeVersion = :codeVersion", "codeVersion", "codeVersion", where.code_version),
        ("#activityId = :activityId", "activityId", "activityId", where.activity_id),
        ("#writtenAt >= :since", "writtenAt", "since", where.since_ms),
        ("#writtenAt < :until", "writtenAt", "until", where.until_ms),
    ):
        if wanted is None:
            continue
        aliases[f"#{attribute}"] = attribute
        if name == "codeVersion" and not wanted:
            condition = "(attribute_not_exists(#codeVersion) OR #codeVersion = :codeVersion)"  # noqa: PLW2901
        values[f":{name}"] = wanted
        conditions.append(condition)
    if where.waiting_only:
        conditions.append("attribute_not_exists(redrivenAt)")
    if where.redriven_only:
        conditions.append("attribute_exists(redrivenAt)")
    return {
        "FilterExpression": " AND ".join(conditions),
        "ProjectionExpression": ", ".join(f"#{name}" for name in names),
        "ExpressionAttributeNames": aliases,
        "ExpressionAttributeValues": {name: attribute_of(value) for name, value in values.items()},
        "ConsistentRead": True,
    }


def page_of(calls: TableCalls, where: LetterFilter, after: str | None, limit: int) -> LetterPage:
    """A page; see ``DeadLetterArchive.page``.

    Where the table holds other items too, a page goes on until it is at a letter, for some seconds.

    Raises:
        BackendUnavailableError: there is none in that time; the table holds too much besides letters.
        ValueError: ``after`` is nothing a page said.
    """
    if after is not None and _CURSOR.fullmatch(after) is None:
        raise ValueError("no page of letters ends there")
    asked = {**scan_of(where, "", _HEAD), "Limit": _ITEMS_A_REQUEST}
    start = {} if after is None else {"ExclusiveStartKey": _key_of(after)}
    found: list[LetterHead] = []
    until = time.monotonic() + _SECONDS
    while True:
        page = calls.call("scan", **asked, **start)
        found += map(_head, page["Items"])
        if len(found) > limit:
            return LetterPage(found[:limit], found[limit - 1].dead_letter_id)
        last: Mapping[str, Any] | None = page.get("LastEvaluatedKey")
        if not last:
            return LetterPage(found, None)
        pk: str = last["PK"]["S"]
        # Of another item's key a cursor must not be made: it may hold a fan's id.
        if pk.startswith(PREFIX) and (len(found) == limit or time.monotonic() >= until):
            return LetterPage(found, pk.removeprefix(PREFIX))
        if time.monotonic() >= until + _MOST_SECONDS:
            raise BackendUnavailableError(
                "dead letters stand too far apart among other items to be listed: give them a table of their own "
                "(setting dead_letters)"
            )
        start = {"ExclusiveStartKey": last}


def _key_of(letter_id: str) -> dict[str, Any]:
    # The letter's own item, whichever of its partition was read last: parts and attempts stand behind it.
    return {"PK": {"S": PREFIX + letter_id}, "SK": {"S": LETTER_SK}}


def _head(attributes: Mapping[str, Any]) -> LetterHead:
    item = item_of(attributes)
    return LetterHead(
        dead_letter_id=item["deadLetterId"],
        worker=item["worker"],
        reason=item["reason"],
        error=item["error"],
        attempts=item["attempts"],
        written_at_ms=item["writtenAt"],
        redriven_at_ms=item.get("redrivenAt"),
        source=item.get("source", ""),
        position=item.get("position", ""),
        code_version=item.get("codeVersion", ""),
    )
