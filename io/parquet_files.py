"""Parquet files of activities: one row, one activity; read row group by row group, a few thousand rows at a time."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..domain.records import RawRecord
from .arrow_cells import UNREADABLE, flatten, values_of
from .errors import BackendUnavailableError, UsageError
from .file_ranges import FileFormat, FileRange, fingerprint, shown
from .record_batches import Group, group_of
from .text_lines import MAX_RECORD_BYTES, RECORD_TOO_LONG
from .wire_columns import RowEncoder, RowError, check_columns

_READ_ROWS = 4_096
_READ_BYTES = 4 * 1024 * 1024


def plan_parquet(path: str, size: int, head: bytes, target_bytes: int) -> list[FileRange]:
    """Checks a file and splits its row groups into ranges.

    Args:
        path: absolute.
        size: of the file, in bytes.
        head: its first bytes.
        target_bytes: of a range, uncompressed; a row group is never split.

    Raises:
        UsageError: not Parquet, broken, or its columns make no activities.
    """
    name = shown(path)
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            columns = list(file.schema_arrow.names)
            sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{name}: is no readable Parquet file: {_one_line(error)}; write it again") from None
    check_columns(columns, name)
    ranges: list[FileRange] = []
    start, held = 0, 0
    for group, group_size in enumerate(sizes):
        if held and held + group_size > target_bytes:
            ranges.append(FileRange(path, FileFormat.PARQUET, start, group, size, fingerprint(head, size)))
            start, held = group, 0
        held += max(group_size, 1)
    if held:
        ranges.append(FileRange(path, FileFormat.PARQUET, start, len(sizes), size, fingerprint(head, size)))
    return ranges


def count_rows(file_range: FileRange) -> int:
    """The number of rows of a range, from the file's metadata.

    Raises:
        BackendUnavailableError: the file cannot be opened any more.
    """
    try:
        with pq.ParquetFile(file_range.path) as file:
            return sum(file.metadata.row_group(i).num_rows for i in range(file_range.start, file_range.end))
    except (pa.ArrowException, OSError, IndexError) as error:
        raise _gone(file_range, error) from None


def read_parquet(file_range: FileRange) -> Iterator[Group]:
    """Reads a range's rows, in groups.

    A row of a columnar file has no bytes of its own: a record's payload is its body, the row as JSON. Where a cell
    is unreadable, the payload is the rest of the row.

    Args:
        file_range: row groups. A record's position is ``row N``, counted from 0 in the whole file.

    Raises:
        BackendUnavailableError: the file cannot be opened or read any more.
        UsageError: its data are damaged.
    """
    try:
        file = pq.ParquetFile(file_range.path, buffer_size=1024 * 1024)
    except (pa.ArrowException, OSError) as error:
        raise _gone(file_range, error) from None
    with file:
        metadata = file.metadata
        row = sum(metadata.row_group(i).num_rows for i in range(file_range.start))
        for group in range(file_range.start, file_range.end):
            about = metadata.row_group(group)
            row_bytes = max(1, about.total_byte_size // max(1, about.num_rows))
            count = max(1, min(_READ_ROWS, _READ_BYTES // row_bytes))
            source = file.iter_batches(batch_size=count, row_groups=[group], use_threads=False)
            while (batch := _next_batch(source, file_range, group)) is not None:
                yield group_of(_records(batch, row))
                row += batch.num_rows


def _next_batch(source: Iterator[Any], file_range: FileRange, group: int) -> Any:
    try:
        return next(source, None)
    except OSError as error:
        # Arrow reports damaged pages and failing disks alike as OSError; only a disk's has a number.
        if error.errno is not None:
            raise _gone(file_range, error) from None
        raise _damaged(file_range, group, error) from None
    except pa.ArrowException as error:
        raise _damaged(file_range, group, error) from None


def _records(batch: Any, first_row: int) -> list[RawRecord]:
    names: list[str] = []
    columns: list[list[Any]] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for flat_name, flat_column in flatten(name, column):
            names.append(flat_name)
            columns.append(values_of(flat_name, flat_column))
    encoder = RowEncoder(names)
    return [_record(encoder, row, f"row {number}") for number, row in enumerate(zip(*columns, strict=True), first_row)]


def _record(encoder: RowEncoder, row: tuple[Any, ...], position: str) -> RawRecord:
    error = None
    if any(value is UNREADABLE for value in row):
        bad = next(name for name, value in zip(encoder.columns, row, strict=True) if value is UNREADABLE)
        error = f"column {bad!a} is not UTF-8 text" if bad else "a column is not UTF-8 text"
        row = tuple(None if value is UNREADABLE else value for value in row)
    try:
        body = encoder.encode(row)
    except RowError as row_error:
        return RawRecord(ascii(dict(zip(encoder.columns, row, strict=True))).encode(), position, None, str(row_error))
    if len(body) > MAX_RECORD_BYTES:
        error = error or RECORD_TOO_LONG
    return RawRecord(body, position, None if error else body, error)


def _gone(file_range: FileRange, error: Exception) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"{file_range.name}: cannot be read, though it was there when the run began: {_one_line(error)}"
    )


def _damaged(file_range: FileRange, group: int, error: Exception) -> UsageError:
    return UsageError(f"{file_range.name}: row group {group} is damaged: {_one_line(error)}; write the file again")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
