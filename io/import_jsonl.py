"""JSON lines of imports: one object a line, in UTF-8; decoded a block at a time."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import math
from collections.abc import Iterator
from functools import cache
from operator import attrgetter
from typing import Any, Final

import msgspec
import pyarrow as pa

from ..domain.imports import ImportKind
from .errors import UsageError
from .import_lines import range_blocks, without_mark
from .import_ranges import ALIASES, UPDATED_COLUMN, USER_COLUMN, ImportRange, ImportRows
from .import_schema import place_columns
from .import_text import NumberedLines, TextRows, checked_rows

_LOOKED_AT: Final = 100
_NO_DATE_DIGITS: Final = 9
"""Eight digits are a date in text and a moment of 1970 as a number; nine are a number in both."""


def plan_jsonl(head: bytes, name: str, kind: ImportKind) -> None:
    """Checks a file's first lines.

    Args:
        head: the file's first lines.
        name: of the file, for people.
        kind: what is imported.

    Raises:
        UsageError: they are not one object a line, or none of them has what an import of the kind needs.
    """
    lines = [line for line in map(bytes.strip, head.split(b"\n")) if line][:_LOOKED_AT]
    if lines and (lines[0] == b"[" or lines[0].startswith(b"[{")):
        raise UsageError(f"{name}: is a JSON array; one object a line is read (jq -c '.[]' makes it)")
    if lines and lines[0] == b"{":
        raise UsageError(f"{name}: its JSON spans lines; one object a line is read (jq -c . makes it)")
    names: dict[str, None] = {}
    for line in lines:
        try:
            names |= dict.fromkeys(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    if lines and not names:
        raise UsageError(f"{name}: its first lines are not one JSON object each; is it JSON lines?")
    # Whether a row has both spellings of a field is looked at row by row.
    if lines:
        place_columns(dict.fromkeys(ALIASES.get(name, name) for name in names), kind, name)


def read_jsonl(part: ImportRange, batch_rows: int) -> Iterator[ImportRows]:
    """Reads a range's rows.

    Args:
        part: whole lines.
        batch_rows: the most rows of a result.

    Raises:
        BackendUnavailableError: the disk or the store failed.
        UsageError: the file is gone, its compressed contents are damaged, or a line is over 64 MiB.
    """
    line = part.first_row
    for block in range_blocks(part):
        lines = without_mark(block) if line == 1 else block
        yield from checked_rows(_rows_of(lines, line, part.kind), part, batch_rows)
        line += block.count(b"\n")


def _rows_of(block: bytes, line: int, kind: ImportKind) -> TextRows:
    lines = NumberedLines(block, line)
    decoder = _decoder(kind)
    broken: dict[int, str] = {}
    rows: list[Any] = []
    try:
        rows = decoder.decode_lines(block)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        rows = []
    if len(rows) != len(lines):  # also where an object spans lines, or two stand on one
        rows = [_decoded(decoder, lines[index][1], index, broken) for index in range(len(lines))]
    user, value, updated = (
        _merged(list(map(attrgetter(field), rows)), list(map(attrgetter(f"{field}_too"), rows)), name, broken)
        for field, name in _fields(kind).items()
    )
    return TextRows(user, value, updated, lines.__getitem__, broken)


def _decoded(decoder: Any, line: bytes, index: int, broken: dict[int, str]) -> Any:
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        broken[index] = f"is not an object with an import's fields: {error}"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        broken[index] = "is not JSON"
    return decoder.decode(b"{}")


def _fields(kind: ImportKind) -> dict[str, str]:
    return {"user": USER_COLUMN, "value": kind.value_column, "updated": UPDATED_COLUMN}


@cache
def _decoder(kind: ImportKind) -> Any:
    """Decodes rows; each field under both of its spellings."""
    others = {name: other for other, name in ALIASES.items()}
    fields = {**_fields(kind), **{f"{field}_too": others[name] for field, name in _fields(kind).items()}}
    row = msgspec.defstruct("Row", [(field, Any, None) for field in fields], rename=fields, gc=False)
    return msgspec.json.Decoder(row)


def _merged(values: list[Any], others: list[Any], name: str, broken: dict[int, str]) -> Any:
    """The values of a field as an Arrow array of text or numbers, under whichever spelling they stand."""
    if set(map(type, others)) - {type(None)}:
        for index, other in enumerate(others):
            if other is None:
                continue
            if values[index] is not None:
                broken.setdefault(index, f"has {name} in two spellings")
            values[index] = other
    kinds = set(map(type, values)) - {type(None)}
    try:
        if kinds <= {str}:
            return pa.array(values, pa.string())
        if kinds == {int}:
            return pa.array(values, pa.int64())
        if kinds <= {int, float} and name not in (USER_COLUMN, ImportKind.CLUSTER.value_column):
            return pa.array(values, pa.float64())
    except pa.ArrowException:  # whole numbers beyond 64 bits
        pass
    return pa.array([_text(value, index, name, broken) for index, value in enumerate(values)], pa.string())


def _text(value: object, index: int, name: str, broken: dict[int, str]) -> str | None:
    """A value of a field whose values are of several types; read again as what the field is."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        broken.setdefault(index, f"{name} is neither text nor a number")
        return None
    if name == UPDATED_COLUMN:
        return f"{math.floor(value):0{_NO_DATE_DIGITS}d}"
    if isinstance(value, float) and value.is_integer() and name != ImportKind.BOT_OR_NOT.value_column:
        return str(int(value))
    return str(value)
