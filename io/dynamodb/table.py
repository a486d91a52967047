"""A table with partition and sort key in DynamoDB. Newer wins by a condition of the write itself."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ...domain.keys import LATEST_SK
from ...domain.records import Failure
from ..addresses import Address
from ..ports import Item
from ..telemetry import tracing
from ..telemetry.doors import database_call
from .calls import Attributes, ConditionFailedError, TableCalls, in_parallel
from .values import (
    MAX_ITEM_BYTES,
    ItemTooLargeError,
    UnsupportedItemError,
    attributes_of,
    item_of,
    key_problem,
    size_of,
)

VERSION_ATTRIBUTE: Final = "version"
"""Where ``put_if_newer`` keeps an item's version. This class hides it from readers; an item must not bring its own."""

_CONDITIONAL_WRITES_AT_ONCE: Final = 16
_QUERIES_AT_ONCE: Final = 16

# An item without a version is older than any; so is one whose attribute of that name is no text: none of ours wrote it.
_NEWER: Final = "attribute_not_exists(#version) OR #version < :version OR NOT attribute_type(#version, :text)"


class DynamoDbTable:
    """A table at ``dynamodb://table?region=…&endpoint=…`` whose keys ``PK`` and ``SK`` are texts.

    Holds the address only: it pickles, and connects when first used, once a process. ``get`` and ``query`` see every
    write that was answered before (consistent reads). What numbers come back as is said in ``values.py``.

    Every method raises UsageError where the table does not exist, has other keys, or region or credentials are wrong,
    and BackendUnavailableError where DynamoDB is out of reach or throttles for over half a minute.
    """

    def __init__(self, calls: TableCalls) -> None:
        self._calls = calls

    @classmethod
    def of(cls, address: Address, setting: str) -> "DynamoDbTable":
        """The table of an address.

        Args:
            address: ``dynamodb://table``, with options ``region`` and ``endpoint``.
            setting: where it came from, for errors.

        Raises:
            UsageError: the address names no table, or has an unknown option.
        """
        return cls(TableCalls(address, setting))

    @property
    def place(self) -> tracing.Attributes:
        """As spans name it."""
        return self._calls.place

    @database_call("PutItem")
    def put(self, item: Item) -> None:
        """Writes an item, replacing the one with the same keys.

        Raises:
            UnsupportedItemError: DynamoDB can never hold it (ItemTooLargeError: it is over 400 KB).
        """
        self._calls.call("put_item", Item=_prepared(item)[0])

    @database_call("BatchWriteItem")
    def batch_put(self, items: Sequence[Item]) -> list[Failure | None]:
        """Writes items, 25 a request and 8 requests at once; of items with the same keys the last one stays.

        Returns:
            For each None, or why the table will never take it: ``too_large``, ``unsupported``. The others are written.
        """
        outcomes: list[Failure | None] = [None] * len(items)
        last: dict[tuple[str, str], tuple[int, tuple[Attributes, int]]] = {}
        for index, item in enumerate(items):
            try:
                prepared = _prepared(item)
            except UnsupportedItemError as error:
                outcomes[index] = _failure(error)
            else:
                last[item["PK"], item["SK"]] = index, prepared
        refused = self._calls.write([prepared for _, prepared in last.values()])
        for (index, _), error in zip(last.values(), refused, strict=True):
            outcomes[index] = error and _failure(error)
        return outcomes

    @database_call("PutItem")
    def put_if_newer(self, items: Sequence[tuple[str, Item]]) -> list[bool | Failure]:
        """Writes each (version, item) unless the stored item has that version or a greater one.

        Versions are compared by their UTF-8 bytes. Up to 16 writes at once, those of the same keys one after the other
        in the order given.

        Returns:
            For each whether it was written, or why the table will never take it. Where an answer was lost on the way
            and the write tried again, it may say False of an item that was written.
        """
        outcomes: list[bool | Failure] = [False] * len(items)
        by_key: dict[tuple[str, str], list[tuple[int, str, Attributes]]] = {}
        for index, (version, item) in enumerate(items):
            try:
                attributes, _ = _prepared(item, version)
            except UnsupportedItemError as error:
                outcomes[index] = _failure(error)
            else:
                by_key.setdefault((item["PK"], item["SK"]), []).append((index, version, attributes))

        def write(writes: Sequence[tuple[int, str, Attributes]]) -> None:
            for index, version, attributes in writes:
                outcomes[index] = self._write_if_newer(version, attributes)

        in_parallel(write, list(by_key.values()), _CONDITIONAL_WRITES_AT_ONCE)
        return outcomes

    def _write_if_newer(self, version: str, attributes: Attributes) -> bool | Failure:
        try:
            self._calls.call(
                "put_item",
                Item=attributes,
                ConditionExpression=_NEWER,
                ExpressionAttributeNames={"#version": VERSION_ATTRIBUTE},
                ExpressionAttributeValues={":version": {"S": version}, ":text": {"S": "S"}},
            )
        except ConditionFailedError:
            return False
        except UnsupportedItemError as error:
            return _failure(error)
        return True

    @database_call("GetItem")
    def get(self, pk: str, sk: str) -> Item | None:
        """The item with these keys, or None."""
        if key_problem(pk, sk) is not None:
            return None  # nothing can have such keys
        answer = self._calls.call("get_item", Key={"PK": {"S": pk}, "SK": {"S": sk}}, ConsistentRead=True)
        return _read(answer["Item"]) if "Item" in answer else None

    @database_call("BatchGetItem")
    def batch_get(self, keys: Sequence[tuple[str, str]]) -> list[Item | None]:
        """The items of (PK, SK), in their order; None for each that is not there. 100 a request, 8 requests at once.

        Each is read consistently, all of them not at one moment.
        """
        distinct = dict.fromkeys(key for key in keys if key_problem(*key) is None)  # nothing can have other keys
        found = dict(zip(distinct, self._calls.read(list(distinct)), strict=True))
        items: list[Item | None] = []
        for key in keys:
            attributes = found.get(key)
            items.append(None if attributes is None else _read(attributes))
        return items

    @database_call("BatchWriteItem")
    def batch_delete(self, keys: Sequence[tuple[str, str]]) -> None:
        """Deletes the items of (PK, SK), 25 a request and 8 requests at once; one that is not there is no error."""
        self._calls.delete(list(dict.fromkeys(key for key in keys if key_problem(*key) is None)))

    @database_call("Query")
    def query(
        self, pk: str, sk_prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Item]:
        """A partition's items whose sort key begins with ``sk_prefix``, in the order of its bytes or the reverse.

        Args:
            pk: the partition key.
            sk_prefix: "" for all.
            newest_first: the greatest sort key first.
            limit: at most so many; None for all.
        """
        if key_problem(pk, sk_prefix or "any") is not None or limit == 0:
            return []
        parameters: dict[str, Any] = {
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": {":pk": {"S": pk}},
            "ScanIndexForward": not newest_first,
            "ConsistentRead": True,
        }
        if sk_prefix:
            parameters["KeyConditionExpression"] += " AND begins_with(SK, :prefix)"
            parameters["ExpressionAttributeValues"][":prefix"] = {"S": sk_prefix}
        if limit is not None:
            parameters["Limit"] = limit
        found: list[Item] = []
        for page in self._calls.pages("query", **parameters):
            found += map(_read, page["Items"])
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def query_many(self, pks: Sequence[str], sk_prefix: str = "") -> list[list[Item]]:
        """For each partition its items whose sort key begins with ``sk_prefix``; up to 16 queries at once."""

        def of(pk: str) -> list[Item]:
            return self.query(pk, sk_prefix)

        return in_parallel(of, pks, _QUERIES_AT_ONCE)

    def latest_items(self) -> Iterator[Item]:
        """Every user's ``LATEST`` item, in no order. Reads (and pays for) the whole table."""
        for page in self._calls.pages(
            "scan",
            FilterExpression="SK = :latest",
            ExpressionAttributeValues={":latest": {"S": LATEST_SK}},
            ConsistentRead=True,
        ):
            yield from map(_read, page["Items"])

    def check(self) -> None:
        """Looks at the table (``DescribeTable``): does it exist, with the right keys, and is it ready."""
        self._calls.check()

    def create(self, *, stream: bool = False) -> None:
        """Creates the table where it does not exist, paid per request, and waits until it is ready.

        Args:
            stream: with a stream of new and old images, as ``dynamodb-streams://`` reads it.
        """
        self._calls.create(stream=stream)


def _prepared(item: Item, version: str | None = None) -> tuple[Attributes, int]:
    """An item's attributes, and their size in bytes."""
    problem = key_problem(item.get("PK"), item.get("SK"))
    if problem is not None:
        raise UnsupportedItemError(problem)
    if VERSION_ATTRIBUTE in item:
        raise UnsupportedItemError(f"an item has no attribute {VERSION_ATTRIBUTE!r} of its own here")
    attributes = attributes_of(item if version is None else {**item, VERSION_ATTRIBUTE: version})
    size = size_of(attributes)
    if size > MAX_ITEM_BYTES:
        raise ItemTooLargeError("the item is over 400 KB")
    return attributes, size


def _failure(error: UnsupportedItemError) -> Failure:
    return Failure(error.reason, str(error))


def _read(attributes: Attributes) -> Item:
    item = item_of(attributes)
    item.pop(VERSION_ATTRIBUTE, None)
    return item
