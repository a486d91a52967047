"""Rows merged with the active version: rules that do not depend on order, checked against plain dictionaries."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.import_clusters import ClusterSizes, cluster_pairs
from fan_identity.domain.import_merge import (
    differs,
    fans_schema,
    merge,
    rows_schema,
    split_by_bucket,
)
from fan_identity.domain.imports import ImportKind, bucket_of

USERS = st.sampled_from(["a", "b", "c", "d#e", "Ω", "a b", "x" * 2_000])
TIMES = st.integers(min_value=1_000, max_value=1_005)
VALUES: dict[ImportKind, st.SearchStrategy[Any]] = {
    ImportKind.BOT_OR_NOT: st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    ImportKind.CLUSTER: st.sampled_from(["c1", "c2", "c10"]),
}


def rows_of(kind: ImportKind, rows: list[tuple[str, Any, int]]) -> Any:
    found = [{"user": user, "value": value, "updatedAt": at} for user, value, at in rows]
    return pa.Table.from_pylist(found, schema=rows_schema(kind))


def fans_of(kind: ImportKind, fans: dict[str, tuple[Any, int]]) -> Any:
    size = {"size": 1} if kind is ImportKind.CLUSTER else {}
    rows = [
        {"user": user, "value": value, "updatedAt": at, "known": True, **size} for user, (value, at) in fans.items()
    ]
    return pa.Table.from_pylist(rows, schema=fans_schema(kind))


def expected(kind: ImportKind, rows: list[tuple[str, Any, int]], active: dict[str, tuple[Any, int]]) -> dict[str, Any]:
    best: dict[str, tuple[Any, int]] = {}
    for user, value, at in rows:
        old = best.get(user)
        better_tie = old is not None and at == old[1] and (value > old[0]) == (kind is ImportKind.BOT_OR_NOT)
        if old is None or at > old[1] or (better_tie and value != old[0]):
            best[user] = (value, at)
    for user in best:
        if user in active and best[user][1] < active[user][1]:
            best[user] = active[user]
    return {
        user: (*best.get(user, (None, None)), active.get(user, (None, None))[0]) for user in sorted({*best, *active})
    }


@pytest.mark.parametrize("kind", ImportKind)
@settings(deadline=None)  # Arrow loads its join when it is first used
@given(data=st.data())
def test_merging_is_what_dictionaries_say_in_any_order(kind: ImportKind, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(USERS, VALUES[kind], TIMES), max_size=20))
    active = data.draw(st.dictionaries(USERS, st.tuples(VALUES[kind], TIMES), max_size=6))
    shuffled = data.draw(st.permutations(rows))
    merged = merge(kind, rows_of(kind, rows), fans_of(kind, active) if active else None)
    again = merge(kind, rows_of(kind, shuffled), fans_of(kind, active) if active else None)
    assert merged.fans.equals(again.fans)
    found = {row["user"]: (row["value"], row["updatedAt"], row["valueBefore"]) for row in merged.fans.to_pylist()}
    assert found == expected(kind, rows, active)
    assert merged.repeated == len(rows) - len({user for user, _, _ in rows})


@given(st.lists(USERS, max_size=30))
def test_every_row_is_in_its_bucket_once(users: list[str]) -> None:
    table = pa.table({"user": users or pa.array([], type=pa.string()), "n": list(range(len(users)))})
    parts = dict(split_by_bucket(table))
    assert sorted(n for part in parts.values() for n in part["n"].to_pylist()) == list(range(len(users)))
    for bucket, part in parts.items():
        assert {bucket_of(user) for user in part["user"].to_pylist()} == {bucket}
        assert part["n"].to_pylist() == sorted(part["n"].to_pylist())  # the order within stays


def test_a_removed_an_added_and_a_changed_fan_differ_and_an_unchanged_one_does_not() -> None:
    kind = ImportKind.BOT_OR_NOT
    active = {"gone": (0.5, 1), "same": (0.5, 1), "changed": (0.5, 1)}
    rows = [("same", 0.5, 2), ("changed", 0.6, 2), ("new", 0.5, 2)]
    fans = merge(kind, rows_of(kind, rows), fans_of(kind, active)).fans
    assert dict(zip(fans["user"].to_pylist(), differs(fans).to_pylist(), strict=True)) == {
        "gone": True,
        "same": False,
        "changed": True,
        "new": True,
    }


def test_a_cluster_that_grew_differs_for_all_its_fans() -> None:
    kind = ImportKind.CLUSTER
    fans = merge(kind, rows_of(kind, [("a", "c1", 2), ("b", "c1", 2)]), fans_of(kind, {"a": ("c1", 1)})).fans
    pairs = cluster_pairs(fans).sort_by([("valueBefore", "ascending")])
    assert pairs.to_pylist() == [
        {"value": "c1", "valueBefore": "c1", "fans": 1},
        {"value": "c1", "valueBefore": None, "fans": 1},
    ]
    sizes = ClusterSizes([ClusterSizes.pack(["c1", "c2"], [2, 7])])
    fans = fans.append_column("size", sizes.of(fans["value"]))
    assert fans["size"].to_pylist() == [2, 2]
    assert differs(fans).to_pylist() == [True, True]


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 2**31), min_size=1, max_size=50))
def test_sizes_come_back_for_every_cluster_and_null_for_null(sizes: dict[str, int]) -> None:
    names = list(sizes)
    half = len(names) // 2
    parts = (names[:half], names[half:])
    index = ClusterSizes([ClusterSizes.pack(part, [sizes[name] for name in part]) for part in parts])
    asked = [*reversed(names), None, names[0]]
    found = index.of(pa.chunked_array([pa.array(asked, type=pa.string())])).to_pylist()
    assert found == [*(sizes[name] for name in reversed(names)), None, sizes[names[0]]]
