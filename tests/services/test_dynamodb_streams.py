"""Change streams of tables on a real DynamoDB Local: order, what a record looks like, resuming, starts, bounds, misuse.

DynamoDB Local has one shard a stream: splits are in tests/io/test_shards.py. It slows down with many streams, so each
test deletes its table.
"""

import json
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from fan_identity.io.addresses import parse_address
from fan_identity.io.dynamodb_streams import DynamoDbStream
from fan_identity.io.errors import UsageError
from fan_identity.io.ports import Share, StreamReader, StreamRecords
from fan_identity.io.shards import is_of_share

ENDPOINT = "http://127.0.0.1:18000"
PATIENCE = 60.0
KEY = {"PK": {"S": "USER#1"}, "SK": {"S": "ARAI#1"}}


@pytest.fixture(autouse=True)
def _needs(server) -> None:
    server("dynamodb")


class ChangedTable:
    """A table of its own."""

    def __init__(self, client: Any, view: str | None) -> None:
        self.client = client
        self.name = f"table-{uuid.uuid4().hex}"
        names = ("PK", "SK")
        client.create_table(
            TableName=self.name,
            KeySchema=[
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=True)
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": view is not None} | ({"StreamViewType": view} if view else {}),
        )

    def put(self, user: str, number: int) -> None:
        item = {"PK": {"S": user}, "SK": {"S": "ARAI#1"}, "n": {"N": str(number)}}
        self.client.put_item(TableName=self.name, Item=item)

    def stream(self, **options: str) -> DynamoDbStream:
        query = "".join(f"&{name}={text}" for name, text in {"poll_ms": "10", **options}.items())
        address = parse_address(f"dynamodb-streams://{self.name}?endpoint={ENDPOINT}{query}", "source")
        return DynamoDbStream.of(address, "source", "scoreUsers")


@pytest.fixture
def make_table() -> Iterator[Callable[..., ChangedTable]]:
    client: Any = boto3.client("dynamodb", endpoint_url=ENDPOINT, region_name="us-east-1")
    made: list[ChangedTable] = []

    def make(view: str | None = "NEW_AND_OLD_IMAGES") -> ChangedTable:
        made.append(ChangedTable(client, view))
        return made[-1]

    yield make
    for table in made:
        client.delete_table(TableName=table.name)


def read(reader: StreamReader, number: int, limit: int = 100) -> list[StreamRecords]:
    """Polls until so many records came."""
    batches: list[StreamRecords] = []
    deadline = time.monotonic() + PATIENCE
    while sum(len(batch.records) for batch in batches) < number:
        if time.monotonic() > deadline:
            pytest.fail(f"of {number} records came {batches}")
        batch = reader.poll(limit)
        if batch is not None:
            batches.append(batch)
    return batches


def read_to_end(reader: StreamReader) -> list[StreamRecords]:
    batches: list[StreamRecords] = []
    deadline = time.monotonic() + PATIENCE
    while not reader.ended():
        assert time.monotonic() < deadline, "the bounded read does not end"
        batch = reader.poll(100)
        if batch is not None:
            batches.append(batch)
    return batches


def changes(batches: list[StreamRecords]) -> list[Any]:
    return [json.loads(record.body or b"") for batch in batches for record in batch.records]


def numbers(batches: list[StreamRecords]) -> list[int]:
    return [int(change["dynamodb"]["NewImage"]["n"]["N"]) for change in changes(batches)]


def nothing(shard: str) -> str:
    del shard
    return ""


def test_changes_come_in_order_as_lambda_shows_them(make_table: Callable[..., ChangedTable]) -> None:
    table = make_table()
    item = KEY | {
        "text": {"S": "née ü"},
        "number": {"N": "1.50"},
        "binary": {"B": b"\x00\xff\xfe"},
        "yes": {"BOOL": True},
        "nothing": {"NULL": True},
        "list": {"L": [{"N": "1"}, {"M": {"deep": {"B": b"\x01"}}}]},
        "texts": {"SS": ["a"]},
        "numbers": {"NS": ["7"]},
        "binaries": {"BS": [b"\x02"]},
    }
    before = int(time.time())
    table.client.put_item(TableName=table.name, Item=item)
    table.client.update_item(
        TableName=table.name,
        Key=KEY,
        UpdateExpression="SET #n = :n REMOVE #l",
        ExpressionAttributeNames={"#n": "number", "#l": "list"},
        ExpressionAttributeValues={":n": {"N": "2"}},
    )
    table.client.delete_item(TableName=table.name, Key=KEY)
    batches = read(table.stream().open(Share(), {}, nothing, bounded=False), 3)
    inserted, modified, removed = changes(batches)

    assert [change["eventName"] for change in (inserted, modified, removed)] == ["INSERT", "MODIFY", "REMOVE"]
    assert len({change["eventID"] for change in (inserted, modified, removed)}) == 3
    shown = item | {
        "number": {"N": "1.5"},
        "binary": {"B": "AP/+"},
        "list": {"L": [{"N": "1"}, {"M": {"deep": {"B": "AQ=="}}}]},
        "binaries": {"BS": ["Ag=="]},
    }
    changed = {name: value for name, value in shown.items() if name != "list"} | {"number": {"N": "2"}}
    for change, images in (
        (inserted, {"NewImage": shown}),
        (modified, {"OldImage": shown, "NewImage": changed}),
        (removed, {"OldImage": changed}),
    ):
        assert set(change) == {"eventName", "eventID", "dynamodb"}
        told = change["dynamodb"]
        assert type(told.pop("ApproximateCreationDateTime")) is int
        assert told.pop("SequenceNumber").isdigit()
        assert told == {"Keys": KEY, "StreamViewType": "NEW_AND_OLD_IMAGES", **images}
    created = changes(batches)[0]["dynamodb"]["ApproximateCreationDateTime"]
    assert before - 60 <= created <= time.time() + 1  # the service rounds down
    records = [record for batch in batches for record in batch.records]
    for record, change in zip(records, changes(batches), strict=True):
        assert record.payload == record.body
        assert record.body == json.dumps(change, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        sequence = change["dynamodb"]["SequenceNumber"]
        assert record.position == f"shard {batches[0].partition} sequence {sequence}"
    assert batches[-1].position == changes(batches)[-1]["dynamodb"]["SequenceNumber"]


def test_shares_read_each_change_once_in_order_and_resume(make_table: Callable[..., ChangedTable]) -> None:
    table = make_table()
    stream = pickle.loads(pickle.dumps(table.stream()))
    stream.check()
    for n in range(60):
        table.put(f"USER#{n % 5}", n)
    shard = read(stream.open(Share(), {}, nothing, bounded=False), 1)[0].partition
    own, other = sorted((Share(index, 2) for index in range(2)), key=lambda share: not is_of_share(shard, share))
    reader = stream.open(own, {}, nothing, bounded=False)
    half = read(reader, 25, limit=5)
    assert stream.open(other, {}, nothing, bounded=False).poll(100) is None
    resumed = stream.open(own, reader.positions(), nothing, bounded=False)
    rest = read(resumed, 35)
    assert numbers(half) + numbers(rest) == list(range(60))
    committed = {batch.partition: batch.position for batch in half}
    again = stream.open(own, {}, lambda shard: committed.get(shard, ""), bounded=False)
    assert numbers(read(again, 35)) == list(range(25, 60))


def test_latest_begins_behind_what_is_there(make_table: Callable[..., ChangedTable]) -> None:
    table = make_table()
    for n in range(5):
        table.put("USER#1", n)
    reader = table.stream(start="latest").open(Share(), {}, nothing, bounded=False)
    for n in range(5, 10):
        table.put("USER#1", n)
    assert numbers(read(reader, 5)) == [5, 6, 7, 8, 9]


def test_latest_without_a_record_resumes_at_the_time_it_began(make_table: Callable[..., ChangedTable]) -> None:
    table = make_table()
    reader = table.stream(start="latest").open(Share(), {}, nothing, bounded=False)
    batch = None
    deadline = time.monotonic() + PATIENCE
    while batch is None and time.monotonic() < deadline:
        batch = reader.poll(10)
    assert batch is not None
    assert (list(batch.records), batch.position[:1]) == ([], "@")
    reader.close()
    table.put("USER#1", 1)
    resumed = table.stream(start="latest").open(Share(), reader.positions(), nothing, bounded=False)
    assert numbers(read(resumed, 1)) == [1]


def test_bounded_read_ends_with_all_that_was_there(make_table: Callable[..., ChangedTable]) -> None:
    table = make_table()
    assert read_to_end(table.stream().open(Share(), {}, nothing, bounded=True)) == []
    for n in range(120):
        table.put("USER#1", n)
    reader = table.stream().open(Share(), {}, nothing, bounded=True)
    assert numbers(read_to_end(reader)) == list(range(120))
    assert read_to_end(table.stream().open(Share(), reader.positions(), nothing, bounded=True)) == []


def test_unknown_position_is_started_over_with_a_warning(
    make_table: Callable[..., ChangedTable], caplog: pytest.LogCaptureFixture
) -> None:
    table = make_table()
    table.put("USER#1", 1)
    (batch,) = read(table.stream().open(Share(), {}, nothing, bounded=False), 1)
    for number in ("1", f"{int(batch.position) - 1:021}"):
        caplog.clear()
        reader = table.stream().open(Share(), {batch.partition: number}, nothing, bounded=False)
        assert numbers(read(reader, 1)) == [1]
        assert "no longer has the record reading had come to" in caplog.text


def test_table_without_a_stream_and_no_table_are_said(make_table: Callable[..., ChangedTable]) -> None:
    table = make_table(None)
    with pytest.raises(UsageError, match=f"--source: table {table.name} has no stream; enable one"):
        table.stream().check()
    text = f"dynamodb-streams://no-such-table?endpoint={ENDPOINT}"
    with pytest.raises(UsageError, match="--source: dynamodb-streams://no-such-table does not exist in this region"):
        DynamoDbStream.of(parse_address(text, "source"), "source", "w").check()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dynamodb-streams://", "write dynamodb-streams://table-name"),
        ("dynamodb-streams://a/b", "write dynamodb-streams://table-name"),
        ("dynamodb-streams://table?start=now", "option start is earliest or latest"),
        ("dynamodb-streams://table?start_time=2026-01-01", "has no option 'start_time'"),
    ],
)
def test_addresses_that_cannot_be_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match="--source") as refused:
        DynamoDbStream.of(parse_address(text, "source"), "source", "w")
    assert says in str(refused.value)
