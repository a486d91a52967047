"""Lines of files compressed with gzip or zstd, unpacked as they are read: memory bounded, nothing written to disk.

A compressed file is read from its start only, so it is one range, whatever its size.
"""

# pyarrow has no type stubs; what comes from it is bytes and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

from .errors import BackendUnavailableError, UsageError
from .file_ranges import HEAD_BYTES, Compression, shown
from .text_lines import BLOCK_BYTES, BOM, MAX_LINE_BYTES, Lines, OpenFile, located

_COUNTED_BYTES: Final = 16 * 1024 * 1024


def unpacked_head(path: str, compression: Compression, count: int = HEAD_BYTES) -> bytes:
    """The first bytes of what a file holds, unpacked.

    Raises:
        UsageError: its first bytes cannot be unpacked, or the file cannot be read; or it holds nothing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{shown(path)}: cannot be read: {error.strerror}; check its permissions") from None
    try:
        with _unpacking(OpenFile(descriptor, shown(path)), compression) as unpacked:
            head = b""
            while len(head) < count and (data := unpacked.read(count - len(head))):
                head += data
    finally:
        os.close(descriptor)
    if not head:
        raise UsageError(f"{shown(path)}: is empty inside; leave it out or check what should have written it")
    return head


def read_unpacked_lines(file: OpenFile, compression: Compression, block: int = BLOCK_BYTES) -> Iterator[Lines]:
    """Reads a whole compressed file's lines; offsets count the unpacked bytes.

    As ``read_lines``: a byte order mark is dropped, blank lines are among the results, the last may lack its newline.

    Args:
        file: opened, its position at the start.
        compression: of the file. Files put one behind the other (``cat a.gz b.gz``) are one.
        block: unpacked bytes read at once.

    Raises:
        UsageError: the data are damaged or cut off, or a line is over 64 MiB.
        BackendUnavailableError: the system cannot read the file any more.
    """
    position = 0
    begun: list[bytes] = []
    begun_bytes = 0
    with _unpacking(file, compression) as unpacked:
        while data := bytes(unpacked.read(block)):
            if position == 0 and not begun and data.startswith(BOM):
                position, data = len(BOM), data[len(BOM) :]
            cut = data.rfind(b"\n")
            if cut >= 0:
                whole = b"".join((*begun, data[:cut]))
                yield located(whole.split(b"\n"), position)
                position += len(whole) + 1
                begun, begun_bytes, data = [], 0, data[cut + 1 :]
            begun_bytes += len(data)
            if begun_bytes > MAX_LINE_BYTES:
                raise UsageError(f"{file.name}: a line is longer than 64 MiB; not a text file? Check what it holds")
            if data:
                begun.append(data)
    if begun:
        yield Lines([position], [b"".join(begun)], position + begun_bytes)


def estimate_lines(path: str, compression: Compression) -> int:
    """About how many lines a compressed file holds: counted in its first 16 MiB, unpacked, and taken on from there.

    Raises:
        UsageError: the data are damaged.
        BackendUnavailableError: the file cannot be read any more.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BackendUnavailableError(f"{shown(path)}: reading failed: {error.strerror}") from None
    try:
        lines = unpacked_bytes = 0
        with _unpacking(OpenFile(descriptor, shown(path)), compression) as unpacked:
            while unpacked_bytes < _COUNTED_BYTES and (data := bytes(unpacked.read(BLOCK_BYTES))):
                lines += data.count(b"\n")
                unpacked_bytes += len(data)
            taken = max(os.lseek(descriptor, 0, os.SEEK_CUR), 1)
        return lines * os.fstat(descriptor).st_size // taken
    finally:
        os.close(descriptor)


@contextmanager
def _unpacking(file: OpenFile, compression: Compression) -> Generator[Any]:
    """The file's contents as a stream; Arrow's errors in it become ours."""
    raw = os.fdopen(file.descriptor, "rb", buffering=0, closefd=False)
    try:
        yield pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression.value)
    except OSError as error:
        # Arrow reports damaged data and failing disks alike as OSError; only a disk's has a number.
        if error.errno is not None:
            raise BackendUnavailableError(f"{file.name}: reading failed: {error.strerror}") from error
        why = "is cut off" if "Truncated" in str(error) else "is damaged"
        raise UsageError(f"{file.name}: {why}, its {compression} data end in error; write or copy it again") from None
