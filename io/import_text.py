"""Rows of text files of imports: their cells as columns, and the line each one came from."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from .import_columns import check_rows
from .import_ranges import BadRow, ImportRange, ImportRows, position


class TextRows(NamedTuple):
    """Consecutive rows.

    Attributes:
        user: an Arrow array of their users.
        value: likewise of their values.
        updated: likewise of their times; None where the file has no such column.
        line: of a row by its index, the number of its first line in the file, and its own bytes.
        broken: errors of rows that cannot be read, by index.
    """

    user: Any
    value: Any
    updated: Any
    line: Callable[[int], tuple[int, bytes]]
    broken: Mapping[int, str]


class NumberedLines:
    """A block's lines by their index, blank ones left out; split only when one is asked for.

    Args:
        block: whole lines.
        first: the number of the first one in the file.
    """

    def __init__(self, block: bytes, first: int) -> None:
        self._block = block
        self._first = first

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> tuple[int, bytes]:
        """The number and the bytes of a line."""
        number, line = self._lines[index]
        return number, line.removesuffix(b"\r")

    @cached_property
    def _lines(self) -> list[tuple[int, bytes]]:
        numbered = enumerate(self._block.split(b"\n"), self._first)
        return [(number, line) for number, line in numbered if line and not line.isspace()]


def checked_rows(rows: TextRows, part: ImportRange, batch_rows: int) -> Iterator[ImportRows]:
    """Applies the rules of imports to rows, at most ``batch_rows`` at a time."""
    for start in range(0, len(rows.user), batch_rows):
        user, value = rows.user.slice(start, batch_rows), rows.value.slice(start, batch_rows)
        updated = None if rows.updated is None else rows.updated.slice(start, batch_rows)
        broken = {row - start: error for row, error in rows.broken.items() if start <= row < start + batch_rows}
        checked = check_rows(user, value, updated, part, broken)
        bad: list[BadRow] = []
        for row in sorted(checked.bad):
            number, payload = rows.line(start + row)
            bad.append(BadRow(payload, position(part, number), *checked.bad[row]))
        yield ImportRows(checked.table, bad, len(user))
