"""CSV files of imports: RFC 4180 with a header row, in UTF-8, comma separated.

Blocks without quotes are read by Arrow as whole columns; others row by row, where a row that cannot be read is a bad
one and reading goes on with the next line, also behind a quote that is never closed.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import csv
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv

from ..domain.imports import ImportKind
from .errors import UsageError
from .import_lines import range_blocks, without_mark
from .import_ranges import ImportRange, ImportRows
from .import_schema import Columns, place_columns
from .import_text import NumberedLines, TextRows, checked_rows
from .text_lines import MAX_RECORD_BYTES

_ERRORS: Final = {
    "unexpected end of data": "a quote is not closed",
    "',' expected after '\"'": "a quote stands inside a field",
    "new-line character seen in unquoted field - do you need to open the file in universal-newline mode?": (
        "a carriage return stands outside quotes"
    ),
}


def plan_csv(head: bytes, name: str, kind: ImportKind) -> tuple[str, ...]:
    """Checks a file's header row.

    Args:
        head: the file's first lines.
        name: of the file, for people.
        kind: what is imported.

    Returns:
        The columns' names; empty where the file holds blank lines only.

    Raises:
        UsageError: the header cannot be read, or its columns make no import of the kind.
    """
    lines = head.lstrip().decode("utf-8", "surrogateescape").splitlines(keepends=True)
    if not lines:
        return ()
    try:
        header = [column.strip() for column in next(csv.reader(lines, strict=True))]
        "".join(header).encode()
    except csv.Error as error:
        raise UsageError(f"{name}: its header row cannot be read: {_ERRORS.get(str(error), str(error))}") from None
    except UnicodeEncodeError:
        raise UsageError(f"{name}: its header row is not UTF-8; save the file as UTF-8") from None
    place_columns(header, kind, name)
    return tuple(header)


def read_csv(part: ImportRange, batch_rows: int) -> Iterator[ImportRows]:
    """Reads a range's rows.

    Args:
        part: whole lines; where quotes stand in the file, all of it.
        batch_rows: the most rows of a result.

    Raises:
        BackendUnavailableError: the disk or the store failed.
        UsageError: the file is gone, its compressed contents are damaged, or a line is over 64 MiB.
    """
    columns = place_columns(part.header, part.kind, part.name)
    blocks = range_blocks(part)
    line = part.first_row
    for block in blocks:
        if line == 1:
            block, line = _behind_header(without_mark(block))  # noqa: PLW2901 - the rest of it
        rows = _columns_of(block, columns, len(part.header), line)
        if rows is not None:
            yield from checked_rows(rows, part, batch_rows)
            line += block.count(b"\n")
            continue
        window = _Window(block, blocks, line)
        while rows := _rows_of(window, columns, len(part.header), batch_rows):
            yield from checked_rows(rows, part, batch_rows)
        line = window.line


def _behind_header(block: bytes) -> tuple[bytes, int]:
    """What follows the header row, and the number of the line it begins with."""
    lines = block.split(b"\n")
    taken = 0
    while taken < len(lines) - 1 and not lines[taken].strip():
        taken += 1

    def text() -> Iterator[str]:
        nonlocal taken
        for line in lines[taken:]:
            taken += 1
            yield line.decode("utf-8", "surrogateescape") + "\n"

    next(csv.reader(text(), strict=True), None)
    return b"\n".join(lines[taken:]), taken + 1


def _columns_of(block: bytes, columns: Columns, width: int, line: int) -> TextRows | None:
    """A block as whole columns; None where only reading it row by row tells what it holds."""
    quotes = block.count(b'"')
    if b"\0" in block or block.count(b"\r") != block.count(b"\r\n") or (quotes and quotes != _outer_quotes(block)):
        return None
    names = [str(place) for place in range(width)]
    wanted = [str(place) for place in columns if place is not None]
    try:
        table = pacsv.read_csv(
            pa.BufferReader(block),
            pacsv.ReadOptions(column_names=names, use_threads=False, block_size=len(block) + 1),
            pacsv.ParseOptions(quote_char='"' if quotes else False),
            pacsv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted),
        ).combine_chunks()
    except pa.ArrowException:
        return None  # a row of another width, or text that is not UTF-8: which one, the slower way tells
    lines = NumberedLines(block, line)
    rows = table.num_rows
    if block.count(b"\n") + (not block.endswith(b"\n")) != rows and len(lines) != rows:
        return None  # a row of several lines
    if quotes and block.count(b",") != rows * (width - 1):
        return None  # a comma in quotes, or quotes that no rule allows
    cells = [table.column(name).chunk(0) if rows else pa.array([], pa.string()) for name in wanted]
    return TextRows(cells[0], cells[1], cells[2] if columns.updated is not None else None, lines.__getitem__, {})


def _outer_quotes(block: bytes) -> int:
    """How many quotes stand at a cell's beginning or end, as far as commas and newlines tell."""
    begin = block.count(b',"') + block.count(b'\n"') + block.startswith(b'"')
    return begin + block.count(b'",') + block.count(b'"\n') + block.count(b'"\r') + block.endswith(b'"')


class _Window:
    """The lines from the current row's first one on; an iterator for ``csv.reader`` that can be set back.

    Args:
        block: whole lines, without byte order mark.
        blocks: those that follow, taken where a row reaches over the block's end.
        line: the number of the block's first line in the file.

    Attributes:
        lines: from the current row's first one on, at least, without their newlines.
        first: index of the current row's first line.
        following: index of the first line behind what the reader took.
    """

    def __init__(self, block: bytes, blocks: Iterator[bytes], line: int) -> None:
        self._blocks = blocks
        self._line = line
        self._taken_bytes = 0
        self.lines = _split(block)
        self.first = 0
        self.following = 0

    @property
    def line(self) -> int:
        """The number of the current row's first line in the file."""
        return self._line + self.first

    def begin_row(self) -> bool:
        """Moves to the next row that is not blank; False where the last block taken has none."""
        self._taken_bytes = 0
        while self.following < len(self.lines) and not self.lines[self.following].strip():
            self.following += 1
        self.first = self.following
        return self.first < len(self.lines)

    def payload(self) -> bytes:
        """The current row's own bytes."""
        return b"\n".join(self.lines[self.first : self.following]).removesuffix(b"\r")

    def __iter__(self) -> "_Window":
        return self

    def __next__(self) -> str:
        if self.following == len(self.lines):
            block = next(self._blocks, None)
            if block is None:
                raise StopIteration
            del self.lines[: self.first]
            self._line += self.first
            self.following -= self.first
            self.first = 0
            self.lines += _split(block)
        line = self.lines[self.following]
        self._taken_bytes += len(line) + 1
        if self._taken_bytes > MAX_RECORD_BYTES and self.following > self.first:
            raise StopIteration  # an open quote does not take the rest of the file
        self.following += 1
        return line.decode("utf-8", "surrogateescape") + "\n"


def _rows_of(window: _Window, columns: Columns, width: int, most: int) -> TextRows | None:
    """Up to ``most`` rows, read one by one; None where the window has no more."""
    reader = csv.reader(window, strict=True)
    cells: list[list[str]] = []
    lines: list[tuple[int, bytes]] = []
    broken: dict[int, str] = {}
    places = [place for place in columns if place is not None]
    empty = [""] * len(places)
    while len(cells) < most and window.begin_row():
        fields, error = _next_row(window, reader, width)
        payload = window.payload()
        if error is None and b"\0" in payload:
            error = "the row holds NUL bytes"
        picked = [fields[place] for place in places] if error is None else empty
        if error is None and not (payload.isascii() or _is_utf8(picked)):
            picked, error = empty, "the row is not UTF-8"
        if error is not None:
            broken[len(cells)] = error
        cells.append(picked)
        lines.append((window.line, payload))
    if not cells:
        return None
    arrays = [pa.array(column, pa.string()) for column in zip(*cells, strict=True)]
    return TextRows(arrays[0], arrays[1], arrays[2] if columns.updated is not None else None, lines.__getitem__, broken)


def _next_row(window: _Window, reader: "Iterator[list[str]]", width: int) -> tuple[list[str], str | None]:
    """Reads one row: its fields or an error. After an error the window stands behind the row's first line."""
    try:
        fields = next(reader)
    except csv.Error as error:
        message = _ERRORS.get(str(error), str(error))
    else:
        if len(fields) == width:
            return fields, None
        if window.following - window.first > 1:
            message = "a quote is not closed"
        else:
            message = f"the row has {len(fields)} fields, the header has {width}"
    window.following = window.first + 1
    return [], message


def _is_utf8(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _split(block: bytes) -> list[bytes]:
    return block.removesuffix(b"\n").split(b"\n") if block else []
