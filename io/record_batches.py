"""From lines to records, and from records to batches of bounded size."""

from collections.abc import Callable, Iterable, Iterator

from ..domain.activity import MalformedRecordError
from ..domain.records import RawRecord
from . import access_log
from .text_lines import MAX_RECORD_BYTES, RECORD_TOO_LONG, Lines

BATCH_BYTES = 4 * 1024 * 1024
"""A batch holds no more, unless one record alone does."""


def jsonl_records(lines: Lines) -> list[RawRecord]:
    """The records of JSON lines: a line is an activity as it stands. Blank lines are none."""
    stripped = [line.removesuffix(b"\r") for line in lines.lines]
    if max(map(len, stripped)) > MAX_RECORD_BYTES:
        return _one_by_one(lines, lambda line: line)
    return [
        RawRecord(line, f"byte {offset}", line)
        for line, offset in zip(stripped, lines.offsets, strict=True)
        if line and not line.isspace()
    ]


def access_log_records(lines: Lines) -> list[RawRecord]:
    """The records of a web server's access log: a line is a request. Blank lines are none."""
    return _one_by_one(lines, access_log.activity_of)


def _one_by_one(lines: Lines, body_of: Callable[[bytes], bytes]) -> list[RawRecord]:
    records: list[RawRecord] = []
    for raw_line, offset in zip(lines.lines, lines.offsets, strict=True):
        line = raw_line.removesuffix(b"\r")
        if not line or line.isspace():
            continue
        position = f"byte {offset}"
        if len(line) > MAX_RECORD_BYTES:
            records.append(RawRecord(line, position, None, RECORD_TOO_LONG))
            continue
        try:
            records.append(RawRecord(line, position, body_of(line)))
        except MalformedRecordError as error:
            records.append(RawRecord(line, position, None, str(error)))
    return records


def batches(groups: Iterable[list[RawRecord]], batch_records: int, batch_bytes: int) -> Iterator[list[RawRecord]]:
    """Cuts records into batches.

    Args:
        groups: records in order, in groups of any size.
        batch_records: the most records of a batch.
        batch_bytes: the most bytes of a batch, as payload or as body; a single record may have more.
    """
    batch: list[RawRecord] = []
    held = 0
    for group in groups:
        for record in group:
            size = len(record.payload)
            if record.body is not None and len(record.body) > size:
                size = len(record.body)
            if batch and (len(batch) >= batch_records or held + size > batch_bytes):
                yield batch
                batch, held = [], 0
            batch.append(record)
            held += size
    if batch:
        yield batch
