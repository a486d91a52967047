"""The rules of an import's rows, over whole columns: only rows that break one become Python objects.

Whatever a file's columns are (text, numbers, dictionaries, decimals, times of any unit), what comes out is a user as
text, a value of the kind's type and a time in epoch milliseconds.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ..domain.activity import MalformedRecordError, parse_time_ms
from ..domain.imports import ImportKind
from ..domain.scorable import EARLIEST_MS, FUTURE_TOLERANCE_MS
from .import_cells import MALFORMED, Breach, Fault, is_bytes, is_text, no_nulls, spread, text_of
from .import_ranges import (
    MAX_CLUSTER_CHARACTERS,
    MAX_TEXT_BYTES,
    MAX_USER_BYTES,
    UPDATED_COLUMN,
    USER_COLUMN,
    ImportRange,
)

SCHEMAS: Final[Mapping[ImportKind, Any]] = {
    kind: pa.schema(
        [
            pa.field("user", pa.string(), nullable=False),
            pa.field("value", value, nullable=False),
            pa.field("updatedAt", pa.int64(), nullable=False),
        ]
    )
    for kind, value in ((ImportKind.BOT_OR_NOT, pa.float64()), (ImportKind.CLUSTER, pa.string()))
}
"""Of the tables that come out."""

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,6})?$|^(?i:[+-]?(nan|inf|infinity))$"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_types: Any = pa.types
_LONG_USER = Fault("user_too_long", f"{USER_COLUMN} is longer than {MAX_USER_BYTES:,} bytes")
_LONG_CLUSTER = Fault(
    "cluster_too_long", f"{ImportKind.CLUSTER.value_column} is longer than {MAX_CLUSTER_CHARACTERS} characters"
)
_NO_NUMBER = Fault(MALFORMED, f"{ImportKind.BOT_OR_NOT.value_column} is not a number")
_NO_TIME = Fault(MALFORMED, f"{UPDATED_COLUMN} is neither ISO 8601 nor epoch milliseconds")


class Checked(NamedTuple):
    """Rows after the rules.

    Attributes:
        table: the good rows, in order, of the kind's schema.
        bad: of the others, by their index, why.
    """

    table: Any
    bad: dict[int, Fault]


class _Cells(NamedTuple):
    """A column of the type wanted, null where a cell is absent or bad, and the rules broken so far."""

    values: Any
    breaches: list[Breach]


def check_rows(user: Any, value: Any, updated: Any, part: ImportRange, broken: Mapping[int, str]) -> Checked:
    """Applies the rules to some rows.

    Args:
        user: an Arrow array of ids: text, whole numbers, also as floats, decimals, dictionaries of them.
        value: an Arrow array of the values, of as many types.
        updated: an Arrow array of times (timestamps, dates, epoch milliseconds, text) or None where there is no such
            column. Null and blank cells are the file's modification time.
        part: tells kind and times.
        broken: errors of rows that are bad whatever their cells, by index.
    """
    count = len(user)
    breaches = [Breach(_mask(broken, count), Fault(MALFORMED, ""))] if broken else []
    scores = part.kind is ImportKind.BOT_OR_NOT
    user, long_users = spread(user, MAX_USER_BYTES, _LONG_USER)
    value, long_values = spread(value, MAX_TEXT_BYTES, _NO_NUMBER if scores else _LONG_CLUSTER)
    updated, long_times = (None, []) if updated is None else spread(updated, MAX_TEXT_BYTES, _NO_TIME)
    users = _checked_users(user)
    values = _checked_scores(value) if scores else _checked_clusters(value)
    times = _checked_times(updated, count, part)
    breaches += long_users + long_values + long_times
    breaches += users.breaches + values.breaches + times.breaches
    bad: dict[int, Fault] = {}
    for breach in breaches:
        for row in pc.indices_nonzero(breach.rows).to_pylist():
            bad.setdefault(row, breach.fault)
    for row, error in broken.items():
        bad[row] = Fault(MALFORMED, error)
    columns = [users.values, values.values, times.values]
    table = pa.Table.from_arrays(
        [column.filter(_good(bad, count)) for column in columns] if bad else columns, schema=SCHEMAS[part.kind]
    )
    return Checked(table, bad)


def _checked_users(column: Any) -> _Cells:
    text, breaches = text_of(column, USER_COLUMN)
    breaches.append(Breach(_blank(text), Fault("blank_user", f"{USER_COLUMN} is missing or blank")))
    return _Cells(text, [*breaches, Breach(no_nulls(pc.greater(pc.binary_length(text), MAX_USER_BYTES)), _LONG_USER)])


def _checked_clusters(column: Any) -> _Cells:
    name = ImportKind.CLUSTER.value_column
    text, breaches = text_of(column, name)
    breaches.append(Breach(_blank(text), Fault("missing_value", f"{name} is missing or blank")))
    long = no_nulls(pc.greater(pc.utf8_length(text), MAX_CLUSTER_CHARACTERS))
    return _Cells(text, [*breaches, Breach(long, _LONG_CLUSTER)])


def _checked_scores(column: Any) -> _Cells:
    name = ImportKind.BOT_OR_NOT.value_column
    breaches: list[Breach] = []
    if is_text(column.type) or is_bytes(column.type):
        text, breaches = text_of(column, name)
        text = pc.utf8_trim_whitespace(text)
        number = pc.match_substring_regex(text, _NUMBER)
        other = no_nulls(pc.and_not(pc.not_equal(text, ""), number))
        breaches.append(Breach(other, _NO_NUMBER))
        column = pc.if_else(number, text, pa.scalar(None, pa.string()))
    # Minus zero becomes zero: which of the two a fan gets must not depend on the order of rows.
    values = pc.add(column.cast(pa.float64(), safe=False), 0.0)
    told = pc.invert(_any_of(breaches, len(values)))
    breaches += [
        Breach(pc.and_(told, values.is_null()), Fault("missing_value", f"{name} is missing")),
        Breach(no_nulls(pc.is_nan(values)), Fault("not_a_number", f"{name} is NaN")),
        Breach(
            no_nulls(pc.or_(pc.less(values, 0.0), pc.greater(values, 1.0))),
            Fault("out_of_range", f"{name} is not from 0 to 1"),
        ),
    ]
    return _Cells(values, breaches)


def _checked_times(column: Any, count: int, part: ImportRange) -> _Cells:
    fallback = min(part.modified_at_ms, part.planned_at_ms)  # a clock that was ahead makes no row newer than now
    values, breaches = pa.nulls(count, pa.int64()), list[Breach]()
    if column is not None:
        values, breaches = _told_times(column, part.planned_at_ms + FUTURE_TOLERANCE_MS)
    missing = pc.and_(values.is_null(), pc.invert(_any_of(breaches, count)))
    if fallback < EARLIEST_MS:
        breaches.append(Breach(missing, Fault("too_old", "the file's modification time is before 2000")))
    return _Cells(pc.coalesce(values, pa.scalar(fallback, pa.int64())), breaches)


def _told_times(column: Any, latest_ms: int) -> tuple[Any, list[Breach]]:
    kind = column.type
    breaches: list[Breach] = []
    per_second = 1_000
    if _types.is_timestamp(kind):
        column, per_second = column.cast(pa.int64()), _PER_SECOND[kind.unit]
    elif _types.is_date(kind):
        column = column.cast(pa.timestamp("ms")).cast(pa.int64())
    elif is_text(kind) or is_bytes(kind):
        column, breaches = _parsed(column)
    elif _types.is_null(kind) or _types.is_integer(kind):
        if _types.is_uint64(kind):
            column = pc.min_element_wise(column, pa.scalar(2**63 - 1, kind), skip_nulls=False)
        column = column.cast(pa.int64())
    elif _types.is_floating(kind):
        column = pc.floor(column.cast(pa.float64()))
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    old = no_nulls(pc.less(column, EARLIEST_MS * per_second // 1_000))
    new = no_nulls(pc.greater(column, ((latest_ms + 1) * per_second - 1) // 1_000))
    breaches += [
        Breach(old, Fault("too_old", f"{UPDATED_COLUMN} is before 2000")),
        Breach(new, Fault("in_future", f"{UPDATED_COLUMN} is more than 5 minutes in the future")),
    ]
    # What is out of bounds goes before the arithmetic, which it would overflow.
    values = pc.if_else(pc.or_(old, new), pa.scalar(None, column.type), column).cast(pa.int64())
    if per_second > 1_000:  # noqa: PLR2004 - finer than milliseconds
        values = pc.divide(values, per_second // 1_000)
    elif per_second == 1:
        values = pc.multiply(values, 1_000)
    return values, breaches


def _parsed(column: Any) -> tuple[Any, list[Breach]]:
    text, breaches = text_of(column, UPDATED_COLUMN)
    distinct = text.dictionary_encode()
    times: list[int | None] = []
    wrong: list[bool] = []
    for value in distinct.dictionary.to_pylist():
        try:
            times.append(parse_time_ms(value) if value.strip() else None)
        except MalformedRecordError:
            times.append(None)
            wrong.append(True)
        else:
            wrong.append(False)
    malformed = pa.array(wrong, pa.bool_()).take(distinct.indices)
    return pa.array(times, pa.int64()).take(distinct.indices), [*breaches, Breach(no_nulls(malformed), _NO_TIME)]


def _blank(text: Any) -> Any:
    return pc.equal(pc.utf8_trim_whitespace(text), "").fill_null(True)


def _any_of(breaches: list[Breach], count: int) -> Any:
    mask = pa.repeat(pa.scalar(False), count)
    for breach in breaches:
        mask = pc.or_(mask, breach.rows)
    return mask


def _mask(rows: Mapping[int, object], count: int) -> Any:
    return pa.array([row in rows for row in range(count)], pa.bool_())


def _good(bad: Mapping[int, Fault], count: int) -> Any:
    return pa.array([row not in bad for row in range(count)], pa.bool_())
