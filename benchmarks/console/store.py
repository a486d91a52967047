"""A store with as many dead letters and scores as wanted, made by SQLite itself: a million rows in some seconds."""

import json
import logging
import sqlite3
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from ...domain.audit import Entry, Outcome
from ...domain.imports import Comparison, ImportKind, Pointer, State, VersionRecord, pointer_item
from ...io.audit import AuditLog
from ...io.import_records import VERSION_SK
from ...io.sqlite.store import SqliteStore
from ...io.sqlite.table import SqliteTable

SCORES_A_FAN: Final = 10
ACTIVITY: Final = "activity-00000077"
"""An activity of one letter."""

_PART: Final = 100_000
_AUDIT_LINES: Final = 500
_IMPORTS: Final = 20

_LETTERS: Final = """
WITH RECURSIVE n(i) AS (SELECT :start UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :end)
INSERT INTO dead_letters
SELECT lower(hex(randomblob(16))),
    CASE i % 7 WHEN 0 THEN 'scoreUsers' WHEN 1 THEN 'handleEvent' WHEN 2 THEN 'stagingScoreUsers'
        WHEN 3 THEN 'enqueueFromPurchaseStream' ELSE 'enqueueFromStream' END,
    CASE WHEN i % 100000 = 0 THEN 'unreadable' WHEN i % 3 = 0 THEN 'model_refused' WHEN i % 3 = 1 THEN 'malformed'
        ELSE 'reason_' || (i % 16) END,
    'the record cannot be read: field ' || (i % 50) || ' is not what it should be',
    'Traceback (most recent call last): ' || printf('%0300d', i), 1 + i % 4, 'run-' || (i / 500),
    printf('activity-%08d', i), 'kafka://broker:9092/activities', 'partition ' || (i % 12) || ', offset ' || i,
    CAST(printf('{"activityId":"activity-%08d","globalUserId":"fan-%08d","filler":"%0300d"}', i, i, i) AS BLOB),
    1790000000000 + i * 60, CASE WHEN i % 5 = 0 THEN 1790000000000 + i * 61 END, '1.0.0'
FROM n
"""
_SCORES: Final = """
WITH RECURSIVE n(i) AS (SELECT :start UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :end)
INSERT INTO items (table_name, pk, sk, body)
SELECT 'fanIdentityTable', pk, sk, CAST(
    '{"PK":"' || pk || '","SK":"' || sk || '","type":"score","globalUserId":"' || substr(pk, 6)
    || '","activityId":"a' || i || '","activityType":"pageView","occurredAt":"' || substr(sk, 7, 24)
    || '","accountScore":' || (i % 100) || ',"armRisk":' || (1 + i % 5) || ',"bonScore":0.1,"clusterId":null,'
    || '"modelVersion":"m1","reasons":[{"code":"many_accounts","value":3.0,"points":12.5},'
    || '{"code":"fast_clicks","value":7.0,"points":4.25}],"baseScore":20.0,"otherPoints":0.5,"requestId":"r",'
    || '"worker":"scoreUsers","dateUpdated":"2026-11-26T00:00:00.000Z"}' AS BLOB)
FROM (SELECT i, printf('USER#fan-%08d', i / 10) AS pk,
    printf('SCORE#2026-%02d-14T06:%02d:00.000Z#%016x', 1 + i % 10, i % 60, i) AS sk FROM n)
"""


def store_of(folder: Path, letters: int, scores: int) -> Path:
    """The store in a folder, made unless one of these sizes is there already.

    Args:
        folder: kept by whoever gives it.
        letters: dead letters.
        scores: ten of each fan.
    """
    path, marker = folder / "fans.db", folder / "made.json"
    wanted = {"letters": letters, "scores": scores}
    if marker.exists() and json.loads(marker.read_text()) == wanted:
        return path
    for file in folder.glob("fans.db*"):
        file.unlink()
    store = SqliteStore(path)
    connection = store.connection
    connection.execute("PRAGMA synchronous=OFF")
    _fill(connection, "dead letters", _LETTERS, letters)
    _fill(connection, "scores", _SCORES, scores)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _imports(SqliteTable(store, "fanIdentityTable"))
    store.close()
    _audit(AuditLog.of(f"sqlite:///{path}"))
    marker.write_text(json.dumps(wanted))
    return path


def _fill(connection: sqlite3.Connection, what: str, statement: str, number: int) -> None:
    began = time.monotonic()
    for start in range(0, number, _PART):
        connection.execute(statement, {"start": start, "end": min(start + _PART, number)})
        if sys.stderr.isatty():
            print(f"\r{what}: {min(start + _PART, number):,} of {number:,}", end="", file=sys.stderr, flush=True)
    print(f"{what}: {number:,} in {time.monotonic() - began:.0f} s" + " " * 30)


def _imports(table: SqliteTable) -> None:
    kind = ImportKind.CLUSTER
    arm = tuple(tuple(100 if before != after else 1_000 for after in range(5)) for before in range(5))
    versions = [f"202611{day:02d}T231500Z-1a2b3c4d" for day in range(1, _IMPORTS + 1)]
    for number, version in enumerate(versions):
        state = State.ACTIVE if version == versions[-1] else State.REPLACED
        comparison = Comparison(rows=100_000, fans=100_000, changed=2_000, unchanged=98_000, arm=arm)
        record = VersionRecord(version, kind, state, ("clusters.parquet",), "0" * 64, number, comparison=comparison)
        fields = msgspec.to_builtins(record)
        table.put({"PK": kind.pk, "SK": VERSION_SK + version, "type": "importVersion", **fields})
    table.put(pointer_item(kind, Pointer(versions[-1], 1, 1)))


def _audit(log: AuditLog) -> None:
    logging.getLogger("fan_identity.audit").setLevel(logging.ERROR)  # tells each new head
    for number in range(_AUDIT_LINES):
        outcome = Outcome.DONE if number % 2 else Outcome.BEGUN
        log.append(Entry(f"r{number // 2}", "service:bench", "flags.switch", "scoreUsers", outcome, {"to": "on"}))
