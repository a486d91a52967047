"""Tables for code on an event loop, over DynamoDB Local and SQLite: the same items as the workers' tables."""

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fan_identity.io import aws
from fan_identity.io.addresses import Address, parse_address
from fan_identity.io.asking import waiting_limits
from fan_identity.io.aws_json_async import AsyncAwsClient
from fan_identity.io.dynamodb.async_table import DynamoDbAsyncTable
from fan_identity.io.dynamodb.table import DynamoDbTable
from fan_identity.io.dynamodb.values import UnsupportedItemError
from fan_identity.io.errors import UnavailableError, UsageError
from fan_identity.io.sqlite.async_table import SqliteAsyncTable
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable

ENDPOINT = "http://127.0.0.1:18000"
DEADLINE = 20.0
"""Long: this machine may be busy. Deadlines have tests of their own."""


@dataclass
class Kind:
    """One kind of table: the workers' view of it, and how to open ours on the loop that runs."""

    workers: Any
    address: Address | None = None
    path: Path | None = None

    def open(self, *, consistent: bool = True, endpoint: str | None = None, deadline: float = DEADLINE) -> Any:
        if self.path is not None:
            return SqliteAsyncTable(SqliteStore(self.path), "fans", "demand", deadline)
        assert self.address is not None
        address = self.address
        if endpoint is not None:
            address = Address("dynamodb", address.target, {**address.options, "endpoint": endpoint})
        client = AsyncAwsClient("dynamodb", address, "demand-table")
        table: Any = DynamoDbAsyncTable(
            client, address, "demand-table", "demand", waiting_limits(deadline), consistent=consistent
        )
        table.close = client.close
        return table

    def run(self, use: Any, **options: Any) -> Any:
        async def running() -> Any:
            table = self.open(**options)
            try:
                return await use(table)
            finally:
                await table.close()

        return asyncio.run(running())


@pytest.fixture
def dynamodb(server):
    server("dynamodb")
    address = parse_address(f"dynamodb://test-{uuid.uuid4().hex}?region=us-east-1&endpoint={ENDPOINT}", "table")
    workers = DynamoDbTable.of(address, "table")
    workers.create()
    yield Kind(workers, address=address)
    aws.client("dynamodb", address, "table").delete_table(TableName=address.target)


@pytest.fixture(params=["dynamodb", "sqlite"])
def kind(request, tmp_path) -> Kind:
    if request.param == "dynamodb":
        return request.getfixturevalue("dynamodb")
    path = tmp_path / "fans.db"
    return Kind(SqliteTable(SqliteStore(path), "fans"), path=path)


ITEM = {
    "PK": "USER#é#:\U0001f3ab",
    "SK": "SCORE#1",
    "text": "\x00\r\n",
    "whole": 3,
    "part": 0.25,
    "none": None,
    "yes": True,
    "list": [1, {"deep": ["x", 2.5]}],
}


def test_each_reads_what_the_other_wrote(kind):
    kind.workers.put({**ITEM, "SK": "by-worker"})

    async def use(table):
        assert await table.put_revision({**ITEM, "SK": "by-api"}, 0)
        return await table.get(ITEM["PK"], "by-worker"), await table.get(ITEM["PK"], "by-api")

    by_worker, by_api = kind.run(use)
    assert by_worker == {**ITEM, "SK": "by-worker"}
    assert by_api == {**ITEM, "SK": "by-api", "revision": 1} == kind.workers.get(ITEM["PK"], "by-api")


def test_a_version_of_the_workers_stays_theirs(kind):
    kind.workers.put_if_newer([("0001", ITEM)])

    async def use(table):
        found = await table.get(ITEM["PK"], ITEM["SK"])
        assert await table.put_revision({**ITEM, "part": 1.5}, 0)
        return found

    assert kind.run(use) == ITEM
    assert kind.workers.put_if_newer([("0000", {**ITEM, "part": 9})]) == [True]  # the revision carries no version


def test_binary_values_are_what_the_workers_wrote(dynamodb):
    item = {**ITEM, "bytes": b"\x00\xff", "nested": {"list": [b"a"]}}
    dynamodb.workers.put(item)
    assert dynamodb.run(lambda table: table.get(ITEM["PK"], ITEM["SK"])) == item


def test_queries_are_those_of_the_workers_table(kind):
    kind.workers.batch_put([{"PK": "p", "SK": f"{letter}#{number}"} for letter in "ab" for number in range(3)])
    kind.workers.put({"PK": "p2", "SK": "a#0"})

    async def use(table):
        for prefix in ("", "a#", "b#1", "none"):
            for newest_first in (False, True):
                for limit in (None, 0, 1, 2, 100):
                    options = {"newest_first": newest_first, "limit": limit}
                    mine = await table.query("p", prefix, **options)
                    assert mine == kind.workers.query("p", prefix, **options), (prefix, options)
        return [item["SK"] for item in await table.query("p", "a#", newest_first=True, limit=2)]

    assert kind.run(use) == ["a#2", "a#1"]


def test_a_query_goes_through_all_pages(kind):
    kind.workers.batch_put([{"PK": "p", "SK": f"{number:02}", "text": "x" * 200_000} for number in range(12)])
    found = kind.run(lambda table: table.query("p"))
    assert [item["SK"] for item in found] == [f"{number:02}" for number in range(12)]


@pytest.mark.parametrize("key", ["", "\ud800", "x" * 3_000])
def test_what_can_be_no_key_is_not_there_and_is_not_written(kind, key):
    async def use(table):
        assert await table.get(key, "s") is None and await table.query(key) == []
        with pytest.raises(UnsupportedItemError):
            await table.put_revision({"PK": key, "SK": "s"}, 0)

    kind.run(use)


def test_20_writers_lose_no_update(kind):
    async def use(table):
        async def add_ten(who: int) -> Counter[str]:
            counted: Counter[str] = Counter()
            for turn in range(10):
                while True:
                    counted["writes"] += 1
                    found = await table.get("p", "s") or {"PK": "p", "SK": "s", "marks": []}
                    revision = found.pop("revision", 0) if isinstance(found, dict) else 0
                    if await table.put_revision({**found, "marks": [*found["marks"], f"{who}-{turn}"]}, revision):
                        break
                    counted["conflicts"] += 1
            return counted

        return sum(await asyncio.gather(*map(add_ten, range(20))), Counter())

    counted = kind.run(use)
    item = kind.workers.get("p", "s")
    assert sorted(item["marks"]) == sorted(f"{who}-{turn}" for who in range(20) for turn in range(10))
    assert item["revision"] == 200
    assert counted["conflicts"] > 0, "the writers never met"


def test_a_revision_that_is_not_there_is_not_replaced(kind):
    async def use(table):
        first = {"PK": "p", "SK": "s"}
        return [await table.put_revision(first, revision) for revision in (1, 0, 0, 2, 1)]

    assert kind.run(use) == [False, True, False, False, True]
    assert kind.workers.get("p", "s")["revision"] == 2


def test_deleting_twice_is_deleting_once(kind):
    kind.workers.put(ITEM)

    async def use(table):
        await table.delete(ITEM["PK"], ITEM["SK"])
        await table.delete(ITEM["PK"], ITEM["SK"])

    kind.run(use)
    assert kind.workers.get(ITEM["PK"], ITEM["SK"]) is None


def test_reads_are_eventually_consistent_unless_asked_otherwise(dynamodb, proxy):
    asked: list[bool] = []
    proxy.rule = lambda operation, body: asked.append(b'"ConsistentRead":true' in body)
    for consistent in (False, True):
        dynamodb.run(lambda table: table.get("p", "s"), consistent=consistent, endpoint=proxy.address)
    assert asked == [False, True]


THROTTLED = (400, {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"})


@pytest.fixture
def proxy(http_proxy):
    return http_proxy(ENDPOINT)


@pytest.mark.parametrize("fault", [THROTTLED, (500, {"__type": "x#InternalServerError"}), "drop request"], ids=str)
def test_a_read_is_tried_a_second_time(dynamodb, proxy, fault):
    dynamodb.workers.put(ITEM)
    proxy.rule = lambda operation, body: fault if proxy.seen[operation] == 1 else None
    assert dynamodb.run(lambda table: table.get(ITEM["PK"], ITEM["SK"]), endpoint=proxy.address) == ITEM
    assert proxy.seen["GetItem"] == 2


@pytest.mark.parametrize("fault", [THROTTLED, "drop answer", (500, {})], ids=str)
def test_a_write_is_tried_once_and_its_outcome_is_never_guessed(dynamodb, proxy, fault):
    proxy.rule = lambda operation, body: fault

    async def use(table):
        with pytest.raises(UnavailableError) as failed:
            await table.put_revision(ITEM, 0)
        return failed.value

    assert dynamodb.run(use, endpoint=proxy.address).source == "demand"
    assert proxy.seen["PutItem"] == 1


def test_half_of_the_calls_throttled_make_at_most_half_again_as_many(dynamodb, proxy):
    proxy.rule = lambda operation, body: THROTTLED if proxy.seen[operation] % 2 else None

    async def use(table):
        return await asyncio.gather(*(table.get("p", "s") for _ in range(200)), return_exceptions=True)

    outcomes = dynamodb.run(use, endpoint=proxy.address)
    assert all(one is None or isinstance(one, UnavailableError) for one in outcomes)
    assert proxy.seen["GetItem"] <= 300, proxy.seen
    assert proxy.struck["GetItem"] > 50, "too little went wrong to show anything"


def test_a_throttled_table_is_left_alone_and_asked_again_later(dynamodb, proxy):
    proxy.rule = lambda operation, body: THROTTLED

    async def use(table):
        for _ in range(30):
            with pytest.raises(UnavailableError):
                await table.get("p", "s")
        seen = proxy.seen["GetItem"]
        assert seen < 30, "no breaker opened"
        proxy.rule = lambda operation, body: None
        async with asyncio.timeout(60):
            while True:
                try:
                    return await table.get("p", "s")
                except UnavailableError:
                    await asyncio.sleep(0.01)

    assert dynamodb.run(use, endpoint=proxy.address) is None


@pytest.mark.parametrize(
    ("target", "endpoint"), [("none-such", ENDPOINT), ("none-such", "http://127.0.0.1:1")], ids=["absent", "away"]
)
def test_who_asks_is_told_that_it_is_not_available_and_the_check_says_why(dynamodb, target, endpoint):
    dynamodb.address = Address("dynamodb", target, {"region": "us-east-1", "endpoint": endpoint})

    async def use(table):
        with pytest.raises(UnavailableError) as failed:
            await table.get("p", "s")
        assert "none-such" not in str(failed.value)
        return failed.value.source

    assert dynamodb.run(use) == "demand"
    if endpoint == ENDPOINT:
        with pytest.raises(UsageError, match=r"^--demand-table: dynamodb://none-such does not exist"):
            dynamodb.run(lambda table: table.check())


def test_a_table_that_hangs_costs_its_deadline(dynamodb, proxy):
    proxy.freeze("GetItem")

    async def use(table):
        with pytest.raises(UnavailableError, match="no answer"):
            await table.get("p", "s")

    dynamodb.run(use, endpoint=proxy.address, deadline=0.2)
    assert proxy.held == 1
