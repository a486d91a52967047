"""Kafka on a real broker: order, resuming, new partitions, ranges, transactions, losses, commits, outages."""

import gc
import json
import logging
import random
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from fan_identity.domain.records import RawRecord
from fan_identity.io import kafka_session
from fan_identity.io.addresses import parse_address
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.kafka import KafkaPositions, KafkaReader, KafkaStream, source_of
from fan_identity.io.ports import Share

BROKER = "127.0.0.1:19092"
PROXIED = "127.0.0.1:19095"  # what the broker tells those who come through the proxy; see deploy/services
TOXIPROXY = "http://127.0.0.1:18474"
DEADLINE_SECONDS = 60
ALL = Share()

Records = Mapping[str, Sequence[RawRecord]]


@pytest.fixture(autouse=True)
def _needs(server: Callable[[str], None]) -> None:
    server("kafka")


@pytest.fixture(scope="module")
def admin() -> AdminClient:
    return AdminClient({"bootstrap.servers": BROKER, "log_level": 0})


@pytest.fixture
def make_topic(admin: AdminClient) -> Iterator[Callable[..., str]]:
    made: list[str] = []

    def make(partitions: int = 1, **config: str) -> str:
        name = f"t-{uuid.uuid4().hex}"
        dotted = {key.replace("_", "."): value for key, value in config.items()}
        for future in admin.create_topics([NewTopic(name, partitions, 1, config=dotted)]).values():
            future.result(DEADLINE_SECONDS)
        made.append(name)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while name not in admin.list_topics(timeout=DEADLINE_SECONDS).topics:  # made, and not yet known everywhere
            assert time.monotonic() < deadline, "a topic that was made is not there"
        return name

    yield make
    for future in admin.delete_topics(made).values() if made else ():
        future.exception(DEADLINE_SECONDS)  # a test may have deleted it


def produce(topic: str, records: Mapping[int, Sequence[bytes | None]], *, time_ms: int = 0) -> None:
    """Writes values to partitions; with a new producer, which knows the partitions there are now."""
    producer = Producer(
        {
            "bootstrap.servers": BROKER,
            "log_level": 0,
            "message.max.bytes": 10_000_000,
            # Without it a first request to a new topic is tried again behind the second.
            "enable.idempotence": True,
        }
    )
    failed: list[object] = []
    for partition, values in records.items():
        for value in values:
            producer.produce(
                topic,
                value,
                partition=partition,
                timestamp=time_ms,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
            producer.poll(0)
    assert producer.flush(DEADLINE_SECONDS) == 0
    assert not failed


def numbers(first: int, after: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, after)]


def stream(topic: str, options: str = "", *, group: str | None = None, broker: str = BROKER) -> KafkaStream:
    address = parse_address(f"kafka://{broker}/{topic}{'?' if options else ''}{options}", "source")
    return KafkaStream.of(address, "source", group or f"g-{uuid.uuid4().hex}")


def nothing_committed(_: str) -> str:
    return ""


def open_reader(
    source: KafkaStream, positions: Mapping[str, str] | None = None, *, share: Share = ALL, bounded: bool = False
) -> KafkaReader:
    return source.open(share, positions or {}, nothing_committed, bounded=bounded)


def open_patiently(source: KafkaStream, positions: Mapping[str, str] | None = None) -> KafkaReader:
    """Opens where the address itself allows little time: a slow machine is no outage."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            return open_reader(source, positions)
        except BackendUnavailableError:
            assert time.monotonic() < deadline


def read(reader: KafkaReader, done: Callable[[Records], bool], limit: int = 500) -> dict[str, list[RawRecord]]:
    """Polls until done, checking each answer's position against the reader's."""
    found: dict[str, list[RawRecord]] = defaultdict(list)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not done(found):
        assert time.monotonic() < deadline, f"only { ({name: len(part) for name, part in found.items()}) } came"
        answer = reader.poll(limit)
        if answer is not None:
            assert len(answer.records) <= limit
            assert reader.positions()[answer.partition] == answer.position
            found[answer.partition].extend(answer.records)
    return dict(found)


def read_to_end(reader: KafkaReader, limit: int = 500) -> dict[str, list[RawRecord]]:
    found = read(reader, lambda _: reader.ended(), limit)
    return {name: records for name, records in found.items() if records}


def count(wanted: int) -> Callable[[Records], bool]:
    return lambda found: sum(map(len, found.values())) >= wanted


def bodies(records: Sequence[RawRecord]) -> list[bytes | None]:
    return [record.body for record in records]


def test_three_shares_read_every_record_once_and_in_order(make_topic: Callable[..., str]) -> None:
    topic = make_topic(4)
    sent = {partition: numbers(partition * 10_000, partition * 10_000 + 2_500) for partition in range(4)}
    produce(topic, sent)
    source = stream(topic)
    parts: dict[str, list[RawRecord]] = {}
    for index in range(3):
        found = read_to_end(open_reader(source, share=Share(index, 3), bounded=True))
        assert all(int(name) % 3 == index for name in found)
        assert not parts.keys() & found.keys()
        parts |= found
    assert {name: bodies(records) for name, records in parts.items()} == {str(key): sent[key] for key in sent}
    assert parts["2"][7].position == "offset 7"
    assert parts["2"][7].payload == b"20007"


@pytest.mark.parametrize("closed", [True, False], ids=["consumer handed over", "new consumer"])
def test_positions_taken_midway_resume_with_exactly_the_rest(make_topic: Callable[..., str], closed: bool) -> None:
    topic = make_topic(3)
    sent = {partition: numbers(0, 1_000) for partition in range(3)}
    produce(topic, sent)
    source = stream(topic)
    first = open_reader(source, bounded=True)
    # Odd limits leave records that were fetched and not returned; positions must not count them.
    before = read(first, count(1_234), limit=100)
    assert first.poll(7) is not None
    positions = dict(before_last := first.positions())
    if closed:
        first.close()
        assert first.positions() == before_last
    after = read_to_end(open_reader(source, positions, bounded=True))
    for partition in range(3):
        start = int(positions[str(partition)])
        assert bodies(after.get(str(partition), [])) == sent[partition][start:]
        assert bodies(before.get(str(partition), [])) == sent[partition][: len(before.get(str(partition), []))]


def test_readers_rebuilt_for_every_few_records_share_one_consumer(
    make_topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make_topic(2)
    produce(topic, {0: numbers(0, 1_000), 1: numbers(0, 1_000)})
    made: list[object] = []
    original = kafka_session.new_consumer

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(kafka_session, "new_consumer", counted)
    source = stream(topic)
    found: dict[str, list[bytes | None]] = defaultdict(list)
    positions: dict[str, str] = {}
    deadline = time.monotonic() + DEADLINE_SECONDS
    rebuilt = 0
    while sum(map(len, found.values())) < 2_000:
        assert time.monotonic() < deadline
        reader = open_reader(source, positions)
        for _ in range(3):
            answer = reader.poll(13)
            if answer is not None:
                found[answer.partition] += bodies(answer.records)
                # What a runner remembers may be no more than what it was given.
                positions[answer.partition] = answer.position
        if rebuilt % 2:
            reader.close()
        else:
            del reader  # forgotten instead of closed
            gc.collect()
        rebuilt += 1
    assert found == {"0": numbers(0, 1_000), "1": numbers(0, 1_000)}
    assert rebuilt > 50
    assert len(made) == 1


def test_a_handed_over_consumer_goes_back_where_an_older_checkpoint_says(make_topic: Callable[..., str]) -> None:
    topic = make_topic(2)
    produce(topic, {0: numbers(0, 300), 1: numbers(0, 300)})
    source = stream(topic)
    reader = open_reader(source)
    read(reader, count(600), limit=50)
    reader.close()
    again = read(open_reader(source, {"0": "100", "1": "250"}), count(250))
    assert {name: bodies(records) for name, records in again.items()} == {
        "0": numbers(100, 300),
        "1": numbers(250, 300),
    }


def test_a_consumer_moved_back_and_forth_gives_nothing_of_where_it_was(make_topic: Callable[..., str]) -> None:
    topic = make_topic(2)
    produce(topic, {0: numbers(0, 3_000), 1: numbers(0, 3_000)})
    source = stream(topic)
    places = random.Random(7)
    for _ in range(40):
        positions = {"0": str(places.randrange(2_900)), "1": str(places.randrange(2_900))}
        reader = open_reader(source, positions)
        found = read(reader, count(places.randrange(1, 150)), limit=places.choice([1, 10, 500]))
        for name, records in found.items():
            start = int(positions[name])
            assert bodies(records) == numbers(start, start + len(records))
        reader.close()


def test_a_partition_added_while_reading_is_read_from_its_beginning(
    make_topic: Callable[..., str], admin: AdminClient
) -> None:
    topic = make_topic(1)
    produce(topic, {0: numbers(0, 10)})
    reader = open_reader(stream(topic, "start=latest&discover_seconds=1"))
    assert reader.positions() == {"0": "10"}
    for future in admin.create_partitions([NewPartitions(topic, 3)]).values():
        future.result(DEADLINE_SECONDS)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(AdminClient({"bootstrap.servers": BROKER}).list_topics(topic).topics[topic].partitions) < 3:
        assert time.monotonic() < deadline
    produce(topic, {0: numbers(10, 20), 1: numbers(0, 20), 2: numbers(0, 5)})
    found = read(reader, count(35))
    assert {name: bodies(records) for name, records in found.items()} == {
        "0": numbers(10, 20),
        "1": numbers(0, 20),
        "2": numbers(0, 5),
    }
    assert reader.positions() == {"0": "20", "1": "20", "2": "5"}


def test_a_partition_that_a_checkpoint_does_not_know_starts_at_its_beginning(make_topic: Callable[..., str]) -> None:
    topic = make_topic(2)
    produce(topic, {0: numbers(0, 10), 1: numbers(0, 10)})
    reader = open_reader(stream(topic, "start=latest"), {"0": "7"})
    assert reader.positions() == {"0": "7", "1": "0"}


def test_where_a_read_starts(make_topic: Callable[..., str]) -> None:
    topic = make_topic(2, retention_ms="-1")
    produce(topic, {0: numbers(0, 5)}, time_ms=1_700_000_000_000)
    produce(topic, {0: numbers(5, 8)}, time_ms=1_700_000_060_000)
    for options, expected in {
        "": {"0": "0", "1": "0"},
        "start=earliest": {"0": "0", "1": "0"},
        "start=latest": {"0": "8", "1": "0"},
        "start_time=2023-11-14T22:13:20Z": {"0": "0", "1": "0"},
        "start_time=2023-11-14T22:13:20.001Z": {"0": "5", "1": "0"},
        "start_time=2023-11-14T22:14:20": {"0": "5", "1": "0"},
        "start_time=2023-11-14T22:14:21": {"0": "8", "1": "0"},
        "start_offset=3": {"0": "3", "1": "0"},
        "start_offset=100": {"0": "8", "1": "0"},
    }.items():
        reader = open_reader(stream(topic, options))
        assert reader.positions() == expected, options
        reader.close()
    assert bodies(read(open_reader(stream(topic, "start_offset=3")), count(5))["0"]) == numbers(3, 8)


def test_where_a_bounded_read_ends(make_topic: Callable[..., str]) -> None:
    topic = make_topic(2, retention_ms="-1")
    produce(topic, {0: numbers(0, 5)}, time_ms=1_700_000_000_000)
    produce(topic, {0: numbers(5, 8), 1: numbers(0, 2)}, time_ms=1_700_000_060_000)
    for options, expected in {
        "": {"0": numbers(0, 8), "1": numbers(0, 2)},
        "end_offset=6": {"0": numbers(0, 6), "1": numbers(0, 2)},
        "end_offset=0": {},
        "start_offset=2&end_offset=4": {"0": numbers(2, 4)},
        "start_offset=1&end_offset=100": {"0": numbers(1, 8), "1": numbers(1, 2)},
        "end_time=2023-11-14T22:14:20": {"0": numbers(0, 5)},
        "start_time=2023-11-14T22:13:50&end_time=2023-11-14T23:00:00": {"0": numbers(5, 8), "1": numbers(0, 2)},
        "start_time=2023-11-14T23:00:00": {},
    }.items():
        reader = open_reader(stream(topic, options), bounded=True)
        found = read_to_end(reader)
        assert {name: bodies(records) for name, records in found.items()} == expected, options
        assert reader.ended()
        assert reader.poll(10) is None


def test_a_bounded_read_ends_at_what_was_there_when_it_began(make_topic: Callable[..., str]) -> None:
    topic = make_topic(1)
    produce(topic, {0: numbers(0, 20)})
    source = stream(topic)
    reader = open_reader(source, bounded=True)
    produce(topic, {0: numbers(20, 30)})
    assert bodies(read(reader, count(5), limit=5)["0"]) == numbers(0, 5)
    reader.close()
    # A reader that goes on with the same read keeps its end.
    reader = open_reader(source, reader.positions(), bounded=True)
    assert bodies(read_to_end(reader)["0"]) == numbers(5, 20)
    reader.close()
    # One that goes on behind its end is another read: it sees what has come since.
    assert bodies(read_to_end(open_reader(source, reader.positions(), bounded=True))["0"]) == numbers(20, 30)


def test_a_share_without_partitions_ends_at_once(make_topic: Callable[..., str]) -> None:
    reader = open_reader(stream(make_topic(1)), share=Share(1, 2), bounded=True)
    assert reader.ended()
    assert reader.poll(10) is None
    assert not open_reader(stream(make_topic(1)), share=Share(1, 2)).ended()


def test_transactions_are_read_committed_and_their_markers_do_not_hold_the_end_back(
    make_topic: Callable[..., str],
) -> None:
    topic = make_topic(1)
    producer = Producer({"bootstrap.servers": BROKER, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(DEADLINE_SECONDS)
    for value, commit in ((b"kept", True), (b"aborted", False)):
        producer.begin_transaction()
        for _ in range(3):
            producer.produce(topic, value, partition=0)
        assert producer.flush(DEADLINE_SECONDS) == 0
        producer.commit_transaction(DEADLINE_SECONDS) if commit else producer.abort_transaction(DEADLINE_SECONDS)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    assert producer.flush(DEADLINE_SECONDS) == 0
    source = stream(topic)
    reader = open_reader(source, bounded=True)
    # 3 records, a marker, 3 aborted ones, a marker: offset 8 is the first of the open transaction.
    assert bodies(read_to_end(reader)["0"]) == [b"kept"] * 3
    assert reader.positions() == {"0": "8"}
    reader.close()
    assert open_reader(source, {"0": "8"}, bounded=True).ended()
    # Resumed behind the last record and before the markers it finds its end, too.
    markers_left = open_reader(source, {"0": "3"}, bounded=True)
    assert not markers_left.ended()
    assert read_to_end(markers_left) == {}
    producer.commit_transaction(DEADLINE_SECONDS)
    # The broker writes the marker after it answered: only an unbounded read waits for it.
    assert bodies(read(open_reader(source, {"0": "8"}), count(1))["0"]) == [b"open"]


def test_tombstones_empty_and_large_records(make_topic: Callable[..., str]) -> None:
    topic = make_topic(1, max_message_bytes="8000000")
    large = b"x" * 5_000_000
    produce(topic, {0: [b"a", None, b"", large]})
    records = read_to_end(open_reader(stream(topic), bounded=True))["0"]
    assert records[0] == RawRecord(b"a", "offset 0", b"a")
    assert records[1] == RawRecord(b"", "offset 1", None, "tombstone")
    assert records[2] == RawRecord(b"", "offset 2", b"")
    assert records[3].body == large


def test_records_deleted_before_they_were_read_are_counted_and_said(
    make_topic: Callable[..., str], admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic(2)
    produce(topic, {0: numbers(0, 100), 1: numbers(0, 10)})
    source = stream(topic)
    reader = open_reader(source, {"0": "5", "1": "0"})
    for future in admin.delete_records([TopicPartition(topic, 0, 60)]).values():
        future.result(DEADLINE_SECONDS)
    reader.close()
    with caplog.at_level(logging.WARNING, logger="fan_identity"):
        found = read(open_reader(source, {"0": "20", "1": "0"}), count(50))
    assert bodies(found["0"]) == numbers(60, 100)
    assert bodies(found["1"]) == numbers(0, 10)
    (said,) = [record.getMessage() for record in caplog.records if "deleted" in record.getMessage()]
    assert "partition 0: 40 offsets from 20 on were deleted before they were read; going on at 60" in said


def test_a_place_behind_the_end_of_a_topic_made_anew_starts_over_and_says_so(
    make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic(1)
    produce(topic, {0: numbers(0, 4)})
    with caplog.at_level(logging.WARNING, logger="fan_identity"):
        found = read(open_reader(stream(topic), {"0": "1000", "9": "3"}), count(4))
    assert bodies(found["0"]) == numbers(0, 4)
    said = [record.getMessage() for record in caplog.records]
    assert any("ends at 4, before the place to go on at, 1000" in line for line in said)
    assert any("no longer there: [9]" in line for line in said)


def committed_offsets(topic: str, group: str, partitions: int) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": BROKER, "group.id": group, "log_level": 0})
    try:
        places = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], DEADLINE_SECONDS)
        return {place.partition: place.offset for place in places if place.offset >= 0}
    finally:
        consumer.close()


def test_commits_are_the_groups_and_never_go_back(make_topic: Callable[..., str]) -> None:
    topic, group = make_topic(2), f"g-{uuid.uuid4().hex}"
    address = parse_address(f"kafka://{BROKER}/{topic}?group={group}", "source")
    store = KafkaPositions.of(address, "source", "enqueueFromStream")
    zero, one = source_of(address, "0"), source_of(address, "1")
    assert store.load("enqueueFromStream", zero) == ""
    for position in ("3", "50", "7", "", "50", "49"):
        store.commit("enqueueFromStream", zero, position)
    # Positions are unpickled again and again; what was committed is known all the same.
    KafkaPositions.of(address, "source", "enqueueFromStream").commit("enqueueFromStream", one, "9")
    assert store.flush(DEADLINE_SECONDS)
    assert committed_offsets(topic, group, 2) == {0: 50, 1: 9}
    KafkaPositions.of(address, "source", "other").commit("enqueueFromStream", zero, "20")
    assert store.flush(DEADLINE_SECONDS)
    assert committed_offsets(topic, group, 2) == {0: 50, 1: 9}
    assert [store.load("enqueueFromStream", source) for source in (zero, one)] == ["50", "9"]
    with pytest.raises(ValueError, match="another topic"):
        store.commit("enqueueFromStream", "kafka://x/other#0", "1")


def test_many_commits_in_a_burst_end_at_the_highest(make_topic: Callable[..., str]) -> None:
    topic, group = make_topic(3), f"g-{uuid.uuid4().hex}"
    address = parse_address(f"kafka://{BROKER}/{topic}?group={group}", "source")
    store = KafkaPositions.of(address, "source", "w")
    for offset in [*range(0, 500, 7), *range(400, 0, -3)]:
        for partition in range(3):
            store.commit("w", source_of(address, str(partition)), str(offset + partition))
    assert store.flush(DEADLINE_SECONDS)
    assert committed_offsets(topic, group, 3) == {0: 497, 1: 498, 2: 499}


def test_a_commit_that_fails_is_logged_once_and_goes_along_with_the_next(
    make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topic, group = make_topic(1), f"g-{uuid.uuid4().hex}"
    produce(topic, {0: numbers(0, 5)})
    address = parse_address(f"kafka://{BROKER}/{topic}?group={group}", "source")
    store = KafkaPositions.of(address, "source", "w")
    # While a group has members only they may commit.
    member = Consumer({"bootstrap.servers": BROKER, "group.id": group, "enable.auto.commit": False, "log_level": 0})
    member.subscribe([topic])
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not member.assignment():
        assert time.monotonic() < deadline
        member.poll(0.05)
    with caplog.at_level(logging.WARNING, logger="fan_identity"):
        for position in ("2", "3"):
            store.commit("w", source_of(address, "0"), position)
            assert not store.flush(DEADLINE_SECONDS)
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "committing offsets failed" in line]) == 1
    member.close()
    while not store.flush(DEADLINE_SECONDS):
        assert time.monotonic() < deadline
    assert committed_offsets(topic, group, 1) == {0: 3}


def test_a_read_goes_on_where_was_committed(make_topic: Callable[..., str]) -> None:
    topic, group = make_topic(3), f"g-{uuid.uuid4().hex}"
    produce(topic, {partition: numbers(0, 10) for partition in range(3)})
    address = parse_address(f"kafka://{BROKER}/{topic}", "source")
    store = KafkaPositions.of(address, "source", group)
    for partition in range(2):
        store.commit(group, source_of(address, str(partition)), "4")
    assert store.flush(DEADLINE_SECONDS)
    held = {"0": "6"}

    def open_with(options: str, *, bounded: bool) -> dict[str, str]:
        reader = stream(topic, options, group=group).open(ALL, {}, lambda name: held.get(name, ""), bounded=bounded)
        try:
            return reader.positions()
        finally:
            reader.close()

    # The store given comes first, then the group's own offset, then the address's start.
    assert open_with("start=latest", bounded=False) == {"0": "6", "1": "4", "2": "10"}
    assert open_with("start_offset=2", bounded=False) == {"0": "6", "1": "4", "2": "2"}
    # A bounded read with a start of its own is a backfill: the group's offset is none of its business.
    assert open_with("start_offset=2", bounded=True) == {"0": "6", "1": "2", "2": "2"}
    assert open_with("", bounded=True) == {"0": "6", "1": "4", "2": "0"}


def test_what_cannot_be_read_is_told_in_one_line(
    make_topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = stream(f"t-{uuid.uuid4().hex}")
    with pytest.raises(UsageError, match=r"^--source: topic t-\w+ does not exist at 127.0.0.1:19092; create it"):
        absent.check()
    with pytest.raises(UsageError, match="does not exist"):
        open_reader(absent)
    topic = make_topic()
    stream(topic).check()
    with pytest.raises(UsageError, match=r"a kafka\. option is wrong"):
        stream(topic, "kafka.no.such.property=1").check()
    with pytest.raises(UsageError, match=r"a kafka\. option is wrong"):
        open_reader(stream(topic, "kafka.fetch.min.bytes=many"))
    with pytest.raises(UsageError, match="end_time and end_offset are for bounded runs"):
        open_reader(stream(topic, "end_offset=3"))
    with pytest.raises(UsageError, match="no Kafka offset"):
        open_reader(stream(topic), {"0": "49590338271490256608559692538361571095921575989136588898"})
    with pytest.raises(UsageError, match="of no Kafka partition"):
        open_reader(stream(topic), {"shardId-000000000000": "5"})
    monkeypatch.setenv("FAN_IDENTITY_KAFKA_USERNAME", "somebody")
    monkeypatch.setenv("FAN_IDENTITY_KAFKA_PASSWORD", "hunter2-hunter2")
    refused = stream(topic, "kafka.security.protocol=SASL_PLAINTEXT&kafka.sasl.mechanism=PLAIN")
    with pytest.raises(UsageError, match="refuses the credentials; check FAN_IDENTITY_KAFKA_USERNAME") as told:
        refused.check()
    assert "hunter2" not in str(told.value)


def test_no_broker_is_an_error_after_the_time_allowed() -> None:
    nowhere = stream("t", "unreachable_seconds=1", broker="127.0.0.1:1")
    for attempt in (nowhere.check, lambda: open_reader(nowhere)):
        with pytest.raises(
            BackendUnavailableError, match=r"^--source: kafka://127.0.0.1:1/t is out of reach \(.*refused"
        ):
            attempt()


def test_a_topic_deleted_while_it_is_read_is_an_error_after_the_time_allowed(
    make_topic: Callable[..., str], admin: AdminClient
) -> None:
    topic = make_topic()
    reader = open_patiently(stream(topic, "discover_seconds=1&unreachable_seconds=5"))
    for future in admin.delete_topics([topic]).values():
        future.result(DEADLINE_SECONDS)
    with pytest.raises(UsageError, match="does not exist"):
        read(reader, lambda _: False)


_QUIET = """
import sys
from fan_identity.io.addresses import parse_address
from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.kafka import KafkaPositions, KafkaStream, source_of
from fan_identity.io.ports import Share
address = parse_address(sys.argv[1], "source")
reader = KafkaStream.of(address, "source", "w").open(Share(), {}, lambda _: "", bounded=True)
while not reader.ended():
    reader.poll(10)
for partition, position in reader.positions().items():
    KafkaPositions.of(address, "source", "w").commit("w", source_of(address, partition), position)
try:
    KafkaStream.of(parse_address("kafka://127.0.0.1:1/t?unreachable_seconds=1", "source"), "source", "w").check()
except BackendUnavailableError:
    sys.exit(7)
"""


def test_librdkafka_says_nothing_itself_and_a_process_ends_with_a_reader_open_and_all_committed(
    make_topic: Callable[..., str],
) -> None:
    topic, group = make_topic(), f"g-{uuid.uuid4().hex}"
    produce(topic, {0: numbers(0, 5)})
    command = [sys.executable, "-c", _QUIET, f"kafka://{BROKER}/{topic}?group={group}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "", "")
    assert committed_offsets(topic, group, 1) == {0: 5}


def toxiproxy(method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{TOXIPROXY}{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        return response.read()


@pytest.fixture
def proxy(server: Callable[[str], None]) -> Iterator[str]:
    server("toxiproxy")
    for left, settings in json.loads(toxiproxy("GET", "/proxies")).items():
        if settings["listen"] == PROXIED:  # of a run that was killed
            toxiproxy("DELETE", f"/proxies/{left}")
    name = f"kafka-{uuid.uuid4().hex}"
    toxiproxy("POST", "/proxies", {"name": name, "listen": PROXIED, "upstream": "127.0.0.1:19094"})
    yield name
    toxiproxy("DELETE", f"/proxies/{name}")


def test_a_reader_outlives_an_outage_and_loses_nothing(make_topic: Callable[..., str], proxy: str) -> None:
    topic = make_topic(1)
    produce(topic, {0: numbers(0, 10)})
    reader = open_reader(stream(topic, "discover_seconds=1", broker=PROXIED))
    assert bodies(read(reader, count(10))["0"]) == numbers(0, 10)
    toxiproxy("POST", f"/proxies/{proxy}", {"enabled": False})
    produce(topic, {0: numbers(10, 20)})
    for _ in range(100):
        assert reader.poll(10) is None
    toxiproxy("POST", f"/proxies/{proxy}", {"enabled": True})
    assert bodies(read(reader, count(10))["0"]) == numbers(10, 20)


def test_an_outage_that_lasts_is_an_error_and_the_next_reader_goes_on(
    make_topic: Callable[..., str], proxy: str
) -> None:
    topic = make_topic(1)
    produce(topic, {0: numbers(0, 10)})
    source = stream(topic, "discover_seconds=1&unreachable_seconds=2", broker=PROXIED)
    reader = open_patiently(source)
    read(reader, count(10))
    toxiproxy("POST", f"/proxies/{proxy}", {"enabled": False})
    with pytest.raises(BackendUnavailableError, match="out of reach"):
        read(reader, lambda _: False)
    reader.close()
    toxiproxy("POST", f"/proxies/{proxy}", {"enabled": True})
    produce(topic, {0: numbers(10, 20)})
    assert bodies(read(open_patiently(source, reader.positions()), count(10))["0"]) == numbers(10, 20)
