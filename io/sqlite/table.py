"""A table with partition and sort key, and the ARM cache, in SQLite. Newer wins in one statement."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ...domain.keys import LATEST_SK
from ...domain.records import Failure
from ..ports import Item
from ..telemetry.doors import database_call
from ..telemetry.tracing import Attributes, database
from .store import SqliteStore

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_PAGE: Final = 1_000
_ITEMS_OF_PARTITION: Final = "FROM items WHERE table_name = ? AND pk = ?"
_KEYS_A_STATEMENT: Final = 1_000  # two parameters each; SQLite allows 32,766


class SqliteTable:
    """A named table in a store; items are JSON objects with ``PK`` and ``SK``.

    Every method raises BackendUnavailableError where the store cannot be read or written.
    """

    def __init__(self, store: SqliteStore, name: str) -> None:
        self._store = store
        self._name = name

    def durable(self) -> "SqliteTable":
        """The same table on connections of its own whose commits survive a power cut too."""
        return SqliteTable(SqliteStore(self._store.path, durable=True), self._name)

    @property
    def place(self) -> Attributes:
        """As spans name it."""
        return database("sqlite", self._name)

    def put(self, item: Item) -> None:
        """Writes an item, replacing the one with the same keys."""
        self.batch_put([item])

    @database_call("INSERT")
    def batch_put(self, items: Sequence[Item]) -> list[Failure | None]:
        """Writes items in one transaction, replacing those with the same keys. None is too large for SQLite."""
        with self._store.transaction() as connection:
            connection.executemany(
                "INSERT INTO items (table_name, pk, sk, body) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET version = NULL, body = excluded.body",
                [(self._name, item["PK"], item["SK"], _encode(item)) for item in items],
            )
        return [None] * len(items)

    @database_call("UPSERT")
    def put_if_newer(self, items: Sequence[tuple[str, Item]]) -> list[bool | Failure]:
        """Writes each (version, item) unless the stored item has that version or a greater one, in one transaction.

        Returns:
            For each item whether it was written.
        """
        written: list[bool | Failure] = []
        with self._store.transaction() as connection:
            for version, item in items:
                cursor = connection.execute(
                    "INSERT INTO items (table_name, pk, sk, version, body) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET version = excluded.version, body = excluded.body "
                    "WHERE version IS NULL OR excluded.version > version",
                    (self._name, item["PK"], item["SK"], version, _encode(item)),
                )
                written.append(cursor.rowcount > 0)
        return written

    @database_call("SELECT")
    def get(self, pk: str, sk: str) -> Item | None:
        """The item with these keys, or None."""
        with self._store.translated_errors():
            row = self._store.connection.execute(
                f"SELECT body {_ITEMS_OF_PARTITION} AND sk = ?", (self._name, pk, sk)
            ).fetchone()
        return None if row is None else _decode(row[0])

    @database_call("SELECT")
    def batch_get(self, keys: Sequence[tuple[str, str]]) -> list[Item | None]:
        """The items of (PK, SK), in their order; None for each that is not there. A thousand keys a statement."""
        found: list[Item | None] = []
        for start in range(0, len(keys), _KEYS_A_STATEMENT):
            part = keys[start : start + _KEYS_A_STATEMENT]
            # CROSS JOIN keeps SQLite from reading all items and looking each up among the keys.
            statement = (
                f"WITH wanted (pk, sk) AS (VALUES {', '.join(['(?, ?)'] * len(part))}) "
                "SELECT items.pk, items.sk, body FROM wanted CROSS JOIN items "
                "ON table_name = ? AND items.pk = wanted.pk AND items.sk = wanted.sk"
            )
            parameters = [text for key in part for text in key]
            with self._store.translated_errors():
                rows = self._store.connection.execute(statement, [*parameters, self._name]).fetchall()
            bodies = {(pk, sk): body for pk, sk, body in rows}
            found += [_decode(bodies[key]) if key in bodies else None for key in part]
        return found

    def batch_delete(self, keys: Sequence[tuple[str, str]]) -> None:
        """Deletes the items of (PK, SK) in one transaction; one that is not there is no error."""
        with self._store.transaction() as connection:
            connection.executemany(
                "DELETE FROM items WHERE table_name = ? AND pk = ? AND sk = ?",
                [(self._name, pk, sk) for pk, sk in keys],
            )

    @database_call("SELECT")
    def query(
        self, pk: str, sk_prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Item]:
        """A partition's items whose sort key begins with ``sk_prefix``, in sort key order or the reverse."""
        direction = "DESC" if newest_first else "ASC"
        with self._store.translated_errors():
            rows = self._store.connection.execute(
                f"SELECT body {_ITEMS_OF_PARTITION} AND substr(sk, 1, ?) = ? ORDER BY sk {direction} LIMIT ?",
                (self._name, pk, len(sk_prefix), sk_prefix, -1 if limit is None else limit),
            ).fetchall()
        return [_decode(row[0]) for row in rows]

    def query_many(self, pks: Sequence[str], sk_prefix: str = "") -> list[list[Item]]:
        """For each partition its items whose sort key begins with ``sk_prefix``, in sort key order."""
        return [self.query(pk, sk_prefix) for pk in pks]

    def latest_items(self) -> Iterator[Item]:
        """Every user's ``LATEST`` item, read a page of users at a time so that no other writer waits."""
        after = ""
        while True:
            with self._store.translated_errors():
                rows = self._store.connection.execute(
                    "SELECT pk, body FROM items WHERE table_name = ? AND pk > ? AND sk = ? ORDER BY pk LIMIT ?",
                    (self._name, after, LATEST_SK, _PAGE),
                ).fetchall()
            yield from (_decode(body) for _, body in rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def scan(self, sk_prefix: str = "") -> Iterator[Item]:
        """Every item whose sort key begins with ``sk_prefix``, in the order of (PK, SK)."""
        with self._store.translated_errors():
            for (body,) in self._store.connection.execute(
                "SELECT body FROM items WHERE table_name = ? AND substr(sk, 1, ?) = ? ORDER BY pk, sk",
                (self._name, len(sk_prefix), sk_prefix),
            ):
                yield _decode(body)


class SqliteArmCache:
    """The ARM cache in a store: one JSON value per key.

    Every method raises BackendUnavailableError where the store cannot be read or written.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    @property
    def place(self) -> Attributes:
        """As spans name it."""
        return database("sqlite", "arm_cache")

    @database_call("UPSERT")
    def put_if_newer(self, entries: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Writes each (key, version, value) unless the key has that version or a greater one, in one transaction."""
        with self._store.transaction() as connection:
            connection.executemany(
                "INSERT INTO arm_cache VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
                "SET version = excluded.version, value = excluded.value WHERE excluded.version > version",
                [(key, version, _encode(value)) for key, version, value in entries],
            )

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The value of a key, or None where there is none."""
        with self._store.translated_errors():
            row = self._store.connection.execute("SELECT value FROM arm_cache WHERE key = ?", (key,)).fetchone()
        return None if row is None else _decode(row[0])

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes the values of keys in one transaction; one that is not there is no error."""
        with self._store.transaction() as connection:
            connection.executemany("DELETE FROM arm_cache WHERE key = ?", [(key,) for key in keys])

    def scan(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Every (key, value), in key order."""
        with self._store.translated_errors():
            for key, value in self._store.connection.execute("SELECT key, value FROM arm_cache ORDER BY key"):
                yield key, _decode(value)
