"""Every worker through the command line on real servers: what comes in, what stands in the stores after."""

import json
import time
from collections import defaultdict

import pytest

from fan_identity.domain.arai import arai_item
from fan_identity.domain.keys import arm_cache_key
from fan_identity.io.backends import open_cache, open_table

USERS = 20
NUMBER = 200


def activities(system):
    """Activities by time, each user's every 20th, with the key they travel under.

    Users are the test's own: the cache is one for all tests.
    """
    now = int(time.time() * 1_000) - 60_000
    users = [f"{system.prefix}-{n}" for n in range(USERS)]
    return [(users[n % USERS], record(n, users[n % USERS], now + n)) for n in range(NUMBER)]


def record(number, user, time_ms, kind="login"):
    return json.dumps(
        {"activityId": f"a{number}", "activityType": kind, "occurredAt": time_ms, "globalUserId": user}
    ).encode()


@pytest.fixture
def remote(server, system, upstreams):
    """The settings of a system on real servers."""
    for name in ("elasticmq", "dynamodb", "redis"):
        server(name)
    table = system.table()
    system.use(
        queue=system.queue(),
        table=table,
        dead_letters=table,
        cache="redis://127.0.0.1:16390/0",
        accounts=f"{upstreams.address}/accounts",
        model=f"{upstreams.address}/model/score?batch=64",
    )
    return system


def run(cli, system, *arguments, code=0):
    result = cli("run", *arguments, "--json", env=system.env)
    assert result.code == code, result
    return result.json


def assert_scored(system, numbers):
    items = system.items(system.settings["table"])
    assert {item["activityId"] for item in items} == {f"a{number}" for number in numbers}
    newest = {}
    for item in items:
        newest[item["globalUserId"]] = max(newest.get(item["globalUserId"], ""), item["SK"])
    latest = {item["globalUserId"]: item["scoreSK"] for item in system.items(system.settings["table"], "LATEST")}
    assert latest == newest
    cache = open_cache(system.settings["cache"])
    by_key = {(item["PK"], item["SK"]): item for item in items}
    for user, sk in newest.items():
        assert cache.get(arm_cache_key(user))["arm_risk"] == by_key[f"USER#{user}", sk]["armRisk"]


def test_kafka_to_scores_with_dead_letters_and_rejections(cli, remote, server):
    server("kafka")
    topic = remote.topic()
    remote.produce(topic, [*activities(remote), ("x", b"broken"), ("x", record(900, "", 1_718_366_400_000))])
    counts = run(cli, remote, "enqueueFromStream", "--source", topic, code=1)
    assert counts["read"] == NUMBER + 2
    assert (counts["enqueued"], counts["rejected.blank_user"], counts["dead_lettered.malformed"]) == (NUMBER, 1, 1)
    counts = run(cli, remote, "scoreUsers")
    assert (counts["received"], counts["scored"]) == (NUMBER, NUMBER)
    assert_scored(remote, range(NUMBER))
    assert remote.depth(remote.settings["queue"]) == 0
    again = run(cli, remote, "enqueueFromStream", "--source", topic)
    assert again.get("read", 0) == 0, "a second run goes on where the first ended"
    ranged = run(cli, remote, "enqueueFromStream", "--source", topic + "?start_time=2020-01-01T00:00:00Z", code=1)
    assert ranged["read"] == NUMBER + 2, "a range is read whatever was committed"
    assert run(cli, remote, "enqueueFromStream", "--source", topic).get("read", 0) == 0


@pytest.mark.parametrize("worker", ["enqueueFromPurchaseStream", "enqueueFromVfStream", "enqueueFromSQJourneyStream"])
def test_kinesis_to_the_queue(cli, remote, server, worker):
    server("kinesalite")
    stream = remote.stream()
    remote.put_records(stream, activities(remote))
    counts = run(cli, remote, worker, "--source", stream)
    assert (counts["read"], counts["enqueued"]) == (NUMBER, NUMBER)
    assert remote.depth(remote.settings["queue"]) == NUMBER
    assert run(cli, remote, worker, "--source", stream).get("read", 0) == 0


def test_demand_events_are_scored_on_demand_and_staging_sees_everything(cli, remote, server):
    server("kinesalite")
    stream, staging_table = remote.stream(1), remote.table()
    remote.use(
        on_demand_queue=remote.queue(fifo=False),
        staging_queue=remote.queue(),
        staging_table=staging_table,
        staging_model=remote.settings["model"],
    )
    remote.put_records(stream, activities(remote)[:50])
    assert run(cli, remote, "enqueueFromDemandStream", "--source", stream)["enqueued"] == 50
    assert remote.depth(remote.settings["staging_queue"]) == 0, "on-demand requests are not staged"
    remote.send(remote.settings["on_demand_queue"], b'{"globalUserId":"fan-now"}')
    counts = run(cli, remote, "scoreUsers", "--queue", remote.settings["on_demand_queue"])
    assert counts["scored"] == 51
    kinds = defaultdict(int)
    for item in remote.items(remote.settings["table"]):
        kinds[item["activityType"]] += 1
    assert kinds == {"login": 50, "onDemand": 1}
    assert run(cli, remote, "enqueueFromPurchaseStream", "--source", stream)["enqueued"] == 50
    assert run(cli, remote, "stagingScoreUsers")["scored"] == 50
    assert {item["worker"] for item in remote.items(staging_table)} == {"stagingScoreUsers"}


def test_an_arai_change_scores_its_user(cli, remote, server):
    table = remote.table(stream=True)
    remote.use(table=table)
    opened = open_table(table, "table", "")
    now = int(time.time() * 1_000)
    opened.put(arai_item("fan-1", {"features": {"activityCount": 5}}, now))
    opened.put(arai_item("fan-2", {"features": {"activityCount": 9}}, now))
    opened.put(arai_item("fan-1", {"features": {"activityCount": 7}}, now + 5))
    opened.put({"PK": "USER#fan-3", "SK": "OTHER", "type": "note"})
    source = table.replace("dynamodb://", "dynamodb-streams://")
    counts = run(cli, remote, "scoreUsers", "--source", source)
    assert counts["scored"] == 3
    # What scoring wrote are changes too, and none of them is ARAI; how many of them this run saw is chance.
    assert counts["read"] == 3 + counts["rejected.other_change"]
    assert [item["activityType"] for item in remote.items(table)] == ["araiChange"] * 3
    again = run(cli, remote, "scoreUsers", "--source", source)
    assert again.get("scored", 0) == 0


def test_rescoring_by_users_model_and_cluster(cli, remote):
    remote.use(rescore_queue=remote.queue(fifo=False))
    remote.send(remote.settings["queue"], *[b'{"globalUserId":"fan-%d"}' % n for n in range(5)])
    assert run(cli, remote, "scoreUsers")["scored"] == 5
    version = remote.items(remote.settings["table"])[0]["modelVersion"]
    requests = [
        {"rescoreId": "by-users", "users": ["fan-1", "fan-2", "fan-1"]},
        {"rescoreId": "by-model", "modelVersion": version},
        {"rescoreId": "by-cluster", "clusterId": "none"},
        {"rescoreId": "wrong"},
    ]
    envelope = {"version": "0", "id": "e1", "detail-type": "rescore", "source": "batch", "time": "2026-11-25T10:00:00Z"}
    bodies = [json.dumps(request).encode() for request in requests]
    bodies[0] = json.dumps({**envelope, "detail": requests[0]}).encode()
    remote.send(remote.settings["rescore_queue"], *bodies)
    counts = run(cli, remote, "processRescoreEvents", code=1)
    assert (counts["received"], counts["requests"], counts["scored"]) == (4, 3, 2 + 5)
    assert counts["dead_lettered.malformed"] == 1
    caused = defaultdict(set)
    for item in remote.items(remote.settings["table"]):
        caused[item["activityId"].partition(":")[2] or item["activityId"]].add(item["globalUserId"])
    assert caused["by-users"] == {"fan-1", "fan-2"}
    assert len(caused["by-model"]) == 5


def test_verifications_are_stored_newest_wins_and_told(cli, remote, upstreams):
    table = remote.table()
    remote.use(
        identity_queue=remote.queue(fifo=False), verification_table=table, identity=f"{upstreams.address}/identity"
    )

    def event(number, status, at):
        return {"verificationId": f"v{number}", "globalUserId": "fan-1", "status": status, "occurredAt": at}

    now = int(time.time() * 1_000) - 60_000
    bare = json.dumps(event(2, "PASSED", now + 2)).encode()
    wrapped = {
        "version": "0",
        "id": "e",
        "detail-type": "idv",
        "source": "idv",
        "detail": event(1, "FAILED", now + 1),
    }
    unknown = json.dumps(event(3, "MAYBE", now + 3)).encode()
    remote.send(remote.settings["identity_queue"], bare, json.dumps(wrapped).encode(), bare, unknown)
    counts = run(cli, remote, "handleEvent", code=1)
    assert (counts["deduplicated"], counts["dead_lettered.malformed"]) == (1, 1)
    assert counts["stored"] + counts.get("stale", 0) == 2, "the queue keeps no order, so v1 may have come late"
    stored = remote.items(table, "VERIFICATION#")
    assert [(item["verificationId"], item["status"]) for item in stored] == [("v1", "FAILED"), ("v2", "PASSED")]
    (newest,) = [item for item in remote.items(table, "VERIFICATION") if item["SK"] == "VERIFICATION"]
    assert newest["status"] == "PASSED"


def test_both_halves_stream_and_drain(cli, remote, server):
    server("kafka")
    topic = remote.topic()
    enqueuing = cli.start("run", "enqueueFromStream", "--source", topic, "--streaming", "--json", env=remote.env)
    scoring = cli.start("run", "scoreUsers", "--streaming", "--json", env=remote.env)
    remote.produce(topic, activities(remote))
    scoring.until(lambda: len(remote.items(remote.settings["table"])) == NUMBER, "all are scored")
    for running in (enqueuing, scoring):
        running.signal(2)
    assert enqueuing.wait().json["enqueued"] == NUMBER
    assert scoring.wait().json["scored"] == NUMBER
    assert_scored(remote, range(NUMBER))


def test_a_worker_killed_and_started_again_loses_nothing(cli, remote, server):
    server("kafka")
    remote.use(batch_size="10", visibility_timeout="2s")
    topic = remote.topic()
    remote.produce(topic, activities(remote))
    arguments = ("run", "enqueueFromStream", "--source", topic, "--streaming", "--json")
    for reached in (1, NUMBER // 2):
        running = cli.start(*arguments, env=remote.env)
        running.until(lambda reached=reached: remote.depth(remote.settings["queue"]) >= reached, "some are queued")
        running.kill()
    # What was queued before a kill and read again is a duplicate to the queue.
    running = cli.start(*arguments, env=remote.env)
    scoring = cli.start("run", "scoreUsers", "--streaming", "--json", env=remote.env)
    scoring.until(lambda: remote.items(remote.settings["table"]), "one is scored")
    scoring.kill()
    scoring = cli.start("run", "scoreUsers", "--streaming", "--json", env=remote.env)
    scoring.until(lambda: len(remote.items(remote.settings["table"])) == NUMBER, "all are scored")
    for still in (running, scoring):
        still.signal(2)
        still.wait()
    assert_scored(remote, range(NUMBER))


def test_a_model_that_is_down_gives_messages_back_and_they_are_scored_when_it_is_up(cli, remote, upstreams):
    remote.send(remote.settings["queue"], *[b'{"globalUserId":"fan-%d"}' % n for n in range(10)])
    upstreams.set_faults({"model": {"status": 503}})
    scoring = cli.start("run", "scoreUsers", "--streaming", "--json", env=remote.env)
    scoring.until(lambda: upstreams.calls()["model"]["calls"] > 0, "the model was asked")
    upstreams.set_faults({})
    scoring.until(lambda: len(remote.items(remote.settings["table"])) == 10, "all are scored")
    scoring.signal(2)
    counts = scoring.wait().json
    assert counts["scored"] == 10
    assert not any(name.startswith("dead_lettered") for name in counts)


@pytest.mark.parametrize("body", ["nan", "zero", "six", "text", "half"])
def test_an_answer_that_is_none_costs_only_its_own_user(cli, remote, upstreams, body):
    remote.send(remote.settings["queue"], *[b'{"globalUserId":"fan-%d"}' % n for n in range(3)])
    remote.use(model=f"{upstreams.address}/model/score")
    upstreams.set_faults({"model": {"body": body, "count": 1}})
    counts = run(cli, remote, "scoreUsers", code=1)
    assert (counts["scored"], counts["dead_lettered.model_invalid"]) == (2, 1)


def test_pubsub_carries_activities_and_is_the_queue(cli, remote, server):
    server("pubsub")
    source = remote.subscription()
    remote.use(queue=remote.subscription())
    remote.publish(source, activities(remote)[:60])
    refused = cli("run", "enqueueFromStream", "--source", source, env=remote.env)
    assert (refused.code, "add --streaming" in refused.err) == (2, True)
    enqueuing = cli.start("run", "enqueueFromStream", "--source", source, "--streaming", "--json", env=remote.env)
    scoring = cli.start("run", "scoreUsers", "--streaming", "--json", env=remote.env)
    scoring.until(lambda: len(remote.items(remote.settings["table"])) == 60, "all are scored")
    for running in (enqueuing, scoring):
        running.signal(2)
    assert enqueuing.wait().json["enqueued"] == 60
    assert scoring.wait().json["scored"] == 60
    assert_scored(remote, range(60))


def test_dead_letters_in_dynamodb_are_listed_and_sent_again(cli, remote, upstreams):
    remote.send(remote.settings["queue"], b'{"globalUserId":"fan-1"}', b"broken")
    remote.use(model=f"{upstreams.address}/model/score")
    upstreams.set_faults({"model": {"body": "text"}})
    counts = run(cli, remote, "scoreUsers", code=1)
    assert (counts["dead_lettered.model_invalid"], counts["dead_lettered.malformed"]) == (1, 1)
    listed = cli("dead-letters", "list", "--json", env=remote.env)
    assert sorted(json.loads(line)["reason"] for line in listed.out.splitlines()) == ["malformed", "model_invalid"]
    upstreams.set_faults({})
    again = cli("dead-letters", "redrive", "--reason", "model_invalid", "--json", env=remote.env)
    assert again.json["counts"] == {"queued": 1, "rejected": 0, "failed": 0, "of_imports": 0}
    assert run(cli, remote, "scoreUsers")["scored"] == 1
    assert cli("dead-letters", "list", "--json", env=remote.env).out.count(b"\n") == 1
