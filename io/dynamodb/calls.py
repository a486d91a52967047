"""Calls of DynamoDB on one table: retried, their errors translated, many at once, answers in pages."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import stamina
from botocore.exceptions import ClientError, HTTPClientError, SSLError  # pyright: ignore[reportMissingTypeStubs]
from botocore.exceptions import ConnectionError as EndpointError  # pyright: ignore[reportMissingTypeStubs]

from ..addresses import Address, check_options
from ..aws import AWS_OPTIONS, THROTTLED, client, error_code, translated_errors
from ..aws_json import JsonClient, json_client
from ..errors import BackendUnavailableError, UsageError
from ..telemetry import tracing
from ..telemetry.metrics import observe_throttling
from .capacity import observe_capacity, with_capacity
from .values import Attribute, ItemTooLargeError, UnsupportedItemError

BATCH_ITEMS: Final = 25
"""The most items of one BatchWriteItem."""

BATCH_KEYS: Final = 100
"""The most keys of one BatchGetItem."""

_BATCH_BYTES: Final = 2 * 1_024 * 1_024
# A request holds 16 MB. JSON writes a control character or an accented letter in up to six bytes, so this much of items
# always fits; larger requests are not faster.

_BATCHES_AT_ONCE: Final = 8
_DEADLINE_SECONDS: Final = 30.0
_CHECK_SECONDS: Final = 5.0
_TABLE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_AGAIN: Final = THROTTLED | {
    "InternalServerError",
    "InternalFailure",
    "ServiceUnavailable",
    "ReplicatedWriteConflictException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
# AWS's messages for a table of other keys, and DynamoDB Local's.
_WRONG_KEYS: Final = re.compile(
    r"(?i)missing the key|mismatch for key|not match (the )?schema|key schema|required keys|conditions on the keys"
    "|key condition"
)
_SIZE: Final = re.compile(r"(?i)item size")

Job = TypeVar("Job")
Result = TypeVar("Result")
Attributes = Mapping[str, Attribute]


class ConditionFailedError(Exception):
    """The condition of a write did not hold; nothing was written."""


class _UnprocessedError(BackendUnavailableError):
    """DynamoDB left items of a batch for later."""


class TableCalls:
    """Calls on the table of an address ``dynamodb://table?region=…&endpoint=…``. Holds no connection; pickles.

    boto3 tries a call up to five times, which takes less than a second; what is throttled, out of reach or fails on
    DynamoDB's side after that is tried for half a minute, with exponential backoff and jitter.

    Args:
        address: of the table.
        setting: where the address came from, for errors.

    Raises:
        UsageError: the address names no table, or has an unknown option.
    """

    def __init__(self, address: Address, setting: str) -> None:
        if _TABLE_NAME.fullmatch(address.target) is None:
            raise UsageError(
                f"--{setting}: write dynamodb://table?region=eu-west-1; a table's name has 3 to 255 letters, digits, "
                "dots, dashes or underscores"
            )
        check_options(address, setting, AWS_OPTIONS)
        self._address = address
        self._setting = setting
        self._name = setting.replace("-", "_")

    @property
    def place(self) -> tracing.Attributes:
        """As spans name it."""
        return tracing.database("aws.dynamodb", self._address.target)

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Calls an operation, named as boto3 has it, on the table.

        Raises:
            ConditionFailedError: the write's condition did not hold.
            UnsupportedItemError: DynamoDB will never take this item.
            UsageError: there is no such table, its keys are others, or region or credentials are wrong.
            BackendUnavailableError: out of reach, or throttled for too long.
        """
        return self._call(operation, _DEADLINE_SECONDS, parameters)

    def _call(self, operation: str, seconds: float, parameters: Mapping[str, Any]) -> dict[str, Any]:
        named = {"TableName": self._address.target, **parameters}
        return self._retried(lambda service: self._once(service, operation, named), seconds)

    def _once(self, service: JsonClient, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        answer = service.call_with_retries(operation, with_capacity(operation, parameters))
        observe_capacity(self._name, operation, answer)
        return answer

    def pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """The answers of a Query or Scan, page after page."""
        start: dict[str, Any] = {}
        while True:
            page = self.call(operation, **parameters, **start)
            yield page
            if not page.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def write(self, items: Sequence[tuple[Attributes, int]]) -> list[UnsupportedItemError | None]:
        """Writes items of different keys, each given with its size in bytes, 25 a request and 8 requests at once.

        Returns:
            For each item None, or why DynamoDB will never take it; the others are written.
        """
        batches = list(_batches(items))
        outcomes = in_parallel(self._write_batch, batches, _BATCHES_AT_ONCE)
        return [outcome for batch in outcomes for outcome in batch]

    def _write_batch(self, batch: Sequence[Attributes]) -> list[UnsupportedItemError | None]:
        if len(batch) > 1:
            try:
                self._write_together(batch)
            except UnsupportedItemError:
                pass  # one item fails the whole request, and DynamoDB does not say which: one by one, it does
            else:
                return [None] * len(batch)
        return [self._write_alone(item) for item in batch]

    def delete(self, keys: Sequence[tuple[str, str]]) -> None:
        """Deletes the items of different (PK, SK), 25 a request and 8 requests at once."""
        batches = [keys[start : start + BATCH_ITEMS] for start in range(0, len(keys), BATCH_ITEMS)]

        def send(batch: Sequence[tuple[str, str]]) -> None:
            self._send_writes([{"DeleteRequest": {"Key": _key_of(key)}} for key in batch])

        in_parallel(send, batches, _BATCHES_AT_ONCE)

    def read(self, keys: Sequence[tuple[str, str]]) -> list[Attributes | None]:
        """The items of different (PK, SK), in their order, or None; 100 a request and 8 requests at once."""
        batches = [keys[start : start + BATCH_KEYS] for start in range(0, len(keys), BATCH_KEYS)]
        return [item for batch in in_parallel(self._read_batch, batches, _BATCHES_AT_ONCE) for item in batch]

    def _read_batch(self, keys: Sequence[tuple[str, str]]) -> list[Attributes | None]:
        name = self._address.target
        found: dict[tuple[str, str], Attributes] = {}
        pending: list[Any] = [_key_of(key) for key in keys]

        def send(service: JsonClient) -> dict[str, Any]:
            asked = {"RequestItems": {name: {"Keys": pending, "ConsistentRead": True}}}
            answer = self._once(service, "batch_get_item", asked)
            # Some left are no sign of throttling: an answer holds 16 MB. All of them are one.
            if len(_left_of(answer, name)) == len(pending):
                raise self._throttled()
            return answer

        while pending:
            answer = self._retried(send, _DEADLINE_SECONDS)
            found |= {(item["PK"]["S"], item["SK"]["S"]): item for item in answer.get("Responses", {}).get(name, [])}
            pending = _left_of(answer, name)
        return [found.get(key) for key in keys]

    def _write_together(self, batch: Sequence[Attributes]) -> None:
        self._send_writes([{"PutRequest": {"Item": item}} for item in batch])

    def _send_writes(self, requests: Sequence[Any]) -> None:
        name = self._address.target
        pending = list(requests)

        def send(service: JsonClient) -> dict[str, Any]:
            nonlocal pending
            answer = self._once(service, "batch_write_item", {"RequestItems": {name: pending}})
            pending = answer.get("UnprocessedItems", {}).get(name, [])
            if pending:
                raise self._throttled()
            return answer

        self._retried(send, _DEADLINE_SECONDS)

    def _throttled(self) -> _UnprocessedError:
        return _UnprocessedError(f"--{self._setting}: dynamodb://{self._address.target} is throttled for too long")

    def _write_alone(self, item: Attributes) -> UnsupportedItemError | None:
        try:
            self.call("put_item", Item=item)
        except UnsupportedItemError as error:
            return error
        return None

    def _retried(self, send: Callable[[JsonClient], dict[str, Any]], seconds: float) -> dict[str, Any]:
        with translated_errors(self._setting, self._address):
            service = json_client(client("dynamodb", self._address, self._setting))
            try:
                try:
                    return send(service)  # nearly always all: making ready for retries costs a fifth of a call
                except Exception as error:
                    if not _is_passing(error):
                        raise
                    if _is_throttling(error):
                        observe_throttling(self._name)
                    first = error
                for attempt in stamina.retry_context(on=_is_passing, attempts=None, timeout=seconds):
                    with attempt:
                        if attempt.num == 1:
                            raise first
                        return send(service)
            except ClientError as error:
                failure = self._failure(error)
                if failure is None:
                    raise
            else:
                raise AssertionError("a retry loop ends with an answer or an error")
        # Outside translated_errors, which takes a ValueError for a wrong endpoint.
        raise failure

    def _failure(self, error: ClientError) -> Exception | None:
        code = error_code(error)
        if code == "ConditionalCheckFailedException":
            return ConditionFailedError()
        if code != "ValidationException":
            return None
        response: Any = error.response
        message = str(response.get("Error", {}).get("Message", ""))
        if _WRONG_KEYS.search(message):
            return UsageError(
                f"--{self._setting}: dynamodb://{self._address.target} has other keys; "
                "it needs the partition key PK and the sort key SK, both texts"
            )
        # The message itself may quote the item.
        if _SIZE.search(message):
            return ItemTooLargeError("the item is over 400 KB")
        return UnsupportedItemError("DynamoDB refuses the item (ValidationException)")

    def check(self) -> None:
        """Looks at the table; gives up after some seconds.

        Raises:
            UsageError: there is none, its keys are others, or region or credentials are wrong.
            BackendUnavailableError: it is out of reach, or not ready yet.
        """
        table = self._call("describe_table", _CHECK_SECONDS, {})["Table"]
        keys = {key["KeyType"]: key["AttributeName"] for key in table["KeySchema"]}
        types = {entry["AttributeName"]: entry["AttributeType"] for entry in table["AttributeDefinitions"]}
        if keys != {"HASH": "PK", "RANGE": "SK"} or (types.get("PK"), types.get("SK")) != ("S", "S"):
            raise UsageError(
                f"--{self._setting}: dynamodb://{self._address.target} has other keys; "
                "it needs the partition key PK and the sort key SK, both texts"
            )
        if table["TableStatus"] not in ("ACTIVE", "UPDATING"):
            raise BackendUnavailableError(
                f"--{self._setting}: dynamodb://{self._address.target} is not ready: {table['TableStatus']}"
            )

    def create(self, *, stream: bool = False) -> None:
        """Creates the table where it does not exist, paid per request, and waits until it is ready.

        Args:
            stream: with a stream of new and old images.
        """
        streaming = {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}}
        with translated_errors(self._setting, self._address):
            service = client("dynamodb", self._address, self._setting)
            try:
                service.create_table(
                    TableName=self._address.target,
                    BillingMode="PAY_PER_REQUEST",
                    AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
                    KeySchema=[
                        {"AttributeName": "PK", "KeyType": "HASH"},
                        {"AttributeName": "SK", "KeyType": "RANGE"},
                    ],
                    **(streaming if stream else {}),
                )
            except ClientError as error:
                if error_code(error) != "ResourceInUseException":
                    raise
            service.get_waiter("table_exists").wait(
                TableName=self._address.target, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
            )


def in_parallel(do: Callable[[Job], Result], jobs: Sequence[Job], at_once: int) -> list[Result]:
    """Does jobs in threads, up to so many at once; the results are in the jobs' order.

    The threads end with the call: none is left for a forked process to wait for in vain.
    """
    if len(jobs) <= 1:
        return [do(job) for job in jobs]
    with ThreadPoolExecutor(min(at_once, len(jobs)), thread_name_prefix="dynamodb") as pool:
        return list(pool.map(do, jobs))


def _left_of(answer: Mapping[str, Any], table: str) -> list[Any]:
    return answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])


def _key_of(key: tuple[str, str]) -> Attributes:
    return {"PK": {"S": key[0]}, "SK": {"S": key[1]}}


def _batches(items: Sequence[tuple[Attributes, int]]) -> Iterator[Sequence[Attributes]]:
    batch: list[Attributes] = []
    total = 0
    for item, size in items:
        if batch and (len(batch) == BATCH_ITEMS or total + size > _BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch


def _is_throttling(error: Exception) -> bool:
    return isinstance(error, _UnprocessedError) or (isinstance(error, ClientError) and error_code(error) in THROTTLED)


def _is_passing(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return error_code(error) in _AGAIN
    return isinstance(error, _UnprocessedError | HTTPClientError | EndpointError) and not isinstance(error, SSLError)
