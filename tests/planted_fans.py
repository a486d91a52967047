"""Plants fans in every place there is, each with a mark in whatever is the fan's own, to grep for."""

import csv
import hashlib
import io
import json
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import parquet

from fan_identity.domain.demand import demand_sk, fan_pk
from fan_identity.domain.imports import (
    ArmChange,
    Comparison,
    ImportKind,
    State,
    VersionRecord,
    bucket_of,
    fan_item,
)
from fan_identity.domain.keys import arm_cache_key, fifo_group_id, member_pk, user_pk
from fan_identity.domain.profile import ActivityFacts
from fan_identity.domain.records import DeadLetter, dead_letter_id
from fan_identity.io.import_versions import ImportVersions, Part
from fan_identity.io.ports import QueueEntry
from fan_identity.io.sqlite.activity_log import SqliteActivityLog
from fan_identity.io.sqlite.queue import SqliteQueue

VERSIONS = ("20261125T020000Z-aaaaaaaa", "20261126T020000Z-bbbbbbbb")


@dataclass(frozen=True)
class Planted:
    """A fan: the ids, and a mark nothing else has."""

    user: str

    @property
    def mark(self) -> str:
        return "mark-" + hashlib.sha256(b"of " + self.user.encode()).hexdigest()[:20]

    @property
    def member(self) -> str:
        return f"member of {self.user}"


def plant_tables(fan, open_named):
    """Items in each table; ``open_named`` gives the table of a setting."""
    pk, mark = user_pk(fan.user), fan.mark
    for setting in ("table", "staging_table"):
        table = open_named(setting)
        score = {"PK": pk, "SK": "SCORE#2024", "type": "score", "globalUserId": fan.user, "activityId": mark}
        table.batch_put([score, {**score, "SK": "ARAI#2024"}, {**score, "SK": "SCORE#2025"}])
        table.put_if_newer([("1", {**score, "SK": "LATEST"})])
    items = [
        fan_item(kind, version, pk, value, size, 1_718_355_600_123) | {"mark": mark}
        for version in VERSIONS
        for kind, value, size in ((ImportKind.BOT_OR_NOT, 0.25, None), (ImportKind.CLUSTER, "c-1", 3))
    ]
    open_named("table").batch_put(items)
    kinds = ("VERIFICATION#2024#a", "VERIFICATION", "VERIFICATION-CONSUMED", "LIVENESS#s")
    open_named("verification_table").batch_put([{"PK": pk, "SK": sk, "mark": mark} for sk in kinds])
    open_named("table").put_if_newer([("1", {"PK": pk, "SK": "PROFILE", "type": "profile", "email": mark})])
    open_named("account_fanscore_table").put({"PK": member_pk(fan.member), "SK": "SCORE", "score": 5, "mark": mark})
    open_named("demand_table").put({"PK": fan_pk(fan.user), "SK": demand_sk("e", "s"), "email": mark})
    outbox = open_named("outbox")
    detail = json.dumps({"globalUserId": fan.user, "mark": mark})
    outbox.put({"PK": "OUTBOX#0", "SK": f"1#{mark}", "type": "event", "user": fan.user, "detail": detail})
    outbox.put({"PK": "OUTBOX-REFUSED", "SK": f"1#{mark}", "user": "", "detail": detail, "reason": "refused"})


def plant_imports(fans, table):
    """Versions whose lists and examples hold all fans."""
    for kind in ImportKind:
        versions = ImportVersions(table, kind)
        for number, version in enumerate(VERSIONS):
            examples = tuple(ArmChange(fan.user, 2, 5, 80.0, 20.0, None, 0.5) for fan in fans)
            comparison = Comparison(fans=len(fans), examples=examples)
            versions.save(
                VersionRecord(version, kind, State.ACTIVE, ("f.csv",), "0" * 64, number, comparison=comparison)
            )
            for bucket in {bucket_of(fan.user) for fan in fans}:
                own = [fan.user for fan in fans if bucket_of(fan.user) == bucket] + [f"somebody of {bucket}"]
                rows = pa.table({"user": own, "value": [0.5] * len(own), "updatedAt": [1] * len(own)})
                versions.put_bucket(version, Part.FANS, bucket, rows)
                versions.put_bucket(version, Part.CHANGES, bucket, rows.select(["user"]))


def plant_cache(fan, cache):
    value = {"global_user_id": fan.user, "arm_risk": 3, "reasons": [fan.mark]}
    cache.put_if_newer([(arm_cache_key(fan.user), "1", value)])


def payloads(fan):
    """Records that became dead letters, in every writing."""
    activity = {"activityId": fan.mark, "globalUserId": fan.user, "activityType": "login"}
    row = io.StringIO(newline="")
    csv.writer(row).writerow([fan.mark, fan.user, "login"])
    return [
        json.dumps(activity).encode(),
        json.dumps({"Message": json.dumps({"detail": activity})}).encode(),
        json.dumps(activity).encode()[:-4],
        row.getvalue().encode(),
        b'{"big": "' + b"x" * 400_000 + b'", "activity": ' + json.dumps(activity).encode() + b"}",
    ]


def letter(payload, number=0):
    name = dead_letter_id("w", "s", f"row {number}", payload)
    return DeadLetter(name, "scoreUsers", "malformed", "e", "", 1, "r", None, "s", f"row {number}", payload)


def plant_letters(fans, archive):
    archive.write([letter(payload, number) for fan in fans for number, payload in enumerate(payloads(fan))])
    archive.write([letter(rescore_of_all(fans))])


def rescore_of_all(fans):
    return json.dumps({"rescoreId": "r-1", "users": [fan.user for fan in fans]}).encode()


def plant_store(fans, store):
    """What is in an SQLite file besides tables: queues and the activity log."""
    for fan in fans:
        body = payloads(fan)[0]
        entry = QueueEntry(fifo_group_id(fan.user), f"d {fan.user}", body, lambda: b"p")
        SqliteQueue(store, "accountActivityQueue").send([entry, QueueEntry("other", f"e {fan.user}", body)])
        SqliteQueue(store, "identityEventQueue").send([QueueEntry("", f"f {fan.user}", payloads(fan)[1])])
        facts = [ActivityFacts(1_718_355_600_123 + n, f"{fan.mark}-{n}", 1, 2, 3, 4, 0) for n in range(3)]
        SqliteActivityLog(store).observe([(fan.user, fact) for fact in facts])
    SqliteQueue(store, "rescoreQueue").send([QueueEntry("r", "r", rescore_of_all(fans))])
    SqliteQueue(store, "accountActivityQueue").receive(1)  # one group is in flight


def plant_reports(fans, folder):
    """Reports that name a fan each, and one that names nobody."""
    folder.mkdir()
    for number, fan in enumerate(fans):
        (folder / f"{number}.json").write_text(json.dumps({"riskiest": [{"globalUserId": fan.user, "x": fan.mark}]}))
        parquet.write_table(
            pa.table({"globalUserId": ["nobody", fan.user], "size": [1, 2]}), folder / f"{number}.parquet"
        )
        (folder / f"{number}.jsonl").write_text(json.dumps({"user": "nobody"}) + "\n" + json.dumps({"user": fan.user}))
    (folder / "none.html").write_text("<p>nobody is named")
