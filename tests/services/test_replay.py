"""Replays: the same activities, in order, shuffled, or once more, leave the same bytes.

A bounded run sees its whole input before it scores, so also profiles that are built from the activities themselves
(the embedded ones of an SQLite store) are the same in whatever order they came. On servers the profiles are those of
the Accounts service, the same at every call.
"""

import hashlib
import json
import random
import sys
from collections import Counter

import pytest

EVENTS = 100_000
NAMES_THE_RUN = ("requestId", "dateUpdated")


def run(cli, *arguments, env=None, codes=(0,)):
    result = cli("run", *arguments, "--json", env=env)
    assert result.code in codes, result
    return result.json


def shuffled(values, seed):
    copy = list(values)
    random.Random(seed).shuffle(copy)
    return copy


def state(system):
    """Score items, latest items and cache entries as text, without what names a run."""
    items = [item for prefix in ("SCORE#", "LATEST") for item in system.items(system.settings["table"], prefix)]
    return "\n".join(
        json.dumps({name: value for name, value in item.items() if name not in NAMES_THE_RUN}, sort_keys=True)
        for item in items
    )


def test_in_order_and_shuffled_servers_end_the_same(cli, system, make_ledger, upstreams, server):
    """Shuffled, a user's messages are in another order: "out of order" is of the source then, and not told."""
    for name in ("kafka", "elasticmq", "dynamodb", "redis"):
        server(name)
    ledger = make_ledger(30, 5)
    states, caches = set(), set()
    for seed in (None, 1):
        table = system.table(stream=True)
        system.use(
            queue=system.queue() + "&wait=1",
            table=table,
            dead_letters=table,
            cache=f"redis://127.0.0.1:16390/{0 if seed is None else 1}",
            accounts=f"{upstreams.address}/accounts",
            model=f"{upstreams.address}/model/score?batch=64",
            batch_size="64",
        )
        ledger.cache_db = 0 if seed is None else 1
        topic = system.topic()
        records = ledger.records() if seed is None else shuffled(ledger.records(), seed)
        system.produce(topic, records)
        assert run(cli, "enqueueFromStream", "--source", topic, env=system.env)["enqueued"] == len(records)
        assert run(cli, "scoreUsers", env=system.env)["scored"] >= len(records)
        ledger.check("in order" if seed is None else "shuffled", ordered=seed is None)
        states.add(state(system))
        caches.add(json.dumps(ledger.cached(), sort_keys=True))
    assert len(states) == len(caches) == 1


@pytest.mark.slow
def test_100_000_events_in_order_and_shuffled_dump_the_same_bytes(cli, make_store, sale, system, server):
    """Kafka to an SQLite store, bounded.

    The last replay goes into the first one's store once more, by a queue that remembers nothing: all is scored again.
    """
    server("kafka")
    lines = sale(10_000, 600, seed=11)[:EVENTS]
    assert len(lines) == EVENTS
    dumps = []
    for number, (name, queue, batch_size) in enumerate(
        [("ordered", "ordered", 500), ("shuffled", "shuffled", 333), ("ordered", "again", 1_000)]
    ):
        store, waiting = make_store(name), make_store(queue)
        records = [(user_of(line), line) for line in (lines if number == 0 else shuffled(lines, number))]
        topic = system.topic(4)
        system.produce(topic, records)
        env = {"FAN_IDENTITY_BATCH_SIZE": str(batch_size), "FAN_IDENTITY_QUEUE": waiting.address}
        counts = run(cli, "enqueueFromStream", "--source", topic, *store.flag, env=env, codes=(0, 1))
        assert counts["read"] == EVENTS
        scored = run(cli, "scoreUsers", *store.flag, env=env)["scored"]
        assert scored == counts["enqueued"]
        ends = ("enqueued", "deduplicated", "rejected.", "dead_lettered.")
        lost = EVENTS - sum(count for end, count in counts.items() if end.startswith(ends))
        assert lost == 0
        assert waiting.waiting() == 0
        dumps.append(store.dump())
        told = hashlib.sha256(dumps[-1]).hexdigest()[:12]
        sys.stdout.write(
            f"\nledger replay {number}: read={counts['read']} lost={lost} enqueued={counts['enqueued']} "
            f"deduplicated={counts.get('deduplicated', 0)} scored={scored} bytes={len(dumps[-1])} sha256={told}\n"
        )
    check_dump(dumps[0], lines)
    assert dumps[1] == dumps[0], "shuffled"
    assert dumps[2] == dumps[0], "once more into the same store"


def user_of(line):
    try:
        return str(json.loads(line)["globalUserId"])
    except (ValueError, TypeError, KeyError):
        return ""


def check_dump(dump, lines):
    """Every user's latest item and cache entry is that of the newest score; one score an activity; none lost."""
    items = [json.loads(line) for line in dump.splitlines()]
    scores = [item for item in items if item.get("SK", "").startswith("SCORE#")]
    # Of one millisecond the greater id is the newer; the sort key's hash says nothing.
    newest = {
        item["globalUserId"]: item for item in sorted(scores, key=lambda one: (one["occurredAt"], one["activityId"]))
    }
    latest = {item["globalUserId"]: item for item in items if item.get("SK") == "LATEST"}
    cached = {item["value"]["global_user_id"]: item["value"] for item in items if "cacheKey" in item}
    ids = Counter(item["activityId"] for item in scores)
    stale = [
        user
        for user, item in newest.items()
        if latest[user]["scoreSK"] != item["SK"] or cached[user]["arm_risk"] != item["armRisk"]
    ]
    fed = {json.loads(line)["activityId"] for line in lines if user_of(line).strip() and b'"activityId"' in line}
    doubled = sum(ids.values()) - len(ids)
    unknown = ids.keys() - fed
    sys.stdout.write(
        f"\nledger dump: users={len(newest)} scores={len(scores)} stale={len(stale)} "
        f"duplicates={doubled + len(unknown)}\n"
    )
    assert len(scores) > EVENTS * 0.9
    assert newest.keys() == latest.keys() == cached.keys()
    assert not stale
    assert not doubled
    assert not unknown
