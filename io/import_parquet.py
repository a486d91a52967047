"""Parquet files of imports: only the columns needed, row group by row group, a bounded number of rows at a time."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ..domain.imports import ImportKind
from .arrow_cells import UNREADABLE, values_of
from .errors import UsageError
from .import_columns import Fault, check_rows, type_fault
from .import_ranges import ALIASES, BadRow, ImportRange, ImportRows, position
from .import_schema import Columns, place_columns
from .remote_files import open_file, reading

RANGE_ROWS: Final = 500_000
"""About as many rows are a range; a row group is never split."""

_BATCH_BYTES: Final = 64 * 1024 * 1024
_BUFFER_BYTES: Final = 1024 * 1024
_REMOTE_BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Each filling of a column's buffer is a request of its own to a store."""


class RowGroups(NamedTuple):
    """A range of a file's row groups.

    Attributes:
        start: the first one.
        end: behind the last one.
        first_row: the number of its first row in the file, from 0.
        rows: how many there are.
    """

    start: int
    end: int
    first_row: int
    rows: int


def plan_parquet(address: str, name: str, kind: ImportKind) -> list[RowGroups]:
    """Checks a file's columns and their types, and splits its row groups.

    Args:
        address: of the file.
        name: of the file, for people.
        kind: what is imported.

    Returns:
        Ranges in order; none where the file has no rows.

    Raises:
        UsageError: no Parquet, half a file, damaged, or its columns make no import of the kind.
        BackendUnavailableError: the disk or the store failed.
    """
    problem = "is half a Parquet file, damaged, or none; write or copy it again"
    with open_file(address) as raw, _errors(name, problem), pq.ParquetFile(raw) as file:
        metadata, schema = file.metadata, file.schema_arrow
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    columns = place_columns(schema.names, kind, name)
    for place in filter(lambda place: place is not None, columns):
        field = schema.field(place)
        if fault := type_fault(ALIASES.get(field.name, field.name), field.type):
            raise UsageError(f"{name}: the column {field.name} is of type {str(field.type)[:80]}; {fault}")
    ranges: list[RowGroups] = []
    start, first_row, rows = 0, 0, 0
    for group, count in enumerate(counts):
        if rows and rows + count > RANGE_ROWS:
            ranges.append(RowGroups(start, group, first_row, rows))
            start, first_row, rows = group, first_row + rows, 0
        rows += count
    if rows:
        ranges.append(RowGroups(start, len(counts), first_row, rows))
    return ranges


def read_parquet(part: ImportRange, batch_rows: int) -> Iterator[ImportRows]:
    """Reads a range's rows.

    Args:
        part: row groups.
        batch_rows: the most rows held at a time; fewer where rows are long.

    Raises:
        BackendUnavailableError: the disk or the store failed.
        UsageError: the file is gone or its data are damaged.
    """
    buffer = _REMOTE_BUFFER_BYTES if "://" in part.address else _BUFFER_BYTES
    damage = "its data are damaged; write or copy it again"
    with open_file(part.address) as raw:
        with _errors(part.name, damage):
            file = pq.ParquetFile(raw, buffer_size=buffer, pre_buffer=False)
        columns = place_columns(file.schema_arrow.names, part.kind, part.name)
        names = [file.schema_arrow.names[place] for place in columns if place is not None]
        row = part.first_row
        for group in range(part.start, part.end):
            count = min(batch_rows, _batch_rows(file.metadata.row_group(group), names))
            with _errors(part.name, damage):
                source = file.iter_batches(count, row_groups=[group], columns=names, use_threads=False)
            while True:
                with _errors(part.name, damage):
                    batch = next(source, None)
                if batch is None:
                    break
                yield _checked(batch, names, columns, part, row)
                row += batch.num_rows


def _batch_rows(group: Any, names: Sequence[str]) -> int:
    sizes = [
        column.total_uncompressed_size
        for column in (group.column(index) for index in range(group.num_columns))
        if column.path_in_schema in names
    ]
    return max(1, _BATCH_BYTES // max(1, sum(sizes) // max(1, group.num_rows)))


def _checked(batch: Any, names: Sequence[str], columns: Columns, part: ImportRange, first_row: int) -> ImportRows:
    user, value, *updated = [batch.column(batch.schema.get_field_index(name)) for name in names]
    checked = check_rows(user, value, updated[0] if columns.updated is not None else None, part, {})
    bad = _bad_rows(names, [user, value, *updated], checked.bad, part, first_row) if checked.bad else []
    return ImportRows(checked.table, bad, batch.num_rows)


def _bad_rows(
    names: Sequence[str], columns: Sequence[Any], faults: dict[int, Fault], part: ImportRange, first_row: int
) -> list[BadRow]:
    rows = sorted(faults)
    cells = [_cells(column.take(pa.array(rows, pa.int64()))) for column in columns]
    encode = msgspec.json.Encoder(enc_hook=str, decimal_format="string").encode
    return [
        BadRow(
            encode(dict(zip(names, values, strict=True))),
            position(part, first_row + row),
            faults[row].reason,
            faults[row].error,
        )
        for row, *values in zip(rows, *cells, strict=True)
    ]


def _cells(column: Any) -> list[Any]:
    """Cells as JSON values; bytes that are no UTF-8 as text with escapes, so that they are not lost."""
    values = values_of("", column)
    if UNREADABLE in values:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode(errors="backslashreplace") for value in raw]
    return values


@contextmanager
def _errors(name: str, problem: str) -> Generator[None]:
    try:
        with reading(name):
            yield
    except (pa.ArrowException, OSError, ValueError) as error:
        cause = " ".join(str(error).split())[:160].rstrip(".")
        raise UsageError(f"{name}: {problem} ({cause})") from None
