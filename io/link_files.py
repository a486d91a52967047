"""Reading what links fans: files of links or of activities, column by column.

A row names a fan and any of the identifiers of ``LinkKind``; in a file of activities, the device and the IP address of
``context`` are read. Files are planned first and then read range by range in any process, like activities.
"""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

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
from .link_rows import Links, csv_header, csv_rows, in_batches, json_rows, parquet_header, parquet_links
from .text_lines import BOM, Lines, OpenFile, read_lines

BATCH_ROWS: Final = 50_000

_TARGET_BYTES: Final = 16 * 1024 * 1024
_ABOUT_ROW_BYTES: Final = 60


def plan_links(paths: Sequence[str], format: FileFormat | None = None) -> list[FileRange]:
    """Checks every input, then splits the work: JSON lines at any byte, Parquet between row groups.

    CSV is not split, and neither is a file compressed with gzip or zstd.

    Args:
        paths: plain paths or ``file:///absolute/path``.
        format: of all files; None to tell it from each file's name or first lines.

    Raises:
        UsageError: an input is missing, empty, unreadable, of another format, or has no column of fans or none of
            identifiers; the first one found, before anything is read.
    """
    return [part for path in paths for part in _plan(os.path.abspath(local_path(path)), format)]  # noqa: PTH100 - as in files.py


def about_rows(ranges: Sequence[FileRange]) -> int:
    """About how many rows ranges hold, never far too few: what a run is planned for.

    Raises:
        UsageError: a compressed file is damaged.
        BackendUnavailableError: a file cannot be read any more.
    """
    rows = 0
    for part in ranges:
        if part.format is FileFormat.PARQUET:
            from .parquet_files import count_rows  # noqa: PLC0415 - imports pyarrow

            rows += count_rows(part)
        elif part.compression is not None:
            from .compressed_files import estimate_lines  # noqa: PLC0415 - imports pyarrow

            rows += estimate_lines(part.path, part.compression) + 1
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
        file = OpenFile(descriptor, part.name)
        if part.format is FileFormat.PARQUET:
            yield from parquet_links(part.path, range(part.start, part.end), part.name, batch_rows)
        elif part.format is FileFormat.CSV and part.compression is None:
            with io.open(descriptor, encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=False) as text:  # noqa: UP020 - Path cannot open a descriptor
                yield from in_batches(csv_rows(text, part.name), batch_rows)
        elif part.format is FileFormat.CSV:
            yield from in_batches(csv_rows(_decoded(_lines(file, part)), part.name), batch_rows)
        else:
            yield from in_batches(json_rows(_lines(file, part)), batch_rows)
    finally:
        os.close(descriptor)


def _lines(file: OpenFile, part: FileRange) -> Iterator[Lines]:
    if part.compression is None:
        return read_lines(file, part.start, part.end, part.size_at_start)
    from .compressed_files import read_unpacked_lines  # noqa: PLC0415 - imports pyarrow

    return read_unpacked_lines(file, part.compression)


def _decoded(blocks: Iterable[Lines]) -> Iterator[str]:
    for lines in blocks:
        for line in lines.lines:
            yield line.decode("utf-8", "surrogateescape") + "\n"


def _plan(path: str, format: FileFormat | None) -> list[FileRange]:
    size = file_size(path)
    head = read_head(path)
    format = format or detect_format(path)
    compression = compression_of(head)
    checksum = fingerprint(head, size)
    if format is FileFormat.ACCESS_LOG:
        raise UsageError(f"{shown(path)}: is an access log, which names no fans; give JSONL, CSV or Parquet")
    if format is FileFormat.PARQUET:
        if compression is not None:
            raise UsageError(f"{shown(path)}: is Parquet packed once more with {compression}; unpack it")
        groups = parquet_header(path, shown(path))
        return [FileRange(path, format, group, group + 1, size, checksum) for group in range(groups)]
    contents = head if compression is None else _unpacked(path, compression)
    check_text(path, format, contents)
    if format is FileFormat.CSV:
        csv_header(contents.removeprefix(BOM).decode("utf-8", "replace"), shown(path))
    if format is FileFormat.CSV or compression is not None:
        return [FileRange(path, format, 0, size, size, checksum, compression)]
    return [
        FileRange(path, format, start, min(start + _TARGET_BYTES, size), size, checksum)
        for start in range(0, size, _TARGET_BYTES)
    ]


def _unpacked(path: str, compression: Compression) -> bytes:
    from .compressed_files import unpacked_head  # noqa: PLC0415 - imports pyarrow

    return unpacked_head(path, compression)
