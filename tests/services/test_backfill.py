"""Backfills of a Kafka range into DynamoDB: what the stream left, late, shuffled, killed, beside live scores."""

import json
import random
import signal
from typing import Any

import pytest
from confluent_kafka import Producer

HOUR_MS = 3_600_000
BEGIN_MS = 1_750_000_000_000
USERS, EACH = 40, 12
NAMES_THE_RUN = ("requestId", "dateUpdated")


def activity(user: int, number: int) -> bytes:
    fields = {
        "activityId": f"a-{user}-{number}",
        "globalUserId": f"fan-{user}",
        "activityType": ("login", "search", "addToCart")[number % 3],
        "occurredAt": BEGIN_MS + number * 60_000 + user,
    }
    return json.dumps(fields).encode()


@pytest.fixture(scope="module")
def events() -> list[bytes]:
    """Every user's activities, some twice, and a few that are none."""
    once = [activity(user, number) for user in range(USERS) for number in range(EACH)]
    return [*once, *once[::17], b"{", b'{"activityId":"x"}']


def produce(topic: str, records: list[tuple[int, bytes]]) -> None:
    """Sends (arrival time in ms, value), all of a user to one partition."""
    producer = Producer({"bootstrap.servers": topic.removeprefix("kafka://").partition("/")[0]})
    for time_ms, value in records:
        producer.produce(topic.rpartition("/")[2], value, key=value.partition(b"-")[2][:2], timestamp=time_ms)
        producer.poll(0)
    assert producer.flush(60) == 0


def late_and_shuffled(events: list[bytes], seed: int) -> list[tuple[int, bytes]]:
    """Events in any order within an hour of arrival."""
    rng = random.Random(seed)
    mixed = rng.sample(events, len(events))
    return [(BEGIN_MS + number * HOUR_MS // len(mixed), value) for number, value in enumerate(mixed)]


def state(system: Any, table: str) -> str:
    """Every item of a table but positions, dead letters and what names a run."""
    items = [item for prefix in ("SCORE#", "LATEST") for item in system.items(table, prefix)]
    return "\n".join(
        json.dumps({name: value for name, value in item.items() if name not in NAMES_THE_RUN}, sort_keys=True)
        for item in items
    )


@pytest.fixture
def into(system, upstreams, server):
    """Settings of a new table, queue and cache, with profiles and model on servers."""
    for name in ("kafka", "elasticmq", "dynamodb", "redis"):
        server(name)
    databases = iter(range(5, 10))

    def make() -> str:
        table = system.table()
        system.use(
            queue=system.queue() + "&wait=1",
            table=table,
            dead_letters=table,
            cache=f"redis://127.0.0.1:16390/{next(databases)}",
            accounts=f"{upstreams.address}/accounts",
            model=f"{upstreams.address}/model/score?batch=64",
            batch_size="64",
            horizon="36500d",
        )
        return table

    return make


def streamed(cli, system, into, topic: str, until) -> str:
    """Both workers, streaming, until everything is scored."""
    table = into()
    enqueue = cli.start("run", "enqueueFromStream", "--source", topic, "--streaming", env=system.env)
    score = cli.start("run", "scoreUsers", "--streaming", env=system.env)
    until(lambda: len(system.items(table)) >= USERS * EACH, "all were scored")
    until(lambda: system.depth(system.settings["queue"]) == 0, "nothing waits")
    for run in (enqueue, score):
        run.signal(signal.SIGINT)
    for run in (enqueue, score):
        assert run.wait().code in (0, 1)
    return state(system, table)


ARGUMENTS = (
    "backfill",
    "enqueueFromStream",
    "--from",
    "2025-06-15T15:06:40Z",
    "--to",
    "2025-06-15T16:06:40Z",
    "--json",
)


def test_a_range_of_a_topic_leaves_what_the_stream_left(cli, system, into, events, until):
    live = system.topic()
    produce(live, late_and_shuffled(events, 1))
    expected = streamed(cli, system, into, live, until)
    assert expected.count("SCORE#") >= USERS * EACH

    past = system.topic()
    outside = [(BEGIN_MS - 1, activity(900, 0)), (BEGIN_MS + HOUR_MS, activity(901, 0))]
    produce(past, [outside[0], *late_and_shuffled(events, 2), outside[1]])
    table = into()
    result = cli(*ARGUMENTS, "--source", past, "--score-with", "scoreUsers", env=system.env)
    assert (result.code, result.json["unaccounted"]) == (1, 0), result
    counts = result.json["counts"]
    assert counts["read"] == len(events), "from --from on, up to before --to"
    assert counts["dead_lettered.malformed"] == len(system.letters(table)) == 2
    assert state(system, table) == expected, "lost 0, duplicates 0"
    assert system.depth(system.settings["queue"]) == 0, "past the queue"

    table = into()
    assert cli(*ARGUMENTS, "--source", past, env=system.env).json["unaccounted"] == 0
    assert cli("run", "scoreUsers", env=system.env).code == 0
    assert state(system, table) == expected, "through a queue"


def scores(system: Any, table: str) -> int:
    """How many score items a table has."""
    name = table.removeprefix("dynamodb://").partition("?")[0]
    pages = system.dynamodb.get_paginator("scan").paginate(
        TableName=name,
        Select="COUNT",
        FilterExpression="begins_with(SK, :score)",
        ExpressionAttributeValues={":score": {"S": "SCORE#"}},
    )
    return sum(page["Count"] for page in pages)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_a_backfill_of_a_topic_goes_on_and_ends_the_same(cli, system, into, seed):
    rng = random.Random(seed)
    topic = system.topic(4)
    events = [*(activity(user, number) for user in range(USERS) for number in range(4 * EACH)), b"{"]
    produce(topic, late_and_shuffled(events, seed))
    whole = into()
    arguments = (*ARGUMENTS, "--source", topic, "--score-with", "scoreUsers")
    assert cli(*arguments, env=system.env).code == 1
    killed = into()
    for share in sorted(rng.uniform(0.05, 0.6) for _ in range(2)):
        run = cli.start(*arguments, env={**system.env, "FAN_IDENTITY_BATCH_SIZE": "3"})
        run.until(lambda wanted=share: scores(system, killed) >= wanted * len(events), f"{share:.2f} were scored")
        assert run.kill() == -signal.SIGKILL
    result = cli(*arguments, env=system.env)
    assert (result.code in (0, 1), result.json["unaccounted"]) == (True, 0)
    assert result.json["counts"]["partitions_resumed"] > 0
    assert "went on where an earlier run was" in result.err
    assert result.json["counts"]["read"] < len(events)
    assert state(system, killed) == state(system, whole), "lost 0, duplicates 0"
    assert sorted(system.letters(killed)) == sorted(system.letters(whole))
    again = cli(*arguments, env=system.env)
    assert (again.code, again.json["counts"]["read"]) == (0, 0)


def test_newer_live_scores_stay(cli, system, into, events):
    topic = system.topic()
    produce(topic, late_and_shuffled(events, 3))
    table = into()
    live = {
        "globalUserId": "fan-1",
        "activityId": "now",
        "activityType": "login",
        "occurredAt": BEGIN_MS + 30 * HOUR_MS,
    }
    message = {**live, "requestId": "r", "worker": "enqueueFromStream", "activity": live}
    system.send(system.settings["queue"], json.dumps(message).encode())
    assert cli("run", "scoreUsers", env=system.env).code == 0
    before = system.items(table, "LATEST")
    assert [item["activityId"] for item in before] == ["now"]
    assert cli(*ARGUMENTS, "--source", topic, "--score-with", "scoreUsers", env=system.env).code == 1
    latest = {item["globalUserId"]: item for item in system.items(table, "LATEST")}
    assert latest["fan-1"] == before[0], "untouched, the time of writing included"
    assert latest["fan-2"]["activityId"] == f"a-2-{EACH - 1}"
    assert len(system.items(table)) == USERS * EACH + 1


def test_the_live_worker_s_place_is_left_alone(cli, system, into, events):
    topic = system.topic()
    produce(topic, late_and_shuffled(events, 4))
    into()
    assert cli("backfill", "enqueueFromStream", "--source", topic, env=system.env).code == 1
    counts = cli("run", "enqueueFromStream", "--source", topic, "--json", env=system.env).json
    assert counts["read"] == len(events), "a run of the live worker begins at the beginning"
    assert counts["deduplicated"] > 0
