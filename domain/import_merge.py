"""Rows of import files merged with the active version, as Arrow tables, a bucket of fans at a time.

Rules, none of which depends on the order of rows or files: of two rows of a fan the newer ``updatedAt`` wins; at the
same time the higher bot-or-not score, or the cluster id that sorts first. A row older than what is stored never wins:
the stored value goes over into the new version.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results. Its kernels are made
# when it is loaded, so no tool sees their names.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .imports import BUCKETS, ImportKind, bucket_of


@dataclass(frozen=True)
class Merged:
    """A bucket of the new version beside the active one.

    Attributes:
        fans: a ``pyarrow.Table`` with columns ``user``, ``value`` and ``updatedAt`` (null where only the active version
            has the fan), ``valueBefore``, ``sizeBefore`` (clusters only) and ``knownBefore`` (null where only the new
            one has).
        repeated: rows that lost against another row of their fan.
        older: fans whose stored value stayed because the files' is older.
    """

    fans: Any
    repeated: int
    older: int


def rows_schema(kind: ImportKind) -> Any:
    """The ``pyarrow.Schema`` of rows: ``user``, ``value``, ``updatedAt`` (epoch milliseconds)."""
    return pa.schema([("user", pa.string()), ("value", _value_type(kind)), ("updatedAt", pa.int64())])


def fans_schema(kind: ImportKind) -> Any:
    """A version's fans as ``pyarrow.Schema``: a row's columns, ``size`` for clusters, ``known``: was ever scored."""
    size = [("size", pa.int64())] if kind is ImportKind.CLUSTER else []
    return pa.schema([*rows_schema(kind), *size, ("known", pa.bool_())])


def _value_type(kind: ImportKind) -> Any:
    return pa.float64() if kind is ImportKind.BOT_OR_NOT else pa.string()


def split_by_bucket(rows: Any, column: str = "user") -> Iterator[tuple[int, Any]]:
    """Parts a table by the bucket of a text column, without the rows where it is null; the order within stays.

    Yields:
        The bucket, 0 to 255, and its rows as a ``pyarrow.Table``.
    """
    rows = rows.filter(pc.is_valid(rows[column])) if rows[column].null_count else rows
    texts: list[str] = rows[column].to_pylist()
    numbers = np.fromiter((bucket_of(text) for text in texts), dtype=np.uint8, count=len(texts))
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=BUCKETS))
    ordered = rows.take(pa.array(order))
    start = 0
    for bucket, end in enumerate(ends.tolist()):
        if end > start:
            yield bucket, ordered.slice(start, end - start)
        start = end


def merge(kind: ImportKind, rows: Any, active: Any | None) -> Merged:
    """Resolves repeated rows, and sets a bucket's fans beside those of the active version.

    Args:
        kind: of the import.
        rows: of one bucket, ``rows_schema``.
        active: the active version's fans of that bucket, ``fans_schema``, or None.
    """
    best = _one_a_fan(kind, rows)
    before = fans_schema(kind).empty_table() if active is None else active
    names = {"value": "valueBefore", "updatedAt": "updatedBefore", "size": "sizeBefore", "known": "knownBefore"}
    before = before.rename_columns([names.get(name, name) for name in before.column_names])
    fans = best.join(before, keys="user", join_type="full outer", use_threads=False)
    stays = pc.fill_null(pc.less(fans["updatedAt"], fans["updatedBefore"]), False)
    for column, stored in (("value", "valueBefore"), ("updatedAt", "updatedBefore")):
        kept = pc.if_else(stays, fans[stored], fans[column])
        fans = fans.set_column(fans.schema.get_field_index(column), column, kept)
    fans = fans.drop_columns(["updatedBefore"]).sort_by("user")
    return Merged(fans, rows.num_rows - best.num_rows, int(pc.sum(stays).as_py() or 0))


def _one_a_fan(kind: ImportKind, rows: Any) -> Any:
    if pc.count_distinct(rows["user"]).as_py() == rows.num_rows:
        return rows
    order = "descending" if kind is ImportKind.BOT_OR_NOT else "ascending"
    ordered = rows.sort_by([("user", "ascending"), ("updatedAt", "descending"), ("value", order)]).combine_chunks()
    users = ordered["user"]
    first = pc.not_equal(users.slice(1), users.slice(0, len(users) - 1))
    return ordered.filter(pa.concat_arrays([pa.array([True]), *first.chunks]))


def differs(fans: Any) -> Any:
    """For each fan of a merged table whether the new version says something else than the active one.

    Args:
        fans: ``Merged.fans``, for clusters with a column ``size`` added.
    """
    changed = pc.not_equal(fans["value"], fans["valueBefore"])
    if "size" in fans.column_names:
        changed = pc.or_kleene(changed, pc.not_equal(fans["size"], fans["sizeBefore"]))
    # Null where one of the two has no value.
    return pc.fill_null(changed, True)


def in_both(fans: Any) -> Any:
    """For each fan of a merged table whether both versions have a value."""
    return pc.and_(pc.is_valid(fans["value"]), pc.is_valid(fans["valueBefore"]))


def having_value(fans: Any) -> Any:
    """The rows of a table whose ``value`` is not null."""
    return fans.filter(pc.is_valid(fans["value"]))
