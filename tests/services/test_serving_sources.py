"""The API's data sources from its settings: SQLite alone, DynamoDB, the sandbox; events through kills to a real bus."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from typing import Any

import boto3
import pytest

from fan_identity.domain.envelopes import opened
from fan_identity.domain.keys import LATEST_SK, user_pk
from fan_identity.io.addresses import Address
from fan_identity.io.errors import UnavailableError, UsageError
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable
from fan_identity.io.sqs.queue import SqsQueue
from fan_identity.serving.outbox import SOURCE
from fan_identity.serving.settings import load_serving_settings
from fan_identity.serving.sources import OpenedSources, open_sources

MINISTACK = "http://127.0.0.1:14566"
OPTIONS = {"endpoint": MINISTACK, "region": "us-east-1"}
PATIENCE = 90.0

API_SERVICES = ("account_info", "campaigns", "phone_scores", "eligibility", "event_details", "lnaa", "identity_checks")


def run(use: Any, *, in_lambda: bool = False, **settings: Any) -> Any:
    async def running() -> Any:
        sources = open_sources(load_serving_settings(**{"upstream_deadline": "20s", **settings}), in_lambda=in_lambda)
        try:
            return await use(sources)
        finally:
            await sources.close()

    return asyncio.run(running())


@pytest.fixture
def store(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/fans.db"


async def use_tables(sources: OpenedSources) -> list[Any]:
    tables = (sources.fan_identity, sources.account_fanscore, sources.verification, sources.demand)
    for number, table in enumerate(tables):
        assert await table.put_revision({"PK": "p", "SK": "s", "number": number}, 0)
    for check in sources.checks.values():
        await check()
    return [(await table.get("p", "s"))["number"] for table in tables]


def test_one_store_is_every_table(store, tmp_path):
    assert run(use_tables, store=store) == [0, 1, 2, 3]
    workers = SqliteTable(SqliteStore(tmp_path / "fans.db"), "fanIdentityTable")
    assert workers.get("p", "s") == {"PK": "p", "SK": "s", "number": 0, "revision": 1}


def test_every_table_by_its_own_setting(system, store):
    names = ("table", "account_fanscore_table", "verification_table", "demand_table", "outbox")
    tables = {name: system.table() for name in names}
    found = run(use_tables, store=store, **tables)
    assert found == [0, 1, 2, 3]
    assert [len(system.items(tables[name], "s")) for name in names[:4]] == [1, 1, 1, 1]


@pytest.fixture
def fans(store, tmp_path):
    """A store with a scored fan in the table, and none in the cache."""
    item = {"PK": user_pk("fan-1"), "SK": LATEST_SK, "armRisk": 3, "occurredAt": "2024-06-14T11:00:00.000Z"}
    SqliteTable(SqliteStore(tmp_path / "fans.db"), "fanIdentityTable").put(item)
    return store


def test_the_arm_lookup_falls_back_to_the_table_of_the_settings(fans):
    away = "redis://127.0.0.1:1/0"

    async def use(sources):
        return await sources.arm.get("fan-1")

    score = run(use, store=fans, cache=away, arm_deadline="20s")
    assert (score.arm_score, score.stale) == (3, True)
    with pytest.raises(UnavailableError):
        run(use, store=fans, cache=away, arm_fallback=False)


def test_the_sandbox_is_every_upstream(store, upstreams):
    settings = {name: f"{upstreams.address}/{name.replace('_', '-')}" for name in API_SERVICES}

    async def use(sources):
        one = {"eventId": "e-1", "campaignId": "c-1", "artistId": "a-1", "globalUserId": "fan-1", "phoneNumber": "+1"}
        names = ("campaigns", "phone_scores", "eligibility", "event_details", "lnaa")
        found = {name: await getattr(sources, name).fetch(one) for name in names}
        found["accounts"] = await sources.accounts.info("fan-1")
        found["identity_checks"] = await sources.identity_checks.start("fan-1", "t")
        for _ in range(5):
            await sources.event_details.fetch({"eventId": "e-2"})
        return found

    found = run(use, store=store, **settings)
    assert all(found.values()) and len(found) == 7
    calls = upstreams.calls()
    assert {calls[name]["calls"] for name in API_SERVICES if name != "event_details"} == {1}
    assert calls["event_details"]["calls"] == 2, "an event's details are kept"


def test_without_addresses_there_are_no_upstreams(store):
    async def use(sources):
        return [getattr(sources, name) for name in (*API_SERVICES[1:], "accounts")]

    assert run(use, store=store) == [None] * 7


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "setting table: no address; give --store"),
        ({"table": "redis://x"}, "--table: redis:// is no table"),
        ({"store": "sqlite:///x.db", "demand_table": "dynamodb://a"}, "--demand-table: write dynamodb://table"),
        ({"store": "sqlite:///x.db", "events": "kafka://x"}, "--events: kafka:// is not supported"),
        ({"store": "sqlite:///x.db", "campaigns": "x"}, "--campaigns: not an address"),
        ({"store": "sqlite:///x.db", "identity_checks": "rekognition://"}, "write rekognition://region"),
    ],
    ids=str,
)
def test_a_wrong_or_missing_address_names_its_setting(settings, said):
    async def use(sources):
        raise AssertionError("it opened")

    with pytest.raises(UsageError, match=said):
        run(use, **settings)


LIGHT = """
import asyncio, sys
from fan_identity.serving.settings import load_serving_settings
from fan_identity.serving.sources import open_sources
async def main():
    await open_sources(load_serving_settings(store=sys.argv[1]), in_lambda=True).close()
asyncio.run(main())
print([name for name in ("apache_beam", "boto3", "aiohttp", "redis", "grpc") if name in sys.modules])
"""


def test_what_no_address_needs_is_not_imported(store):
    done = subprocess.run([sys.executable, "-c", LIGHT, store], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- events


class Routed:
    """A real bus whose events go into a queue, and what came out of it."""

    def __init__(self) -> None:
        self.name = f"o{uuid.uuid4().hex}"
        made: dict[str, Any] = {"endpoint_url": MINISTACK, "region_name": "us-east-1"}
        events, sqs = boto3.client("events", **made), boto3.client("sqs", **made)
        url = sqs.create_queue(QueueName=self.name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.create_event_bus(Name=self.name)
        events.put_rule(Name=self.name, EventBusName=self.name, EventPattern=json.dumps({"source": [SOURCE]}))
        events.put_targets(Rule=self.name, EventBusName=self.name, Targets=[{"Id": "queue", "Arn": arn}])
        self.queue = SqsQueue(Address("sqs", self.name, {**OPTIONS, "wait": "1"}), "source", 60_000)
        self.details: list[dict[str, Any]] = []

    def address(self, endpoint: str = MINISTACK) -> str:
        return f"eventbridge://{self.name}?endpoint={endpoint}&region=us-east-1"

    def receive_until(self, names: set[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not names <= {detail["messageId"] for detail in self.details}:
            assert time.monotonic() < deadline, f"{len(self.details)} of {len(names)} came"
            messages = self.queue.receive(50)
            self.details += [json.loads(opened(message.body).body) for message in messages]
            self.queue.delete([message.receipt for message in messages])


@pytest.fixture
def routed(server):
    server("ministack")
    made = Routed()
    yield made
    made.queue.close()


@pytest.mark.parametrize("kind", ["sqlite", "dynamodb"])
def test_in_lambda_an_event_is_on_the_bus_when_the_answer_goes_out(system, store, routed, kind):
    outbox = system.table() if kind == "dynamodb" else store

    async def use(sources):
        return {await sources.outbox.add("user.upsert", {"globalUserId": f"fan-{n}"}) for n in range(5)}

    names = run(use, in_lambda=True, store=store, outbox=outbox, events=routed.address())
    routed.receive_until(names)
    assert len(routed.details) == 5
    if kind == "dynamodb":
        assert system.items(outbox, "") == []


ADD = """
import asyncio, json, sys
from fan_identity.serving.settings import load_serving_settings
from fan_identity.serving.sources import open_sources
async def main():
    settings = load_serving_settings(store=sys.argv[1], outbox=sys.argv[2], events=sys.argv[3] or None,
                                     upstream_deadline="20s")
    sources = open_sources(settings, in_lambda=False)
    for number in range(int(sys.argv[4])):
        detail = {"globalUserId": f"fan-{number % 5}", "number": number}
        print(await sources.outbox.add("user.upsert", detail), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Adding:
    """A process of its own that adds events and says their names, one a line."""

    def __init__(self, store: str, outbox: str, events: str, number: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ADD, store, outbox, events, str(number)], stdout=subprocess.PIPE, text=True
        )

    def names(self, number: int) -> list[str]:
        assert self.process.stdout is not None
        found = [self.process.stdout.readline().strip() for _ in range(number)]
        assert all(found), "the process ended"
        return found

    def kill(self) -> list[str]:
        """``kill -9``; the names it said meanwhile."""
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.stdout is not None
        rest = self.process.stdout.read().split("\n")[:-1]  # the last line may be cut
        self.process.wait(PATIENCE)
        return rest


@pytest.mark.parametrize("kind", ["sqlite", "dynamodb"])
def test_kill_9_between_add_and_publish_loses_nothing(system, store, routed, http_proxy, kind):
    names: list[str] = []
    outbox = system.table() if kind == "dynamodb" else store
    proxy = http_proxy(MINISTACK)
    proxy.freeze()  # events are stored, and none arrives
    adding = Adding(store, outbox, routed.address(proxy.address), 1_000_000)
    try:
        names = adding.names(40)
        while not proxy.held:  # the publisher takes a while to come to its first request
            names += adding.names(1)
    finally:
        names += adding.kill()
    assert proxy.seen["PutEvents"] == 0 < proxy.held, "nothing was being published when it was killed"

    async def publish(sources):
        await asyncio.to_thread(routed.receive_until, set(names))

    run(publish, store=store, outbox=outbox, events=routed.address())
    found = [detail for detail in routed.details if detail["messageId"] in names]
    assert {detail["messageId"] for detail in found} == set(names)


@pytest.mark.parametrize("turn", range(3))
def test_kill_9_at_any_moment_while_publishing(store, routed, turn):
    names: list[str] = []
    for _ in range(3):
        adding = Adding(store, store, routed.address(), 1_000_000)
        try:
            names += adding.names(15 + 20 * turn)
        finally:
            names += adding.kill()

    async def publish(sources):
        await asyncio.to_thread(routed.receive_until, set(names))

    run(publish, store=store, events=routed.address())
    again = len(routed.details) - len({detail["messageId"] for detail in routed.details})
    sys.stdout.write(f"\nkills 3, added {len(names)}, lost 0, published again {again}\n")


def test_eventbridge_away_and_back(store, routed, http_proxy):
    proxy = http_proxy(MINISTACK)
    proxy.rule = lambda operation, body: (503, {"__type": "ServiceUnavailable"})

    async def use(sources):
        names = {await sources.outbox.add("user.upsert", {"globalUserId": f"fan-{n % 3}", "n": n}) for n in range(20)}
        async with asyncio.timeout(PATIENCE):
            while not proxy.struck["PutEvents"]:
                await asyncio.sleep(0.01)
        proxy.rule = lambda operation, body: None
        await asyncio.to_thread(routed.receive_until, names)

    run(use, store=store, events=routed.address(proxy.address))
    assert len({detail["messageId"] for detail in routed.details}) == 20
