"""Metrics of real servers: what DynamoDB says of its capacity, queues of their depth and Kafka of its lag; and a worker
and its services, as Prometheus is told.
"""

import asyncio
import re
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fan_identity.io import aws
from fan_identity.io.addresses import Address, parse_address
from fan_identity.io.asking import waiting_limits
from fan_identity.io.aws_json_async import AsyncAwsClient
from fan_identity.io.dynamodb.async_table import DynamoDbAsyncTable
from fan_identity.io.dynamodb.table import DynamoDbTable
from fan_identity.io.settings import load_settings
from fan_identity.io.telemetry import metrics
from fan_identity.io.telemetry.polling import values_of
from fan_identity.io.telemetry.watched import lag_of, queues_of

from .conftest import DYNAMODB, REDIS, Fed, HttpProxy, System

NOW = 1_790_000_000_000
PATIENCE = 60.0


@pytest.fixture
def listened() -> Iterator[None]:
    metrics.forget()
    metrics.switch.on = True
    yield
    metrics.forget()


@pytest.fixture
def proxy(server, http_proxy) -> HttpProxy:
    server("dynamodb")
    return http_proxy(DYNAMODB)


@pytest.fixture
def address(proxy: HttpProxy, unique: Callable[[str], str]) -> Iterator[Address]:
    made = parse_address(f"dynamodb://{unique('fan')}?region=us-east-1&endpoint={proxy.address}", "table")
    DynamoDbTable.of(made, "table").create()
    yield made
    aws.client("dynamodb", made, "table").delete_table(TableName=made.target)


def consumed() -> dict[tuple[str, ...], float]:
    return {labels: cell.value for labels, cell in metrics.capacity.items() if cell.value}


def item(number: int) -> dict[str, Any]:
    return {"PK": f"USER#{number}", "SK": "LATEST", "text": "x" * 2_500}


def test_each_call_s_capacity_is_told_by_table_and_kind(listened, address):
    table = DynamoDbTable.of(address, "staging-table")
    table.put(item(1))
    assert consumed() == {("staging_table", "write"): 3}  # a unit is 1 KB written
    table.batch_put([item(number) for number in range(30)])
    assert consumed() == {("staging_table", "write"): 3 + 90}
    assert table.get("USER#1", "LATEST") is not None
    assert consumed()["staging_table", "read"] == 1  # or 4 KB read consistently
    assert all(table.batch_get([(f"USER#{number}", "LATEST") for number in range(30)]))
    assert consumed()["staging_table", "read"] == 31
    assert table.query("USER#1")
    assert consumed()["staging_table", "read"] == 32
    assert len(list(table.latest_items())) == 30
    table.batch_delete([("USER#1", "LATEST")])
    assert consumed()["staging_table", "write"] == 96
    assert set(consumed()) == {("staging_table", "read"), ("staging_table", "write")}


def test_nobody_is_asked_for_capacity_while_nobody_listens(address, proxy):
    bodies: list[bytes] = []
    proxy.rule = lambda operation, body: bodies.append(body)  # which is None: it goes through
    table = DynamoDbTable.of(address, "table")
    table.put(item(1))
    table.batch_put([item(1), item(2)])
    table.get("USER#1", "LATEST")
    assert bodies
    assert not any(b"ReturnConsumedCapacity" in body for body in bodies)
    assert consumed() == {}


def test_the_api_s_tables_tell_too(listened, address, proxy):
    async def use() -> None:
        client = AsyncAwsClient("dynamodb", address, "demand-table")
        table = DynamoDbAsyncTable(client, address, "demand-table", "demand", waiting_limits(PATIENCE))
        assert await table.put_revision(item(1), 0)
        assert await table.get("USER#1", "LATEST") is not None
        throttled = iter([True])
        answer = (400, {"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException"})
        proxy.rule = lambda operation, body: answer if next(throttled, False) else None
        assert await table.query("USER#1")
        await client.close()

    asyncio.run(use())
    assert consumed() == {("demand_table", "write"): 3, ("demand_table", "read"): 1}  # half of a consistent read's
    assert metrics.throttled["demand_table",].value == 1
    counts = {labels: sum(cell.snapshot()[0]) for labels, cell in metrics.calls.items()}
    assert counts == {("demand", "ok"): 3}
    assert metrics.retries["demand",].value == 1


def test_throttling_is_counted_once_boto3_gave_up(listened, address, proxy):
    answer = (400, {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"})
    proxy.rule = lambda operation, body: answer if metrics.throttled["table",].value is None else None
    DynamoDbTable.of(address, "table").put(item(1))
    assert metrics.throttled["table",].value == 1


def test_depths_and_lag_are_asked_of_real_queues_and_topics(system: System, server):
    for name in ("elasticmq", "kafka"):
        server(name)
    queue, topic = system.queue(), system.topic()
    system.send(queue, b"1", b"2", b"3")
    system.produce(topic, [("k", b"v")] * 7)
    settings = load_settings(queue=queue, source=topic)
    assert values_of(queues_of("enqueueFromStream", settings), PATIENCE) == {"queue": 3}
    assert values_of(queues_of("serve", settings), PATIENCE) == {"queue": 3}
    assert values_of(lag_of("enqueueFromStream", settings), PATIENCE) == {"enqueueFromStream": 7}
    assert lag_of("scoreUsers", settings) == {}


def test_a_worker_tells_prometheus_what_it_did(system: System, server, commands, upstreams, until):
    for name in ("elasticmq", "dynamodb", "redis"):
        server(name)
    queue, table = system.queue(), system.table()
    system.use(queue=queue, table=table, dead_letters=table, arai=table, cache=f"redis://{REDIS}/0")
    system.send(queue, *(Fed(f"u{number}", 0, f"a{number}", NOW).message for number in range(5)), b"no activity")
    environment = {
        **system.env,
        "FAN_IDENTITY_MODEL": f"{upstreams.address}/model/score?batch=64",
        "FAN_IDENTITY_ACCOUNTS": f"{upstreams.address}/accounts",
        "FAN_IDENTITY_METRICS_PORT": "0",
    }
    worker = commands.start("run", "scoreUsers", "--streaming", env=environment)
    port = worker.until(lambda: re.search(r"metrics are at http://127.0.0.1:(\d+)/", worker.err), "it tells its port")[
        1
    ]

    def told() -> dict[tuple[str, ...], float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in families
            for sample in family.samples
        }

    def done() -> bool:
        now = told()
        finished = now.get(("fan_identity_records_total", "scored", "scoreUsers"), 0)
        return finished == 5 and now.get(("fan_identity_dead_letters_total", "malformed", "scoreUsers")) == 1

    try:
        worker.until(done, "it scored them")
        worker.until(lambda: told().get(("fan_identity_queue_depth", "queue")) == 0, "the queue is empty")
        found = told()
    finally:
        commands.end_all()
    assert found["fan_identity_records_total", "received", "scoreUsers"] == 6
    assert found["fan_identity_call_duration_seconds_count", "ok", "model"] >= 1
    assert found["fan_identity_call_duration_seconds_count", "ok", "accounts"] == 5
    assert found["fan_identity_breaker_open", "model"] == 0
    assert found["fan_identity_table_capacity_total", "write", "table"] > 0
    assert found["fan_identity_batch_duration_seconds_count", "ok", "scoreUsers"] >= 1
    assert found["fan_identity_message_age_seconds", "scoreUsers"] > 0
