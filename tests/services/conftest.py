"""What tests against real servers share: whether a server is there, names of their own, kills and restarts, a ledger.

``make services`` starts the servers (docs/services.md). A test that needs one says so with ``server("kafka")`` and is
skipped where it does not run. FAN_IDENTITY_REQUIRE_SERVICES names those that may not be missing (``all``, or names with
commas between): there the test fails instead, so that CI cannot pass by skipping.
"""

import dataclasses
import http.client
import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import msgspec
import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from fan_identity.domain.keys import arm_cache_key, causal_version, deduplication_id, fifo_group_id
from fan_identity.domain.messages import ScoringMessage, encode_message
from fan_identity.domain.typed_json import plain
from fan_identity.io.addresses import Address
from fan_identity.io.leases import LEASE_SK
from fan_identity.io.pubsub.endpoint import Endpoint
from fan_identity.serving.sandbox.server import SandboxThread

KAFKA = "127.0.0.1:19092"
SQS = "http://127.0.0.1:19324"
DYNAMODB = "http://127.0.0.1:18000"
KINESIS = "http://127.0.0.1:14570"
REDIS = "127.0.0.1:16390"
PUBSUB = "127.0.0.1:18085"
REDIS_PORT = 16390
SCRIPT = Path(__file__).parents[2] / "deploy" / "services" / "run.py"
PATIENCE = 300.0
"""Seconds a restart may take: the deadline of ``run.py`` twice, and some more."""

_AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_AWS_ABSENT = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL")


def _load_run() -> ModuleType:
    """The module that ``make services`` runs, with those that stand beside it."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("services_run", SCRIPT)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


class Servers:
    """The real servers, by name."""

    def __init__(self) -> None:
        self.run: Any = _load_run()

    @property
    def names(self) -> list[str]:
        """All there are, running or not."""
        return list(self.run.BY_NAME)

    def port(self, name: str) -> int:
        """Its port on 127.0.0.1."""
        return self.run.BY_NAME[name].port

    def serves(self, name: str) -> bool:
        """Whether it answers as its kind does."""
        server = self.run.BY_NAME[name]
        return server.probe(server.port)

    def is_ours(self, name: str) -> bool:
        """Whether ``make services`` started it; only such a one is killed or restarted."""
        server = self.run.BY_NAME[name]
        return self.run.running(server.run, server.mark) is not None

    def kill9(self, name: str) -> None:
        """Kills it as a crash would, and waits until it is gone; skips where it was not started by ``make services``.

        What it stored on disk stays. The test must ``restart`` it, come what may: others need it.
        """
        self._need_ours(name)
        assert self.run.kill9(self.run.BY_NAME[name])

    def restart(self, name: str) -> None:
        """Ends it in order, if it runs, starts it on what it stored, and waits until it serves.

        Those that store in memory (all but Kafka and PostgreSQL) come back empty.
        """
        if self.serves(name):
            self._need_ours(name)
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "restart", name],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _need_ours(self, name: str) -> None:
        if not self.is_ours(name):
            pytest.skip(f"{name} was not started by `make services`: not ours to kill")


@pytest.fixture(scope="session")
def servers() -> Servers:
    return Servers()


@pytest.fixture(scope="session")
def server(servers: Servers) -> Callable[[str], None]:
    """Skips the test where a server does not answer (fails where FAN_IDENTITY_REQUIRE_SERVICES names it)."""
    required = os.environ.get("FAN_IDENTITY_REQUIRE_SERVICES", "").replace(" ", "").split(",")

    def need(name: str) -> None:
        if not servers.serves(name):
            missing = f"no {name}: `make services` starts it"
            if name in required or "all" in required:
                pytest.fail(missing, pytrace=False)
            pytest.skip(missing)

    return need


@pytest.fixture(scope="session", autouse=True)
def _fake_aws_credentials() -> Iterator[None]:
    """No test can reach an account: the credentials are made up and no file of the user's is read."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _AWS.items():
            patch.setenv(name, value)
        for name in _AWS_ABSENT:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    """Makes names that no other test and no other run has: ``unique("fans")`` is ``fans-`` and 12 hex digits."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:12]}"


def activity(number: int, user: str, time_ms: int, **more: Any) -> bytes:
    """One scorable activity."""
    return json.dumps(
        {"activityId": f"a{number}", "activityType": "login", "occurredAt": time_ms, "globalUserId": user, **more}
    ).encode()


class System:
    """A topic, streams, queues and tables of a test's own, and the settings that name them.

    Args:
        unique: makes names.
        sqs: the servers' endpoints; the shared ones where not given. Likewise the others.
    """

    def __init__(
        self, unique: Callable[[str], str], *, sqs: str = SQS, dynamodb: str = DYNAMODB, kafka: str = KAFKA
    ) -> None:
        self._unique = unique
        self._sqs_at, self._dynamodb_at, self._kafka_at = sqs, dynamodb, kafka
        self._tables: list[str] = []
        self._queues: list[str] = []
        self.prefix = unique("fan")
        self.settings: dict[str, str] = dict(_AWS)
        self.sqs: Any = boto3.client("sqs", endpoint_url=sqs)
        self.dynamodb: Any = boto3.client("dynamodb", endpoint_url=dynamodb)
        self.streams: Any = boto3.client("dynamodbstreams", endpoint_url=dynamodb)
        self.kinesis: Any = boto3.client("kinesis", endpoint_url=KINESIS)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a command."""
        return {name if name in _AWS else f"FAN_IDENTITY_{name.upper()}": text for name, text in self.settings.items()}

    def use(self, **settings: str) -> None:
        """Sets settings."""
        self.settings |= settings

    def topic(self, partitions: int = 3) -> str:
        """A new Kafka topic's address."""
        name = self._unique("topic")
        admin = AdminClient({"bootstrap.servers": self._kafka_at})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result()
        return f"kafka://{self._kafka_at}/{name}"

    def produce(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """Sends (key, value) to a topic, in order."""
        # Without idempotence a request that is tried again may land behind the next one.
        producer = Producer(
            {
                "bootstrap.servers": self._kafka_at,
                "linger.ms": 5,
                "enable.idempotence": True,
                "compression.type": "gzip",
                "message.max.bytes": 3_000_000,  # the broker looks at the compressed size
            }
        )
        failed: list[object] = []
        for key, value in records:
            producer.produce(
                topic.rpartition("/")[2],
                value,
                key=key.encode(),
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
            producer.poll(0)
        assert producer.flush(120) == 0
        assert not failed, failed[0]

    def stream(self, shards: int = 2) -> str:
        """A new Kinesis stream's address."""
        name = self._unique("stream")
        self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        self.kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
        return f"kinesis://{name}?endpoint={KINESIS}"

    def put_records(self, stream: str, records: Sequence[tuple[str, bytes]]) -> None:
        """Sends (key, data) to a Kinesis stream."""
        name = stream.removeprefix("kinesis://").partition("?")[0]
        for start in range(0, len(records), 100):
            entries = [{"PartitionKey": key, "Data": data} for key, data in records[start : start + 100]]
            while entries:
                answer = self.kinesis.put_records(StreamName=name, Records=entries)
                told = zip(entries, answer["Records"], strict=True)
                entries = [entry for entry, result in told if "ErrorCode" in result]

    def queue(self, *, fifo: bool = True) -> str:
        """A new queue's address."""
        name = self._unique("queue") + (".fifo" if fifo else "")
        made = self.sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"} if fifo else {})
        self._queues.append(made["QueueUrl"])
        return f"sqs://{name}?endpoint={self._sqs_at}"

    def send(self, queue: str, *bodies: bytes, group: str = "g") -> None:
        """Sends bodies to a queue, in order."""
        url = self.sqs.get_queue_url(QueueName=queue.removeprefix("sqs://").partition("?")[0])["QueueUrl"]
        fifo = url.endswith(".fifo")
        for body in bodies:
            own = {"MessageGroupId": group, "MessageDeduplicationId": uuid.uuid4().hex} if fifo else {}
            self.sqs.send_message(QueueUrl=url, MessageBody=body.decode(), **own)

    def url(self, queue: str) -> str:
        """A queue's URL."""
        return self.sqs.get_queue_url(QueueName=queue.removeprefix("sqs://").partition("?")[0])["QueueUrl"]

    def drain(self, queue: str) -> list[bytes]:
        """Receives and deletes everything in a queue, as it comes; waits for what others still hide."""
        url, bodies = self.url(queue), list[bytes]()
        while True:
            answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600)
            messages = answer.get("Messages", [])
            bodies += [message["Body"].encode() for message in messages]
            for message in messages:
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            if not messages and not self.depth(queue):
                return bodies

    def depth(self, queue: str) -> int:
        """Messages in a queue, in flight or not."""
        url = self.sqs.get_queue_url(QueueName=queue.removeprefix("sqs://").partition("?")[0])["QueueUrl"]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[*names, names[0] + "Delayed"])
        return sum(int(number) for number in found["Attributes"].values())

    def subscription(self, *, ordered: bool = True) -> str:
        """A new Pub/Sub topic with a subscription of the same name; its address."""
        endpoint = Endpoint(Address("pubsub", f"test/{self._unique('topic')}", {"endpoint": PUBSUB}), "source")
        endpoint.publisher.create_topic(name=endpoint.topic)
        endpoint.subscriber.create_subscription(
            request={
                "name": endpoint.subscription,
                "topic": endpoint.topic,
                "enable_message_ordering": ordered,
                "ack_deadline_seconds": 30,
            }
        )
        return f"pubsub://test/{endpoint.topic.rpartition('/')[2]}?endpoint={PUBSUB}"

    def publish(self, subscription: str, records: Sequence[tuple[str, bytes]]) -> None:
        """Publishes (key, data) to a topic."""
        target = subscription.removeprefix("pubsub://").partition("?")[0]
        endpoint = Endpoint(Address("pubsub", target, {"endpoint": PUBSUB}), "source")
        for key, data in records:
            message = {"data": data, "ordering_key": key}
            endpoint.publisher.publish(topic=endpoint.topic, messages=[message])

    def table(self, *, stream: bool = False) -> str:
        """A new DynamoDB table's address."""
        name = self._unique("table")
        views = {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}}
        self.dynamodb.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in ("PK", "SK")],
            BillingMode="PAY_PER_REQUEST",
            **(views if stream else {}),
        )
        self._tables.append(name)
        return f"dynamodb://{name}?endpoint={self._dynamodb_at}"

    def items(self, table: str, prefix: str = "SCORE#") -> list[Mapping[str, Any]]:
        """A table's items of a kind, by key; jobs' locks are none."""
        name = table.removeprefix("dynamodb://").partition("?")[0]
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=name, ConsistentRead=True)
        items = (item for page in pages for item in page["Items"] if item["SK"]["S"] != LEASE_SK)
        found = [plain(item) for item in items if item["SK"]["S"].startswith(prefix)]
        return sorted(found, key=lambda item: (item["PK"], item["SK"]))

    def letters(self, table: str) -> list[str]:
        """The activity ids of a table's dead letters, "" where a letter has none."""
        name = table.removeprefix("dynamodb://").partition("?")[0]
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=name, ConsistentRead=True)
        found = [item for page in pages for item in page["Items"] if item["SK"]["S"] == "LETTER"]
        return [item.get("activityId", {}).get("S", "") for item in found]

    def changes(self, table: str, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """What was written to a table with a stream, in order, until each of ``items`` was seen as it is now."""
        name = table.removeprefix("dynamodb://").partition("?")[0]
        arn = self.dynamodb.describe_table(TableName=name)["Table"]["LatestStreamArn"]
        # DynamoDB Local has one shard; hours later a second one.
        (shard,) = self.streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        iterator = self.streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        expected = {(item["PK"], item["SK"]): item for item in items}
        found: list[Mapping[str, Any]] = []
        newest: dict[tuple[str, str], Mapping[str, Any]] = {}
        deadline = time.monotonic() + 60
        while not expected.items() <= newest.items():
            assert time.monotonic() < deadline, "the stream is behind its table"
            answer = self.streams.get_records(ShardIterator=iterator)
            iterator = answer["NextShardIterator"]
            images = [record["dynamodb"].get("NewImage") for record in answer["Records"]]
            for item in (plain(image) for image in images if image and image["PK"]["S"].startswith("USER#")):
                found.append(item)
                newest[item["PK"], item["SK"]] = item
        return found

    def close(self) -> None:
        """Deletes its tables and queues: DynamoDB Local and ElasticMQ slow down with many."""
        for url in self._queues:
            self.sqs.delete_queue(QueueUrl=url)
        for name in self._tables:
            self.dynamodb.delete_table(TableName=name)


@pytest.fixture
def system(unique: Callable[[str], str]) -> Iterator[System]:
    made = System(unique)
    yield made
    made.close()


@pytest.fixture
def make_system(unique: Callable[[str], str]) -> Callable[..., System]:
    """Makes systems on servers of a test's own: ``make_system(sqs="http://127.0.0.1:24000")``."""
    return lambda **endpoints: System(unique, **endpoints)


class Upstreams:
    """The sandbox: Accounts API, Identity Service and model, with faults on demand."""

    def __init__(self, address: str) -> None:
        self.address = address

    def set_faults(self, faults: Mapping[str, Any]) -> None:
        """Sets what is wrong from now on; nothing else is."""
        httpx.delete(f"{self.address}/faults").raise_for_status()
        if faults:
            httpx.put(f"{self.address}/faults", json=faults).raise_for_status()

    def calls(self) -> dict[str, Any]:
        """What was asked of each service so far."""
        return httpx.get(f"{self.address}/calls").raise_for_status().json()


@pytest.fixture
def upstreams() -> Iterator[Upstreams]:
    with SandboxThread() as running:
        yield Upstreams(running.address)


@dataclass(frozen=True)
class Fed:
    """One activity of the ledger; ``sequence`` is its place among its user's, from 0."""

    user: str
    sequence: int
    activity_id: str
    time_ms: int

    @property
    def activity(self) -> bytes:
        fields = {"activityId": self.activity_id, "activityType": "login", "occurredAt": self.time_ms}
        return json.dumps({**fields, "globalUserId": self.user}).encode()

    @property
    def message(self) -> bytes:
        """What an enqueue worker makes of it."""
        raw = msgspec.Raw(self.activity)
        return encode_message(
            ScoringMessage(self.user, self.activity_id, "login", self.time_ms, "0" * 32, "enqueueFromStream", raw)
        )


@dataclass
class Books:
    """What a ledger found; all but ``fed``, ``scored`` and ``dead`` are to be 0.

    Attributes:
        fed: activities that went in.
        scored: score items.
        dead: dead letters of activities.
        lost: activities with neither a score nor a dead letter (or, of a queue, no message).
        out_of_order: activities overtaken by a later one of their user.
        stale: users whose latest item or ARM cache entry is not that of their newest score.
        duplicates: effects beyond one an activity, and those of activities that were never fed.
    """

    fed: int = 0
    scored: int = 0
    dead: int = 0
    lost: int = 0
    out_of_order: int = 0
    stale: int = 0
    duplicates: int = 0

    @property
    def wrong(self) -> int:
        return self.lost + self.out_of_order + self.stale + self.duplicates


class Ledger:
    """Knows every (user, sequence, id) that was fed, and compares queue, table and cache with it.

    How each figure is told:

    *Lost* and *duplicates*: by activity id, from a consistent scan of the table. A second item of an activity, an item
    of one never fed, or a score besides a dead letter is a duplicate.

    *Out of order*, of a queue: a plain boto3 consumer, which shares no code with ours, receives everything; a message
    that comes after a later one of its user was overtaken.

    *Out of order*, of scores: from the table's own stream, which has every write in its order. The score items of one
    batch are written side by side and have no order among themselves, and a batch that was cut off is written again;
    what readers take for a user's score is the ``LATEST`` item, written after its batch's score items. So whenever a
    ``LATEST`` item comes to sequence n, the score items of all the user's sequences up to n have to be there already,
    but for those that are dead letters. A worker that scored n before n - 1 was done is caught by that.

    *Stale*: from the table and the cache as they are at the end, whatever way they came there.
    """

    def __init__(self, system: System, users: int, each: int, redis_port: int) -> None:
        prefix = uuid.uuid4().hex[:8]
        start = int(time.time() * 1_000) - 120_000
        self.system = system
        self.users = [f"{prefix}-fan-{number}" for number in range(users)]
        self.redis_port = redis_port
        self.cache_db = 0
        # Round by round, so that every user is at work all the time. Each user's clock goes up by 7 ms.
        self.fed = [
            Fed(user, sequence, f"{user}-a{sequence}", start + 7 * sequence)
            for sequence in range(each)
            for user in self.users
        ]
        self._by_id = {fed.activity_id: fed for fed in self.fed}

    def records(self, fed: Sequence[Fed] | None = None) -> list[tuple[str, bytes]]:
        """Activities as (key, value) of a stream; all without an argument."""
        return [(one.user, one.activity) for one in (self.fed if fed is None else fed)]

    def send(self, fed: Sequence[Fed] | None = None) -> None:
        """Puts messages into the scoring queue as an enqueue worker does: a group a user, in order."""
        sqs, url = self.system.sqs, self.system.url(self.system.settings["queue"])
        todo = list(self.fed if fed is None else fed)
        for start in range(0, len(todo), 10):
            entries = [
                {
                    "Id": str(number),
                    "MessageBody": one.message.decode(),
                    "MessageGroupId": fifo_group_id(one.user),
                    "MessageDeduplicationId": deduplication_id("enqueueFromStream", one.activity_id),
                }
                for number, one in enumerate(todo[start : start + 10])
            ]
            answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
            assert not answer.get("Failed"), answer

    def scores(self) -> list[Mapping[str, Any]]:
        return self.system.items(self.system.settings["table"])

    def dead_letters(self) -> list[str]:
        """The activity ids of dead letters that have one."""
        return [name for name in self.system.letters(self.system.settings["dead_letters"]) if name]

    def settled(self) -> int:
        """Activities that are scored or dead. One scan: tests ask all the time."""
        done: set[str] = set()
        for table in {self.system.settings["table"], self.system.settings["dead_letters"]}:
            pages = self.system.dynamodb.get_paginator("scan").paginate(
                TableName=table.removeprefix("dynamodb://").partition("?")[0],
                ConsistentRead=True,
                ProjectionExpression="activityId",
                FilterExpression="begins_with(SK, :score) OR SK = :letter",
                ExpressionAttributeValues={":score": {"S": "SCORE#"}, ":letter": {"S": "LETTER"}},
            )
            done |= {item["activityId"]["S"] for page in pages for item in page["Items"] if "activityId" in item}
        return len(done & self._by_id.keys())

    def check(self, what: str, dead: Collection[Fed] = (), *, ordered: bool = True) -> None:
        """Compares table and cache with what was fed, prints the books, and fails where anything is wrong.

        Args:
            what: names the test.
            dead: those that were to become dead letters.
            ordered: each user's activities came in their order.
        """
        scores = self.scores()
        letters = self.dead_letters()
        effects = Counter([*(str(item["activityId"]) for item in scores), *letters])
        books = Books(fed=len(self.fed), scored=len(scores), dead=len(letters))
        books.lost = len(self._by_id.keys() - effects.keys())
        books.duplicates = sum(
            number - (1 if activity_id in self._by_id else 0) for activity_id, number in effects.items()
        )
        if ordered:
            latest = self.system.items(self.system.settings["table"], "LATEST")
            books.out_of_order = self._overtaken(set(letters), [*scores, *latest])
        books.stale = len(self._stale_users(scores))
        self._print(what, books)
        assert sorted(letters) == sorted(one.activity_id for one in dead), "other dead letters than there were to be"
        assert books.wrong == 0, books

    def check_queue(self, what: str) -> None:
        """Empties the scoring queue, compares it with what was fed, prints the books, and fails as ``check`` does."""
        received = self.ids_in_queue()
        books = Books(fed=len(self.fed))
        books.lost = len(self._by_id.keys() - set(received))
        books.duplicates = len(received) - len(self._by_id.keys() & set(received))
        newest: dict[str, int] = defaultdict(lambda: -1)
        for one in (self._by_id[name] for name in dict.fromkeys(received) if name in self._by_id):
            books.out_of_order += one.sequence < newest[one.user]
            newest[one.user] = max(newest[one.user], one.sequence)
        self._print(what, books)
        assert books.wrong == 0, books

    def ids_in_queue(self) -> list[str]:
        """Empties the scoring queue by a plain consumer: the activity ids in the order they came."""
        return [json.loads(body)["activityId"] for body in self.system.drain(self.system.settings["queue"])]

    def cached(self) -> dict[str, dict[str, Any]]:
        """The cache's entries of its users."""
        with redis.Redis(port=self.redis_port, db=self.cache_db) as cache:
            texts: Any = cache.mget([arm_cache_key(user) for user in self.users])
        return {user: json.loads(text) for user, text in zip(self.users, texts, strict=True) if text}

    def _overtaken(self, dead: set[str], items: Sequence[Mapping[str, Any]]) -> int:
        there: dict[str, set[int]] = defaultdict(set)
        for name in dead & self._by_id.keys():
            there[self._by_id[name].user].add(self._by_id[name].sequence)
        overtaken: set[tuple[str, int]] = set()
        for item in self.system.changes(self.system.settings["table"], items):
            one = self._by_id.get(str(item.get("activityId")))
            if one is None:
                continue
            if item["SK"].startswith("SCORE#"):
                there[one.user].add(one.sequence)
            elif item["SK"] == "LATEST":
                overtaken |= {(one.user, number) for number in range(one.sequence + 1) if number not in there[one.user]}
        return len(overtaken)

    def _stale_users(self, scores: Sequence[Mapping[str, Any]]) -> set[str]:
        newest: dict[str, Mapping[str, Any]] = {}
        for item in scores:  # by key: a user's in the order of time
            newest[item["globalUserId"]] = item
        latest = {item["globalUserId"]: item for item in self.system.items(self.system.settings["table"], "LATEST")}
        stale = newest.keys() ^ latest.keys()
        cached = self.cached()
        for name, score in newest.items():
            if latest.get(name, {}).get("scoreSK") != score["SK"]:
                stale.add(name)
            entry = cached.get(name, {})
            one = self._by_id.get(score["activityId"])
            if one is None or (entry.get("version"), entry.get("timestamp"), entry.get("arm_risk")) != (
                causal_version(one.time_ms, one.activity_id),
                one.time_ms,
                score["armRisk"],
            ):
                stale.add(name)
        return stale

    def _print(self, what: str, books: Books) -> None:
        sys.stdout.write(f"\nledger {what}: {' '.join(f'{k}={v}' for k, v in dataclasses.asdict(books).items())}\n")

    def forget(self) -> None:
        """Deletes its users' entries from the shared cache."""
        for db in range(self.cache_db + 1) if self.redis_port == REDIS_PORT else ():
            with redis.Redis(port=self.redis_port, db=db) as cache:
                cache.delete(*(arm_cache_key(user) for user in self.users))


@pytest.fixture
def make_ledger(system: System) -> Iterator[Callable[..., Ledger]]:
    """Makes ledgers: ``make_ledger(users, each)``; of the shared servers, or those of ``of`` and ``redis_port``."""
    made: list[Ledger] = []

    def make(users: int, each: int, *, of: System = system, redis_port: int = REDIS_PORT) -> Ledger:
        made.append(Ledger(of, users, each, redis_port))
        return made[-1]

    yield make
    for ledger in made:
        ledger.forget()


class HttpProxy:
    """Stands before an HTTP server, with faults by request. ``rule`` gets each request's operation and body.

    The operation is the last part of ``X-Amz-Target``, such as ``DeleteMessageBatch``; "" where that is not sent. The
    rule says what is to happen: None, ``"drop request"`` (it never arrives), ``"drop answer"`` (it has its effect and
    nobody is told), or an answer of its own as (status, JSON).

    Attributes:
        seen: requests by operation.
        struck: those that suffered, by operation.
        held: how many requests ``freeze`` holds back now.
    """

    def __init__(self, upstream: str) -> None:
        self.rule: Callable[[str, bytes], Any] = lambda operation, body: None
        self.seen: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self._upstream = urlsplit(upstream).netloc
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._frozen: frozenset[str] | None = frozenset()
        self._in_flight: Counter[str] = Counter()
        self.held = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                proxy.handle(self)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        return Handler

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self._enter(operation)
        try:
            with self._lock:
                self.seen[operation] += 1
                verdict = self.rule(operation, body)
                self.struck[operation] += verdict is not None
            if isinstance(verdict, tuple):
                status, value = verdict
                answer, kind = json.dumps(value).encode(), "application/x-amz-json-1.0"
            elif verdict == "drop request":
                request.close_connection = True
                return
            else:
                try:
                    status, answer, kind = self._forward(request, body)
                except (OSError, http.client.HTTPException):
                    request.close_connection = True  # the server is gone: so are its connections
                    return
                if verdict == "drop answer":
                    request.close_connection = True
                    return
        finally:
            with self._changed:
                self._in_flight[operation] -= 1
                self._changed.notify_all()
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    def _enter(self, operation: str) -> None:
        with self._changed:
            if self._holds(operation):
                self.held += 1
                self._changed.wait_for(lambda: not self._holds(operation))
                self.held -= 1
            self._in_flight[operation] += 1

    def _holds(self, operation: str) -> bool:
        return self._frozen is None or operation in self._frozen

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, str]:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            connection.request(request.command, request.path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(), response.headers.get("Content-Type", "application/json")
        finally:
            connection.close()

    def freeze(self, *operations: str) -> None:
        """Holds requests back from now on, all or those named; waits until the server answered those under way."""
        with self._changed:
            self._frozen = frozenset(operations) or None
            answered = self._changed.wait_for(
                lambda: not any(number for name, number in self._in_flight.items() if self._holds(name)), 60
            )
        assert answered, "requests under way do not end"

    def thaw(self) -> None:
        with self._changed:
            self._frozen = frozenset()
            self._changed.notify_all()

    def close(self) -> None:
        self.thaw()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def http_proxy() -> Iterator[Callable[[str], HttpProxy]]:
    """Puts proxies before HTTP servers: ``http_proxy("http://127.0.0.1:18000").address``."""
    made: list[HttpProxy] = []

    def make(upstream: str) -> HttpProxy:
        made.append(HttpProxy(upstream))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


class PrivateServer:
    """A real server of the test's own, of the same make as the shared one: to be killed without harm to others.

    Attributes:
        port: on 127.0.0.1, the same after a restart.
    """

    def __init__(self, run: Any, name: str, folder: Path, arguments: Sequence[str]) -> None:
        self._run = run
        shared = run.BY_NAME[name]

        @dataclass(frozen=True)
        class Elsewhere(run.Server):
            folder: Path = Path()

            @property
            def run(self) -> Path:
                return self.folder

        own = {one.name: getattr(shared, one.name) for one in dataclasses.fields(shared)}
        ports = free_ports(4)
        self.port = ports[0]
        self._server: Any = Elsewhere(**{**own, "port": self.port, "folder": folder})
        self._server.data.mkdir(parents=True)
        if shared.recipe is not None:
            run.ensure(shared.recipe, shared.program, folder / "fetch.log")
        launch = shared.launch(self._server)
        argv = [*launch.argv, *arguments]
        for number, text in enumerate(argv):  # a configuration file names ports: a copy of it names others
            path = Path(text.rpartition("=")[2])
            if path.suffix in (".conf", ".properties"):
                copy = folder / path.name
                copy.write_text(_with_ports(path.read_text(), shared.port, ports))
                argv[number] = text.replace(str(path), str(copy))
        self._launch = dataclasses.replace(launch, argv=tuple(argv))
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it on what it stored, and waits until it serves."""
        self._run.spawn(self._launch, self._server.run)
        log = self._server.run / "log"
        deadline = time.monotonic() + PATIENCE
        while not self._server.probe(self.port):
            assert self._run.alive(self._server.run) is not None, log.read_text(errors="replace")[-2_000:]
            assert time.monotonic() < deadline, f"{self._server.name} does not answer"
            time.sleep(0.05)

    def kill9(self) -> None:
        """Kills it as a crash would, and waits until it is gone."""
        assert self._run.end(self._server.run, self._server.mark, signal.SIGKILL)

    def close(self) -> None:
        self._run.end(self._server.run, self._server.mark, signal.SIGKILL)


def _with_ports(text: str, first: int, ports: Sequence[int]) -> str:
    for number, port in enumerate(ports):
        text = text.replace(str(first + number), str(port))
    return text


def free_ports(number: int) -> list[int]:
    """Ports nothing listens on, below those the system gives to outgoing connections: they stay free over a restart."""
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


@pytest.fixture
def private(servers: Servers, server: Callable[[str], None], tmp_path: Path) -> Iterator[Callable[..., PrivateServer]]:
    """Starts servers of the test's own: ``private("kafka")``; skips as ``server`` does. They end with the test."""
    made: list[PrivateServer] = []

    def make(name: str, *arguments: str) -> PrivateServer:
        server(name)
        made.append(PrivateServer(servers.run, name, tmp_path / f"{name}-{len(made)}", arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()
