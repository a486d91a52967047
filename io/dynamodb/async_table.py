"""A DynamoDB table for code on an event loop: single items, short queries, and writes that lose no update."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from ..addresses import Address
from ..asking import GRACE_SECONDS, answered
from ..aws_json_async import AsyncAwsClient, AwsRefusedError, ThrottledError
from ..caller import Caller, CallLimits
from ..errors import BackendUnavailableError, UnavailableError, UsageError
from ..ports import Item
from ..telemetry import tracing
from ..telemetry.metrics import observe_throttling
from .calls import TableCalls
from .capacity import observe_capacity, with_capacity
from .table import VERSION_ATTRIBUTE
from .values import (
    MAX_ITEM_BYTES,
    Attribute,
    ItemTooLargeError,
    UnsupportedItemError,
    attributes_of,
    item_of,
    key_problem,
    size_of,
)

REVISION_ATTRIBUTE: Final = "revision"
"""Where ``put_revision`` counts an item's revisions."""

_UNWRITTEN: Final = "ConditionalCheckFailedException"
_ABSENT: Final = "attribute_not_exists(#revision)"
_SAME: Final = "#revision = :revision"


class DynamoDbAsyncTable:
    """A table at ``dynamodb://table?region=…&endpoint=…``; reads and writes the items ``DynamoDbTable`` does.

    Reads are eventually consistent unless asked otherwise: they cost half, are served by any replica, and what they
    may miss is the last second. A table whose items are read to be written again is opened with ``consistent``.

    A read is tried twice within its deadline, retries bounded for all calls together (``CallLimits``). A write is
    tried once: where its answer was lost, a second try could not tell its own revision from another writer's.

    Every method raises UnavailableError, named by ``name``, where there is no answer in time, and where table or
    credentials are not there: the API's caller can do nothing about either.

    Args:
        client: of DynamoDB.
        address: ``dynamodb://table``.
        setting: where it came from, for errors.
        name: the table's name in errors, ``demand``.
        limits: of reads.
        consistent: whether reads see every write that was answered before.
    """

    def __init__(
        self,
        client: AsyncAwsClient,
        address: Address,
        setting: str,
        name: str,
        limits: CallLimits,
        *,
        consistent: bool = False,
    ) -> None:
        self._calls = TableCalls(address, setting)  # checks the name, and knows the table's description
        self._client = client
        self._table = address.target
        self._setting = setting.replace("-", "_")
        self._name = name
        self._consistent = consistent
        place = f"{address.target}?{sorted(address.options.items())}"
        self._reads = Caller(name, place, limits)
        self._writes = Caller(name, place, replace(limits, attempts=1))

    async def get(self, pk: str, sk: str) -> Item | None:
        """The item with these keys, or None."""
        if key_problem(pk, sk) is not None:
            return None  # nothing can have such keys
        answer = await self._call(self._reads, "GetItem", Key=_key(pk, sk), ConsistentRead=self._consistent)
        return _read(answer["Item"]) if "Item" in answer else None

    async def query(
        self, pk: str, sk_prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Item]:
        """A partition's items in the order of their sort keys' bytes or the reverse; all pages within one deadline."""
        if key_problem(pk, sk_prefix or "any") is not None or limit == 0:
            return []
        parameters: dict[str, Any] = {
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": {":pk": {"S": pk}},
            "ScanIndexForward": not newest_first,
            "ConsistentRead": self._consistent,
        }
        if sk_prefix:
            parameters["KeyConditionExpression"] += " AND begins_with(SK, :prefix)"
            parameters["ExpressionAttributeValues"][":prefix"] = {"S": sk_prefix}
        if limit is not None:
            parameters["Limit"] = limit
        found: list[Item] = []
        try:
            async with asyncio.timeout(self._reads.limits.deadline_seconds + GRACE_SECONDS):
                async for page in self._pages(parameters):
                    found += map(_read, page["Items"])
                    if limit is not None and len(found) >= limit:
                        break
        except TimeoutError:
            raise UnavailableError(self._name, "its pages take too long") from None
        return found[:limit]

    async def put_revision(self, item: Item, revision: int) -> bool:
        """Writes an item as its next revision, by one conditional write; False where somebody else was faster.

        Raises:
            UnsupportedItemError: DynamoDB can never hold it (ItemTooLargeError: it is over 400 KB).
        """
        prepared = _prepared({**item, REVISION_ATTRIBUTE: revision + 1})
        condition = f"{_ABSENT} OR {_SAME}" if revision == 0 else _SAME
        try:
            await self._call(
                self._writes,
                "PutItem",
                Item=prepared,
                ConditionExpression=condition,
                ExpressionAttributeNames={"#revision": REVISION_ATTRIBUTE},
                ExpressionAttributeValues={":revision": {"N": str(revision)}},
            )
        except _UnwrittenError:
            return False
        return True

    async def delete(self, pk: str, sk: str) -> None:
        """Deletes the item with these keys, if there is one. Deleting twice is deleting once, so it is tried again."""
        await self._call(self._reads, "DeleteItem", Key=_key(pk, sk))

    async def check(self) -> None:
        """Looks at the table: does it exist, with the right keys, and is it ready.

        Raises:
            UsageError: it does not, or its keys are others, or region or credentials are wrong.
            BackendUnavailableError: it is out of reach.
        """
        await asyncio.to_thread(self._calls.check)

    async def close(self) -> None:
        """Nothing to do: connections are the client's."""

    async def _pages(self, parameters: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        start: dict[str, Any] = {}
        while True:
            page = await self._call(self._reads, "Query", **parameters, **start)
            yield page
            if not page.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def _call(self, caller: Caller, operation: str, **parameters: Any) -> dict[str, Any]:
        try:
            await self._client.open()  # only the first time it takes time, and that is no call's
        except (UsageError, BackendUnavailableError) as error:
            raise UnavailableError(self._name, str(error)) from None

        async def attempt() -> dict[str, Any]:
            if tracing.switch.on:
                place = tracing.database("aws.dynamodb", self._table)
                tracing.describe_current(f"{operation} {self._table}", {**place, "db.operation.name": operation})
            asked = with_capacity(operation, {"TableName": self._table, **parameters})
            try:
                answer = await self._client.call(operation, asked)
                observe_capacity(self._setting, operation, answer)
                return answer
            except ThrottledError:
                observe_throttling(self._setting)
                raise
            except AwsRefusedError as error:
                if error.code == _UNWRITTEN:
                    return {_UNWRITTEN: True}
                raise

        answer = await answered(self._name, caller, attempt)
        if _UNWRITTEN in answer:
            raise _UnwrittenError
        return answer


class _UnwrittenError(Exception):
    """The condition of a write did not hold."""


def _key(pk: str, sk: str) -> Mapping[str, Attribute]:
    return {"PK": {"S": pk}, "SK": {"S": sk}}


def _prepared(item: Item) -> Mapping[str, Attribute]:
    problem = key_problem(item.get("PK"), item.get("SK"))
    if problem is not None:
        raise UnsupportedItemError(problem)
    if VERSION_ATTRIBUTE in item:
        raise UnsupportedItemError(f"an item has no attribute {VERSION_ATTRIBUTE!r} of its own here")
    attributes = attributes_of(item)
    if size_of(attributes) > MAX_ITEM_BYTES:
        raise ItemTooLargeError("the item is over 400 KB")
    return attributes


def _read(attributes: Mapping[str, Any]) -> Item:
    item = item_of({name: _unpacked(attribute) for name, attribute in attributes.items()})
    item.pop(VERSION_ATTRIBUTE, None)
    return item


def _unpacked(attribute: Mapping[str, Any]) -> Attribute:
    """An attribute as boto3 gives it: JSON carries binary values as base64."""
    ((kind, value),) = attribute.items()
    match kind:
        case "B":
            return {kind: base64.b64decode(value)}
        case "BS":
            return {kind: [base64.b64decode(one) for one in value]}
        case "L":
            return {kind: [_unpacked(one) for one in value]}
        case "M":
            inner = cast("Mapping[str, Mapping[str, Any]]", value)
            return {kind: {name: _unpacked(one) for name, one in inner.items()}}
        case _:
            return attribute
