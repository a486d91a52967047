"""What a file of an import holds, told by its name and first bytes and by reading all of it once."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa

from .errors import UsageError
from .file_ranges import HEAD_BYTES, PARQUET_MAGIC, first_lines
from .import_lines import BLOCK_BYTES, line_blocks, unpacked, without_mark
from .import_ranges import Compression, ImportFormat
from .remote_files import StoredFile, open_file, reading

TARGET_BYTES: Final = 32 * 1024 * 1024
"""About as many bytes of a text file are a range."""

SUFFIXES: Final = {
    ".parquet": ImportFormat.PARQUET,
    ".csv": ImportFormat.CSV,
    ".jsonl": ImportFormat.JSONL,
    ".ndjson": ImportFormat.JSONL,
    ".json": ImportFormat.JSONL,
}
_COMPRESSIONS: Final = {".gz": Compression.GZIP, ".zst": Compression.ZSTD}
_MAGICS: Final = {b"\x1f\x8b": Compression.GZIP, b"\x28\xb5\x2f\xfd": Compression.ZSTD}
_UNREAD: Final = {
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ",
    ".lz4": b"\x04\x22\x4d\x18",
    ".zip": b"PK\x03\x04",
    ".7z": b"7z\xbc",
}
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


class Shape(NamedTuple):
    """How a file is read."""

    format: ImportFormat
    compression: Compression


class Cut(NamedTuple):
    """A place between two lines of a file: the offset in bytes, and the number of the line behind it, from 1."""

    offset: int
    line: int


@dataclass(slots=True)
class Contents:
    """What reading all of a file tells.

    Attributes:
        shape: how it is read.
        digest: SHA-256 of its bytes.
        head: the first lines, unpacked, without byte order mark; empty for Parquet.
        lines: how many there are.
        quoted: whether a double quote stands anywhere, so that a CSV row may be more than a line.
        cuts: where it can be cut, about every ``TARGET_BYTES``: its beginning first and its end last. Of a compressed
            file these two only.
    """

    shape: Shape
    digest: bytes
    head: bytes = b""
    lines: int = 0
    quoted: bool = False
    cuts: tuple[Cut, ...] = ()


def known_suffix(path: str) -> bool:
    """Whether a file in a folder is one to import."""
    return _suffixes(path)[0] in SUFFIXES


def read_contents(stored: StoredFile, format: ImportFormat | None, target_bytes: int) -> Contents:
    """Reads all of a file once.

    Args:
        stored: the file.
        format: None to tell it from name and first bytes.
        target_bytes: about as many of a text file are a range.

    Raises:
        UsageError: the format is unclear or another one, the compression is unknown, compressed contents are damaged or
            end too early, it is UTF-16, or a line is over 64 MiB.
        BackendUnavailableError: the disk or the store failed.
    """
    name = stored.name
    with open_file(stored.address) as file:
        with reading(name):
            head = file.read(HEAD_BYTES)
            file.seek(0)
        shape = _shape(stored, head, format)
        hashed = _Hashed(file, name, min(BLOCK_BYTES, target_bytes))
        if shape.format is ImportFormat.PARQUET:
            for _ in hashed.chunks():
                pass
            return Contents(shape, hashed.digest())
        packed = shape.compression is not Compression.NONE
        chunks = unpacked(pa.PythonFile(hashed, "r"), shape.compression, name) if packed else hashed.chunks()
        return _text_contents(shape, hashed, line_blocks(chunks, name), name, 0 if packed else target_bytes)


def _text_contents(shape: Shape, hashed: "_Hashed", blocks: Iterator[bytes], name: str, target_bytes: int) -> Contents:
    contents = Contents(shape, b"")
    cuts = [Cut(0, 1)]
    offset = 0
    for block in blocks:
        if not offset:
            contents.head = without_mark(block[: HEAD_BYTES * 16])
            _check_text(contents.head, block, name)
        offset += len(block)
        contents.lines += block.count(b"\n") + (not block.endswith(b"\n"))
        contents.quoted = contents.quoted or b'"' in block
        if target_bytes and offset - cuts[-1].offset >= target_bytes:
            cuts.append(Cut(offset, contents.lines + 1))
    if offset > cuts[-1].offset:
        cuts.append(Cut(offset if target_bytes else 0, contents.lines + 1))
    contents.cuts = tuple(cuts)
    contents.digest = hashed.digest()
    return contents


class _Hashed:
    """A file whose bytes are hashed as they are read; what ``pyarrow.PythonFile`` asks of a file."""

    closed = False

    def __init__(self, file: Any, name: str, block_bytes: int) -> None:
        self._file = file
        self._name = name
        self._block_bytes = block_bytes
        self._hash = hashlib.sha256()

    def read(self, count: int) -> bytes:
        with reading(self._name):
            data: bytes = self._file.read(count)
        self._hash.update(data)
        return data

    def chunks(self) -> Iterator[bytes]:
        while data := self.read(self._block_bytes):
            yield data

    def digest(self) -> bytes:
        return self._hash.digest()

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Whoever opened the file closes it."""


def _shape(stored: StoredFile, head: bytes, format: ImportFormat | None) -> Shape:
    name = stored.name
    suffix, packing = _suffixes(stored.path)
    for other, magic in _UNREAD.items():
        if head.startswith(magic) or packing == other:
            raise UsageError(f"{name}: is compressed as {other}, which is not read; use gzip or zstd, or unpack it")
    compression = next((found for magic, found in _MAGICS.items() if head.startswith(magic)), Compression.NONE)
    named = _COMPRESSIONS.get(packing, compression)
    if named is not compression:
        found = compression or "no compression"
        raise UsageError(f"{name}: is named {packing} but holds {found}; rename it, or write it again")
    format = format or SUFFIXES.get(suffix)
    if format is None:
        format = _sniffed(head) if compression is Compression.NONE else None
    if format is None:
        raise UsageError(f"{name}: what format is it? Name it with --format parquet, csv or jsonl")
    if format is ImportFormat.PARQUET and compression is not Compression.NONE:
        raise UsageError(
            f"{name}: Parquet compresses inside and cannot be read packed; unpack it first ({compression} -d)"
        )
    if format is not ImportFormat.PARQUET and head.startswith(PARQUET_MAGIC):
        raise UsageError(f"{name}: is a Parquet file, not {format}; name it with --format parquet")
    return Shape(format, compression)


def _suffixes(path: str) -> tuple[str, str]:
    """The suffix that names the format, and the one behind it that names the compression."""
    base, packing = _split(path.lower())
    if packing in _COMPRESSIONS or packing in _UNREAD:
        return _split(base)[1], packing
    return packing, ""


def _split(name: str) -> tuple[str, str]:
    base, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return base, dot + suffix


def _sniffed(head: bytes) -> ImportFormat | None:
    if head.startswith(PARQUET_MAGIC):
        return ImportFormat.PARQUET
    if without_mark(head).lstrip().startswith(b"{"):
        return ImportFormat.JSONL
    return None


def _check_text(head: bytes, block: bytes, name: str) -> None:
    if block.startswith(_UTF16) or any(b"\0" in line for line in first_lines(head)[:1]):
        raise UsageError(f"{name}: is UTF-16 or no text; save it as UTF-8")
