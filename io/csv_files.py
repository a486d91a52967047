"""CSV files of activities: RFC 4180 with a header row, in UTF-8, comma separated.

A row that cannot be read becomes a record with an error, and reading goes on with the next line, also behind a quote
that is never closed: the lines it swallowed are read again as rows of their own.
"""

import csv
from collections.abc import Iterator
from itertools import islice

from ..domain.records import RawRecord
from .errors import UsageError
from .file_ranges import shown
from .record_batches import Group, group_of
from .text_lines import BOM, MAX_RECORD_BYTES, RECORD_TOO_LONG, Lines
from .wire_columns import RowEncoder, RowError, check_columns

_GROUP_RECORDS = 1_000
_ERRORS = {
    "unexpected end of data": "a quote is not closed",
    "',' expected after '\"'": "a quote stands inside a field",
}


def check_csv(path: str, head: bytes) -> None:
    """Checks a file's header row.

    Args:
        path: of the file.
        head: its first bytes.

    Raises:
        UsageError: no header, not UTF-8, or its columns make no activities.
    """
    name = shown(path)
    lines = head.removeprefix(BOM).lstrip().decode("utf-8", "surrogateescape").splitlines(keepends=True)
    try:
        header = next(csv.reader(lines, strict=True), list[str]())
    except csv.Error as error:
        raise UsageError(f"{name}: its header row cannot be read: {_ERRORS.get(str(error), str(error))}") from None
    check_columns(_columns(header, name), name)


def read_csv(lines: Iterator[Lines], name: str, size: int) -> Iterator[Group]:
    """Reads a CSV file's rows, in groups.

    Line endings inside quotes stay as they are. A record's payload is the row's own bytes.

    Args:
        lines: of the whole file, also those behind ``size``: the last row's quotes may reach over it.
        name: how errors call the file.
        size: where the file ended when the work was planned. A row that begins before it is read to its end.

    Raises:
        UsageError: the header row makes no activities; or what ``lines`` raises.
    """
    window = _Window(lines)
    reader = csv.reader(window, strict=True)
    records = _records(window, reader, name, size)
    while group := list(islice(records, _GROUP_RECORDS)):
        yield group_of(group)


class _Window:
    """The lines from the current row's first one on; an iterator for ``csv.reader`` that can be set back.

    Attributes:
        lines: without their newline.
        offsets: of the lines' first bytes in the file.
        first: index of the current row's first line.
        following: index of the first line behind what the reader took.
    """

    def __init__(self, blocks: Iterator[Lines]) -> None:
        self._blocks = blocks
        self._taken_bytes = 0
        self.lines: list[bytes] = []
        self.offsets: list[int] = []
        self.first = 0
        self.following = 0

    def begin_row(self) -> bool:
        """Moves to the next row; False where there is none."""
        self.first = self.following
        self._taken_bytes = 0
        return self.first < len(self.lines) or self._load()

    def __iter__(self) -> "_Window":
        return self

    def __next__(self) -> str:
        if self.following == len(self.lines) and not self._load():
            raise StopIteration
        line = self.lines[self.following]
        self._taken_bytes += len(line) + 1
        if self._taken_bytes > MAX_RECORD_BYTES and self.following > self.first:
            raise StopIteration  # an open quote does not take the rest of the file
        self.following += 1
        return line.decode("utf-8", "surrogateescape") + "\n"

    def row(self) -> bytes:
        """The current row's own bytes, without its ending."""
        return b"\n".join(self.lines[self.first : self.following]).removesuffix(b"\r")

    def _load(self) -> bool:
        block = next(self._blocks, None)
        if block is None:
            return False
        del self.lines[: self.first], self.offsets[: self.first]
        self.following -= self.first
        self.first = 0
        self.lines += block.lines
        self.offsets += block.offsets
        return True


def _records(window: _Window, reader: "Iterator[list[str]]", name: str, size: int) -> Iterator[RawRecord]:
    encoder: RowEncoder | None = None
    width = 0
    while window.begin_row():
        offset = window.offsets[window.first]
        if offset >= size:
            return
        line = window.lines[window.first]
        if not line or line.isspace():
            window.following += 1
            continue
        fields, error = _next_row(window, reader, width)
        if encoder is None:
            columns = _columns(fields or [], name)
            check_columns(columns, name)
            encoder, width = RowEncoder(columns), len(columns)
            continue
        position = f"byte {offset}"
        payload = window.row()
        body = None
        if fields is not None and b"\0" in payload:
            error = "the row holds NUL bytes"
        elif fields is not None:
            try:
                body = encoder.encode([field or None for field in fields])
            except RowError as row_error:
                error = str(row_error)
        yield RawRecord(payload, position, body, error)


def _next_row(window: _Window, reader: "Iterator[list[str]]", width: int) -> tuple[list[str] | None, str | None]:
    """Reads one row: its fields or an error. After an error the window stands behind the row's first line.

    Args:
        window: at the row's first line.
        reader: of the window.
        width: fields a row must have; 0 for any.
    """
    if len(window.lines[window.first]) > MAX_RECORD_BYTES:
        window.following = window.first + 1
        return None, RECORD_TOO_LONG
    try:
        fields = next(reader)
    except csv.Error as error:
        message = _ERRORS.get(str(error), str(error))
    else:
        if len(fields) == width or not width:
            return fields, None
        if window.following - window.first > 1:
            message = "a quote is not closed"
        else:
            message = f"the row has {len(fields)} fields, the header has {width}"
    window.following = window.first + 1
    return None, message


def _columns(header: list[str], name: str) -> list[str]:
    columns = [column.strip() for column in header]
    try:
        for column in columns:
            column.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name}: its header row is not UTF-8; save the file as UTF-8") from None
    return columns
