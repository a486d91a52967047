"""The rules of an import's rows, over whole columns: only rows that break one become Python objects.

Whatever a file's columns are (text, numbers, dictionaries, decimals, times of any unit), what comes out is a user as
text, a value of the kind's type and a time in epoch milliseconds.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ..domain.activity import MalformedRecordError, parse_time_ms
from ..domain.imports import ImportKind
from ..domain.scorable import EARLIEST_MS, FUTURE_TOLERANCE_MS
from .arrow_cells import UNREADABLE, values_of
from .import_ranges import MAX_CLUSTER_CHARACTERS, MAX_USER_BYTES, UPDATED_COLUMN, USER_COLUMN, ImportRange

MALFORMED: Final = "malformed"
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

_MAX_EXACT_FLOAT = 2.0**53
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,6})?$|^(?i:[+-]?(nan|inf|infinity))$"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_types: Any = pa.types


class Fault(NamedTuple):
    """Why a row is bad.

    Attributes:
        reason: a short code.
        error: one line without personal data.
    """

    reason: str
    error: str


class Checked(NamedTuple):
    """Rows after the rules.

    Attributes:
        table: the good rows, in order, of the kind's schema.
        bad: of the others, by their index, why.
    """

    table: Any
    bad: dict[int, Fault]


class _Breach(NamedTuple):
    """Which rows break a rule."""

    rows: Any
    fault: Fault


class _Cells(NamedTuple):
    """A column of the type wanted, null where a cell is absent or bad, and the rules broken so far."""

    values: Any
    breaches: list[_Breach]


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
    breaches = [_Breach(_mask(broken, count), Fault(MALFORMED, ""))] if broken else []
    users = _checked_users(user)
    values = _checked_scores(value) if part.kind is ImportKind.BOT_OR_NOT else _checked_clusters(value)
    times = _checked_times(updated, count, part)
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


def type_fault(column: str, kind: Any) -> str | None:
    """Why a column of a file with types cannot be read as what it is called; None where it can.

    Args:
        column: ``globalUserId``, ``bonScore``, ``clusterId`` or ``updatedAt``.
        kind: its Arrow type.
    """
    if _types.is_dictionary(kind):
        kind = kind.value_type
    text = _is_text(kind) or _is_bytes(kind)
    number = _types.is_integer(kind) or _types.is_floating(kind) or _types.is_decimal(kind)
    if _types.is_null(kind) or text or (number and not (column == UPDATED_COLUMN and _types.is_decimal(kind))):
        return None
    if column == UPDATED_COLUMN:
        return None if _types.is_timestamp(kind) or _types.is_date(kind) else "a time is needed"
    return "a number from 0 to 1 is needed" if column == ImportKind.BOT_OR_NOT.value_column else "text is needed"


def _is_text(kind: Any) -> bool:
    return _types.is_string(kind) or _types.is_large_string(kind) or _types.is_string_view(kind)


def _is_bytes(kind: Any) -> bool:
    return (
        _types.is_binary(kind)
        or _types.is_large_binary(kind)
        or _types.is_binary_view(kind)
        or _types.is_fixed_size_binary(kind)
    )


def _checked_users(column: Any) -> _Cells:
    text, breaches = _text(column, USER_COLUMN)
    breaches.append(_Breach(_blank(text), Fault("blank_user", f"{USER_COLUMN} is missing or blank")))
    return _Cells(text, [*breaches, *_too_long(text, pc.binary_length, MAX_USER_BYTES, USER_COLUMN, "user", "bytes")])


def _checked_clusters(column: Any) -> _Cells:
    name = ImportKind.CLUSTER.value_column
    text, breaches = _text(column, name)
    breaches.append(_Breach(_blank(text), Fault("missing_value", f"{name} is missing or blank")))
    long = _too_long(text, pc.utf8_length, MAX_CLUSTER_CHARACTERS, name, "cluster", "characters")
    return _Cells(text, [*breaches, *long])


def _too_long(text: Any, measure: Any, most: int, name: str, code: str, unit: str) -> Iterator[_Breach]:
    over = pc.greater(measure(text), most)
    if pc.any(over).as_py():
        yield _Breach(_no_nulls(over), Fault(f"{code}_too_long", f"{name} is longer than {most:,} {unit}"))


def _checked_scores(column: Any) -> _Cells:
    name = ImportKind.BOT_OR_NOT.value_column
    column = _plain(column)
    breaches: list[_Breach] = []
    if _is_text(column.type) or _is_bytes(column.type):
        text, breaches = _text(column, name)
        text = pc.utf8_trim_whitespace(text)
        number = pc.match_substring_regex(text, _NUMBER)
        other = _no_nulls(pc.and_not(pc.not_equal(text, ""), number))
        breaches.append(_Breach(other, Fault(MALFORMED, f"{name} is not a number")))
        column = pc.if_else(number, text, pa.scalar(None, pa.string()))
    values = column.cast(pa.float64(), safe=False)
    told = pc.invert(_any_of(breaches, len(values)))
    breaches += [
        _Breach(pc.and_(told, values.is_null()), Fault("missing_value", f"{name} is missing")),
        _Breach(_no_nulls(pc.is_nan(values)), Fault("not_a_number", f"{name} is NaN")),
        _Breach(
            _no_nulls(pc.or_(pc.less(values, 0.0), pc.greater(values, 1.0))),
            Fault("out_of_range", f"{name} is not from 0 to 1"),
        ),
    ]
    return _Cells(values, breaches)


def _checked_times(column: Any, count: int, part: ImportRange) -> _Cells:
    fallback = min(part.modified_at_ms, part.planned_at_ms)  # a clock that was ahead makes no row newer than now
    values, breaches = pa.nulls(count, pa.int64()), list[_Breach]()
    if column is not None:
        values, breaches = _told_times(_plain(column), part.planned_at_ms + FUTURE_TOLERANCE_MS)
    missing = pc.and_(values.is_null(), pc.invert(_any_of(breaches, count)))
    if fallback < EARLIEST_MS:
        breaches.append(_Breach(missing, Fault("too_old", "the file's modification time is before 2000")))
    return _Cells(pc.coalesce(values, pa.scalar(fallback, pa.int64())), breaches)


def _told_times(column: Any, latest_ms: int) -> tuple[Any, list[_Breach]]:
    kind = column.type
    breaches: list[_Breach] = []
    per_second = 1_000
    if _types.is_timestamp(kind):
        column, per_second = column.cast(pa.int64()), _PER_SECOND[kind.unit]
    elif _types.is_date(kind):
        column = column.cast(pa.timestamp("ms")).cast(pa.int64())
    elif _is_text(kind) or _is_bytes(kind):
        column, breaches = _parsed(column)
    elif _types.is_null(kind) or _types.is_integer(kind):
        if _types.is_uint64(kind):
            column = pc.min_element_wise(column, pa.scalar(2**63 - 1, kind), skip_nulls=False)
        column = column.cast(pa.int64())
    elif _types.is_floating(kind):
        column = pc.floor(column.cast(pa.float64()))
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    old = _no_nulls(pc.less(column, EARLIEST_MS * per_second // 1_000))
    new = _no_nulls(pc.greater(column, ((latest_ms + 1) * per_second - 1) // 1_000))
    breaches += [
        _Breach(old, Fault("too_old", f"{UPDATED_COLUMN} is before 2000")),
        _Breach(new, Fault("in_future", f"{UPDATED_COLUMN} is more than 5 minutes in the future")),
    ]
    # What is out of bounds goes before the arithmetic, which it would overflow.
    values = pc.if_else(pc.or_(old, new), pa.scalar(None, column.type), column).cast(pa.int64())
    if per_second > 1_000:  # noqa: PLR2004 - finer than milliseconds
        values = pc.divide(values, per_second // 1_000)
    elif per_second == 1:
        values = pc.multiply(values, 1_000)
    return values, breaches


def _parsed(column: Any) -> tuple[Any, list[_Breach]]:
    text, breaches = _text(column, UPDATED_COLUMN)
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
    fault = Fault(MALFORMED, f"{UPDATED_COLUMN} is neither ISO 8601 nor epoch milliseconds")
    malformed = pa.array(wrong, pa.bool_()).take(distinct.indices)
    return pa.array(times, pa.int64()).take(distinct.indices), [*breaches, _Breach(_no_nulls(malformed), fault)]


def _text(column: Any, name: str) -> tuple[Any, list[_Breach]]:
    """A column as text, and the cells that are none."""
    column = _plain(column)
    kind = column.type
    fast: Any = None
    if _is_text(kind) or _is_bytes(kind):
        try:
            column.validate(full=True)
            fast = column.cast(pa.string())
        except pa.ArrowInvalid:
            fast = None
    elif _types.is_integer(kind) or _types.is_null(kind):
        fast = column.cast(pa.string())
    elif _types.is_floating(kind):
        fast = _whole_numbers(column.cast(pa.float64()))
    if fast is not None:
        return fast, []
    cells = values_of(USER_COLUMN, column)  # as activities' ids become text
    unreadable = pa.array([cell is UNREADABLE for cell in cells], pa.bool_())
    text = pa.array([None if cell is UNREADABLE or cell is None else str(cell) for cell in cells], pa.string())
    return text, [_Breach(unreadable, Fault(MALFORMED, f"{name} is not UTF-8 text"))]


def _whole_numbers(column: Any) -> Any:
    """Floats as text without ``.0``; NaN and infinity are null. None where one has a fraction."""
    finite = pc.is_finite(column)
    whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), _MAX_EXACT_FLOAT))
    if not pc.all(pc.or_(pc.invert(finite), whole)).as_py():
        return None
    numbers = pc.if_else(pc.and_(finite, whole), column, pa.scalar(None, pa.float64()))
    return numbers.cast(pa.int64()).cast(pa.string())


def _plain(column: Any) -> Any:
    return column.dictionary_decode() if _types.is_dictionary(column.type) else column


def _blank(text: Any) -> Any:
    return pc.equal(pc.utf8_trim_whitespace(text), "").fill_null(True)


def _no_nulls(mask: Any) -> Any:
    return mask.fill_null(False)


def _any_of(breaches: list[_Breach], count: int) -> Any:
    mask = pa.repeat(pa.scalar(False), count)
    for breach in breaches:
        mask = pc.or_(mask, breach.rows)
    return mask


def _mask(rows: Mapping[int, object], count: int) -> Any:
    return pa.array([row in rows for row in range(count)], pa.bool_())


def _good(bad: Mapping[int, Fault], count: int) -> Any:
    return pa.array([row not in bad for row in range(count)], pa.bool_())
