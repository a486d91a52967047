"""Lines of big text files, in blocks: positions and bytes of every line, memory bounded whatever the file holds.

Everything works on a file descriptor and absolute offsets (``os.pread``), so nothing depends on a shared file position.
"""

import os
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from .errors import BackendUnavailableError, UsageError

BLOCK_BYTES = 256 * 1024
"""Read at once: large enough that splitting dominates, small enough to stay in the processor's cache."""

MAX_RECORD_BYTES = 1024 * 1024
"""A longer line is a record with an error."""

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line means that the file is no text; it is refused before it is held in memory."""

NO_END = 1 << 62
"""An offset behind any file's end."""

RECORD_TOO_LONG = "record is longer than 1 MiB"
BOM = b"\xef\xbb\xbf"


class OpenFile(NamedTuple):
    """An open file.

    Attributes:
        descriptor: for reading; whoever opened it closes it.
        name: how errors call the file.
    """

    descriptor: int
    name: str


class Lines(NamedTuple):
    r"""Consecutive lines of a file.

    Attributes:
        offsets: where each line's first byte stands in the file.
        lines: their bytes without ``\n``; where endings are ``\r\n``, the ``\r`` is still there.
        end: the offset behind the last line's ending.
    """

    offsets: list[int]
    lines: list[bytes]
    end: int


def read_lines(file: OpenFile, start: int, end: int, size: int, block: int = BLOCK_BYTES) -> Iterator[Lines]:
    """Reads the lines whose first byte lies in ``[start, end)``, the last one to its ending.

    A byte order mark belongs to the first line and is dropped from it. Blank lines are among the results.

    Args:
        file: to read.
        start: offset in bytes; a line that began before it is left to the range before.
        end: offset in bytes.
        size: of the file when the work was planned, in bytes; where the file ends before it, it shrank.
        block: bytes read at once.

    Raises:
        BackendUnavailableError: the file shrank, or cannot be read any more.
        UsageError: a line is over 64 MiB.
    """
    position = start
    if start == 0:
        if pread(file, len(BOM), 0) == BOM:
            position = len(BOM)
            end = max(end, position + 1)  # the first line's first byte is the mark's
    else:
        newline = find_newline(file, start - 1, start - 1, block)
        if newline is None:
            if os.fstat(file.descriptor).st_size < size:
                raise _shrank(file)
            return
        position = newline + 1
    while position < end:
        data = pread(file, block, position)
        if not data:
            if position < size:
                raise _shrank(file)
            return
        # The last line of the range holds byte end - 1; its newline is the first one from there on.
        cut = data.find(b"\n", end - 1 - position) if position + len(data) >= end else -1
        if cut < 0:
            cut = data.rfind(b"\n")
        if cut < 0:
            newline = find_newline(file, position, position + len(data), block)
            line, following = read_line(file, position, newline)
            if newline is None and following < size:
                raise _shrank(file)
            yield Lines([position], [line], following)
            position = following
            continue
        yield located(data[:cut].split(b"\n"), position)
        position += cut + 1


def located(lines: list[bytes], position: int) -> Lines:
    """Adds to consecutive lines where they stand.

    Args:
        lines: each was followed by a newline.
        position: the offset of the first line's first byte in the file.
    """
    offsets = list(accumulate([len(line) + 1 for line in lines], initial=position))
    return Lines(offsets, lines, offsets.pop())


def read_line(file: OpenFile, start: int, newline: int | None) -> tuple[bytes, int]:
    """Reads one long line in one piece, so that it is held once only.

    Args:
        file: to read.
        start: its offset.
        newline: its newline's offset, or None for a line that ends with the file.

    Returns:
        The line without its newline, and the offset behind the newline.

    Raises:
        BackendUnavailableError: the file shrank.
        UsageError: the line is over 64 MiB.
    """
    stop = os.fstat(file.descriptor).st_size if newline is None else newline
    if stop - start > MAX_LINE_BYTES:
        raise _not_text(file)
    line = pread(file, stop - start, start)
    if len(line) < stop - start:
        raise _shrank(file)
    ended = newline is not None
    if not ended and (found := line.find(b"\n")) >= 0:  # it was written on since its end was looked for
        line, ended = line[:found], True
    return line, start + len(line) + ended


def find_newline(file: OpenFile, line_start: int, start: int, block: int = BLOCK_BYTES) -> int | None:
    """Finds the first newline from ``start`` on, holding one block at a time; None where the file ends before it.

    Args:
        file: to read.
        line_start: where the line began: the limit of 64 MiB counts from there.
        start: where to begin looking.
        block: bytes read at once.

    Raises:
        UsageError: the line is over 64 MiB.
    """
    while data := pread(file, block, start):
        found = data.find(b"\n")
        if start + (found if found >= 0 else len(data)) - line_start > MAX_LINE_BYTES:
            raise _not_text(file)
        if found >= 0:
            return start + found
        start += len(data)
    return None


def pread(file: OpenFile, count: int, offset: int) -> bytes:
    """Reads up to ``count`` bytes at an offset; fewer at the file's end only.

    Raises:
        BackendUnavailableError: the system cannot read the file any more.
    """
    try:
        data = os.pread(file.descriptor, count, offset)
        # A signal or a network file system may cut a read short in the middle of the file.
        while data and len(data) < count and (more := os.pread(file.descriptor, count - len(data), offset + len(data))):
            data += more
    except OSError as error:
        raise BackendUnavailableError(f"{file.name}: reading failed: {error.strerror}") from error
    return data


def _shrank(file: OpenFile) -> BackendUnavailableError:
    return BackendUnavailableError(f"{file.name}: the file shrank while it was read; run the command again")


def _not_text(file: OpenFile) -> UsageError:
    return UsageError(f"{file.name}: a line is longer than 64 MiB; not a text file? Name its format with --format")
