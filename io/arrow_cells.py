"""Cells of Arrow columns as the JSON values of an activity's fields."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa

from .wire_columns import ID_FIELDS, field_of

_MAX_EXACT_FLOAT = 2.0**53
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class _Unreadable:
    """Stands for a cell that cannot be read, and makes its record one with an error."""


UNREADABLE = _Unreadable()


def flatten(name: str, column: Any) -> Iterator[tuple[str, Any]]:
    """The columns ``context`` and ``attributes`` as one column a member; any other column as it is."""
    if name in ("context", "attributes") and pa.types.is_struct(column.type):
        # flatten() also passes the struct's own nulls on to its members, which field() does not.
        for member, values in zip(column.type, column.flatten(), strict=True):
            yield f"{name}.{member.name}", values
    else:
        yield name, column


def values_of(name: str, column: Any) -> list[Any]:
    """A column's cells, one JSON value each.

    Ids become text whatever their type is, times become epoch milliseconds (UTC where the column names no zone).

    Args:
        name: of the column; tells whether it is an id.
        column: an Arrow array.

    Returns:
        None where a cell is null, NaN or has no JSON value; ``UNREADABLE`` where its bytes are not UTF-8.
    """
    types = pa.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    is_id = field_of(name) in ID_FIELDS
    if types.is_string(kind) or types.is_large_string(kind):
        try:
            return column.to_pylist()
        except UnicodeDecodeError:
            return _each(column, str)
    if types.is_timestamp(kind):
        values = _epoch_ms(column.cast(pa.int64()).to_pylist(), kind.unit)
    elif types.is_floating(kind):
        values = [_number(value, is_id) for value in column.to_pylist()]
    elif types.is_integer(kind) or types.is_boolean(kind):
        values = column.to_pylist()
    elif types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        values = _each(column, bytes.decode)
    else:
        values = _each(column, _json_value)
    if is_id:
        return [str(value) if isinstance(value, int) else value for value in values]
    return values


def _each(column: Any, convert: Callable[[Any], object]) -> list[Any]:
    values: list[Any] = []
    for cell in column:
        try:
            value = cell.as_py()
            values.append(None if value is None else convert(value))
        except UnicodeDecodeError:
            values.append(UNREADABLE)
        except (ValueError, OverflowError, pa.ArrowException):
            # Nanoseconds inside a list, a date after the year 9999: there is no Python value, so it does not travel.
            values.append(None)
    return values


def _epoch_ms(values: list[int | None], unit: str) -> list[int | None]:
    per_second = _PER_SECOND[unit]
    if per_second == 1:
        return [None if value is None else value * 1_000 for value in values]
    # Rounded down, as parse_time_ms does.
    divisor = per_second // 1_000
    return [None if value is None else value // divisor for value in values]


def _number(value: float | None, is_id: bool) -> float | str | None:
    """A number as it is; as an id without ``.0``, which data frames add to whole numbers where some are missing."""
    if value is None or not math.isfinite(value):
        return None
    if not is_id:
        return value
    return str(int(value)) if value.is_integer() and abs(value) < _MAX_EXACT_FLOAT else str(value)


def _json_value(value: object) -> object:
    """Nested and rarer values: members of lists and maps too; dates and decimals as text, NaN as absent."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _json_value(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        members = [_json_value(member) for member in value]
        return members if isinstance(value, list) else tuple(members)
    return value if value is None or isinstance(value, str | int) else str(value)
