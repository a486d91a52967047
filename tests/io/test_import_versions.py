"""Versions in a table: one pointer that one of many moves, lists over several items, and records."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fan_identity.domain.import_merge import fans_schema
from fan_identity.domain.imports import ImportKind, Pointer, State, VersionRecord
from fan_identity.io.import_versions import ImportConflictError, ImportVersions, Part, pack, unpack
from fan_identity.io.ports import Item
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable

KIND = ImportKind.BOT_OR_NOT
LARGEST_ITEM = 400 * 1_024  # DynamoDB's


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "fans.db")


@pytest.fixture
def table(store: SqliteStore) -> SqliteTable:
    return SqliteTable(store, "fanIdentityTable")


@pytest.fixture
def versions(table: SqliteTable) -> ImportVersions:
    return ImportVersions(table, KIND)


def fans(number: int, seed: int = 1) -> Any:
    """A version's fans with ids that do not compress."""
    rng = random.Random(seed)
    rows = [
        {"user": rng.randbytes(24).hex(), "value": rng.random(), "updatedAt": rng.randrange(2**40), "known": True}
        for _ in range(number)
    ]
    return pa.Table.from_pylist(rows, schema=fans_schema(KIND))


def test_of_many_that_move_the_pointer_exactly_one_does(store: SqliteStore, versions: ImportVersions) -> None:
    for generation in range(12):
        seen = versions.pointer()
        assert seen.generation == generation
        start = threading.Barrier(6)

        def move(number: int, seen: Pointer = seen, start: threading.Barrier = start) -> str | None:
            mine = ImportVersions(SqliteTable(store, "fanIdentityTable"), KIND)
            start.wait()
            try:
                return mine.move(seen, f"v{number}", number).import_version
            except ImportConflictError as error:
                assert "imports list" in str(error)
                return None

        with ThreadPoolExecutor(6) as pool:
            moved = [version for version in pool.map(move, range(6)) if version is not None]
        assert moved == [versions.pointer().import_version]


def test_each_kind_has_a_pointer_of_its_own(table: SqliteTable, versions: ImportVersions) -> None:
    clusters = ImportVersions(table, ImportKind.CLUSTER)
    assert versions.pointer() == clusters.pointer() == Pointer()
    versions.move(Pointer(), "v", 5)
    assert clusters.pointer() == Pointer()
    assert versions.move(versions.pointer(), None, 6) == versions.pointer() == Pointer(None, 2, 6)
    with pytest.raises(ImportConflictError):
        versions.move(Pointer("v", 1, 5), "w", 7)


class Forgetful:
    """A table that writes, and then says it did not: DynamoDB, where the answer was lost and the write tried again."""

    def __init__(self, table: SqliteTable) -> None:
        self._table = table

    def put_if_newer(self, items: list[tuple[str, Item]]) -> list[bool]:
        self._table.put_if_newer(items)
        return [False for _ in items]

    def get(self, pk: str, sk: str) -> Item | None:
        return self._table.get(pk, sk)


def test_a_move_whose_answer_was_lost_was_made_all_the_same(table: SqliteTable, versions: ImportVersions) -> None:
    forgetful: Any = ImportVersions(Forgetful(table), KIND)  # type: ignore[arg-type]
    assert forgetful.move(Pointer(), "mine", 1).import_version == "mine"
    with pytest.raises(ImportConflictError):
        forgetful.move(Pointer(), "late", 2)
    assert versions.pointer() == Pointer("mine", 1, 1)


@pytest.mark.parametrize("number", [1, 100, 12_000])
def test_a_list_of_any_length_comes_back_and_fits_its_items(
    table: SqliteTable, versions: ImportVersions, number: int
) -> None:
    wanted = fans(number)
    versions.put_bucket("v", Part.FANS, 7, wanted)
    found = versions.bucket("v", Part.FANS, 7)
    assert found is not None
    assert found.to_pylist() == wanted.to_pylist()
    items = table.query(f"{KIND.pk}#v")
    assert (len(items) > 2) == (number > 10_000)
    assert all(sum(len(str(value)) for value in item.values()) < LARGEST_ITEM for item in items)
    assert versions.bucket("v", Part.CHANGES, 7) is None
    assert versions.bucket("v", Part.FANS, 70) is None


def test_an_empty_list_is_no_item(table: SqliteTable, versions: ImportVersions) -> None:
    versions.put_bucket("v", Part.CHANGES, 0, fans(0).select(["user"]))
    assert table.query(f"{KIND.pk}#v") == []
    assert versions.bucket("v", Part.CHANGES, 0) is None


def test_a_shorter_list_in_a_longer_ones_place_leaves_nothing_of_it(versions: ImportVersions) -> None:
    versions.put_bucket("v", Part.FANS, 7, fans(12_000))
    versions.put_bucket("v", Part.FANS, 8, fans(5))
    short = fans(3, seed=2)
    versions.replace_bucket("v", Part.FANS, 7, short)
    found, other = versions.bucket("v", Part.FANS, 7), versions.bucket("v", Part.FANS, 8)
    assert found is not None and other is not None
    assert (found.to_pylist(), other.num_rows) == (short.to_pylist(), 5)
    versions.replace_bucket("v", Part.FANS, 7, fans(0))
    assert versions.bucket("v", Part.FANS, 7) is None


def test_deleting_a_bucket_leaves_the_others_and_other_versions(table: SqliteTable, versions: ImportVersions) -> None:
    for version in ("v", "w"):
        for bucket in (0, 16, 255):
            for part in Part:
                versions.put_bucket(version, part, bucket, fans(4))
    versions.delete_bucket("v", 16)
    assert [item["SK"] for item in table.query(f"{KIND.pk}#v")] == [
        f"{part}#{bucket}#000" for part in ("CHANGES", "FANS") for bucket in ("00", "ff")
    ]
    assert len(table.query(f"{KIND.pk}#w")) == 6


def test_records_are_the_newest_first_and_gone_once_forgotten(versions: ImportVersions) -> None:
    records = [
        VersionRecord(f"2026010{number}T000000Z-aaaaaaaa", KIND, State.STAGED, ("f",), "d", number)
        for number in (1, 3, 2)
    ]
    for record in records:
        versions.save(record)
    versions.save(VersionRecord(records[0].version, KIND, State.ACTIVE, ("f",), "d", 1))
    assert [record.started_at for record in versions.records()] == [3, 2, 1]
    assert versions.records()[-1].state is State.ACTIVE
    assert versions.record("none") is None
    versions.move(Pointer(), records[1].version, 1)  # the pointer is no record
    versions.forget(records[1].version)
    assert [record.started_at for record in versions.records()] == [2, 1]


def test_whatever_a_user_is_called_a_list_keeps_it() -> None:
    odd = ["", "\0", "a\0b", "\ufeff", "x" * 10_240, "\N{PILE OF POO}", "e\u0301", "é"]
    assert unpack(pack(pa.table({"user": odd})))["user"].to_pylist() == odd
