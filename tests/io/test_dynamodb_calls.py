"""A DynamoDB that throttles, leaves items of a batch for later and refuses some: nothing is lost or overlooked."""

import json
import pickle
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import stamina
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fan_identity.domain.records import Failure
from fan_identity.io.addresses import parse_address
from fan_identity.io.dynamodb import calls
from fan_identity.io.dynamodb.table import DynamoDbTable
from fan_identity.io.dynamodb.values import UnsupportedItemError
from fan_identity.io.errors import BackendUnavailableError, UsageError

Key = tuple[str, str]


class FakeDynamoDb:
    """BatchWriteItem, BatchGetItem and PutItem with the service's limits, behaving as badly as a random generator says.

    Args:
        chance: decides what goes wrong.
        trouble: how often a call is throttled or an item left for later, 0 to 1.
    """

    def __init__(self, chance: random.Random, trouble: float) -> None:
        self._chance = chance
        self._trouble = trouble
        self._lock = threading.Lock()
        self.items: dict[Key, dict[str, Any]] = {}
        self.threads: set[int] = set()
        self.throttled = self.left = 0
        self.error: Exception | None = None

    def _disturb(self, operation: str) -> None:
        if self.error is not None:
            raise self.error
        if self._chance.random() < self._trouble:
            self.throttled += 1
            raise client_error(self._chance.choice(["ThrottlingException", "InternalServerError"]), "", operation)

    def batch_write_item(self, *, RequestItems: dict[str, list[Any]]) -> dict[str, Any]:
        with self._lock:
            self.threads.add(threading.get_ident())
            ((name, requests),) = RequestItems.items()
            self._disturb("BatchWriteItem")
            items = [request["PutRequest"]["Item"] for request in requests if "PutRequest" in request]
            keys = [key_of(item) for item in items]
            keys += [key_of(request["DeleteRequest"]["Key"]) for request in requests if "DeleteRequest" in request]
            assert 0 < len(keys) == len(set(keys)) == len(requests) <= 25
            assert len(json.dumps(RequestItems)) <= 16_000_000
            for item in items:
                check(item)
            left = [request for request in requests if self._chance.random() < self._trouble]
            self.left += len(left)
            for request in requests:
                if any(request is other for other in left):
                    continue
                if "PutRequest" in request:
                    self._write(request["PutRequest"]["Item"])
                else:
                    self.items.pop(key_of(request["DeleteRequest"]["Key"]), None)
            return {"UnprocessedItems": {name: left} if left else {}}

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.threads.add(threading.get_ident())
            ((name, asked),) = RequestItems.items()
            self._disturb("BatchGetItem")
            keys: list[dict[str, Any]] = asked["Keys"]
            assert asked["ConsistentRead"]
            assert 0 < len(keys) == len({key_of(key) for key in keys}) <= 100
            left = [key for key in keys if self._chance.random() < self._trouble]
            self.left += len(left)
            found = [self.items[key_of(key)] for key in keys if key not in left and key_of(key) in self.items]
            self._chance.shuffle(found)
            return {
                "Responses": {name: found},
                "UnprocessedKeys": {name: {"Keys": left, "ConsistentRead": True}} if left else {},
            }

    def call_with_retries(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return getattr(self, operation)(**parameters)

    def put_item(self, *, TableName: str, Item: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._disturb("PutItem")
            check(Item)
            self._write(Item)
            return {}

    def _write(self, item: dict[str, Any]) -> None:
        self.items[key_of(item)] = item


def client_error(code: str, message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def key_of(item: dict[str, Any]) -> Key:
    return item["PK"]["S"], item["SK"]["S"]


def check(item: dict[str, Any]) -> None:
    """Refuses as the service does, without saying which item of a batch it was."""
    if "refused" in item:
        message = {"size": "Item size has exceeded the maximum allowed size", "other": "secret is not valid"}
        raise client_error("ValidationException", message[item["refused"]["S"]], "BatchWriteItem")


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    stamina.set_testing(True, attempts=100)
    yield
    stamina.set_testing(False)


def use(fake: FakeDynamoDb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "client", lambda *_: fake)
    monkeypatch.setattr(calls, "json_client", lambda client: client)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeDynamoDb:
    fake = FakeDynamoDb(random.Random(1), 0)
    use(fake, monkeypatch)
    return fake


TABLE = DynamoDbTable.of(parse_address("dynamodb://fans?region=eu-west-1", "table"), "table")


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"PK": f"USER#{number}", "SK": "LATEST", "n": number, **more}


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["good", "size", "other"])), max_size=120),
    st.floats(0, 0.4),
    st.integers(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_of_a_throttled_batch_all_is_written_but_what_the_service_refuses(
    monkeypatch: pytest.MonkeyPatch, plan: list[tuple[int, str]], trouble: float, seed: int
) -> None:
    fake = FakeDynamoDb(random.Random(seed), trouble)
    use(fake, monkeypatch)
    last = {number: index for index, (number, _) in enumerate(plan)}
    outcomes = TABLE.batch_put(
        [
            item(number, at=index, **({} if kind == "good" else {"refused": kind}))
            for index, (number, kind) in enumerate(plan)
        ]
    )
    reasons = {"size": "too_large", "other": "unsupported"}
    for index, (number, kind) in enumerate(plan):
        outcome = outcomes[index]
        if last[number] != index or kind == "good":
            assert outcome is None
        else:
            assert isinstance(outcome, Failure) and outcome.reason == reasons[kind]
            assert "secret" not in outcome.error
    written = {key: int(stored["at"]["N"]) for key, stored in fake.items.items()}
    assert written == {
        (f"USER#{number}", "LATEST"): index for number, index in last.items() if plan[index][1] == "good"
    }


def test_hundreds_of_items_meet_throttling_and_unprocessed_items_at_most_eight_requests_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeDynamoDb(random.Random(7), 0.4)
    use(fake, monkeypatch)
    assert TABLE.batch_put([item(number) for number in range(900)]) == [None] * 900
    assert len(fake.items) == 900
    assert fake.throttled > 0 and fake.left > 0  # else this shows nothing
    assert 1 < len(fake.threads) <= 8


@given(st.sets(st.integers(0, 260)), st.lists(st.integers(0, 300), max_size=260), st.floats(0, 0.4), st.integers())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_keys_are_read_and_deleted_however_much_is_left_for_later(
    monkeypatch: pytest.MonkeyPatch, stored: set[int], asked: list[int], trouble: float, seed: int
) -> None:
    fake = FakeDynamoDb(random.Random(seed), 0)
    use(fake, monkeypatch)
    TABLE.batch_put([item(number) for number in stored])
    fake._trouble = trouble
    keys = [(f"USER#{number}", "LATEST") for number in asked]
    assert TABLE.batch_get(keys) == [item(number) if number in stored else None for number in asked]
    TABLE.batch_delete(keys)
    assert set(fake.items) == {(f"USER#{number}", "LATEST") for number in stored.difference(asked)}
    TABLE.batch_delete(keys)


def test_keys_are_read_and_deleted_at_most_eight_requests_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDynamoDb(random.Random(7), 0.2)
    use(fake, monkeypatch)
    TABLE.batch_put([item(number) for number in range(1_500)])
    fake.threads.clear()
    found = TABLE.batch_get([(f"USER#{number}", "LATEST") for number in range(2_000)])
    assert found == [item(number) for number in range(1_500)] + [None] * 500
    assert 1 < len(fake.threads) <= 8
    fake.threads.clear()
    TABLE.batch_delete([(f"USER#{number}", "LATEST") for number in range(1_000)])
    assert len(fake.items) == 500
    assert 1 < len(fake.threads) <= 8


def test_keys_that_dynamodb_can_never_hold_are_not_asked_for(service: FakeDynamoDb) -> None:
    TABLE.put(item(1))
    never = [("", "b"), ("a", ""), ("p" * 2_049, "b"), ("a", "s" * 1_025), ("\ud800", "b")]
    assert TABLE.batch_get([*never, ("USER#1", "LATEST"), *never]) == [None] * 5 + [item(1)] + [None] * 5
    TABLE.batch_delete(never)
    service.error = AssertionError("nothing is to be asked")
    assert TABLE.batch_get(never) == [None] * 5
    assert TABLE.batch_get([]) == []
    TABLE.batch_delete(never)


def test_requests_keep_to_16_mb_even_where_json_blows_items_up(service: FakeDynamoDb) -> None:
    # The fake checks each request's size; 25 such items in one would be 60 MB.
    assert TABLE.batch_put([item(number, v="\0" * 400_000) for number in range(26)]) == [None] * 26
    assert len(service.items) == 26


def test_an_endless_throttle_ends_in_an_error_that_names_the_table(service: FakeDynamoDb) -> None:
    service.error = client_error("ProvisionedThroughputExceededException", "", "BatchWriteItem")
    for write in (lambda: TABLE.batch_put([item(1), item(2)]), lambda: TABLE.put(item(1))):
        with pytest.raises(BackendUnavailableError, match="--table: dynamodb://fans answers Provisioned"):
            write()


def test_items_left_for_ever_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDynamoDb(random.Random(1), 0)
    monkeypatch.setattr(fake, "batch_write_item", lambda *, RequestItems: {"UnprocessedItems": RequestItems})
    monkeypatch.setattr(fake, "batch_get_item", lambda *, RequestItems: {"UnprocessedKeys": RequestItems})
    use(fake, monkeypatch)
    for call in (
        lambda: TABLE.batch_put([item(1), item(2)]),
        lambda: TABLE.batch_delete([("USER#1", "LATEST")]),
        lambda: TABLE.batch_get([("USER#1", "LATEST")]),
    ):
        with pytest.raises(BackendUnavailableError, match="--table: dynamodb://fans is throttled for too long"):
            call()


def test_answers_that_hold_one_item_each_are_no_throttling(
    monkeypatch: pytest.MonkeyPatch, service: FakeDynamoDb
) -> None:
    TABLE.batch_put([item(number) for number in range(100)])

    def one_each(*, RequestItems: dict[str, Any]) -> dict[str, Any]:
        ((name, asked),) = RequestItems.items()
        first, *rest = asked["Keys"]
        return {
            "Responses": {name: [service.items[key_of(first)]]},
            "UnprocessedKeys": {name: {"Keys": rest}} if rest else {},
        }

    monkeypatch.setattr(service, "batch_get_item", one_each)
    # Were each answer a failed attempt, the hundred would use up the attempts that are allowed here.
    stamina.set_testing(True, attempts=2)
    keys = [(f"USER#{number}", "LATEST") for number in range(100)]
    assert TABLE.batch_get(keys) == [item(number) for number in range(100)]


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (EndpointConnectionError(endpoint_url="http://u:secret@h"), BackendUnavailableError, "out of reach"),
        (client_error("ResourceNotFoundException", "", "x"), UsageError, "does not exist"),
        (client_error("AccessDeniedException", "secret", "x"), UsageError, "refused"),
        (client_error("ValidationException", "Missing the key PK in the item", "x"), UsageError, "PK"),
        (client_error("ValidationException", "secret", "x"), UnsupportedItemError, "ValidationException"),
    ],
)
def test_errors_are_ours_and_tell_no_data(
    service: FakeDynamoDb, error: Exception, expected: type[Exception], text: str
) -> None:
    service.error = error
    with pytest.raises(expected, match=text) as raised:
        TABLE.put(item(1))
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_table_of_other_keys_is_no_fault_of_each_item(service: FakeDynamoDb) -> None:
    service.error = client_error("ValidationException", "Type mismatch for key PK expected: N actual: S", "x")
    with pytest.raises(UsageError, match="--table: dynamodb://fans has other keys"):
        TABLE.batch_put([item(1), item(2)])


def test_a_table_holds_its_address_only_and_pickles() -> None:
    assert isinstance(pickle.loads(pickle.dumps(TABLE)), DynamoDbTable)


@pytest.mark.parametrize("text", ["dynamodb://", "dynamodb://ab", "dynamodb://a/b", "dynamodb://fans?regoin=x"])
def test_a_wrong_address_names_the_setting(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--table: "):
        DynamoDbTable.of(parse_address(text, "table"), "table")
