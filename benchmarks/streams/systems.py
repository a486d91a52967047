"""What the benchmarks stand on: the servers of ``make services``, and topics, queues and tables of a run's own."""

import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import boto3
import httpx
import redis
from botocore.config import Config
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ...domain.arai import arai_item
from ...domain.keys import arm_cache_key, fifo_group_id
from ...io.addresses import Address
from ...io.dynamodb.table import DynamoDbTable
from ...io.ports import QueueEntry
from ...io.sqs.queue import SqsQueue

KAFKA: Final = "127.0.0.1:19092"
SQS: Final = "http://127.0.0.1:19324"
DYNAMODB: Final = "http://127.0.0.1:18000"
REDIS_PORT: Final = 16390
REDIS_DB: Final = 9
REDIS: Final = f"redis://127.0.0.1:{REDIS_PORT}/{REDIS_DB}"
PARTITIONS: Final = 3

_PREFIX: Final = "FAN_IDENTITY_"
_AWS: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_TYPES: Final = ("login", "pageView", "eventView", "queueJoin", "addToCart", "checkout", "purchase")
_PATIENCE: Final = 60.0


def use_local_servers() -> None:
    """Gives this process, and those it starts, made-up credentials, and none of the settings it was started with."""
    for name in [name for name in os.environ if name.startswith((_PREFIX, "AWS_"))]:
        del os.environ[name]
    os.environ.update(_AWS)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command with settings, by their names."""
    return {**os.environ, **{_PREFIX + name.upper(): text for name, text in settings.items()}}


def unique(prefix: str) -> str:
    """A name no other run has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def activity(number: int, user: str, time_ms: int, kind: str = "login") -> bytes:
    """One scorable activity, of about the size real ones have (300 bytes)."""
    return json.dumps(
        {
            "activityId": f"a-{number:08d}",
            "globalUserId": user,
            "activityType": kind,
            "occurredAt": time_ms,
            "eventId": f"event-{number % 50}",
            "saleId": "sale-1",
            "context": {
                "ipAddress": f"10.0.{number % 256}.{number // 256 % 256}",
                "deviceId": f"device-{number % 3_000}",
                "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
            },
        }
    ).encode()


def activities(number: int, users: int | None) -> list[tuple[str, bytes]]:
    """Activities of a sale's last minutes with the user each is keyed by; the same for the same numbers, but for times.

    They are of so many users, by chance; each of a user of its own where ``users`` is None.

    One in fifty has a type that is not scorable, as real streams have.
    """
    chance = random.Random(number)  # noqa: S311 - made-up data
    began = time.time_ns() // 1_000_000 - 600_000
    made: list[tuple[str, bytes]] = []
    for index in range(number):
        user = f"user-{index if users is None else chance.randrange(users):06d}"
        kind = "heartbeat" if index % 50 == 0 else chance.choice(_TYPES)
        made.append((user, activity(index, user, began + index, kind)))
    return made


def new_topic() -> str:
    """Makes a topic; its name."""
    name = unique("bench")
    admin: Any = AdminClient({"bootstrap.servers": KAFKA})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result()
    return name


def produce(topic: str, records: Sequence[tuple[str, bytes]]) -> None:
    """Sends (key, value) to a topic and waits until all is there."""
    producer: Any = Producer({"bootstrap.servers": KAFKA, "linger.ms": 5})
    for key, value in records:
        producer.produce(topic, value, key=key.encode())
        producer.poll(0)
    if producer.flush(_PATIENCE):
        raise TimeoutError("Kafka did not take all records")


def delete_topic(topic: str) -> None:
    """Deletes a topic."""
    admin: Any = AdminClient({"bootstrap.servers": KAFKA})
    admin.delete_topics([topic])[topic].result()


def aws(service: str, endpoint: str, connections: int = 10) -> Any:
    """A boto3 client with a pool of so many connections."""
    make: Any = boto3.client  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType] - no types
    return make(
        service,
        endpoint_url=endpoint,
        config=Config(max_pool_connections=connections, retries={"mode": "standard"}),
    )


@contextmanager
def fifo_queue() -> Generator[str]:
    """A new FIFO queue's name; the queue is deleted after the block."""
    name = f"{unique('bench')}.fifo"
    sqs = aws("sqs", SQS)
    url = sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]
    try:
        yield name
    finally:
        sqs.delete_queue(QueueUrl=url)


def queue_address(name: str) -> str:
    """A queue's address, as our workers take it."""
    return f"sqs://{name}?endpoint={SQS}"


def depth(name: str) -> int:
    """Messages in a queue, in flight or not."""
    sqs = aws("sqs", SQS)
    kinds = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=kinds)["Attributes"]
    return sum(int(number) for number in found.values())


def send_messages(name: str, messages: Sequence[tuple[str, bytes]]) -> None:
    """Sends (user, message) to a FIFO queue and waits until all is there."""
    queue = SqsQueue(Address("sqs", name, {"endpoint": SQS}), "queue", 60_000)
    for start in range(0, len(messages), 1_000):
        queue.send(
            [
                QueueEntry(fifo_group_id(user), uuid.uuid4().hex, message)
                for user, message in messages[start : start + 1_000]
            ]
        )


@contextmanager
def score_table(users: Sequence[str]) -> Generator[str]:
    """A new table's name, with a fresh ARAI item of each user in it; deleted after the block."""
    name = unique("bench")
    table = DynamoDbTable.of(Address("dynamodb", name, {"endpoint": DYNAMODB}), "table")
    table.create()
    try:
        now = time.time_ns() // 1_000_000
        features = {"activityCount": 12, "distinctIps": 2, "failedLogins": 0}
        table.batch_put([arai_item(user, {"features": features}, now) for user in users])
        yield name
    finally:
        aws("dynamodb", DYNAMODB).delete_table(TableName=name)


def table_address(name: str) -> str:
    """A table's address, as our workers take it."""
    return f"dynamodb://{name}?endpoint={DYNAMODB}"


def count_items(table: str, prefix: str = "SCORE#") -> int:
    """How many items of a kind a table has."""
    pages = aws("dynamodb", DYNAMODB).get_paginator("scan").paginate(
        TableName=table,
        Select="COUNT",
        FilterExpression="begins_with(SK, :prefix)",
        ExpressionAttributeValues={":prefix": {"S": prefix}},
    )  # fmt: skip
    return sum(page["Count"] for page in pages)


def arm_cache() -> Any:
    """A client of the ARM cache's server."""
    return redis.Redis(port=REDIS_PORT, db=REDIS_DB)


def cached(users: Sequence[str]) -> list[bytes | None]:
    """The cached ARM scores of users, as they are stored."""
    return list(arm_cache().mget([arm_cache_key(user) for user in users]))


def forget(users: Sequence[str]) -> None:
    """Deletes users' cached ARM scores."""
    client = arm_cache()
    for start in range(0, len(users), 1_000):
        client.delete(*(arm_cache_key(user) for user in users[start : start + 1_000]))


@contextmanager
def model_server(delay_ms: int) -> Generator[str]:
    """The sandbox's model in a process of its own, which answers after a delay; its address without options."""
    command = [sys.executable, "-m", "fan_identity.pipelines.cli", "sandbox", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment({})) as server:
        try:
            if server.stdout is None:
                raise AssertionError("asked for above")
            told: dict[str, str] = json.loads(server.stdout.readline())
            httpx.put(told["faults"], json={"model": {"delayMs": delay_ms}}).raise_for_status()
            yield told["model"].partition("?")[0]
        finally:
            server.terminate()
