"""From lines to records, and from records to batches of bounded size."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ..domain.activity import MalformedRecordError
from ..domain.records import RawRecord
from . import access_log
from .text_lines import MAX_RECORD_BYTES, RECORD_TOO_LONG, Lines

BATCH_BYTES = 4 * 1024 * 1024
"""A batch holds no more, unless one record alone does."""


class Group(NamedTuple):
    """Consecutive records, as one step of reading gives them.

    Attributes:
        records: in the source's order.
        size: at least the bytes of their payloads, and of their bodies.
    """

    records: list[RawRecord]
    size: int


def group_of(records: list[RawRecord]) -> Group:
    """Measures records."""
    return Group(records, sum(map(_size, records)))


def _size(record: RawRecord) -> int:
    return max(len(record.payload), 0 if record.body is None else len(record.body))


def jsonl_records(lines: Lines) -> Group:
    """The records of JSON lines: a line is an activity as it stands. Blank lines are none."""
    stripped = [line.removesuffix(b"\r") for line in lines.lines]
    if max(map(len, stripped)) > MAX_RECORD_BYTES:
        return _one_by_one(lines, lambda line: line)
    records = [
        RawRecord(line, f"byte {offset}", line)
        for line, offset in zip(stripped, lines.offsets, strict=True)
        if line and not line.isspace()
    ]
    return Group(records, lines.end - lines.offsets[0])


def access_log_records(lines: Lines) -> Group:
    """The records of a web server's access log: a line is a request. Blank lines are none."""
    return _one_by_one(lines, access_log.activity_of)


def _one_by_one(lines: Lines, body_of: Callable[[bytes], bytes]) -> Group:
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
    return group_of(records)


def batches(groups: Iterable[Group], batch_records: int, batch_bytes: int) -> Iterator[list[RawRecord]]:
    """Cuts records into batches.

    Args:
        groups: of any size.
        batch_records: the most records of a batch.
        batch_bytes: the most bytes of a batch, as payload or as body; a single record may have more.
    """
    batch: list[RawRecord] = []
    held = 0
    for group in groups:
        for part in _no_larger(group, batch_bytes):
            if batch and held + part.size > batch_bytes:
                yield batch
                batch, held = [], 0
            batch += part.records
            held += part.size
            while len(batch) >= batch_records:
                yield batch[:batch_records]
                del batch[:batch_records]
                held = part.size  # or less: what is left is of the last part
    if batch:
        yield batch


def _no_larger(group: Group, size: int) -> Iterator[Group]:
    if group.size <= size:
        yield group
    else:
        for record in group.records:
            yield Group([record], _size(record))
