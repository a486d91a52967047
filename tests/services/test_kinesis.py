"""Kinesis streams on a real kinesalite: order through splits and merges, shares, starts, bounds, aggregates, misuse.

Kinesalite never answers a request for an iterator at a time nothing was written after: no test asks for one.
"""

import hashlib
import itertools
import pickle
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import boto3
import pytest

from fan_identity.io.addresses import parse_address
from fan_identity.io.errors import UsageError
from fan_identity.io.kinesis import KinesisStream
from fan_identity.io.ports import Share, StreamReader, StreamRecords

ENDPOINT = "http://127.0.0.1:14570"
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _needs(server) -> None:
    server("kinesalite")


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE:.0f} s in vain: {what}")
        time.sleep(0.02)
    return found


class Kinesis:
    """A stream of its own."""

    def __init__(self, client: Any, shards: int) -> None:
        self.client = client
        self.is_deleted = False
        self.name = f"stream-{uuid.uuid4().hex}"
        client.create_stream(StreamName=self.name, ShardCount=shards)
        self.wait_until_active()

    def delete(self) -> None:
        if not self.is_deleted:
            self.is_deleted = True
            self.client.delete_stream(StreamName=self.name)

    def wait_until_active(self) -> None:
        wait_for(lambda: self.describe()["StreamStatus"] == "ACTIVE", "the stream to be active")

    def describe(self) -> Any:
        return self.client.describe_stream(StreamName=self.name)["StreamDescription"]

    def put(self, records: Sequence[tuple[str, bytes]]) -> Any:
        """Writes (key, data), as they come within each key."""
        answer: Any = None
        for start in range(0, len(records), 100):
            chosen = [{"PartitionKey": key, "Data": data} for key, data in records[start : start + 100]]
            answer = self.client.put_records(StreamName=self.name, Records=chosen)
            assert answer["FailedRecordCount"] == 0
        return answer

    def open_shards(self) -> list[Any]:
        shards = self.describe()["Shards"]
        still = [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        return sorted(still, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def split(self, index: int) -> None:
        shard = self.open_shards()[index]
        low, high = (int(shard["HashKeyRange"][f"{side}HashKey"]) for side in ("Starting", "Ending"))
        self.client.split_shard(
            StreamName=self.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2)
        )
        self.wait_until_active()

    def merge(self, index: int) -> None:
        left, right = self.open_shards()[index : index + 2]
        self.client.merge_shards(
            StreamName=self.name, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"]
        )
        self.wait_until_active()

    def stream(self, target: str = "", endpoint: str = ENDPOINT, **options: str) -> KinesisStream:
        query = "".join(f"&{name}={text}" for name, text in {"poll_ms": "20", **options}.items())
        address = parse_address(f"kinesis://{target or self.name}?endpoint={endpoint}{query}", "source")
        return KinesisStream.of(address, "source", "enqueueFromPurchaseStream")


@pytest.fixture
def make_stream() -> Iterator[Callable[[int], Kinesis]]:
    client: Any = boto3.client("kinesis", endpoint_url=ENDPOINT, region_name="us-east-1")
    made: list[Kinesis] = []

    def make(shards: int) -> Kinesis:
        made.append(Kinesis(client, shards))
        return made[-1]

    yield make
    for one in made:
        one.delete()


class Effects:
    """Reads with some readers, one thread each, notes what came for each key, then commits."""

    def __init__(self) -> None:
        self.committed: dict[str, str] = {}
        self.by_key: dict[str, list[int]] = defaultdict(list)
        self.batches: list[StreamRecords] = []
        self.failures: list[BaseException] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @property
    def count(self) -> int:
        return sum(map(len, self.by_key.values()))

    def load(self, shard: str) -> str:
        return self.committed.get(shard, "")

    def take(self, batch: StreamRecords) -> None:
        with self._lock:
            self.batches.append(batch)
            for record in batch.records:
                key, _, number = record.payload.decode().partition(" ")
                self.by_key[key].append(int(number))
            self.committed[batch.partition] = batch.position

    def read(self, *readers: StreamReader, until: Callable[[], bool]) -> None:
        threads = [threading.Thread(target=self._run, args=(reader,)) for reader in readers]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: self.failures or until(), "all records")
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()
        assert self.failures == []
        self._stopping.clear()

    def _run(self, reader: StreamReader) -> None:
        try:
            while not self._stopping.is_set() and not reader.ended():
                batch = reader.poll(100)
                if batch is not None:
                    self.take(batch)
        except BaseException as error:
            self.failures.append(error)

    def ledger(self, written: dict[str, int]) -> dict[str, int]:
        """Compares with how many records, numbered from 0, were written of each key."""
        came = {key: list(dict.fromkeys(self.by_key[key])) for key in written}
        return {
            "written": sum(written.values()),
            "read": self.count,
            "lost": sum(len(set(range(number)) - set(came[key])) for key, number in written.items()),
            "out of order": sum(a > b for numbers in came.values() for a, b in itertools.pairwise(numbers)),
            "twice": self.count - sum(map(len, came.values())),
        }


def numbered(keys: int, each: int, start: int = 0) -> list[tuple[str, bytes]]:
    return [(f"fan{key}", f"fan{key} {n}".encode()) for n in range(start, start + each) for key in range(keys)]


def show(what: str, ledger: dict[str, int]) -> None:
    sys.stdout.write(f"\nledger of {what}: {', '.join(f'{name} {count}' for name, count in ledger.items())}\n")


def test_two_shares_read_every_record_once_in_order(make_stream: Callable[[int], Kinesis]) -> None:
    kinesis = make_stream(3)
    kinesis.put(numbered(50, 100))
    stream = kinesis.stream()
    stream.check()
    effects = Effects()
    readers = [stream.open(Share(index, 2), {}, effects.load, bounded=False) for index in range(2)]
    effects.read(*readers, until=lambda: effects.count >= 5_000)
    ledger = effects.ledger({f"fan{key}": 100 for key in range(50)})
    show("3 shards, 2 shares", ledger)
    assert ledger == {"written": 5_000, "read": 5_000, "lost": 0, "out of order": 0, "twice": 0}
    assert not any(reader.ended() for reader in readers)
    shards = [set(reader.positions()) for reader in readers]
    assert shards[0].isdisjoint(shards[1])
    assert len(shards[0] | shards[1]) == 3


def test_split_and_merge_under_load_keep_every_keys_order(make_stream: Callable[[int], Kinesis]) -> None:
    kinesis = make_stream(2)
    keys, rounds, each = 40, 30, 4
    kinesis.put(numbered(keys, each))  # something is there when reading begins
    stream = kinesis.stream(discover_seconds="1")
    effects = Effects()
    written = {f"fan{key}": each * rounds for key in range(keys)}
    failures: list[BaseException] = []
    is_split = threading.Event()

    def write() -> None:
        try:
            for turn in range(1, rounds):
                if turn == 10:
                    kinesis.split(0)
                if turn == 20:
                    kinesis.merge(1)
                kinesis.put(numbered(keys, each, turn * each))
                if turn == 10:
                    is_split.set()  # read from now on: there is much in the parents, and something in their children
        except BaseException as error:
            failures.append(error)
            is_split.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert is_split.wait(PATIENCE)
    try:
        readers = [stream.open(Share(index, 2), {}, effects.load, bounded=False) for index in range(2)]
        effects.read(*readers, until=lambda: bool(failures) or effects.count >= sum(written.values()))
    finally:
        writer.join()
    assert failures == []
    ledger = effects.ledger(written)
    show("a split and a merge under load, 2 shares", ledger)
    assert ledger == {"written": 4_800, "read": 4_800, "lost": 0, "out of order": 0, "twice": 0}
    shards = kinesis.describe()["Shards"]
    ended = {shard for shard, position in effects.committed.items() if position == "SHARD_END"}
    assert ended == {f"shardId-{number:012}" for number in (0, 1, 3)}
    assert len(shards) == 5
    assert [batch.position for batch in effects.batches].count("SHARD_END") == 3


def test_a_reader_resumes_at_its_positions_and_at_what_is_committed(make_stream: Callable[[int], Kinesis]) -> None:
    kinesis = make_stream(2)
    kinesis.put(numbered(10, 60))
    stream = pickle.loads(pickle.dumps(kinesis.stream()))
    effects = Effects()
    positions: dict[str, str] = {}
    # Readers that live for three batches each, as Beam's live for short.
    while effects.count < 300:
        reader = stream.open(Share(), positions, lambda shard: "", bounded=False)
        for _ in range(3):
            effects.take(wait_for(lambda reader=reader: reader.poll(25), "a batch"))
        positions = reader.positions()
        reader.close()
    assert positions == effects.committed
    kinesis.split(0)
    kinesis.put(numbered(10, 10, 60))
    reader = stream.open(Share(), {}, effects.load, bounded=False)
    effects.read(reader, until=lambda: effects.count >= 700)
    ledger = effects.ledger({f"fan{key}": 70 for key in range(10)})
    show("readers of three batches each, then a restart from what is committed", ledger)
    assert ledger == {"written": 700, "read": 700, "lost": 0, "out of order": 0, "twice": 0}


def test_latest_begins_behind_what_is_there(make_stream: Callable[[int], Kinesis]) -> None:
    kinesis = make_stream(2)
    kinesis.put(numbered(10, 5))
    effects = Effects()
    reader = kinesis.stream(start="latest").open(Share(), {}, effects.load, bounded=False)
    kinesis.put(numbered(10, 5, 5))
    effects.read(reader, until=lambda: effects.count >= 50)
    assert dict(effects.by_key) == {f"fan{key}": [5, 6, 7, 8, 9] for key in range(10)}


def test_start_time_begins_at_a_time(make_stream: Callable[[int], Kinesis]) -> None:
    kinesis = make_stream(1)

    def arrival(number: int) -> datetime:
        answer = kinesis.put([("fan0", f"fan0 {number}".encode())])["Records"][0]
        iterator = kinesis.client.get_shard_iterator(
            StreamName=kinesis.name,
            ShardId=answer["ShardId"],
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            StartingSequenceNumber=answer["SequenceNumber"],
        )["ShardIterator"]
        return kinesis.client.get_records(ShardIterator=iterator, Limit=1)["Records"][0]["ApproximateArrivalTimestamp"]

    first = arrival(0)
    number = 1
    while ((middle := arrival(number)) - first).total_seconds() < 0.05:
        number += 1
    text = middle.isoformat().replace("+", "%2B")
    kinesis.put([("fan0", f"fan0 {number + 1}".encode())])
    after, before = Effects(), Effects()
    reader = kinesis.stream(start_time=text).open(Share(), {}, after.load, bounded=True)
    after.read(reader, until=reader.ended)
    # A few may have arrived in the same millisecond.
    assert after.by_key["fan0"][-2:] == [number, number + 1]
    assert 0 not in after.by_key["fan0"]
    reader = kinesis.stream(end_time=text).open(Share(), {}, before.load, bounded=True)
    before.read(reader, until=reader.ended)
    assert before.by_key["fan0"][: number + 1] == list(range(number + 1))


def test_bounded_read_has_all_that_was_there_though_writing_goes_on(make_stream: Callable[[int], Kinesis]) -> None:
    kinesis = make_stream(2)
    kinesis.put(numbered(20, 40))
    kinesis.split(0)
    kinesis.put(numbered(20, 40, 40))
    stream = kinesis.stream()
    effects = Effects()
    readers = [stream.open(Share(index, 2), {}, effects.load, bounded=True) for index in range(2)]
    stop = threading.Event()

    def write() -> None:
        number = 80
        while not stop.is_set():
            kinesis.put(numbered(20, 1, number))
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        effects.read(*readers, until=lambda: all(reader.ended() for reader in readers))
    finally:
        stop.set()
        writer.join()
    ledger = effects.ledger({f"fan{key}": 80 for key in range(20)})
    show("a bounded read beside a writer", ledger)
    assert (ledger["lost"], ledger["out of order"], ledger["twice"]) == (0, 0, 0)


def test_aggregates_are_taken_apart_and_damaged_ones_are_errors(make_stream: Callable[[int], Kinesis]) -> None:
    kinesis = make_stream(1)
    whole = aggregate(*[f"fan0 {n}".encode() for n in range(7)])
    kinesis.put([("fan0", whole), ("fan0", whole[:-1]), ("fan0", b"fan0 7")])
    reader = kinesis.stream().open(Share(), {}, lambda shard: "", bounded=True)
    batches: list[StreamRecords] = []
    deadline = time.monotonic() + PATIENCE
    while not reader.ended() and time.monotonic() < deadline:
        batch = reader.poll(3)
        if batch is not None:
            batches.append(batch)
    assert [[record.payload for record in batch.records] for batch in batches] == [
        [f"fan0 {n}".encode() for n in range(7)],
        [whole[:-1], b"fan0 7"],
    ]
    (first, *_), (damaged, last) = (batch.records for batch in batches)
    sequence = last.position.removeprefix("shard shardId-000000000000 sequence ")
    assert sequence == batches[1].position
    assert first.position == f"shard shardId-000000000000 sequence {batches[0].position} record 0"
    assert (damaged.body, damaged.error) == (None, "KPL aggregate does not match its MD5")
    assert (last.body, last.error) == (b"fan0 7", None)


def test_an_arn_is_an_address_with_a_region(
    make_stream: Callable[[int], Kinesis], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinesis = make_stream(1)
    kinesis.put(numbered(1, 3))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    stream = kinesis.stream(f"arn:aws:kinesis:us-east-1:000000000000:stream/{kinesis.name}")
    stream.check()
    assert stream.address.options["region"] == "us-east-1"
    effects = Effects()
    reader = stream.open(Share(), {}, effects.load, bounded=True)
    effects.read(reader, until=reader.ended)
    assert effects.by_key == {"fan0": [0, 1, 2]}


def test_expired_iterators_and_throttling_are_got_over(
    make_stream: Callable[[int], Kinesis], http_proxy: Callable[[str], Any]
) -> None:
    kinesis = make_stream(1)
    kinesis.put(numbered(1, 50))
    proxy = http_proxy(ENDPOINT)
    answers = {
        "GetRecords": [2, (400, {"__type": "ExpiredIteratorException", "message": "old"})],
        "GetShardIterator": [1, (400, {"__type": "ProvisionedThroughputExceededException", "message": "slower"})],
    }

    def rule(operation: str, body: bytes) -> Any:
        left = answers.get(operation)
        if left is None or not left[0]:
            return None
        left[0] -= 1  # pyright: ignore[reportOperatorIssue]
        return left[1]

    proxy.rule = rule
    effects = Effects()
    reader = kinesis.stream(endpoint=proxy.address).open(Share(), {}, effects.load, bounded=True)
    effects.read(reader, until=reader.ended)
    assert effects.by_key == {"fan0": list(range(50))}
    assert dict(proxy.struck) | {"ListShards": 0} == {"GetRecords": 2, "GetShardIterator": 1, "ListShards": 0}


def test_unknown_position_is_started_over_with_a_warning(
    make_stream: Callable[[int], Kinesis], caplog: pytest.LogCaptureFixture
) -> None:
    kinesis = make_stream(1)
    kinesis.put(numbered(1, 5))
    effects = Effects()
    reader = kinesis.stream().open(Share(), {"shardId-000000000000": "12345"}, effects.load, bounded=True)
    effects.read(reader, until=reader.ended)
    assert effects.by_key == {"fan0": list(range(5))}
    assert "no longer has the record reading had come to" in caplog.text


# -- misuse


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kinesis://", "write kinesis://stream-name"),
        ("kinesis://two/parts", "write kinesis://stream-name"),
        ("kinesis://arn:aws:sqs:us-east-1:000000000000:queue", "write kinesis://stream-name"),
        ("kinesis://s?start=newest", "option start is earliest or latest"),
        ("kinesis://s?start_time=now", "option start_time is a time such as"),
        ("kinesis://s?start_time=2999-01-01", "option start_time lies in the future"),
        ("kinesis://s?start=latest&start_time=2026-01-01", "start and start_time exclude each other"),
        ("kinesis://s?poll_ms=-1", "option poll_ms is a whole number"),
        ("kinesis://s?discover_seconds=0", "option discover_seconds is a whole number of at least 1"),
        ("kinesis://s?pol_ms=1", "has no option 'pol_ms'"),
    ],
)
def test_addresses_that_cannot_be_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match="--source") as refused:
        KinesisStream.of(parse_address(text, "source"), "source", "w")
    assert says in str(refused.value)


def test_end_time_is_for_bounded_reads() -> None:
    stream = KinesisStream.of(parse_address("kinesis://s?end_time=2026-01-01", "source"), "source", "w")
    with pytest.raises(UsageError, match="--source: option end_time ends a bounded read"):
        stream.open(Share(), {}, lambda shard: "", bounded=False)


def test_stream_that_does_not_exist_is_named() -> None:
    stream = KinesisStream.of(parse_address(f"kinesis://no-such-stream?endpoint={ENDPOINT}", "source"), "source", "w")
    for act in (stream.check, lambda: stream.open(Share(), {}, lambda shard: "", bounded=False)):
        with pytest.raises(UsageError, match="--source: kinesis://no-such-stream does not exist in this region"):
            act()


def test_stream_deleted_while_it_is_read_is_named(make_stream: Callable[[int], Kinesis]) -> None:
    kinesis = make_stream(1)
    effects = Effects()
    kinesis.put(numbered(1, 1))
    reader = kinesis.stream().open(Share(), {}, effects.load, bounded=False)
    effects.read(reader, until=lambda: effects.count == 1)
    kinesis.delete()
    with pytest.raises(UsageError, match=f"--source: kinesis://{kinesis.name} does not exist"):
        wait_for(lambda: reader.poll(10), "the reader to see it")


def test_missing_region_and_missing_or_refused_credentials_are_said(
    monkeypatch: pytest.MonkeyPatch, http_proxy: Callable[[str], Any]
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(UsageError, match=r"--source: no region; add \?region=eu-west-1 to kinesis://s"):
        KinesisStream.of(parse_address("kinesis://s", "source"), "source", "w").check()

    proxy = http_proxy(ENDPOINT)
    proxy.rule = lambda operation, body: (400, {"__type": "UnrecognizedClientException", "message": "no"})
    address = parse_address(f"kinesis://s?region=eu-west-1&endpoint={proxy.address}", "source")
    with pytest.raises(UsageError, match="--source: the AWS credentials in use are refused for kinesis://s"):
        KinesisStream.of(address, "source", "w").check()

    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    address = parse_address(f"kinesis://s?region=eu-west-2&endpoint={proxy.address}", "source")
    with pytest.raises(UsageError, match="--source: no AWS credentials for kinesis://s; set AWS_ACCESS_KEY_ID"):
        KinesisStream.of(address, "source", "w").check()


def aggregate(*data: bytes) -> bytes:
    """An aggregate of short records, as the Kinesis Producer Library makes them."""
    records = b"".join(b"\x1a" + bytes([len(one) + 4]) + b"\x08\x00\x1a" + bytes([len(one)]) + one for one in data)
    body = b"\x0a\x04fan0" + records
    return b"\xf3\x89\x9a\xc2" + body + hashlib.md5(body, usedforsecurity=False).digest()
