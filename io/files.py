"""Reading activities from local files: checked and planned first, then read range by range in small batches.

``plan_ranges`` → ``count_records`` (for a progress bar) → ``read_range`` of each range, in any process. Reading is
deterministic: the same files give the same records at the same positions, however they are split. A file that grows
for ever is followed with ``LineTail`` instead.
"""

import os
from collections.abc import Iterator, Sequence

from ..domain.records import RawRecord
from .csv_files import check_csv, read_csv
from .errors import UsageError
from .file_ranges import (
    Compression,
    FileFormat,
    FileRange,
    check_text,
    compression_of,
    detect_format,
    file_size,
    fingerprint,
    local_path,
    open_range,
    read_head,
    shown,
)
from .line_tail import LineTail
from .record_batches import BATCH_BYTES, Group, access_log_records, batches, jsonl_records
from .text_lines import BLOCK_BYTES, NO_END, Lines, OpenFile, pread, read_lines

__all__ = [
    "FileFormat",
    "FileRange",
    "LineTail",
    "count_records",
    "detect_format",
    "plan_ranges",
    "read_range",
]

TARGET_BYTES = 16 * 1024 * 1024
_COUNTED_BYTES = 64 * 1024 * 1024
_COUNT_BLOCK = 4 * 1024 * 1024


def plan_ranges(
    paths: Sequence[str], format: FileFormat | None = None, target_bytes: int = TARGET_BYTES
) -> list[FileRange]:
    """Checks every input, then splits the work.

    JSON lines and access logs are split at any byte, Parquet files between row groups; a CSV file is one range, since
    a newline in it may stand inside quotes, and so is a file compressed with gzip or zstd, whatever its format.

    Args:
        paths: plain paths or ``file:///absolute/path``.
        format: of all files; None to tell it from each file's name and first lines.
        target_bytes: of a range.

    Returns:
        Ranges in the order of the files and of their contents.

    Raises:
        UsageError: an input is missing, a folder, empty, unreadable, broken, of unclear format or without the
            required columns; the first one found, before any record is read.
    """
    return [part for path in paths for part in _plan_file(os.path.abspath(local_path(path)), format, target_bytes)]  # noqa: PTH100 - absolute() keeps "a/../b", which a moved worker would read differently


def _plan_file(path: str, format: FileFormat | None, target_bytes: int) -> list[FileRange]:
    size = file_size(path)
    head = read_head(path)
    format = format or detect_format(path)
    compression = compression_of(head)
    if compression is not None:
        return [_plan_compressed(path, format, size, head, compression)]
    if format is FileFormat.PARQUET:
        from .parquet_files import plan_parquet  # noqa: PLC0415 - pyarrow takes 0.2 s to import

        return plan_parquet(path, size, head, target_bytes)
    check_text(path, format, head)
    checksum = fingerprint(head, size)
    if format is FileFormat.CSV:
        check_csv(path, head)
        return [FileRange(path, format, 0, size, size, checksum)]
    step = max(1, target_bytes)
    return [FileRange(path, format, start, min(start + step, size), size, checksum) for start in range(0, size, step)]


def _plan_compressed(path: str, format: FileFormat, size: int, head: bytes, compression: Compression) -> FileRange:
    if format is FileFormat.PARQUET:
        raise UsageError(f"{shown(path)}: is Parquet packed once more with {compression}; unpack it, Parquet is packed")
    from .compressed_files import unpacked_head  # noqa: PLC0415 - pyarrow takes 0.2 s to import

    contents = unpacked_head(path, compression)
    check_text(path, format, contents)
    if format is FileFormat.CSV:
        check_csv(path, contents)
    return FileRange(path, format, 0, size, size, fingerprint(head, size), compression)


def count_records(ranges: Sequence[FileRange]) -> int:
    """About how many records ranges hold: for a progress bar, not for accounting.

    Parquet files say it; lines are counted in the first 64 MiB (of a compressed file, 16), and taken to be as long in
    the rest.

    Raises:
        BackendUnavailableError: a file vanished, shrank or was replaced since the plan.
    """
    count = 0
    newlines = counted = total = 0
    for part in ranges:
        if part.format is FileFormat.PARQUET:
            from .parquet_files import count_rows  # noqa: PLC0415 - pyarrow takes 0.2 s to import

            count += count_rows(part)
            continue
        if part.compression is not None:
            from .compressed_files import estimate_lines  # noqa: PLC0415 - pyarrow takes 0.2 s to import

            count += estimate_lines(part.path, part.compression)
            continue
        total += part.end - part.start
        if counted < _COUNTED_BYTES:
            newlines += _count_newlines(part)
            counted += part.end - part.start
    return count + (newlines * total // counted if counted else 0)


def _count_newlines(part: FileRange) -> int:
    descriptor = open_range(part)
    try:
        file = OpenFile(descriptor, part.name)
        newlines = 0
        data = b""
        for start in range(part.start, part.end, _COUNT_BLOCK):
            data = pread(file, min(_COUNT_BLOCK, part.end - start), start)
            newlines += data.count(b"\n")
        # The header of a CSV file is no record; a last line may lack its newline.
        header = part.format is FileFormat.CSV
        open_end = part.end == part.size_at_start and not data.endswith(b"\n")
        return max(0, newlines + open_end - header)
    finally:
        os.close(descriptor)


def read_range(
    file_range: FileRange,
    batch_records: int = 500,
    *,
    batch_bytes: int = BATCH_BYTES,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[list[RawRecord]]:
    """Reads a range's records, in order, in batches.

    A record that its format cannot read has its ``error`` set and its original bytes as payload. Lines are records
    without their ending (LF or CRLF) and without a byte order mark; blank lines are none. What was appended since the
    plan is not read, but a last line that was incomplete then is read to its newline.

    Args:
        file_range: from ``plan_ranges``.
        batch_records: the most records of a batch.
        batch_bytes: the most bytes of a batch; a longer record is a batch of its own.
        block_bytes: read from the file at once.

    Raises:
        BackendUnavailableError: the file vanished, shrank or was replaced since the plan.
        UsageError: a line is over 64 MiB, or a Parquet or compressed file's data are damaged.
    """
    descriptor = open_range(file_range)
    try:
        yield from batches(_groups(file_range, descriptor, block_bytes), batch_records, batch_bytes)
    finally:
        os.close(descriptor)


def _groups(file_range: FileRange, descriptor: int, block_bytes: int) -> Iterator[Group]:
    file = OpenFile(descriptor, file_range.name)
    if file_range.format is FileFormat.PARQUET:
        from .parquet_files import read_parquet  # noqa: PLC0415 - pyarrow takes 0.2 s to import

        return read_parquet(file_range)
    if file_range.compression is not None:
        from .compressed_files import read_unpacked_lines  # noqa: PLC0415 - pyarrow takes 0.2 s to import

        lines, size = read_unpacked_lines(file, file_range.compression, block_bytes), NO_END
    elif file_range.format is FileFormat.CSV:
        # Lines behind the planned end are looked at only where the last row's quotes reach over it.
        size = file_range.size_at_start
        lines = read_lines(file, 0, NO_END, size)
    else:
        size = file_range.size_at_start
        lines = read_lines(file, file_range.start, file_range.end, size, block_bytes)
    return _records_of(file_range.format, lines, file.name, size)


def _records_of(format: FileFormat, lines: Iterator[Lines], name: str, size: int) -> Iterator[Group]:
    if format is FileFormat.CSV:
        return read_csv(lines, name, size)
    return map(jsonl_records if format is FileFormat.JSONL else access_log_records, lines)
