"""Text files of imports as blocks of whole lines, unpacked on the way; memory is bounded whatever the file holds."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from .errors import UsageError
from .import_ranges import Compression, ImportRange
from .remote_files import open_file, reading
from .text_lines import BOM, MAX_LINE_BYTES

BLOCK_BYTES: Final = 4 * 1024 * 1024
"""Read at once."""


def range_blocks(part: ImportRange) -> Iterator[bytes]:
    """The lines of a range, in blocks that end where a line does (the last one where the file does).

    Raises:
        BackendUnavailableError: the disk or the store failed.
        UsageError: the file is gone, its compressed contents are damaged, or a line is over 64 MiB.
    """
    with open_file(part.address) as file:
        if part.compression is not Compression.NONE:
            yield from line_blocks(unpacked(file, part.compression, part.name), part.name)
            return
        with reading(part.name):
            file.seek(part.start)
        yield from line_blocks(_chunks(file, part.end - part.start, part.name), part.name)


def unpacked(file: Any, compression: Compression, name: str) -> Iterator[bytes]:
    """The contents of a compressed file, a block at a time.

    Args:
        file: open, at its beginning.
        compression: of the whole file.
        name: for errors.

    Raises:
        BackendUnavailableError: the disk or the store failed.
        UsageError: the contents are damaged, or end too early.
    """
    with pa.CompressedInputStream(file, compression.value) as stream:
        while True:
            with reading(name):
                try:
                    data = stream.read(BLOCK_BYTES)
                except OSError as error:
                    if error.errno is not None or "AWS Error" in str(error):
                        raise
                    cause = "ends too early" if "runcated" in str(error) else "is damaged"
                    raise UsageError(f"{name}: its {compression} contents: {cause}; copy the file again") from None
            if not data:
                return
            yield data


def _chunks(file: Any, count: int, name: str) -> Iterator[bytes]:
    while count > 0:
        with reading(name):
            data = file.read(min(BLOCK_BYTES, count))
        if not data:
            return
        count -= len(data)
        yield data


def line_blocks(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Cuts at ends of lines. A byte order mark at the very beginning stays.

    Raises:
        UsageError: a line is over 64 MiB.
    """
    begun: list[bytes] = []
    held = 0
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        first = chunk.find(b"\n") + 1 if cut else len(chunk)
        if held + first > MAX_LINE_BYTES:
            raise UsageError(f"{name}: a line is longer than 64 MiB; not a text file? Name its format with --format")
        if not cut:
            begun.append(chunk)
            held += len(chunk)
            continue
        yield b"".join((*begun, chunk[:cut]))
        begun = [chunk[cut:]]
        held = len(chunk) - cut
    if held:
        yield b"".join(begun)


def without_mark(block: bytes) -> bytes:
    """A file's first block without its byte order mark."""
    return block.removeprefix(BOM)
