"""Parquet files of imports: only the columns needed, row group by row group, a bounded number of rows at a time."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..domain.imports import ImportKind
from .arrow_cells import UNREADABLE, values_of
from .errors import UsageError
from .import_cells import Fault, is_bytes, is_text, type_fault
from .import_columns import check_rows
from .import_ranges import ALIASES, BadRow, ImportRange, ImportRows, position
from .import_schema import place_columns
from .remote_files import open_file, reading

RANGE_ROWS: Final = 500_000
"""About as many rows are a range; a row group is never split."""

_BATCH_BYTES: Final = 64 * 1024 * 1024
_MAX_CELL_BYTES: Final = 16 * 1024
"""More of a cell does not travel with a bad row."""

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
    row = part.first_row
    with open_file(part.address) as raw:
        batches = _batches(raw, part, batch_rows)
        while True:
            with _errors(part.name, "its data are damaged; write or copy it again"):
                batch = next(batches, None)
            if batch is None:
                return
            for rows in _slices(batch):
                yield _checked(rows, part, row)
                row += rows.num_rows


def _batches(raw: Any, part: ImportRange, batch_rows: int) -> Iterator[Any]:
    """Record batches of the columns needed, in the order user, value, time."""
    buffer = _REMOTE_BUFFER_BYTES if "://" in part.address else _BUFFER_BYTES
    file = pq.ParquetFile(raw, buffer_size=buffer, pre_buffer=False)
    schema = file.schema_arrow
    names = [schema.names[place] for place in place_columns(schema.names, part.kind, part.name) if place is not None]
    texts = [name for name in names if _is_long(schema.field(name).type)]
    # Reads text as dictionaries of it, which takes longer.
    careful = pq.ParquetFile(raw, metadata=file.metadata, read_dictionary=texts, buffer_size=buffer, pre_buffer=False)
    for group in range(part.start, part.end):
        about = file.metadata.row_group(group)
        chunks = [about.column(index) for index in range(about.num_columns)]
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in names)
        count = max(1, min(batch_rows, _BATCH_BYTES // max(1, size // max(1, about.num_rows))))
        shared = [
            chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page and chunk.path_in_schema in texts
        ]
        chosen = careful if any(_longest(careful, group, name) * count > _BATCH_BYTES for name in shared) else file
        for batch in chosen.iter_batches(count, row_groups=[group], columns=names, use_threads=False):
            yield batch.select(names)


def _longest(careful: Any, group: int, name: str) -> int:
    """The bytes of the longest value in a column's dictionary: a few bytes that rows without number may point to."""
    batch = next(careful.iter_batches(1, row_groups=[group], columns=[name], use_threads=False))
    column = batch.column(batch.schema.get_field_index(name))
    return pc.max(pc.binary_length(column.dictionary)).as_py() or 0


def _slices(batch: Any) -> Iterator[Any]:
    """A batch in parts that, dictionaries written out, are of bounded size."""
    size = 0
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and _is_long(column.type.value_type):
            lengths = pc.min_element_wise(pc.binary_length(column.dictionary), _MAX_CELL_BYTES)
            size += pc.sum(lengths.take(column.indices)).as_py() or 0
    count = max(1, batch.num_rows * _BATCH_BYTES // max(size, _BATCH_BYTES))
    for start in range(0, batch.num_rows, count):
        yield batch.slice(start, count)


def _checked(batch: Any, part: ImportRange, first_row: int) -> ImportRows:
    user, value, *updated = (_no_view(column) for column in batch.columns)
    checked = check_rows(user, value, updated[0] if updated else None, part, {})
    bad = _bad_rows(batch.schema.names, [user, value, *updated], checked.bad, part, first_row) if checked.bad else []
    return ImportRows(checked.table, bad, batch.num_rows)


def _no_view(column: Any) -> Any:
    """Views are what Arrow can do least with."""
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column.cast(pa.large_binary()) if pa.types.is_binary_view(column.type) else column


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
    """Cells as JSON values; bytes that are no UTF-8 as text with escapes, so that they are not lost; long ones cut."""
    indices = None
    if pa.types.is_dictionary(column.type):
        column, indices = column.dictionary, column.indices
    if _is_long(column.type) and (pc.max(pc.binary_length(column)).as_py() or 0) > _MAX_CELL_BYTES:
        column = pc.binary_slice(column.cast(pa.large_binary()), 0, _MAX_CELL_BYTES)
    values = values_of("", column)
    if UNREADABLE in values:
        raw = column.cast(pa.large_binary()).to_pylist()
        values = [None if value is None else value.decode(errors="backslashreplace") for value in raw]
    return values if indices is None else [None if i is None else values[i] for i in indices.to_pylist()]


def _is_long(kind: Any) -> bool:
    """Whether a value of a type is as long as the file wants it."""
    return is_text(kind) or (is_bytes(kind) and not pa.types.is_fixed_size_binary(kind))


@contextmanager
def _errors(name: str, problem: str) -> Generator[None]:
    try:
        with reading(name):
            yield
    except (pa.ArrowException, OSError, ValueError) as error:
        cause = " ".join(str(error).split())[:160].rstrip(".")
        raise UsageError(f"{name}: {problem} ({cause})") from None
