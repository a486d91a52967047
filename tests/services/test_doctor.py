"""``fan-identity doctor`` against real servers: lag, depth, workers and flags as they are."""

import json
import time
from typing import Any

import boto3
import pytest
from confluent_kafka import Consumer, TopicPartition

from fan_identity.io.addresses import parse_address, partition_source
from fan_identity.io.backends import open_operations
from fan_identity.io.dynamodb.positions import DynamoDbPositions
from fan_identity.io.ports import QueueEntry
from fan_identity.io.sqlite.queue import SqliteQueue
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.worker_reports import WorkerReport, item_of

from .conftest import KAFKA, KINESIS

TOKEN = "default:development.unleash-test-token"
WORKER = "enqueueFromStream"


@pytest.fixture
def doctor(cli, system):
    """Runs ``doctor``; what it found, by section and check."""

    def run(code: int = 0, **env: str) -> dict[tuple[str, str], dict[str, Any]]:
        result = cli("doctor", "--json", env={**system.env, **env})
        assert result.code == code, result
        return {(one["section"], one["check"]): one for one in result.json}

    return run


def test_of_a_hundred_records_and_forty_committed_sixty_are_behind(doctor, system, server):
    server("kafka")
    topic = system.topic(1)
    system.produce(topic, [("k", b"%d" % number) for number in range(100)])
    group = Consumer({"bootstrap.servers": KAFKA, "group.id": WORKER, "enable.auto.commit": False})
    group.commit(offsets=[TopicPartition(topic.rpartition("/")[2], 0, 40)], asynchronous=False)
    group.close()
    system.use(source=topic)
    found = doctor()
    lag = found["sources", WORKER]
    assert lag["data"]["records"] == 60
    assert lag["detail"].startswith("60 records behind; committed 0@40")
    assert found["parts", "source"]["status"] == "ok"


def test_a_topic_that_nobody_has_read_is_behind_by_all_of_it(doctor, system, server):
    server("kafka")
    topic = system.topic(3)
    system.produce(topic, [(f"k{number}", b"x") for number in range(30)])
    system.use(source=f"{topic}?group=nobody-{time.time_ns()}")
    (lag,) = [one for (section, _), one in doctor().items() if section == "sources"]
    assert lag["data"]["records"] == 30 and "nothing committed yet" in lag["detail"]


def test_a_stream_is_behind_by_the_age_of_its_first_record_not_committed(doctor, system, server):
    server("kinesalite")
    server("dynamodb")
    stream, table = system.stream(1), system.table()
    name = stream.removeprefix("kinesis://").partition("?")[0]
    before = time.time()
    system.put_records(stream, [("k", b"%d" % number) for number in range(10)])
    kinesis: Any = boto3.client("kinesis", endpoint_url=KINESIS)
    (shard,) = kinesis.list_shards(StreamName=name)["Shards"]
    iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    records = kinesis.get_records(ShardIterator=iterator)["Records"]
    positions = DynamoDbPositions.of(parse_address(table, "positions"), "positions")
    system.use(source=stream, positions=table, table=table, queue=system.queue(), dead_letters=table)
    place = partition_source(stream, shard["ShardId"])

    positions.commit(WORKER, place, records[3]["SequenceNumber"])
    (behind,) = doctor(APP_NAME=WORKER)["sources", WORKER]["data"]["partitions"]
    assert behind["position"] == records[3]["SequenceNumber"]
    assert 0 < behind["behindMs"] <= (time.time() - before + 1) * 1_000

    positions.commit(WORKER, place, records[9]["SequenceNumber"])
    assert doctor(APP_NAME=WORKER)["sources", WORKER]["data"]["behindMs"] == 0

    positions.commit(WORKER, place, "9" * 60)
    gone = doctor(APP_NAME=WORKER)["sources", WORKER]
    assert gone["status"] == "warning" and gone["data"]["partitions"][0]["problem"]


def test_a_tables_stream_is_behind_likewise(doctor, system, server):
    server("dynamodb")
    table = system.table(stream=True)
    source = table.replace("dynamodb://", "dynamodb-streams://")
    name = table.removeprefix("dynamodb://").partition("?")[0]
    for number in range(5):
        system.dynamodb.put_item(TableName=name, Item={"PK": {"S": "p"}, "SK": {"S": str(number)}})
    positions_table = system.table()
    system.use(source=source, positions=positions_table, table=positions_table, queue=system.queue())
    system.use(dead_letters=positions_table)
    lag = doctor(APP_NAME="scoreUsers")["sources", "scoreUsers"]
    (shard,) = lag["data"]["partitions"]
    # DynamoDB Local rounds the time of a change down to the minute.
    assert 0 <= shard["behindMs"] < 180_000 and "nothing committed yet" in lag["detail"]


def test_queues_tell_what_waits_and_what_is_in_flight(doctor, system, server, tmp_path):
    server("elasticmq")
    queue, demand = system.queue(), system.queue(fifo=False)
    for number in range(3):
        system.send(queue, b"{}", group=f"g{number}")
    system.sqs.receive_message(QueueUrl=system.url(queue), MaxNumberOfMessages=1)
    store = SqliteStore(tmp_path / "fans.db")
    SqliteQueue(store, "rescoreQueue").send([QueueEntry("g", f"d{number}", b"{}") for number in range(4)])
    system.use(queue=queue, on_demand_queue=demand, rescore_queue=f"sqlite:///{tmp_path}/fans.db?queue=rescoreQueue")
    found = doctor()
    name = queue.removeprefix("sqs://").partition("?")[0]
    assert (found["queues", name]["data"]["waiting"], found["queues", name]["data"]["inFlight"]) == (2, 1)
    assert found["queues", name]["detail"] == "2 waiting, 1 in flight"
    empty = demand.removeprefix("sqs://").partition("?")[0]
    assert found["queues", empty]["data"]["waiting"] == 0
    rescore = found["queues", "rescoreQueue"]
    assert rescore["data"]["waiting"] == 4 and 0 <= rescore["data"]["oldestMs"] <= 300_000
    # Asking took nothing out.
    assert system.depth(queue) == 3


def test_workers_that_run_are_told_and_those_that_ended_are_not(doctor, system, server):
    server("dynamodb")
    table = system.table()
    system.use(table=table)
    now = int(time.time() * 1_000)
    alive = WorkerReport(
        "scoreUsers", "p1", now - 60_000, now + 60_000, runner="PrismRunner", last_batch_at=now, age_ms=1_500
    )
    dead = WorkerReport("handleEvent", "p2", now - 900_000, now - 600_000)
    open_operations(table).put_if_newer([item_of(alive), item_of(dead)])
    found = doctor()
    assert {check for section, check in found if section == "workers"} == {"scoreUsers"}
    assert "PrismRunner" in found["workers", "scoreUsers"]["detail"]
    assert found["known broken", "PrismRunner, any version, as a service"]["status"] == "warning"


def test_what_is_down_is_failed_and_what_flags_switch_off_is_a_note(doctor, system, server, unique):
    for name in ("redis", "unleash", "dynamodb"):
        server(name)
    system.use(
        cache="redis://127.0.0.1:16390/0",
        flags="unleash+http://127.0.0.1:14242/api",
        table=f"dynamodb://{unique('missing')}?endpoint=http://127.0.0.1:18000",
    )
    found = doctor(3, FAN_IDENTITY_UNLEASH_TOKEN=TOKEN)
    assert found["parts", "cache"]["status"] == "ok" and found["parts", "flags"]["status"] == "ok"
    assert found["parts", "table"]["status"] == "failed" and "does not exist" in found["parts", "table"]["detail"]
    assert found["workers", "reports"]["status"] == "warning"
    assert set(found["flags", "workers"]["data"]["enabled"]) >= {"scoreUsers", "checkLiveness"}
    assert ("known broken", "Redis server < 6") not in found


def test_a_table_for_people_says_the_same(cli, system, server):
    server("redis")
    system.use(cache="redis://127.0.0.1:16390/0")
    result = cli("doctor", env=system.env)
    assert result.code == 0, result
    assert "parts\n" in result.text and "redis://127.0.0.1:16390/0 answers in" in result.text
    listed = json.loads(cli("doctor", "--pairs", "--json").text)
    assert {"what", "problem", "remedy", "source", "status"} == set(listed[0])
