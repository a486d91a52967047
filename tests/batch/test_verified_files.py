"""Files scored where identities were checked: the same bytes whatever the order, and each score as of its own time."""

import json
import random

from fan_identity.domain.activity import format_time_ms
from fan_identity.domain.verification import Status, Verification, verification_item
from fan_identity.io.backends import open_table
from fan_identity.io.fan_verifications import write_newest

BEGAN = 1_718_355_600_000
SECOND = 1_000
FANS = [f"fan-{number}" for number in range(12)]


def activity(user, number):
    fields = {"activityId": f"a-{user}-{number}", "globalUserId": user, "activityType": "login"}
    return json.dumps({**fields, "occurredAt": BEGAN + number * SECOND}).encode()


def activities():
    return [activity(user, number) for number in range(20) for user in FANS]


def checks():
    """A third of the fans passed, some failed later; a third began anew after failing; others were not checked."""
    for number, user in enumerate(FANS):
        if number % 3 == 0:
            yield Verification(f"v1-{user}", user, Status.PASSED, BEGAN + 5 * SECOND)
            if number % 2 == 0:
                yield Verification(f"v2-{user}", user, Status.FAILED, BEGAN + 10 * SECOND)
        elif number % 3 == 1:
            yield Verification(f"v1-{user}", user, Status.FAILED, BEGAN + 5 * SECOND)
            yield Verification(f"v2-{user}", user, Status.PENDING, BEGAN + 7 * SECOND)


def verify(store, shuffle):
    table = open_table(store.address, "verification-table", "verificationTable")
    results = list(checks())
    shuffle.shuffle(results)
    for each in results:
        table.batch_put([verification_item(each, BEGAN)])
        write_newest(table, [each.global_user_id])


def code_of(store):
    """By (user, number of the activity) what a check did to the score."""
    found = {}
    table = open_table(store.address, "table", "fanIdentityTable")
    for item in table.scan("SCORE#"):
        codes = [reason["code"] for reason in item["reasons"] if reason["code"].startswith("IDENTITY_")]
        user, _, number = item["activityId"].removeprefix("a-").rpartition("-")
        found[user, int(number)] = codes
        assert ("verification" in item) == bool(codes)
        parts = [item["baseScore"], item["otherPoints"], *(reason["points"] for reason in item["reasons"])]
        assert round(sum(parts), 2) == item["accountScore"]
    return found


def test_each_score_has_the_check_as_of_its_time_whatever_the_order(make_store, tmp_path):
    dumps = []
    for seed in range(3):
        shuffle = random.Random(seed)
        lines = activities()
        shuffle.shuffle(lines)
        source = tmp_path / f"{seed}.jsonl"
        source.write_bytes(b"\n".join(lines))
        store = make_store(str(seed))
        verify(store, shuffle)
        store.score(source, env={"FAN_IDENTITY_BATCH_SIZE": str(7 + 90 * seed)})
        dumps.append(store.dump())
        found = code_of(store)
    assert dumps[0] == dumps[1] == dumps[2]
    assert len(found) == len(activities())
    for (user, number), codes in found.items():
        kind = FANS.index(user) % 3
        expected = []
        if kind == 0 and number >= 5:
            failed = FANS.index(user) % 2 == 0 and number >= 10
            expected = ["IDENTITY_CHECK_FAILED" if failed else "IDENTITY_VERIFIED"]
        elif kind == 1 and number >= 5:
            expected = ["IDENTITY_CHECK_FAILED"]
        assert codes == expected, (user, format_time_ms(BEGAN + number * SECOND))
