"""Rows of files that say what links fans: from JSON lines, CSV and Parquet to columns of identifiers."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from ..domain.linking import KINDS, LinkKind
from .errors import BackendUnavailableError, UsageError
from .text_lines import MAX_RECORD_BYTES, Lines

_FAN_COLUMN: Final = "globalUserId"

_COLUMN_KINDS: Final = {
    **{kind.value: kind for kind in KINDS},
    "context.deviceId": LinkKind.DEVICE,
    "context.ipAddress": LinkKind.IP_BLOCK,
}

Text = str | int | float | None

Cells = tuple[str | None, ...]
"""A row: the fan, then an identifier of each kind."""


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


def in_batches(rows: Iterator[Cells | str], batch_rows: int) -> Iterator[Links]:
    """Rows, and reasons why there is none, in batches of at most so many."""
    while batch := list(islice(rows, batch_rows)):
        yield _links(batch)


def json_rows(blocks: Iterable[Lines]) -> Iterator[Cells | str]:
    """A file's rows, one JSON object a line; where a line is none, the reason."""
    decode: Callable[[bytes], _Row] = msgspec.json.Decoder(_Row).decode
    for lines in blocks:
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


def csv_rows(lines: Iterable[str], name: str) -> Iterator[Cells | str]:
    """A file's rows in CSV; where a row is none, the reason.

    Args:
        lines: with their endings, from the header on; bytes that are no UTF-8 as surrogates.
        name: how errors call the file.

    Raises:
        UsageError: a column is missing.
    """
    reader = csv.reader(lines, strict=True)
    header = [column.strip() for column in next(reader, [])]
    fan, kinds = _places(header, name)
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


def csv_header(head: str, name: str) -> None:
    """Checks that a CSV file has columns of links.

    Args:
        head: the file's beginning.
        name: how errors call the file.

    Raises:
        UsageError: a column is missing.
    """
    _places([column.strip() for row in csv.reader(head.splitlines()[:1]) for column in row], name)


def parquet_links(path: str, groups: Iterable[int], name: str, batch_rows: int) -> Iterator[Links]:
    """Reads row groups of a Parquet file, in batches.

    Raises:
        BackendUnavailableError: the file cannot be read any more.
        UsageError: its data are damaged.
    """
    import pyarrow as pa  # noqa: PLC0415 - takes 0.2 s to import
    import pyarrow.parquet as pq  # noqa: PLC0415

    from .arrow_cells import flatten, values_of  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            wanted = [
                column for column in file.schema_arrow.names if column in (_FAN_COLUMN, "context", *_COLUMN_KINDS)
            ]
            for batch in file.iter_batches(batch_rows, row_groups=groups, columns=wanted, use_threads=False):
                flat = [
                    (column, values)
                    for top, array in zip(batch.schema.names, batch.columns, strict=True)
                    for column, values in flatten(top, array)
                    if column == _FAN_COLUMN or column in _COLUMN_KINDS
                ]
                cells = [[_readable(value) for value in values_of(column, values)] for column, values in flat]
                fan, kinds = _places([column for column, _ in flat], name)
                columns = [_first_of([cells[place] for place in kinds[kind]], batch.num_rows) for kind in KINDS]
                yield _links(zip(cells[fan], *columns, strict=True))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BackendUnavailableError(f"{name}: cannot be read any more: {error.strerror}") from None
        raise UsageError(f"{name}: is damaged: {_one_line(error)}; write the file again") from None


def parquet_header(path: str, name: str) -> int:
    """Checks that a Parquet file has columns of links; returns how many row groups it has.

    Raises:
        UsageError: it cannot be read, or a column is missing.
    """
    import pyarrow as pa  # noqa: PLC0415 - takes 0.2 s to import
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            groups: int = file.metadata.num_row_groups
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{name}: is no readable Parquet file: {_one_line(error)}; write it again") from None
    columns: list[str] = []
    for field in schema:
        members: list[str] = [member.name for member in field.type] if pa.types.is_struct(field.type) else []
        columns += [f"{field.name}.{member}" for member in members] or [field.name]
    _places(columns, name)
    return groups


def _places(names: Sequence[str], file: str) -> tuple[int, dict[LinkKind, list[int]]]:
    """Where the fan and the identifiers of each kind stand.

    Raises:
        UsageError: a column is missing.
    """
    kinds: dict[LinkKind, list[int]] = {kind: [] for kind in KINDS}
    for place, name in enumerate(names):
        if name in _COLUMN_KINDS:
            kinds[_COLUMN_KINDS[name]].append(place)
    if _FAN_COLUMN not in names:
        raise UsageError(f"{file}: has no column {_FAN_COLUMN}; name the fans' column so")
    if not any(kinds.values()):
        raise UsageError(f"{file}: has none of the columns {', '.join(KINDS)}; name one that fans can share")
    return list(names).index(_FAN_COLUMN), kinds


def _links(rows: Iterable[Cells | str]) -> Links:
    rejected: Counter[str] = Counter()
    good: list[Cells] = []
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
