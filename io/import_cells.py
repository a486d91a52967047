"""Cells of an import's columns as text, whatever type a file gives them."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ..domain.imports import ImportKind
from .arrow_cells import UNREADABLE, values_of
from .import_ranges import MAX_TEXT_BYTES, UPDATED_COLUMN, USER_COLUMN

MALFORMED: Final = "malformed"
_MAX_EXACT_FLOAT = 2.0**53
_types: Any = pa.types


class Fault(NamedTuple):
    """Why a row is bad.

    Attributes:
        reason: a short code.
        error: one line without personal data.
    """

    reason: str
    error: str


class Breach(NamedTuple):
    """Which rows break a rule.

    Attributes:
        rows: an Arrow array of booleans without nulls.
        fault: what they are bad for.
    """

    rows: Any
    fault: Fault


def type_fault(column: str, kind: Any) -> str | None:
    """Why a column of a file with types cannot be read as what it is called; None where it can.

    Args:
        column: ``globalUserId``, ``bonScore``, ``clusterId`` or ``updatedAt``.
        kind: its Arrow type.
    """
    if _types.is_dictionary(kind):
        kind = kind.value_type
    wide = _types.is_fixed_size_binary(kind) and kind.byte_width > MAX_TEXT_BYTES
    text = (is_text(kind) or is_bytes(kind)) and not wide
    number = _types.is_integer(kind) or _types.is_floating(kind) or _types.is_decimal(kind)
    if _types.is_null(kind) or text or (number and not (column == UPDATED_COLUMN and _types.is_decimal(kind))):
        return None
    if column == UPDATED_COLUMN:
        return None if _types.is_timestamp(kind) or _types.is_date(kind) else "a time is needed"
    return "a number from 0 to 1 is needed" if column == ImportKind.BOT_OR_NOT.value_column else "text is needed"


def is_text(kind: Any) -> bool:
    """Whether a type is one of Arrow's for text."""
    return _types.is_string(kind) or _types.is_large_string(kind) or _types.is_string_view(kind)


def is_bytes(kind: Any) -> bool:
    """Whether a type is one of Arrow's for bytes."""
    return (
        _types.is_binary(kind)
        or _types.is_large_binary(kind)
        or _types.is_binary_view(kind)
        or _types.is_fixed_size_binary(kind)
    )


def text_of(column: Any, name: str) -> tuple[Any, list[Breach]]:
    """A column as text: numbers as the ids of activities become text, without ``.0``.

    Args:
        column: an Arrow array, of no dictionary.
        name: of the column, for errors.

    Returns:
        An Arrow array of strings, null where a cell is none, and which cells are not UTF-8.
    """
    kind = column.type
    fast: Any = None
    if is_text(kind) or is_bytes(kind):
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
    return text, [Breach(unreadable, Fault(MALFORMED, f"{name} is not UTF-8 text"))]


def _whole_numbers(column: Any) -> Any:
    """Floats as text without ``.0``; NaN and infinity are null. None where one has a fraction."""
    finite = pc.is_finite(column)
    whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), _MAX_EXACT_FLOAT))
    if not pc.all(pc.or_(pc.invert(finite), whole)).as_py():
        return None
    numbers = pc.if_else(pc.and_(finite, whole), column, pa.scalar(None, pa.float64()))
    return numbers.cast(pa.int64()).cast(pa.string())


def spread(column: Any, most: int, fault: Fault) -> tuple[Any, list[Breach]]:
    """A column of a dictionary written out; any other as it is.

    A value that is too long stands in a dictionary once, whatever the number of rows that point to it: those are not
    written out.

    Args:
        column: an Arrow array.
        most: bytes of text or binary value.
        fault: of the rows whose value is longer.
    """
    if not _types.is_dictionary(column.type):
        return column, []
    kind = column.type.value_type
    breaches: list[Breach] = []
    if is_text(kind) or is_bytes(kind):
        over = pc.greater(pc.binary_length(column.dictionary), most)
        if pc.any(over).as_py():
            breaches.append(Breach(no_nulls(over.take(column.indices)), fault))
            # Left out, not null: what is written out is allocated by the mean length of the dictionary's bytes.
            kept = pc.invert(no_nulls(over))
            place = pc.subtract(pc.cumulative_sum(kept.cast(pa.int32())), 1)
            place = pc.if_else(kept, place, pa.scalar(None, pa.int32()))
            column = pa.DictionaryArray.from_arrays(place.take(column.indices), column.dictionary.filter(kept))
    return column.dictionary_decode(), breaches


def no_nulls(mask: Any) -> Any:
    """A mask whose nulls are false."""
    return mask.fill_null(False)
