"""A fan in DynamoDB, Redis and SQS: erased everywhere, and fans whose ids look alike keep every byte."""

import json
import uuid
from dataclasses import replace

import boto3
import pytest
import redis

from fan_identity.batch.erase import erase, find
from fan_identity.domain.fan_traces import Fan
from fan_identity.domain.imports import ImportKind, bucket_of
from fan_identity.io import aws
from fan_identity.io.addresses import parse_address
from fan_identity.io.backends import open_cache, open_dead_letters, open_queue, open_table
from fan_identity.io.dynamodb.table import DynamoDbTable
from fan_identity.io.errors import UsageError
from fan_identity.io.fan_places import FanStores, places_of
from fan_identity.io.import_versions import ImportVersions, Part
from fan_identity.io.ports import QueueEntry

from ..planted_fans import VERSIONS, Planted, payloads, plant_cache, plant_imports, plant_letters, plant_tables
from .conftest import DYNAMODB, REDIS, SQS

SETTINGS = ("table", "staging_table", "verification_table", "account_fanscore_table", "demand_table", "outbox")
PLACES = {
    "dead letters": 6,
    "outbox": 2,
    "examples of botOrNot imports": 2,
    "botOrNot imports": 4,
    "examples of cluster imports": 2,
    "cluster imports": 4,
    "table": 9,
    "staging table": 4,
    "verification table": 4,
    "account fanscore table": 1,
    "demand table": 1,
    "ARM cache": 1,
}


@pytest.fixture
def stores(server, unique):
    for name in ("dynamodb", "redis", "elasticmq"):
        server(name)
    region = f"?region=us-east-1&endpoint={DYNAMODB}"
    addresses = {name: f"dynamodb://{unique(name)}{region}" for name in (*SETTINGS, "dead_letters")}
    for name, address in addresses.items():
        DynamoDbTable.of(parse_address(address, name), name).create()
    queue = unique("erase")
    sqs = boto3.client("sqs", region_name="us-east-1", endpoint_url=SQS)
    url = sqs.create_queue(QueueName=queue)["QueueUrl"]
    made = FanStores(
        **addresses,
        cache=f"redis://{REDIS}/0",
        queues={"on_demand_queue": f"sqs://{queue}?region=us-east-1&endpoint={SQS}"},
    )
    yield made
    for name, address in addresses.items():
        parsed = parse_address(address, name)
        aws.client("dynamodb", parsed, name).delete_table(TableName=parsed.target)
    sqs.delete_queue(QueueUrl=url)


def bytes_of(stores):
    """Every item of the tables and every value of the cache, as they are stored."""
    found = b""
    for name in (*SETTINGS, "dead_letters"):
        address = parse_address(stores.address(name), name)
        pages = aws.client("dynamodb", address, name).get_paginator("scan").paginate(TableName=address.target)
        for page in pages:
            found += repr(page["Items"]).encode()
    client = redis.Redis.from_url(f"redis://{REDIS}/0")
    for key in client.scan_iter(count=1_000):
        found += key + (client.get(key) if client.type(key) == b"string" else b"")
    return found


def plant(fans, stores):
    for fan in fans:
        plant_tables(fan, lambda setting: open_table(stores.address(setting), setting, ""))
        plant_cache(fan, open_cache(stores.cache))
    plant_imports(fans, open_table(stores.table, "table", ""))
    plant_letters(fans, open_dead_letters(stores.dead_letters))
    queue = open_queue(stores.queues["on_demand_queue"], "on-demand-queue", "", 60_000)
    queue.send([QueueEntry(fan.member, fan.mark, payloads(fan)[0]) for fan in fans])


def places(fan, stores):
    return places_of(Fan(fan.user, fan.member), stores)


@pytest.mark.parametrize(
    "ids", [("{0}", "{0}7", "{0}#LATEST"), ("*{0}", "?{0}", "{0}*"), ("é\u0301{0}'\" ", "é\u0301{0}'\"", "e{0}")]
)
def test_one_of_three_alike_is_erased(stores, ids):
    name = uuid.uuid4().hex
    fans = [Planted(user.format(name)) for user in ids]
    gone, *others = fans
    plant(fans, stores)
    queue = next(place.name for place in places(gone, stores) if place.name.startswith("sqs"))
    before = {fan.user: find(places(fan, stores)) for fan in fans}
    assert {place: len(found) for place, found in before[gone.user].items()} == {**PLACES, queue: 0}
    assert all(fan.mark.encode() in bytes_of(stores) for fan in fans)

    done = erase(places(gone, stores), [])

    assert (done.erased, done.left) == ({**PLACES, queue: 0}, {})
    assert done.depths == {queue: 3}, "what waits in SQS is told, not searched"
    assert gone.mark.encode() not in bytes_of(stores)
    assert not any(find(places(gone, stores)).values())
    for fan in others:
        after = find(places(fan, stores))
        assert {place: len(found) for place, found in after.items()} == {**PLACES, queue: 0}
        assert all(after[place] == found for place, found in before[fan.user].items() if place != "dead letters")
        letters = [json.loads(found["payload"]) for found in after["dead letters"] if "rescoreId" in found["payload"]]
        assert [each["users"] for each in letters] == [[fan.user for fan in others]]
    for kind in ImportKind:
        for version in VERSIONS:
            versions = ImportVersions(open_table(stores.table, "table", ""), kind)
            left = versions.bucket(version, Part.FANS, bucket_of(gone.user))["user"].to_pylist()
            assert gone.user not in left
    assert erase(places(gone, stores), []).erased == {**dict.fromkeys(PLACES, 0), queue: 0}
    open_cache(stores.cache).delete([Fan(fan.user).cache_key for fan in others])


@pytest.mark.parametrize(("operation", "erased_before"), [("Query", False), ("BatchWriteItem", True)])
def test_a_store_that_refuses_ends_it_and_the_next_run_finishes(stores, http_proxy, operation, erased_before):
    """A refusal while looking leaves everything; one while deleting leaves what comes after it."""
    fan = Planted(uuid.uuid4().hex)
    plant([fan], stores)
    proxy = http_proxy(DYNAMODB)
    refusal = (400, {"__type": "com.amazonaws.dynamodb.v20120810#AccessDeniedException", "message": "no"})
    proxy.rule = lambda asked, body: refusal if asked == operation else None
    behind = replace(stores, demand_table=stores.demand_table.replace(DYNAMODB, proxy.address))
    with pytest.raises(UsageError, match="demand"):
        erase(places(fan, behind), [])
    left = {place: len(found) for place, found in find(places(fan, stores)).items() if place in PLACES}
    assert left == ({**PLACES, **dict.fromkeys(list(PLACES)[:-2], 0)} if erased_before else PLACES)

    erase(places(fan, stores), [])
    assert fan.mark.encode() not in bytes_of(stores)
