"""Reading what links fans: files of links or of activities, column by column.

A row names a fan and any of the identifiers of ``LinkKind``; in a file of activities, the device and the IP address of
``context`` are read. Files are planned first and then read range by range in any process, like activities.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from ..domain.linking import KINDS, LinkKind
from .errors import BackendUnavailableError, UsageError
from .file_ranges import (
    FileFormat,
    FileRange,
    check_text,
    detect_format,
    file_size,
    fingerprint,
    local_path,
    open_range,
    read_head,
    shown,
)
from .text_lines import BOM, MAX_RECORD_BYTES, OpenFile, read_lines

FAN_COLUMN: Final = "globalUserId"
BATCH_ROWS: Final = 50_000

_TARGET_BYTES: Final = 16 * 1024 * 1024
_COLUMN_KINDS: Final = {
    **{kind.value: kind for kind in KINDS},
    "context.deviceId": LinkKind.DEVICE,
    "context.ipAddress": LinkKind.IP_BLOCK,
}
_ABOUT_ROW_BYTES: Final = 60

Text = str | int | float | None


class Links(NamedTuple):
    """Rows read.

    Attributes:
        fans: the fan of each row.
        values: of each kind the identifier of each row, or None.
        rejected: rows left out, by reason: ``malformed``, ``blank_user``.
        comparable: the identifiers are not as people write them, but compared as they stand.
    """

    fans: list[str]
    values: dict[LinkKind, list[str | None]]
    rejected: Counter[str]
    comparable: bool = False


class _Context(msgspec.Struct, rename="camel"):
    device_id: Text = None
    ip_address: str | None = None


class _Row(msgspec.Struct, rename="camel"):
    global_user_id: Text = None
    device_id: Text = None
    payment_id: Text = None
    phone: Text = None
    address: str | None = None
    ip_address: str | None = None
    context: _Context | None = None


_NO_CONTEXT: Final = _Context()


def plan_links(paths: Sequence[str], format: FileFormat | None = None) -> list[FileRange]:
    """Checks every input, then splits the work: JSON lines at any byte, Parquet between row groups, CSV not at all.

    Args:
        paths: plain paths or ``file:///absolute/path``.
        format: of all files; None to tell it from each file's name or first lines.

    Raises:
        UsageError: an input is missing, empty, unreadable, of another format, or has no column of fans or none of
            identifiers; the first one found, before anything is read.
    """
    return [part for path in paths for part in _plan(os.path.abspath(local_path(path)), format)]  # noqa: PTH100 - as in files.py


def about_rows(ranges: Sequence[FileRange]) -> int:
    """About how many rows ranges hold, never far too few: what a run is planned for."""
    rows = 0
    for part in ranges:
        if part.format is FileFormat.PARQUET:
            rows += _parquet_rows(part)
        else:
            rows += (part.end - part.start) // _ABOUT_ROW_BYTES + 1
    return rows


def read_links(part: FileRange, batch_rows: int = BATCH_ROWS) -> Iterator[Links]:
    """Reads a range's rows, in batches.

    Raises:
        BackendUnavailableError: the file vanished, shrank or was replaced since the plan.
        UsageError: its data are damaged, or a line is over 64 MiB.
    """
    descriptor = open_range(part)
    try:
        if part.format is FileFormat.PARQUET:
            yield from _read_parquet(part, batch_rows)
        elif part.format is FileFormat.CSV:
            yield from _batches(_csv_rows(descriptor, part), batch_rows)
        else:
            yield from _batches(_json_rows(OpenFile(descriptor, part.name), part), batch_rows)
    finally:
        os.close(descriptor)


# A row: the fan, then an identifier of each kind; or the reason why there is none.
_Cells = tuple[str | None, ...]


def _batches(rows: Iterator[_Cells | str], batch_rows: int) -> Iterator[Links]:
    while batch := list(islice(rows, batch_rows)):
        yield _links(batch)


def _links(rows: Iterable[_Cells | str]) -> Links:
    rejected: Counter[str] = Counter()
    good: list[_Cells] = []
    for row in rows:
        if isinstance(row, str):
            rejected[row] += 1
        elif not row[0] or row[0].isspace():
            rejected["blank_user"] += 1
        elif not all(cell is None or cell.isascii() or _is_text(cell) for cell in row):
            rejected["malformed"] += 1
        else:
            good.append(row)
    columns: list[list[str | None]] = [list(column) for column in zip(*good, strict=True)]
    if not columns:
        return Links([], {kind: [] for kind in KINDS}, rejected)
    fans = [fan for fan in columns[0] if fan is not None]
    return Links(fans, dict(zip(KINDS, columns[1:], strict=True)), rejected)


def _is_text(cell: str) -> bool:
    """Whether a cell can be written as UTF-8: bytes that were not are surrogates here."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: Any) -> str | None:
    """An identifier as text; a whole number without ``.0``, which data frames add where some are missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        if value != value:  # noqa: PLR0124 - NaN
            return None
        return str(int(value)) if value.is_integer() else str(value)
    return str(value)


def _json_rows(file: OpenFile, part: FileRange) -> Iterator[_Cells | str]:
    decode: Callable[[bytes], _Row] = msgspec.json.Decoder(_Row).decode
    for lines in read_lines(file, part.start, part.end, part.size_at_start):
        for line in lines.lines:
            if not line or line.isspace():
                continue
            if len(line) > MAX_RECORD_BYTES:
                yield "malformed"
                continue
            try:
                row = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                yield "malformed"
                continue
            context = row.context or _NO_CONTEXT
            yield (
                _text(row.global_user_id),
                _text(context.device_id if row.device_id is None else row.device_id),
                _text(row.payment_id),
                _text(row.phone),
                row.address,
                context.ip_address if row.ip_address is None else row.ip_address,
            )


def _csv_rows(descriptor: int, part: FileRange) -> Iterator[_Cells | str]:
    with io.open(descriptor, encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=False) as file:  # noqa: UP020 - Path cannot open a descriptor
        reader = csv.reader(file, strict=True)
        header = [name.strip() for name in next(reader, [])]
        fan, kinds = _places(header, part.name)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error:
                yield "malformed"
                continue
            if fields is None:
                return
            if not fields:
                continue
            if len(fields) != len(header):
                yield "malformed"
                continue
            yield (
                fields[fan],
                *(next((fields[place] for place in kinds[kind] if fields[place]), None) for kind in KINDS),
            )


def _read_parquet(part: FileRange, batch_rows: int) -> Iterator[Links]:
    import pyarrow as pa  # noqa: PLC0415 - takes 0.2 s to import
    import pyarrow.parquet as pq  # noqa: PLC0415

    from .arrow_cells import flatten, values_of  # noqa: PLC0415

    try:
        with pq.ParquetFile(part.path) as file:
            wanted = [name for name in file.schema_arrow.names if name in (FAN_COLUMN, "context", *_COLUMN_KINDS)]
            groups = range(part.start, part.end)
            for batch in file.iter_batches(batch_rows, row_groups=groups, columns=wanted, use_threads=False):
                flat = [
                    (name, values)
                    for top, column in zip(batch.schema.names, batch.columns, strict=True)
                    for name, values in flatten(top, column)
                    if name == FAN_COLUMN or name in _COLUMN_KINDS
                ]
                cells = [[_readable(value) for value in values_of(name, values)] for name, values in flat]
                fan, kinds = _places([name for name, _ in flat], part.name)
                columns = [_first_of([cells[place] for place in kinds[kind]], batch.num_rows) for kind in KINDS]
                yield _links(zip(cells[fan], *columns, strict=True))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BackendUnavailableError(f"{part.name}: cannot be read any more: {error.strerror}") from None
        raise UsageError(f"{part.name}: is damaged: {_one_line(error)}; write the file again") from None


def _readable(value: Any) -> str | None:
    """A cell as text; one whose bytes are no text as what no text is, so that its row is counted as malformed."""
    from .arrow_cells import UNREADABLE  # noqa: PLC0415 - imports pyarrow

    return "\udc80" if value is UNREADABLE else _text(value)


def _first_of(columns: list[list[str | None]], rows: int) -> list[str | None]:
    if not columns:
        return [None] * rows
    first = columns[0]
    for other in columns[1:]:
        first = [mine if mine is not None else its for mine, its in zip(first, other, strict=True)]
    return first


def _places(names: Sequence[str], file: str) -> tuple[int, dict[LinkKind, list[int]]]:
    """Where the fan and the identifiers of each kind stand.

    Raises:
        UsageError: a column is missing.
    """
    kinds: dict[LinkKind, list[int]] = {kind: [] for kind in KINDS}
    for place, name in enumerate(names):
        if name in _COLUMN_KINDS:
            kinds[_COLUMN_KINDS[name]].append(place)
    if FAN_COLUMN not in names:
        raise UsageError(f"{file}: has no column {FAN_COLUMN}; name the fans' column so")
    if not any(kinds.values()):
        raise UsageError(f"{file}: has none of the columns {', '.join(KINDS)}; name one that fans can share")
    return list(names).index(FAN_COLUMN), kinds


def _plan(path: str, format: FileFormat | None) -> list[FileRange]:
    size = file_size(path)
    head = read_head(path)
    format = format or detect_format(path)
    if format is FileFormat.PARQUET:
        return _plan_parquet(path, size, head)
    if format is FileFormat.ACCESS_LOG:
        raise UsageError(f"{shown(path)}: is an access log, which names no fans; give JSONL, CSV or Parquet")
    check_text(path, format, head)
    checksum = fingerprint(head, size)
    if format is FileFormat.CSV:
        first = head.removeprefix(BOM).decode("utf-8", "replace").splitlines()[:1]
        _places([name.strip() for row in csv.reader(first) for name in row], shown(path))
        return [FileRange(path, format, 0, size, size, checksum)]
    return [
        FileRange(path, format, start, min(start + _TARGET_BYTES, size), size, checksum)
        for start in range(0, size, _TARGET_BYTES)
    ]


def _plan_parquet(path: str, size: int, head: bytes) -> list[FileRange]:
    import pyarrow as pa  # noqa: PLC0415 - takes 0.2 s to import
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            groups = file.metadata.num_row_groups
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{shown(path)}: is no readable Parquet file: {_one_line(error)}; write it again") from None
    names: list[str] = []
    for field in schema:
        members: list[str] = [member.name for member in field.type] if pa.types.is_struct(field.type) else []
        names += [f"{field.name}.{member}" for member in members] or [field.name]
    _places(names, shown(path))
    checksum = fingerprint(head, size)
    return [FileRange(path, FileFormat.PARQUET, group, group + 1, size, checksum) for group in range(groups)]


def _parquet_rows(part: FileRange) -> int:
    from .parquet_files import count_rows  # noqa: PLC0415 - imports pyarrow

    return count_rows(part)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
