"""Reading import files: everything checked and planned before the first write, then read range by range.

``plan_import`` → ``read_import`` of each range, in any process. Reading is deterministic: the same files give the same
rows, bad ones included, however often a range is read.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from ..domain.imports import ImportKind
from .clock import now_ms
from .errors import BackendUnavailableError, UsageError
from .import_contents import SUFFIXES, TARGET_BYTES, Contents, known_suffix, read_contents
from .import_csv import plan_csv, read_csv
from .import_jsonl import plan_jsonl, read_jsonl
from .import_parquet import plan_parquet, read_parquet
from .import_ranges import BadRow, Compression, ImportFormat, ImportPlan, ImportRange, ImportRows
from .remote_files import StoredFile, find_files, look_again

__all__ = [
    "BadRow",
    "Compression",
    "ImportFormat",
    "ImportPlan",
    "ImportRange",
    "ImportRows",
    "plan_import",
    "read_import",
]

BATCH_ROWS: Final = 65_536


def plan_import(
    addresses: Sequence[str], kind: ImportKind, format: str | None = None, target_bytes: int = TARGET_BYTES
) -> ImportPlan:
    """Checks every input by reading all of it once, then splits the work.

    Parquet files are split between row groups, plain JSON lines and CSV files without quotes between lines; a
    compressed file is one range. A file named twice is read once.

    Args:
        addresses: plain paths, ``file:///absolute/path``, ``s3://bucket/key?region=…`` or ``gs://bucket/key``; one that
            ends in ``/`` stands for all files below it whose names end in .parquet, .csv, .jsonl, .ndjson or .json,
            also with .gz or .zst behind.
        kind: what they hold.
        format: ``parquet``, ``csv`` or ``jsonl``, of all files; None to tell it from each one's name and first bytes.
        target_bytes: about as many of a text file are a range.

    Raises:
        UsageError: an input is missing, empty, half a file, damaged, unreadable, of unclear format or compression,
            without the columns of the kind, or of the other kind; the first one found.
        BackendUnavailableError: the disk or the store failed.
    """
    given = _given(format)
    planned_at = now_ms()
    files: dict[str, StoredFile] = {}
    ranges: list[ImportRange] = []
    digests: list[bytes] = []
    for address in addresses:
        folder = address.partition("?")[0].endswith("/") if "://" in address else address.endswith("/")
        rows = 0
        found = [file for file in find_files(address) if not folder or known_suffix(file.path)]
        for file in found:
            if file.address in files:
                rows = 1  # counted where it was named first
                continue
            files[file.address] = file
            parts, digest = _plan_file(file, kind, given, planned_at, target_bytes)
            if not parts and not folder:
                raise UsageError(f"{file.name}: has no rows; nothing was imported, export it again")
            rows += sum(part.rows for part in parts)
            ranges += parts
            digests.append(digest)
        if not found:
            raise UsageError(f"{address}: holds no file to import ({', '.join(SUFFIXES)}, also .gz and .zst)")
        if not rows:
            raise UsageError(f"{address}: its files have no rows; nothing was imported, export them again")
    if not files:
        raise UsageError("no file to import; name one or a folder that ends in /")
    digest = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    return ImportPlan(
        tuple(ranges), digest, tuple(file.name for file in files.values()), sum(part.rows for part in ranges)
    )


def read_import(part: ImportRange, batch_rows: int = BATCH_ROWS) -> Iterator[ImportRows]:
    """Reads a range's rows, in order.

    Args:
        part: from ``plan_import``.
        batch_rows: the most rows of a result; memory is bounded by it.

    Raises:
        BackendUnavailableError: the disk or the store failed, or another file stands there since the plan.
        UsageError: the file is gone, or its data are damaged.
    """
    _check_same(part)
    readers = {ImportFormat.PARQUET: read_parquet, ImportFormat.CSV: read_csv, ImportFormat.JSONL: read_jsonl}
    yield from readers[part.format](part, batch_rows)
    _check_same(part)  # it may have been replaced under the reader's hands


def _given(format: str | None) -> ImportFormat | None:
    try:
        return None if format is None else ImportFormat(format)
    except ValueError:
        raise UsageError(f"--format {format}: is no format of imports; there are: {', '.join(ImportFormat)}") from None


def _plan_file(
    file: StoredFile, kind: ImportKind, format: ImportFormat | None, planned_at: int, target_bytes: int
) -> tuple[list[ImportRange], bytes]:
    contents = read_contents(file, format, target_bytes)
    parts: list[tuple[int, int, int, int]] = []
    header: tuple[str, ...] = ()
    if contents.shape.format is ImportFormat.PARQUET:
        parts = list(plan_parquet(file.address, file.name, kind))
    else:
        if contents.shape.format is ImportFormat.CSV:
            header = plan_csv(contents.head, file.name, kind)
        else:
            plan_jsonl(contents.head, file.name, kind)
        parts = _text_parts(contents)
    ranges = [
        ImportRange(
            file.address,
            file.name,
            *contents.shape,
            kind,
            *part,
            header,
            file.size,
            file.mark,
            file.modified_at_ms,
            planned_at,
        )
        for part in parts
    ]
    return ranges, contents.digest


def _text_parts(contents: Contents) -> list[tuple[int, int, int, int]]:
    csv = contents.shape.format is ImportFormat.CSV
    if contents.lines <= csv or not contents.head.strip():
        return []
    cuts = contents.cuts if not (csv and contents.quoted) else (contents.cuts[0], contents.cuts[-1])
    return [
        (start.offset, end.offset, start.line, end.line - start.line - (csv and start.line == 1))
        for start, end in pairwise(cuts)
    ]


def _check_same(part: ImportRange) -> None:
    try:
        now = look_again(part.address)
    except UsageError:
        raise BackendUnavailableError(
            f"{part.name}: is gone since the import began; put it back and start again"
        ) from None
    if (now.size, now.mark) != (part.size, part.mark):
        raise BackendUnavailableError(f"{part.name}: was replaced since the import began; start it again")
