"""What tests against real servers share: whether a server is there, names of their own, kills and restarts.

``make services`` starts the servers (docs/services.md). A test that needs one says so with ``server("kafka")`` and is
skipped where it does not run. FAN_IDENTITY_REQUIRE_SERVICES names those that may not be missing (``all``, or names with
commas between): there the test fails instead, so that CI cannot pass by skipping.
"""

import importlib.util
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import httpx
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from fan_identity.domain.typed_json import plain
from fan_identity.serving.sandbox.server import SandboxThread

KAFKA = "127.0.0.1:19092"
SQS = "http://127.0.0.1:19324"
DYNAMODB = "http://127.0.0.1:18000"
KINESIS = "http://127.0.0.1:14570"
REDIS = "127.0.0.1:16390"
SCRIPT = Path(__file__).parents[2] / "deploy" / "services" / "run.py"
PATIENCE = 180.0
"""Seconds a restart may take: the deadline of ``run.py`` and some more."""

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
    """A topic, streams, queues and tables of a test's own, and the settings that name them."""

    def __init__(self, unique: Callable[[str], str]) -> None:
        self._unique = unique
        self._tables: list[str] = []
        self.prefix = unique("fan")
        self.settings: dict[str, str] = dict(_AWS)
        self.sqs: Any = boto3.client("sqs", endpoint_url=SQS)
        self.dynamodb: Any = boto3.client("dynamodb", endpoint_url=DYNAMODB)
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
        admin = AdminClient({"bootstrap.servers": KAFKA})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result()
        return f"kafka://{KAFKA}/{name}"

    def produce(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """Sends (key, value) to a topic."""
        producer = Producer({"bootstrap.servers": KAFKA, "linger.ms": 5})
        for key, value in records:
            producer.produce(topic.rpartition("/")[2], value, key=key.encode())
            producer.poll(0)
        assert producer.flush(60) == 0

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
        self.sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"} if fifo else {})
        return f"sqs://{name}?endpoint={SQS}"

    def send(self, queue: str, *bodies: bytes, group: str = "g") -> None:
        """Sends bodies to a queue, in order."""
        url = self.sqs.get_queue_url(QueueName=queue.removeprefix("sqs://").partition("?")[0])["QueueUrl"]
        fifo = url.endswith(".fifo")
        for body in bodies:
            own = {"MessageGroupId": group, "MessageDeduplicationId": uuid.uuid4().hex} if fifo else {}
            self.sqs.send_message(QueueUrl=url, MessageBody=body.decode(), **own)

    def depth(self, queue: str) -> int:
        """Messages in a queue, in flight or not."""
        url = self.sqs.get_queue_url(QueueName=queue.removeprefix("sqs://").partition("?")[0])["QueueUrl"]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[*names, names[0] + "Delayed"])
        return sum(int(number) for number in found["Attributes"].values())

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
        return f"dynamodb://{name}?endpoint={DYNAMODB}"

    def items(self, table: str, prefix: str = "SCORE#") -> list[Mapping[str, Any]]:
        """A table's items of a kind, by key."""
        name = table.removeprefix("dynamodb://").partition("?")[0]
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=name, ConsistentRead=True)
        found = [plain(item) for page in pages for item in page["Items"] if item["SK"]["S"].startswith(prefix)]
        return sorted(found, key=lambda item: (item["PK"], item["SK"]))

    def close(self) -> None:
        """Deletes its tables: DynamoDB Local slows down with many."""
        for name in self._tables:
            self.dynamodb.delete_table(TableName=name)


@pytest.fixture
def system(unique: Callable[[str], str]) -> Iterator[System]:
    made = System(unique)
    yield made
    made.close()


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
