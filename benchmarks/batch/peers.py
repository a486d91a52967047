"""Imports as one would write them by hand in an afternoon: no version, no comparison, no way back."""

import json
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

# boto3 and redis-py leave much without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import redis
from boto3.session import Session
from botocore.config import Config

from ..streams.systems import DYNAMODB, REDIS_DB, REDIS_PORT
from .rows import read_scores

_VERSION: Final = "BON#hand"
_COMMIT_ROWS: Final = 5_000
_PIPELINE: Final = 500


def dynamodb(path: Path, table: str, threads: int) -> int:
    """Puts a file's rows with boto3's ``batch_writer``, in so many threads; returns their number."""
    rows = read_scores(path)

    def write(part: Sequence[tuple[str, float, int]]) -> None:
        session: Any = Session()  # resources are not for several threads
        resource = session.resource("dynamodb", endpoint_url=DYNAMODB, config=Config(retries={"mode": "standard"}))
        with resource.Table(table).batch_writer() as batch:
            for user, score, updated_at in part:
                batch.put_item(
                    Item={
                        "PK": f"USER#{user}",
                        "SK": _VERSION,
                        "type": "botOrNot",
                        "bonScore": Decimal(str(score)),
                        "updatedAt": str(updated_at),
                    }
                )

    step = -(-len(rows) // threads)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, [rows[start : start + step] for start in range(0, len(rows), step)]))
    return len(rows)


def sqlite(path: Path, store: Path) -> int:
    """Inserts a file's rows with ``executemany``, 5,000 a transaction; returns their number."""
    rows = read_scores(path)
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(
        "CREATE TABLE items (table_name TEXT, pk TEXT, sk TEXT, version TEXT, body BLOB, UNIQUE (table_name, pk, sk))"
    )
    for start in range(0, len(rows), _COMMIT_ROWS):
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT OR REPLACE INTO items (table_name, pk, sk, body) VALUES ('fanIdentityTable', ?, ?, ?)",
            [
                (
                    f"USER#{user}",
                    _VERSION,
                    json.dumps({"type": "botOrNot", "bonScore": score, "updatedAt": updated_at}).encode(),
                )
                for user, score, updated_at in rows[start : start + _COMMIT_ROWS]
            ],
        )
        connection.execute("COMMIT")
    connection.close()
    return len(rows)


def redis_cache(entries: Sequence[tuple[str, bytes]]) -> int:
    """Sets cache entries, 500 a pipeline, whatever stood there before; returns their number."""
    client = redis.Redis(port=REDIS_PORT, db=REDIS_DB)
    for start in range(0, len(entries), _PIPELINE):
        pipeline: Any = client.pipeline(transaction=False)
        for key, value in entries[start : start + _PIPELINE]:
            pipeline.set(key, value)
        pipeline.execute()
    return len(entries)
