"""What an import's input is: its files, the part of a file one worker reads, and what reading it gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ..domain.imports import ImportKind

MAX_USER_BYTES: Final = 10_240
"""A longer user id is a bad row."""

MAX_CLUSTER_CHARACTERS: Final = 256
"""A longer cluster id is a bad row."""

MAX_TEXT_BYTES: Final = 4 * MAX_CLUSTER_CHARACTERS
"""No cluster id, number or time has more."""

USER_COLUMN: Final = "globalUserId"
UPDATED_COLUMN: Final = "updatedAt"

ALIASES: Final[Mapping[str, str]] = {
    "global_user_id": USER_COLUMN,
    "bon_score": ImportKind.BOT_OR_NOT.value_column,
    "cluster_id": ImportKind.CLUSTER.value_column,
    "updated_at": UPDATED_COLUMN,
}
"""Other spellings of the columns."""


class ImportFormat(StrEnum):
    """The formats imports are read from."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


class Compression(StrEnum):
    """How a whole file is compressed; the values are pyarrow's names."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class ImportRange:
    """One worker's part of a file; small and picklable.

    Attributes:
        address: of the file, as it is opened: an absolute path, or ``s3://`` or ``gs://`` with its options.
        name: of the file, as it may stand in a one-line message.
        format: of the file.
        compression: of the whole file.
        kind: what its rows are read as.
        start: the first byte of a text file (always a line's first), or the first row group of a Parquet file.
        end: behind the last byte or row group. Compressed: 0, and the file is read to its end.
        first_row: the number of the first row (Parquet, from 0) or line (from 1) of the range in the whole file.
        rows: about how many there are in the range.
        header: a CSV file's columns as its first line has them; empty for other formats.
        size: of the whole file, in bytes, when the work was planned.
        mark: what else tells whether another file stands there now: the store's ETag, or the modification time.
        modified_at_ms: when the file was last written, epoch milliseconds: the time of rows that have none.
        planned_at_ms: when the work was planned, epoch milliseconds. Rows may not be much newer; not the clock at the
            time of reading, so that reading a range again gives the same.
    """

    address: str
    name: str
    format: ImportFormat
    compression: Compression
    kind: ImportKind
    start: int
    end: int
    first_row: int
    rows: int
    header: tuple[str, ...]
    size: int
    mark: str
    modified_at_ms: int
    planned_at_ms: int


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """Checked files, and the work of reading them.

    Attributes:
        ranges: in the order of the files and of their contents.
        digest: of the files' contents (64 hex digits), whatever the files' names and order.
        files: their names, for people.
        rows: about how many there are in all; exact where no CSV cell holds a line break.
    """

    ranges: tuple[ImportRange, ...]
    digest: str
    files: tuple[str, ...]
    rows: int


@dataclass(slots=True)
class BadRow:
    """A row that cannot be read or breaks a rule.

    Attributes:
        payload: the row's own bytes; of a Parquet file the row's columns as JSON.
        position: file and line (from 1, the header counts) or row (from 0): ``scores.csv line 17``.
        reason: a short code, counted: ``malformed``, ``blank_user``, ``missing_value``, ``out_of_range`` …
        error: one line without personal data.
    """

    payload: bytes
    position: str
    reason: str
    error: str


@dataclass(slots=True)
class ImportRows:
    """Some consecutive rows of a range.

    Attributes:
        table: the good ones, in order: columns ``user`` (string), ``value`` (double, or string for clusters) and
            ``updatedAt`` (int64, epoch milliseconds), none of them null. A ``pyarrow.Table``.
        bad: the others.
        rows: how many were read, bad ones included.
    """

    table: Any
    bad: list[BadRow]
    rows: int


def position(part: ImportRange, number: int) -> str:
    """Where a row stands, for people: ``scores.csv line 17``, ``scores.parquet row 12``."""
    return f"{part.name} {'row' if part.format is ImportFormat.PARQUET else 'line'} {number}"
