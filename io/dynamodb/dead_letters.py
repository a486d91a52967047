"""Dead letters in DynamoDB, every byte of them, however large.

A letter is the item ``DEADLETTER#<id>``, sort key ``LETTER``. What does not fit into one item is split into items
``PART#0001`` … of the same partition, written before the letter: a letter that can be seen is whole.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ...domain.dead_letters import WAITING, LetterFilter, LetterTally, RedriveAttempt, tally_letters
from ...domain.records import DeadLetter
from ..addresses import Address
from ..clock import now_ms
from ..errors import BackendUnavailableError
from ..ports import LetterPage, StoredDeadLetter
from ..telemetry import tracing
from ..telemetry.doors import database_call
from .calls import BATCH_ITEMS, Attributes, ConditionFailedError, TableCalls, in_parallel
from .letter_pages import LETTER_SK, PREFIX, page_of, scan_of
from .values import attribute_of, item_of, key_problem

_AT_ONCE: Final = 8
_TRIES: Final = 5

_PART_BYTES: Final = 300 * 1_024
"""Of the payload, in one item of up to 400 KB."""

_FIELD_BYTES: Final = 4 * 1_024
_ERROR_CHARACTERS: Final = 2_000
_STACK_CHARACTERS: Final = 12_000  # of up to four bytes each

_LONG_FIELDS: Final = ("requestId", "activityId", "source", "position")
"""Texts that come from outside; longer than 4 KB they go into parts, behind the payload."""

_SUMMARY: Final = ("deadLetterId", "writtenAt", "worker", "reason")

_TRY: Final = "TRY#"
"""How the sort keys of a letter's history begin; behind ``PART#``, so that the letter is deleted last."""

_PAGE: Final = 100
_TIME_DIGITS: Final = 15
_ANY: Final = LetterFilter(waiting_only=False)


class DynamoDbDeadLetters:
    """Dead letters in a table, which may be the one that holds scores.

    Finding letters other than by their whole id scans the table: with a table of their own that is cheap.
    Errors as ``DynamoDbTable`` raises them.
    """

    def __init__(self, address: Address, calls: TableCalls, setting: str) -> None:
        self._name = f"--{setting}: dynamodb://{address.target}"
        self._calls = calls

    @classmethod
    def of(cls, address: Address, setting: str) -> "DynamoDbDeadLetters":
        """The dead letters in the table of an address ``dynamodb://table``.

        Raises:
            UsageError: the address names no table, or has an unknown option.
        """
        return cls(address, TableCalls(address, setting), setting)

    @property
    def place(self) -> tracing.Attributes:
        """As spans name it."""
        return self._calls.place

    @database_call("UpdateItem")
    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Writes letters; one written before waits again and keeps its first time. All are durable when it returns.

        An error is kept to its first 2,000 characters, a stack to its last 12,000; payloads whole.
        """
        now = now_ms()
        by_id: dict[str, list[DeadLetter]] = {}
        for letter in letters:
            by_id.setdefault(letter.dead_letter_id, []).append(letter)

        def write(same: Sequence[DeadLetter]) -> None:
            for letter in same:
                self._write(letter, now)

        in_parallel(write, list(by_id.values()), _AT_ONCE)

    def _write(self, letter: DeadLetter, now: int) -> None:
        pk = PREFIX + letter.dead_letter_id
        fields, parts = _fields(letter)
        part_items = [
            ({"PK": {"S": pk}, "SK": {"S": f"PART#{number:04d}"}, "payload": {"B": part}}, len(part))
            for number, part in enumerate(parts, 1)
        ]
        for refused in self._calls.write(part_items):
            if refused is not None:
                raise refused
        once = {**fields, "writtenAt": now}
        again = {
            "error": _storable(letter.error[:_ERROR_CHARACTERS]),
            "stack": _storable(letter.stack[-_STACK_CHARACTERS:]),
            "codeVersion": letter.code_version,
        }
        # DynamoDB knows no max(): of two writes the condition of one holds, unless the letter was deleted between them.
        for _ in range(_TRIES):
            if self._update(pk, once, {**again, "attempts": letter.attempts}, letter.attempts, "<="):
                return
            if self._update(pk, {}, again, letter.attempts, ">"):
                return
        raise BackendUnavailableError(f"{self._name} holds a dead letter that cannot be written again")

    def _update(
        self, pk: str, once: Mapping[str, Any], always: Mapping[str, Any], attempts: int, relation: str
    ) -> bool:
        names = {f"#{name}": name for name in (*once, *always, "attempts", "redrivenAt")}
        values = {f":{name}": attribute_of(value) for name, value in {**once, **always, "limit": attempts}.items()}
        sets = [f"#{name} = if_not_exists(#{name}, :{name})" for name in once] + [
            f"#{name} = :{name}" for name in always
        ]
        absent = "attribute_not_exists(#attempts) OR " if once else ""
        try:
            self._calls.call(
                "update_item",
                Key=_key(pk, LETTER_SK),
                UpdateExpression=f"SET {', '.join(sets)} REMOVE #redrivenAt",
                ConditionExpression=f"{absent}#attempts {relation} :limit",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )
        except ConditionFailedError:
            return False
        return True

    def select(self, where: LetterFilter = WAITING, *, limit: int = -1) -> list[StoredDeadLetter]:
        """Letters that match, oldest first; ``limit`` -1 for all. Scans the table."""
        found = self._found(where)
        return self._loaded(found if limit < 0 else found[:limit])

    def pages(self, where: LetterFilter = WAITING, *, size: int = _PAGE) -> Iterator[list[StoredDeadLetter]]:
        """As ``select``, a page at a time. Scans the table first: of each letter 50 bytes are held, no payload."""
        found = self._found(where)
        for start in range(0, len(found), size):
            if page := self._loaded(found[start : start + size]):
                yield page

    def page(self, where: LetterFilter = WAITING, *, after: str | None = None, limit: int = 50) -> LetterPage:
        """A page of the letters that match, in no order; raises ValueError where ``after`` is none of ours.

        It may have fewer letters than ``limit``, or none, though more follow: reading ends after a tenth of a second.
        """
        return page_of(self._calls, where, after, limit)

    def count(self, where: LetterFilter = WAITING) -> int:
        """How many letters match. Scans the table."""
        return sum(1 for _ in self._scan(where))

    def count_up_to(self, most: int, where: LetterFilter = WAITING, *, seconds: float | None = None) -> int | None:
        """How many letters match, counted no further than ``most``. Scans the table until then.

        None where that takes longer than ``seconds``; the request under way then is the last.
        """
        until = math.inf if seconds is None else time.monotonic() + seconds
        number = 0
        for page in self._calls.pages("scan", **scan_of(where, "", _SUMMARY)):
            number += len(page["Items"])
            if number >= most:
                return most
            if page.get("LastEvaluatedKey") and time.monotonic() >= until:
                return None
        return number

    def numbers(self, where: LetterFilter = WAITING) -> list[LetterTally]:
        """As ``tally``, without examples. Scans the table."""
        kinds = Counter((str(item["worker"]), str(item["reason"])) for item in self._scan(where))
        ordered = sorted(kinds.items(), key=lambda one: (-one[1], one[0]))
        return [LetterTally(*kind, number) for kind, number in ordered]

    def tally(self, where: LetterFilter = WAITING) -> list[LetterTally]:
        """The letters that match by worker and reason, most first. Scans the table."""
        found = sorted(
            (int(item["writtenAt"]), str(item["deadLetterId"]), str(item["worker"]), str(item["reason"]))
            for item in self._scan(where)
        )
        return tally_letters((worker, reason, letter_id) for _, letter_id, worker, reason in found)

    def _found(self, where: LetterFilter) -> list[str]:
        """By time of writing: that time in fixed width and the id, as one text, since there may be millions."""
        return sorted(f"{int(item['writtenAt']):0{_TIME_DIGITS}d}{item['deadLetterId']}" for item in self._scan(where))

    def _loaded(self, found: Sequence[str]) -> list[StoredDeadLetter]:
        letters = in_parallel(self._load, [one[_TIME_DIGITS:] for one in found], _AT_ONCE)
        return [letter for letter in letters if letter is not None]

    def get(self, letter_id: str) -> StoredDeadLetter | None:
        """The letter whose id is ``letter_id`` or begins with it where only one does; else None.

        A whole id is looked up; the beginning of one scans the table.
        """
        if key_problem(PREFIX + letter_id, LETTER_SK) is not None:
            return None
        whole = self._load(letter_id)
        if whole is not None:
            return whole
        ids = [str(item["deadLetterId"]) for item in self._scan(_ANY, prefix=letter_id)]
        return self._load(ids[0]) if len(ids) == 1 else None

    def record(self, attempts: Sequence[RedriveAttempt]) -> None:
        """Adds attempts to letters' histories; what was queued or rejected no longer waits.

        An attempt is written before its letter is marked: none is lost, whenever the process is killed.
        """
        in_parallel(self._record, attempts, _AT_ONCE)

    def _record(self, attempt: RedriveAttempt) -> None:
        pk, sk = PREFIX + attempt.dead_letter_id, f"{_TRY}{attempt.at:0{_TIME_DIGITS}d}#{attempt.request_id}"
        done = attempt.outcome != "failed"
        fields = {**msgspec.to_builtins(attempt), "error": _storable(attempt.error[:_ERROR_CHARACTERS])}
        item = {name: attribute_of(value) for name, value in fields.items()}
        self._calls.call("put_item", Item={**_key(pk, sk), **item})
        try:
            self._calls.call(
                "update_item",
                Key=_key(pk, LETTER_SK),
                UpdateExpression=f"SET attempts = attempts + :one{', redrivenAt = :at' if done else ''}",
                ConditionExpression="attribute_exists(PK)",
                ExpressionAttributeValues={":one": {"N": "1"}, **({":at": {"N": str(attempt.at)}} if done else {})},
            )
        except ConditionFailedError:
            self._calls.call("delete_item", Key=_key(pk, sk))  # there is no such letter

    def history(self, letter_id: str) -> list[RedriveAttempt]:
        """A letter's attempts, oldest first."""
        pages = self._calls.pages(
            "query",
            KeyConditionExpression="PK = :pk AND begins_with(SK, :prefix)",
            ExpressionAttributeValues={":pk": {"S": PREFIX + letter_id}, ":prefix": {"S": _TRY}},
            ConsistentRead=True,
        )
        return [msgspec.convert(item_of(item), RedriveAttempt) for page in pages for item in page["Items"]]

    def check(self) -> None:
        """Looks at the table (``DescribeTable``): does it exist, with the right keys, and is it ready."""
        self._calls.check()

    def create(self) -> None:
        """Creates the table where it does not exist, paid per request, and waits until it is ready."""
        self._calls.create()

    def each(self) -> Iterator[StoredDeadLetter]:
        """Every letter, redriven or not, a page at a time. Scans the table."""
        for page in self._calls.pages(
            "scan",
            FilterExpression="SK = :sk AND begins_with(PK, :prefix)",
            ExpressionAttributeValues={":sk": {"S": LETTER_SK}, ":prefix": {"S": PREFIX}},
            ConsistentRead=True,
        ):
            for item in map(item_of, page["Items"]):
                yield self._stored(item["PK"], item)

    def delete(self, letter_ids: Sequence[str]) -> None:
        """Deletes letters with all their parts; one that is not there is no error."""
        for letter_id in letter_ids:
            pk = PREFIX + letter_id
            if key_problem(pk, LETTER_SK) is not None:
                continue
            pages = self._calls.pages(
                "query",
                KeyConditionExpression="PK = :pk",
                ExpressionAttributeValues={":pk": {"S": pk}},
                ProjectionExpression="SK",
                ConsistentRead=True,
            )
            # The letter itself in the last request: as long as it is there, what is left of it is found again.
            sks = sorted((str(item_of(item)["SK"]) for page in pages for item in page["Items"]), reverse=True)
            for keys in (sks[:-BATCH_ITEMS], sks[-BATCH_ITEMS:]):
                self._calls.delete([(pk, sk) for sk in keys])

    def _scan(self, where: LetterFilter, *, prefix: str = "") -> Iterator[dict[str, Any]]:
        """The ``_SUMMARY`` of matching letters."""
        for page in self._calls.pages("scan", **scan_of(where, prefix, _SUMMARY)):
            yield from map(item_of, page["Items"])

    def _load(self, letter_id: str) -> StoredDeadLetter | None:
        pk = PREFIX + letter_id
        answer = self._calls.call("get_item", Key=_key(pk, LETTER_SK), ConsistentRead=True)
        return self._stored(pk, item_of(answer["Item"])) if "Item" in answer else None

    def _stored(self, pk: str, item: dict[str, Any]) -> StoredDeadLetter:
        payload = item["payload"] if item["parts"] == 0 else self._parts(pk, item)
        return StoredDeadLetter(
            DeadLetter(
                dead_letter_id=item["deadLetterId"],
                worker=item["worker"],
                reason=item["reason"],
                error=item["error"],
                stack=item["stack"],
                attempts=item["attempts"],
                request_id=item["requestId"],
                activity_id=item["activityId"],
                source=item["source"],
                position=item["position"],
                payload=payload,
                code_version=item.get("codeVersion", ""),
            ),
            item["writtenAt"],
            item.get("redrivenAt"),
        )

    def _parts(self, pk: str, item: dict[str, Any]) -> bytes:
        """The payload out of parts; puts the long fields among them into the item."""
        parts: list[bytes] = []
        for page in self._calls.pages(
            "query",
            KeyConditionExpression="PK = :pk AND begins_with(SK, :prefix)",
            ExpressionAttributeValues={":pk": {"S": pk}, ":prefix": {"S": "PART#"}},
            ConsistentRead=True,
        ):
            parts += (item_of(part)["payload"] for part in page["Items"])
        content = b"".join(parts)
        size = int(item["payloadBytes"])
        if len(parts) != item["parts"] or len(content) < size:
            raise BackendUnavailableError(f"{self._name} lacks parts of dead letter {item['deadLetterId']}")
        if len(content) > size:
            item.update(msgspec.json.decode(content[size:], type=dict[str, str]))
        return content[:size]


def _fields(letter: DeadLetter) -> tuple[dict[str, Any], list[bytes]]:
    """The attributes that never change, and what stands in parts."""
    fields: dict[str, Any] = {
        "type": "deadLetter",
        "deadLetterId": letter.dead_letter_id,
        "worker": letter.worker,
        "reason": letter.reason,
        "requestId": _storable(letter.request_id),
        "activityId": letter.activity_id and _storable(letter.activity_id),
        "source": _storable(letter.source),
        "position": _storable(letter.position),
        "payloadBytes": len(letter.payload),
    }
    long = {name: fields[name] for name in _LONG_FIELDS if fields[name] and len(fields[name].encode()) > _FIELD_BYTES}
    if not long and len(letter.payload) <= _PART_BYTES:
        return {**fields, "payload": letter.payload, "parts": 0}, []
    for name in long:
        fields[name] = ""
    content = letter.payload + (msgspec.json.encode(long) if long else b"")
    parts = [content[start : start + _PART_BYTES] for start in range(0, len(content), _PART_BYTES)]
    return {**fields, "parts": len(parts)}, parts


def _storable(text: str) -> str:
    """The text with lone surrogates, which no UTF-8 has, as question marks."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _key(pk: str, sk: str) -> Attributes:
    return {"PK": {"S": pk}, "SK": {"S": sk}}
