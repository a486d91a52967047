"""Dead letters in DynamoDB, every byte of them, however large.

A letter is the item ``DEADLETTER#<id>``, sort key ``LETTER``. What does not fit into one item is split into items
``PART#0001`` … of the same partition, written before the letter: a letter that can be seen is whole.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ...domain.records import DeadLetter
from ..addresses import Address
from ..clock import now_ms
from ..errors import BackendUnavailableError
from ..sqlite.dead_letters import StoredDeadLetter
from .calls import BATCH_ITEMS, Attributes, ConditionFailedError, TableCalls, in_parallel
from .values import attribute_of, item_of, key_problem

_PREFIX: Final = "DEADLETTER#"
_SK: Final = "LETTER"
_AT_ONCE: Final = 8
_TRIES: Final = 5

_PART_BYTES: Final = 300 * 1_024
"""Of the payload, in one item of up to 400 KB."""

_FIELD_BYTES: Final = 4 * 1_024
_ERROR_CHARACTERS: Final = 2_000
_STACK_CHARACTERS: Final = 12_000  # of up to four bytes each

_LONG_FIELDS: Final = ("requestId", "activityId", "source", "position")
"""Texts that come from outside; longer than 4 KB they go into parts, behind the payload."""

_SUMMARY: Final = ("deadLetterId", "writtenAt")


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
        pk = _PREFIX + letter.dead_letter_id
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
                Key=_key(pk, _SK),
                UpdateExpression=f"SET {', '.join(sets)} REMOVE #redrivenAt",
                ConditionExpression=f"{absent}#attempts {relation} :limit",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )
        except ConditionFailedError:
            return False
        return True

    def select(
        self, *, worker: str | None = None, reason: str | None = None, waiting_only: bool = True, limit: int = -1
    ) -> list[StoredDeadLetter]:
        """Letters by worker and reason, oldest first; ``limit`` -1 for all. Scans the table."""
        found = sorted(
            (int(item["writtenAt"]), str(item["deadLetterId"]))
            for item in self._scan(worker, reason, waiting_only=waiting_only)
        )
        chosen = found if limit < 0 else found[:limit]
        letters = in_parallel(self._load, [letter_id for _, letter_id in chosen], _AT_ONCE)
        return [letter for letter in letters if letter is not None]

    def count(self, *, worker: str | None = None, reason: str | None = None, waiting_only: bool = True) -> int:
        """How many letters ``select`` would find without a limit. Scans the table."""
        return sum(1 for _ in self._scan(worker, reason, waiting_only=waiting_only))

    def get(self, letter_id: str) -> StoredDeadLetter | None:
        """The letter whose id is ``letter_id`` or begins with it where only one does; else None.

        A whole id is looked up; the beginning of one scans the table.
        """
        if key_problem(_PREFIX + letter_id, _SK) is not None:
            return None
        whole = self._load(letter_id)
        if whole is not None:
            return whole
        ids = [str(item["deadLetterId"]) for item in self._scan(None, None, waiting_only=False, prefix=letter_id)]
        return self._load(ids[0]) if len(ids) == 1 else None

    def mark_redriven(self, letter_ids: Sequence[str]) -> None:
        """Remembers that letters were sent again; they stay to be looked at. Unknown ids are ignored."""
        now = now_ms()

        def mark(letter_id: str) -> None:
            with contextlib.suppress(ConditionFailedError):
                self._calls.call(
                    "update_item",
                    Key=_key(_PREFIX + letter_id, _SK),
                    UpdateExpression="SET redrivenAt = :now, attempts = attempts + :one",
                    ConditionExpression="attribute_exists(PK)",
                    ExpressionAttributeValues={":now": {"N": str(now)}, ":one": {"N": "1"}},
                )

        in_parallel(mark, letter_ids, _AT_ONCE)

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
            ExpressionAttributeValues={":sk": {"S": _SK}, ":prefix": {"S": _PREFIX}},
            ConsistentRead=True,
        ):
            for item in map(item_of, page["Items"]):
                yield self._stored(item["PK"], item)

    def delete(self, letter_ids: Sequence[str]) -> None:
        """Deletes letters with all their parts; one that is not there is no error."""
        for letter_id in letter_ids:
            pk = _PREFIX + letter_id
            if key_problem(pk, _SK) is not None:
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

    def _scan(
        self, worker: str | None, reason: str | None, *, waiting_only: bool, prefix: str = ""
    ) -> Iterator[dict[str, Any]]:
        """The ``_SUMMARY`` of matching letters."""
        names = {f"#{name}": name for name in _SUMMARY}
        values = {":sk": _SK, ":prefix": _PREFIX + prefix}
        conditions = ["SK = :sk", "begins_with(PK, :prefix)"]
        for name, wanted in (("worker", worker), ("reason", reason)):
            if wanted is not None:
                names[f"#{name}"] = name
                values[f":{name}"] = wanted
                conditions.append(f"#{name} = :{name}")
        if waiting_only:
            conditions.append("attribute_not_exists(redrivenAt)")
        for page in self._calls.pages(
            "scan",
            FilterExpression=" AND ".join(conditions),
            ProjectionExpression=", ".join(f"#{name}" for name in _SUMMARY),
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={name: {"S": value} for name, value in values.items()},
            ConsistentRead=True,
        ):
            yield from map(item_of, page["Items"])

    def _load(self, letter_id: str) -> StoredDeadLetter | None:
        pk = _PREFIX + letter_id
        answer = self._calls.call("get_item", Key=_key(pk, _SK), ConsistentRead=True)
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
