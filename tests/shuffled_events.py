"""Events of two kinds for some fans, and what must stand in the tables whatever the order and the repetitions."""

import json
import random
import time
from collections import Counter

from fan_identity.domain.activity import format_time_ms
from fan_identity.domain.keys import user_pk
from fan_identity.domain.records import Batch
from fan_identity.domain.user_upsert import PROFILE_SK
from fan_identity.domain.verification import VERIFIED_SK
from fan_identity.io.consuming import consume_events, decode_events
from fan_identity.io.ports import ReceivedMessage

WORKER = "handleEvent"
NOW = int(time.time() * 1_000) - 60_000


def idv(number, user="fan-1", status="PASSED", at=NOW, **more):
    """A bare verification result."""
    fields = {"verificationId": f"v{number}", "globalUserId": user, "status": status, "occurredAt": at, **more}
    return json.dumps(fields).encode()


def enveloped(detail, kind, source="fan-identity"):
    """An event as EventBridge puts it into a queue."""
    return json.dumps(
        {
            "version": "0",
            "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
            "detail-type": kind,
            "source": source,
            "account": "111122223333",
            "time": format_time_ms(NOW)[:19] + "Z",
            "region": "eu-west-1",
            "resources": [],
            "detail": json.loads(detail),
        }
    ).encode()


def upsert(number, user="fan-1", at=NOW, **more):
    """What the API publishes, in EventBridge's envelope."""
    detail = {"eventId": "e", "globalUserId": user, "occurredAt": at, "messageId": f"m{number}", **more}
    return enveloped(json.dumps(detail), "user.upsert")


def received(*bodies, receives=1):
    """A batch as a queue delivers it."""
    return Batch(
        "r1",
        "queue",
        [ReceivedMessage(f"receipt{n}", "g", body, receives, f"m{n}", NOW) for n, body in enumerate(bodies)],
        receipts=tuple(f"receipt{n}" for n in range(len(bodies))),
    )


def consume(batch, stores, counts=None, **more):
    """Both steps; counts are added to ``counts``."""
    counts = Counter() if counts is None else counts

    def count(name, number):
        counts[name] += number

    return consume_events(decode_events(batch, WORKER, **more), stores, WORKER, count, **more)


def check_shuffled(stores, fan_ids, seed):
    """Every event twice, in any order, in batches of any size: the newest stands, and all is accounted for."""
    shuffle = random.Random(seed)
    numbers = range(4)
    bodies = [
        body
        for user in fan_ids
        for n in numbers
        for body in (
            idv(n, user, shuffle.choice(["PASSED", "FAILED", "PENDING"]), NOW + n // 2),
            upsert(n, user, NOW + n // 2, postalCode=str(n)),
        )
    ] * 2
    shuffle.shuffle(bodies)
    counts = Counter()
    left = bodies
    while left:
        size = shuffle.randint(1, 9)
        done = consume(received(*left[:size]), stores, counts)
        assert not done.dead_letters and not done.returned
        left = left[size:]
    assert counts["stored"] + counts["stale"] + counts["deduplicated"] == len(bodies), counts
    for user in fan_ids:
        profile = stores.fans.get(user_pk(user), PROFILE_SK)
        assert (profile["globalUserId"], profile["messageId"], profile["postalCode"]) == (user, "m3", "3")
        results = stores.verifications.query(user_pk(user), "VERIFICATION#")
        assert sorted(item["verificationId"] for item in results) == [f"v{n}" for n in numbers]
        newest = stores.verifications.get(user_pk(user), VERIFIED_SK)
        assert newest["occurredAt"] == format_time_ms(NOW + 1)
        statuses = {item["verificationId"]: item["status"] for item in results}
        pending_last = max(["v2", "v3"], key=lambda name: (_rank(statuses[name]), name))
        assert newest["verificationId"] == pending_last


def _rank(status):
    return ["PENDING", "PASSED", "FAILED"].index(status)
