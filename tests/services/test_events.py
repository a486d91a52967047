"""Events on real servers: from the API's outbox over a bus to profiles, and identity checks to the next score."""

import asyncio
import json
import random
import sys
import time

import boto3
import httpx
import pytest

from fan_identity.domain.event_signature import SIGNED_FIELDS, signature_of
from fan_identity.domain.keys import user_pk
from fan_identity.domain.user_upsert import PROFILE_SK
from fan_identity.io.backends import open_table
from fan_identity.io.event_consumers import EventStores
from fan_identity.io.flags import TOKEN_ENV
from fan_identity.serving.context import Request
from fan_identity.serving.resolvers import RESOLVERS
from fan_identity.serving.settings import ServingSettings
from fan_identity.serving.sources import open_sources

from ..deploy.test_event_rules import RULES
from ..serving.fakes import fan
from ..shuffled_events import NOW, check_shuffled, enveloped, idv, upsert
from .unleash import TOKEN, UNLEASH, Toggle

MINISTACK = "http://127.0.0.1:14566"


@pytest.fixture
def remote(server, system, upstreams):
    """The settings of a system on real servers, with a FIFO queue of events."""
    for name in ("elasticmq", "dynamodb"):
        server(name)
    table = system.table()
    system.use(
        identity_queue=system.queue(),
        table=table,
        verification_table=system.table(),
        dead_letters=table,
        identity=f"{upstreams.address}/identity",
    )
    return system


def handle(cli, system, *arguments, code=0):
    result = cli("run", "handleEvent", *arguments, "--json", env=system.env)
    assert result.code == code, result
    return result.json


def told(upstreams):
    """(user, verification) in the order the Identity Service learnt of them."""
    known = httpx.get(f"{upstreams.address}/identity/verifications").raise_for_status().json()["verifications"]
    return [(each["globalUserId"], each["verificationId"]) for each in known]


def test_both_kinds_in_every_envelope_and_what_is_none(cli, remote, upstreams):
    notification = {
        "Type": "Notification",
        "MessageId": "n1",
        "TopicArn": "arn:aws:sns:eu-west-1:111122223333:idv",
        "Message": idv(2, "fan-2", "FAILED").decode(),
        "Timestamp": "2026-11-25T10:00:00.000Z",
    }
    bodies = [
        idv(1),
        json.dumps(notification).encode(),
        enveloped(idv(3, "fan-3"), "idv"),
        upsert(1, postalCode="1"),
        idv(1),
        upsert(1, postalCode="1"),
        idv(0, status="FAILED", at=NOW - 1),
        upsert(0, at=NOW - 1, postalCode="0"),
        enveloped(b'{"globalUserId":"fan-1"}', "user.deleted"),
        idv(4, status="MAYBE"),
        idv(5, at=NOW + 10**9),
    ]
    remote.send(remote.settings["identity_queue"], *bodies)
    counts = handle(cli, remote, code=1)
    assert counts == {
        "worker": "handleEvent",
        "received": len(bodies),
        "stored": 4,
        "deduplicated": 2,
        "stale": 2,
        "dead_lettered.unknown_event": 1,
        "dead_lettered.malformed": 1,
        "dead_lettered.out_of_time": 1,
    }
    assert remote.depth(remote.settings["identity_queue"]) == 0
    (profile,) = remote.items(remote.settings["table"], PROFILE_SK)
    assert (profile["globalUserId"], profile["postalCode"]) == ("fan-1", "1")
    assert sorted(told(upstreams)) == [("fan-1", "v1"), ("fan-2", "v2"), ("fan-3", "v3")]


def test_forged_and_replayed_results_are_refused_and_counted(cli, remote, upstreams):
    remote.settings["idv_secrets"] = "new,old"

    def signed(secret, **changed):
        fields = json.loads(idv(1))
        signature = signature_of([fields[name] for name in SIGNED_FIELDS], secret)
        return json.dumps({**fields, "signature": signature, **changed}).encode()

    forged = [idv(1), signed("wrong"), signed("new", globalUserId="fan-2"), signed("new", status="FAILED")]
    remote.send(remote.settings["identity_queue"], *forged, signed("old"), signed("old"))
    counts = handle(cli, remote, code=1)
    assert (counts["dead_lettered.forged"], counts["stored"], counts["deduplicated"]) == (4, 1, 1)
    assert told(upstreams) == [("fan-1", "v1")]
    remote.settings["idv_secrets"] = ","
    refused = cli("run", "handleEvent", env=remote.env)
    assert (refused.code, "FAN_IDENTITY_IDV_SECRETS holds no secret" in refused.err) == (2, True)


def test_without_the_fan_identity_table_it_says_what_is_missing(cli, remote):
    remote.use(arai=remote.settings.pop("table"))
    refused = cli("run", "handleEvent", env=remote.env)
    assert (refused.code, "handleEvent needs the fan identity table too" in refused.err) == (2, True), refused


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_order_the_newest_stands_in_dynamodb(remote, seed):
    stores = EventStores(
        open_table(remote.settings["verification_table"], "verification-table", ""),
        open_table(remote.settings["table"], "table", ""),
        None,
    )
    check_shuffled(stores, ["fan-1", "fan-1#PROFILE", "\0fan", "f" * 10_000], seed)


def test_through_an_outage_nothing_is_lost_or_told_out_of_order_and_entries_go_on(cli, remote, upstreams):
    upstreams.set_faults({"identity": {"status": 503}})
    remote.use(identity=f"{upstreams.address}/identity?deadline=1&timeout=1")
    users, number = [f"fan-{n}" for n in range(4)], 24
    results = [(users[n % 4], idv(n, users[n % 4], ["PASSED", "FAILED"][n % 3 > 0], NOW + n)) for n in range(number)]
    for user, body in results:
        remote.send(remote.settings["identity_queue"], body, group=user)
    for user in users:
        remote.send(remote.settings["identity_queue"], upsert(1, user), group="entries")
    running = cli.start("run", "handleEvent", "--streaming", "--json", env=remote.env)
    running.until(lambda: len(remote.items(remote.settings["table"], PROFILE_SK)) == len(users), "entries are there")
    running.until(lambda: upstreams.calls()["identity"]["calls"] > 0, "the Identity Service was asked")
    assert told(upstreams) == []
    upstreams.set_faults({"identity": {"status": 503, "rate": 0.3}})
    running.until(lambda: len(told(upstreams)) == number, "all results were told of")
    running.signal(2)
    counts = running.wait().json
    assert counts["stored"] == number + len(users) and counts["returned"] > 0, counts
    assert not any(name.startswith("dead_lettered") for name in counts)
    for user in users:
        assert [name for of, name in told(upstreams) if of == user] == [
            f"v{n}" for n in range(number) if users[n % 4] == user
        ]
    assert remote.depth(remote.settings["identity_queue"]) == 0


def test_only_events_of_the_flags_share_of_users_are_consumed(cli, remote, server, unique):
    server("unleash")
    prefix = unique("events") + "."
    toggle = Toggle(share=40, worker="handleEvent", prefix=prefix)
    toggle.switch("on")
    try:
        users = [f"fan-{n}" for n in range(40)]
        remote.send(
            remote.settings["identity_queue"],
            *(body for n, user in enumerate(users) for body in (idv(n, user), upsert(n, user))),
        )
        remote.settings["flags"] = f"unleash+http://{UNLEASH}/api?prefix={prefix}"
        counts = cli("run", "handleEvent", "--json", env=remote.env | {TOKEN_ENV: TOKEN}).json
    finally:
        toggle.archive()
    profiles = {item["globalUserId"] for item in remote.items(remote.settings["table"], PROFILE_SK)}
    results = {item["globalUserId"] for item in remote.items(remote.settings["verification_table"], "VERIFICATION#")}
    assert profiles == results and 0 < len(profiles) < len(users)
    assert (counts["stored"], counts["rejected.flagged_off"]) == (2 * len(profiles), 80 - 2 * len(profiles))


@pytest.mark.slow
def test_killed_at_random_moments_it_loses_nothing_and_tells_all_once_and_in_order(cli, remote, upstreams):
    """The service takes what carries a key it has seen for the same, as ours is made to."""
    rng, number, users = random.Random(11), 120, [f"fan-{n}" for n in range(6)]
    remote.use(visibility_timeout="2s", batch_size="5")
    queue, own = remote.settings["identity_queue"], {user: list[str]() for user in users}
    for n in range(number):
        user = users[n % 6]
        own[user].append(f"v{n}")
        remote.send(queue, idv(n, user, rng.choice(["PASSED", "FAILED"]), NOW + n), group=user)
        remote.send(queue, upsert(n, user, NOW + n, postalCode=str(n)), group=user)
    for kill in range(4):
        running = cli.start("run", "handleEvent", "--streaming", "--json", env=remote.env)
        goal = (kill + 1) * number // 6 + rng.randrange(5)
        running.until(lambda goal=goal: len(told(upstreams)) >= goal, "some were told of")
        running.kill()
    running = cli.start("run", "handleEvent", "--streaming", "--json", env=remote.env)
    running.until(lambda: remote.depth(queue) == 0, "all are done")
    running.signal(2)
    running.wait()
    known = told(upstreams)
    assert {user: [name for of, name in known if of == user] for user in users} == own
    results = remote.items(remote.settings["verification_table"], "VERIFICATION#")
    profiles = remote.items(remote.settings["table"], PROFILE_SK)
    assert sorted(item["verificationId"] for item in results) == sorted(
        name for names in own.values() for name in names
    )
    assert {item["globalUserId"]: f"v{item['postalCode']}" for item in profiles} == {
        user: names[-1] for user, names in own.items()
    }
    calls = upstreams.calls()["identity"]["calls"]
    sys.stdout.write(f"\nledger events: fed={2 * number} kills=4 told={len(known)} calls={calls} dead=0\n")
    assert remote.letters(remote.settings["table"]) == []


def test_an_entry_goes_from_the_api_over_outbox_bus_and_queue_to_the_profile(cli, remote, server, unique, until):
    server("ministack")
    made = {"endpoint_url": MINISTACK, "region_name": "us-east-1"}
    events, sqs = boto3.client("events", **made), boto3.client("sqs", **made)
    name, user = unique("events"), unique("fan")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.create_event_bus(Name=name)
    for number, rule in enumerate(RULES.values()):
        pattern = json.dumps(rule["EventPattern"]).replace('{"Ref": "IdvSource"}', '"idv"')
        events.put_rule(Name=f"{name}-{number}", EventBusName=name, EventPattern=pattern)
        events.put_targets(Rule=f"{name}-{number}", EventBusName=name, Targets=[{"Id": "queue", "Arn": arn}])
    settings = ServingSettings(
        store=None,
        table=remote.settings["table"],
        account_fanscore_table=remote.settings["table"],
        demand_table=remote.settings["table"],
        verification_table=remote.settings["verification_table"],
        outbox=remote.settings["table"],
        cache="redis://127.0.0.1:16390/0",
        events=f"eventbridge://{name}?endpoint={MINISTACK}&region=us-east-1",
    )

    async def enter(*postal_codes):
        sources = open_sources(settings, in_lambda=True)
        try:
            for code in postal_codes:
                entry = {"input": {"eventId": "e1", "email": "fan@example.com", "postalCode": code}}
                await RESOLVERS["Mutation.upsertEntry"].answer(entry, Request(sources, fan(user)))
        finally:
            for close in sources.closers:
                await close()

    asyncio.run(enter("first", "second"))
    result = {**json.loads(idv(1, user, "FAILED")), "occurredAt": int(time.time() * 1_000)}
    entries = [("idv", "idv"), ("somebody", "idv"), ("fan-identity", "user.deleted")]
    events.put_events(
        Entries=[
            {"Source": source, "DetailType": kind, "Detail": json.dumps(result), "EventBusName": name}
            for source, kind in entries
        ]
    )
    remote.use(identity_queue=f"sqs://{name}?endpoint={MINISTACK}&region=us-east-1")
    running = cli.start("run", "handleEvent", "--streaming", "--json", env=remote.env)
    fans = open_table(remote.settings["table"], "table", "")
    until(lambda: (fans.get(user_pk(user), PROFILE_SK) or {}).get("postalCode") == "second", "the profile is there")
    checks = open_table(remote.settings["verification_table"], "verification-table", "")
    until(lambda: checks.get(user_pk(user), "VERIFICATION") is not None, "the result is there")
    running.signal(2)
    counts = running.wait().json
    assert counts["received"] == 3 == counts["stored"] + counts.get("stale", 0), "no other event came through the rules"
    profile = fans.get(user_pk(user), PROFILE_SK)
    assert profile["email"] == "fan@example.com" and len(profile["messageId"]) == 32
