"""Faults of everything around the workers: services that fail, throttle, hang or vanish, and processes that are killed.

Every test keeps a ledger of (user, sequence, id) and prints what it found; see ``Ledger`` in conftest.py for how. No
test depends on how far anything was when a fault struck: all of them hold also where everything was done before.
"""

import itertools
import json
import random
import sys

import httpx
import pytest

from fan_identity.io.clock import now_ms

USERS, EACH = 25, 4  # many groups: a FIFO queue hands out a group's next message when the one before is done
NUMBER = USERS * EACH


@pytest.fixture
def remote(server, system, upstreams):
    """The settings of a system on real servers."""
    for name in ("elasticmq", "dynamodb", "redis"):
        server(name)
    table = system.table(stream=True)
    system.use(
        queue=system.queue() + "&wait=1",
        table=table,
        dead_letters=table,
        cache="redis://127.0.0.1:16390/0",
        accounts=f"{upstreams.address}/accounts",
        model=f"{upstreams.address}/model/score?batch=16",
    )
    return system


@pytest.fixture
def ledger(remote, make_ledger):
    return make_ledger(USERS, EACH)


def through(proxy, address):
    """An address whose endpoint is a proxy."""
    name, _, options = address.partition("?")
    _, *others = options.split("&")
    return "&".join([f"{name}?endpoint={proxy.address}", *others])


def score(cli, system, *arguments, code=0):
    """Scores until the queue is empty."""
    result = cli("run", "scoreUsers", *arguments, "--json", env=system.env)
    assert result.code == code, result
    return result.json


def streaming(cli, system, worker, *arguments):
    return cli.start("run", worker, *arguments, "--streaming", "--json", env=system.env)


def ended(running):
    """Asks a streaming worker to end, and returns its counts."""
    running.signal(2)
    return running.wait().json


TROUBLES = {
    "2 s later": {"delayMs": 2_000, "count": 3},
    "no answer": {"hang": True, "count": 2},
    "429 with Retry-After": {"status": 429, "retryAfter": 1, "count": 3},
    "30 % 503": {"status": 503, "rate": 0.3, "count": 20},
    "30 % 500": {"status": 500, "rate": 0.3, "count": 20},
}


def test_a_model_in_trouble_delays_scores_and_costs_none(cli, remote, upstreams, ledger):
    """One trouble after the other strikes a worker that streams; each strikes so many calls, however late they are."""
    remote.use(model=f"{upstreams.address}/model/score?batch=4&timeout=3")
    scoring = streaming(cli, remote, "scoreUsers")
    part = NUMBER // len(TROUBLES)
    for number, fault in enumerate(TROUBLES.values()):
        faulty = upstreams.calls()["model"]["faulty"]
        upstreams.set_faults({"model": fault})
        ledger.send(ledger.fed[number * part : (number + 1) * part])
        scoring.until(lambda number=number: ledger.settled() == (number + 1) * part, "all so far are scored")
        assert upstreams.calls()["model"]["faulty"] > faulty
    assert ended(scoring)["scored"] >= NUMBER
    ledger.check(f"model: {', '.join(TROUBLES)}")


def test_an_answer_that_is_none_costs_its_own_user_and_nobody_else(cli, remote, upstreams, ledger):
    """One body after the other, each for a user of its own, whose mates of the same calls are scored."""
    bodies = ("nan", "zero", "six", "text", "half")
    dead = []
    settled = 0
    scoring = streaming(cli, remote, "scoreUsers")
    for number, body in enumerate(bodies):
        users = ledger.users[number :: len(bodies)]
        upstreams.set_faults({"model": {"body": body, "users": users[:1]}})
        part = [one for one in ledger.fed if one.user in users]
        dead += [one for one in part if one.user == users[0]]
        ledger.send(part)
        settled += len(part)
        scoring.until(lambda settled=settled: ledger.settled() == settled, f"{body}: all so far are scored or dead")
    assert ended(scoring)["dead_lettered.model_invalid"] == len(dead) == len(bodies) * EACH
    ledger.check(f"model answers {', '.join(bodies)}", dead)


def test_while_the_model_is_down_messages_go_back_and_are_scored_in_order_when_it_is_up(
    cli, remote, upstreams, ledger, http_proxy
):
    proxy = http_proxy(remote.sqs.meta.endpoint_url)
    delays = set()

    def watch(operation, body):
        if operation == "ChangeMessageVisibilityBatch":
            delays.update(entry["VisibilityTimeout"] for entry in json.loads(body)["Entries"])

    proxy.rule = watch
    remote.use(queue=through(proxy, remote.settings["queue"]), model=f"{upstreams.address}/model/score?deadline=2")
    upstreams.set_faults({"model": {"status": 503}})
    ledger.send()
    scoring = streaming(cli, remote, "scoreUsers")
    scoring.until(lambda: delays & {1, 2}, "messages were given back, for 1 s or 2 s")
    assert ledger.settled() == 0
    upstreams.set_faults({})
    scoring.until(lambda: ledger.settled() == NUMBER, "all are scored")
    counts = ended(scoring)
    assert counts["returned"] > 0
    ledger.check("model down, then up")
    assert remote.depth(remote.settings["queue"]) == 0


def test_a_group_behind_a_failing_message_waits_and_no_other_notices(cli, remote, upstreams, ledger, http_proxy):
    poisoned, *healthy = ledger.users
    head = next(one for one in ledger.fed if one.user == poisoned)
    proxy = http_proxy(upstreams.address)
    # No fault of the sandbox's, whose faults are by user: here one message fails, and those behind it would not.
    proxy.rule = lambda _, body: (503, {}) if head.activity_id.encode() in body else None
    remote.use(model=f"{proxy.address}/model/score?deadline=3")
    ledger.send()
    scoring = streaming(cli, remote, "scoreUsers")
    scoring.until(lambda: ledger.settled() >= len(healthy) * EACH, "the others are scored")
    assert {item["globalUserId"] for item in ledger.scores()} == set(healthy)
    proxy.rule = lambda _, body: None
    scoring.until(lambda: ledger.settled() == NUMBER, "the group goes on")
    assert ended(scoring)["returned"] > 0
    ledger.check("a failing head of a group, then mended")


def test_after_its_last_retry_a_poison_message_is_a_dead_letter_and_its_group_goes_on(
    cli, remote, upstreams, ledger, http_proxy
):
    poisoned = ledger.users[0]
    first = next(one for one in ledger.fed if one.user == poisoned)
    proxy = http_proxy(upstreams.address)
    proxy.rule = lambda _, body: (503, {}) if first.activity_id.encode() in body else None
    remote.use(model=f"{proxy.address}/model/score?deadline=3")
    ledger.send([first])
    # Nine deliveries before failed. With the waits between them that takes over eight minutes.
    url = remote.url(remote.settings["queue"])
    for number in range(9):
        (message,) = remote.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=1, AttributeNames=["ApproximateReceiveCount"]
        )["Messages"]
        assert message["Attributes"]["ApproximateReceiveCount"] == str(number + 1)
        remote.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    malformed = [b'{"globalUserId": "half', b"[]", b"\xc3\xa9"]  # at the head of another group: it costs itself only
    remote.send(remote.settings["queue"], *malformed, group=ledger.users[1])
    ledger.send([one for one in ledger.fed if one is not first])
    counts = score(cli, remote, code=1)
    assert (counts["dead_lettered.model_unavailable"], counts["dead_lettered.malformed"]) == (1, len(malformed))
    ledger.check("poison and malformed messages at the head of a group", [first])
    assert poisoned in {item["globalUserId"] for item in ledger.scores()}


def test_half_of_all_requests_throttled_by_the_table_lose_nothing(cli, remote, make_ledger, http_proxy):
    ledger = make_ledger(5, 4)
    proxy = http_proxy(remote.dynamodb.meta.endpoint_url)
    kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"
    turn = itertools.count()
    proxy.rule = lambda *_: (400, {"__type": kind, "message": "slower"}) if next(turn) % 2 else None
    direct = remote.settings["table"]
    remote.use(table=through(proxy, direct), dead_letters=through(proxy, direct))
    ledger.send()
    assert score(cli, remote)["scored"] >= len(ledger.fed)
    assert sum(proxy.struck.values()) == sum(proxy.seen.values()) // 2 > 0
    ledger.check("DynamoDB throttled by half")


def test_a_cache_that_is_killed_and_comes_back_empty_ends_with_every_newest_entry(cli, remote, make_ledger, private):
    """Holds for users with an activity after the crash, as all have here.

    What a Redis that stores in memory knew of others is gone until they are scored again; test_kills.py has one that
    stores on disk.
    """
    cache = private("redis")
    remote.use(cache=f"redis://127.0.0.1:{cache.port}/0", visibility_timeout="2s")
    ledger = make_ledger(USERS, EACH, redis_port=cache.port)
    half = len(ledger.fed) // 2
    ledger.send(ledger.fed[:half])
    scoring = streaming(cli, remote, "scoreUsers")
    scoring.until(lambda: ledger.settled() > 0, "one is scored")
    cache.kill9()
    ledger.send(ledger.fed[half:])
    cache.start()
    if scoring.code is None:  # else it took too long: it ended, and the next one goes on
        scoring.signal(2)
    assert scoring.wait().code in (0, 3)
    score(cli, remote)
    ledger.check("Redis gone and back")
    assert remote.depth(remote.settings["queue"]) == 0


@pytest.mark.parametrize("cut", ["drop request", "drop answer"])
def test_a_cut_after_the_writes_and_before_the_acknowledgement_doubles_nothing(cli, remote, ledger, http_proxy, cut):
    proxy = http_proxy(remote.sqs.meta.endpoint_url)
    proxy.rule = lambda operation, _: cut if operation == "DeleteMessageBatch" else None
    direct = remote.settings["queue"]
    remote.use(queue=through(proxy, direct) + "&deadline=1", visibility_timeout="2s")
    ledger.send()
    ended_alone = cli("run", "scoreUsers", "--streaming", "--json", env=remote.env)
    assert ended_alone.code == 3, ended_alone
    assert proxy.struck["DeleteMessageBatch"] > 0
    written = {item["activityId"] for item in ledger.scores()}
    assert written, "the cut came after the writes"
    left = remote.depth(direct)
    if cut == "drop request":
        assert left == NUMBER, "nothing was acknowledged"
    proxy.rule = lambda *_: None
    remote.use(visibility_timeout="60s")
    assert score(cli, remote).get("received", 0) >= left, "what was not acknowledged comes again"
    ledger.check(f"a cut before the acknowledgement ({cut})")
    assert remote.depth(direct) == 0


def test_a_cut_after_a_message_was_sent_and_before_the_answer_doubles_nothing(cli, remote, ledger, server, http_proxy):
    server("kafka")
    proxy = http_proxy(remote.sqs.meta.endpoint_url)
    turn = itertools.count()
    proxy.rule = lambda operation, _: (
        ["drop answer", None, "drop request", None][next(turn) % 4] if operation == "SendMessageBatch" else None
    )
    direct = remote.settings["queue"]
    remote.use(queue=through(proxy, direct))
    topic = remote.topic()
    remote.produce(topic, ledger.records())
    result = cli("run", "enqueueFromStream", "--source", topic, "--json", env=remote.env)
    assert result.code == 0, result
    assert proxy.struck["SendMessageBatch"] > 0
    remote.use(queue=direct)
    ledger.check_queue("answers of SendMessageBatch lost")


def test_verifications_told_twice_are_one_to_the_identity_service(cli, remote, upstreams, http_proxy):
    direct, table = remote.queue(), remote.table()
    proxy = http_proxy(remote.sqs.meta.endpoint_url)
    proxy.rule = lambda operation, _: "drop request" if operation == "DeleteMessageBatch" else None
    began = now_ms() - 60_000
    remote.use(
        identity_queue=through(proxy, direct) + "&deadline=1",
        verification_table=table,
        identity=f"{upstreams.address}/identity",
        visibility_timeout="2s",
    )
    number = 30
    events = [
        {
            "verificationId": f"v{n}",
            "globalUserId": f"fan-{n % 7}",
            "status": "PASSED",
            "occurredAt": began + n,
        }
        for n in range(number)
    ]
    remote.send(direct, *(json.dumps(event).encode() for event in events))
    ended_alone = cli("run", "handleEvent", "--streaming", "--json", env=remote.env)
    assert ended_alone.code == 3, ended_alone
    assert remote.depth(direct) == number
    told_first = upstreams.calls()["identity"]["calls"]
    assert told_first > 0
    proxy.rule = lambda *_: None
    remote.use(visibility_timeout="60s")
    again = cli("run", "handleEvent", "--json", env=remote.env).json
    told = upstreams.calls()["identity"]["calls"]
    assert sum(again.get(name, 0) for name in ("stored", "stale", "deduplicated")) >= number
    assert again.get("stored", 0) == told - told_first == number - told_first, "what was told of is not told again"
    known = httpx.get(f"{upstreams.address}/identity/verifications").json()["verifications"]
    stored = [item["verificationId"] for item in remote.items(table, "VERIFICATION#")]
    sys.stdout.write(f"\nledger verifications: fed={number} told={told} known={len(known)} stored={len(stored)}\n")
    assert sorted(one["verificationId"] for one in known) == sorted(f"v{n}" for n in range(number))
    assert sorted(stored) == sorted(f"v{n}" for n in range(number))
    newest = {
        item["globalUserId"]: item["verificationId"]
        for item in remote.items(table, "VERIFICATION")
        if item["SK"] == "VERIFICATION"
    }
    assert newest == {event["globalUserId"]: event["verificationId"] for event in events}


def test_both_halves_killed_at_random_moments_lose_and_double_nothing(cli, remote, ledger, server):
    server("kafka")
    rng = random.Random(4)
    remote.use(batch_size="20", visibility_timeout="3s")
    topic = remote.topic()
    remote.produce(topic, ledger.records())
    source = ("--source", topic)
    for _ in range(3):
        enqueuing = streaming(cli, remote, "enqueueFromStream", *source)
        scoring = streaming(cli, remote, "scoreUsers")
        settled = ledger.settled()
        goal = rng.randrange(settled, NUMBER) + 1 if settled < NUMBER else NUMBER
        scoring.until(lambda goal=goal: ledger.settled() >= goal, f"{goal} are scored")
        for one in rng.sample([enqueuing, scoring], 2):
            one.kill()
    assert cli("run", "enqueueFromStream", *source, "--json", env=remote.env).code == 0
    score(cli, remote)
    ledger.check("both halves killed three times")
    assert remote.depth(remote.settings["queue"]) == 0
