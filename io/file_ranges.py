"""What an input file is and which part of it one worker reads."""

import os
import re
import zlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from urllib.parse import unquote

from . import access_log
from .errors import BackendUnavailableError, UsageError
from .text_lines import BOM

HEAD_BYTES = 64 * 1024
_FINGERPRINT_BYTES = 4 * 1024
_SNIFFED_LINES = 20
_SCHEME = re.compile(r"[a-z][a-z0-9+.\-]+://", re.IGNORECASE)
_OTHER_CONTENTS = {
    b"BZh": "is compressed with bzip2; unpack it first (bunzip2 -k)",
    b"PK\x03\x04": "is a zip archive; unpack it first (unzip)",
}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
PARQUET_MAGIC = b"PAR1"


class FileFormat(StrEnum):
    """The formats activities are read from."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    ACCESS_LOG = "access-log"


class Compression(StrEnum):
    """How a file may be packed, besides what Parquet does itself; told by its first bytes, not by its name."""

    GZIP = "gzip"
    ZSTD = "zstd"


_COMPRESSED = {b"\x1f\x8b": Compression.GZIP, b"\x28\xb5\x2f\xfd": Compression.ZSTD}
_PACKED_SUFFIXES = (".gz", ".zst", ".zstd")

_SUFFIXES = {
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".json": FileFormat.JSONL,
    ".csv": FileFormat.CSV,
    ".parquet": FileFormat.PARQUET,
}


@dataclass(frozen=True, slots=True)
class FileRange:
    """One worker's part of a file; small and picklable.

    Attributes:
        path: absolute.
        format: of the file.
        start: the first byte, or the first row group of a Parquet file.
        end: behind the last byte or row group. A line belongs to the range that its first byte lies in.
        size_at_start: of the whole file when the work was planned, in bytes; what is appended later is not read.
        fingerprint: a checksum of the file's first bytes at that time: tells whether another file stands there now.
        compression: of the file, or None. A compressed file is one range; ``start`` and ``end`` count packed bytes.
    """

    path: str
    format: FileFormat
    start: int
    end: int
    size_at_start: int
    fingerprint: int
    compression: Compression | None = None

    @property
    def name(self) -> str:
        """The path as errors show it."""
        return shown(self.path)


def shown(path: str) -> str:
    """A path as it may stand in a one-line message: quoted where it holds line breaks or undecodable bytes."""
    return path if path.isprintable() else ascii(path)


def local_path(address: str) -> str:
    """Reads a plain path or ``file:///absolute/path`` (percent-encoded) as a path.

    Raises:
        UsageError: another scheme, or a ``file:`` address that is not absolute.
    """
    if address.startswith("file:"):
        path = unquote(address.removeprefix("file:").removeprefix("//localhost").removeprefix("//"))
        if not path.startswith("/"):
            raise UsageError(f"{shown(address)}: write file:///absolute/path or a plain path")
        return path
    if scheme := _SCHEME.match(address):
        raise UsageError(f"{shown(address)}: {scheme[0].lower()} is not read here; name local files")
    if not address:
        raise UsageError("an input's name is empty; name the files to read")
    return address


def file_size(path: str) -> int:
    """The size in bytes of a file that can be read.

    Raises:
        UsageError: it is missing, a folder, no regular file, empty or unreadable; names the remedy.
    """
    name = shown(path)
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file; check the name") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise UsageError(f"{name}: cannot be read: {_reason(error)}") from None
    if S_ISDIR(status.st_mode):
        raise UsageError(f"{name}: is a directory; name the files in it")
    if not S_ISREG(status.st_mode):
        raise UsageError(f"{name}: is not a regular file; save the input to a file first")
    if status.st_size == 0:
        raise UsageError(f"{name}: is empty; leave it out or check what should have written it")
    return status.st_size


def read_head(path: str, count: int = HEAD_BYTES) -> bytes:
    """The first bytes of a file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            return file.read(count)
    except OSError as error:
        raise UsageError(f"{shown(path)}: cannot be read: {_reason(error)}; check its permissions") from None


def fingerprint(head: bytes, size: int) -> int:
    """A checksum of the first bytes of a file that has at least ``size`` bytes."""
    return zlib.crc32(head[: min(size, _FINGERPRINT_BYTES)])


def open_range(file_range: FileRange) -> int:
    """Opens a range's file for reading and returns the descriptor, which is the caller's to close.

    Raises:
        BackendUnavailableError: the file vanished, shrank or was replaced since the work was planned.
    """
    name = file_range.name
    try:
        descriptor = os.open(file_range.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BackendUnavailableError(f"{name}: {_reason(error)}, though it was there when the run began") from None
    try:
        if os.fstat(descriptor).st_size < file_range.size_at_start:
            raise BackendUnavailableError(f"{name}: the file shrank since the run began; run the command again")
        head = os.pread(descriptor, _FINGERPRINT_BYTES, 0)
        if fingerprint(head, file_range.size_at_start) != file_range.fingerprint:
            raise BackendUnavailableError(f"{name}: the file was replaced since the run began; run the command again")
    except OSError as error:
        os.close(descriptor)
        raise BackendUnavailableError(f"{name}: reading failed: {_reason(error)}") from None
    except BackendUnavailableError:
        os.close(descriptor)
        raise
    return descriptor


def detect_format(path: str) -> FileFormat:
    """Tells a file's format by its suffix, and for ``.log`` or an unknown one by its first lines.

    Raises:
        UsageError: it cannot be read, or the format stays unclear; names ``--format``.
    """
    path = local_path(path)
    known = _SUFFIXES.get(Path(unpacked_name(path)).suffix.lower())
    if known is not None:
        return known
    head = read_head(path)
    compression = compression_of(head)
    if compression is not None:
        from .compressed_files import unpacked_head  # noqa: PLC0415 - pyarrow takes 0.2 s to import

        head = unpacked_head(path, compression)
    return _sniff(path, head)


def compression_of(head: bytes) -> Compression | None:
    """How a file that begins so is compressed, or None."""
    return next((kind for magic, kind in _COMPRESSED.items() if head.startswith(magic)), None)


def unpacked_name(path: str) -> str:
    """A path without the suffix that says it is compressed.

    >>> unpacked_name("day1.jsonl.gz")
    'day1.jsonl'
    """
    name = Path(path)
    return str(name.with_suffix("")) if name.suffix.lower() in _PACKED_SUFFIXES else path


def _sniff(path: str, head: bytes) -> FileFormat:
    if head.startswith(PARQUET_MAGIC):
        return FileFormat.PARQUET
    _refuse_other_contents(path, head)
    lines = first_lines(head)
    # Any of the first lines decides: the very first may be damaged.
    if any(access_log.matches(line) for line in lines):
        return FileFormat.ACCESS_LOG
    if any(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        return FileFormat.JSONL
    if lines and b"," in lines[0] and b"activityId" in lines[0]:
        return FileFormat.CSV
    choices = ", ".join(FileFormat)
    raise UsageError(f"{shown(path)}: its format is unclear; name it with --format ({choices})")


def first_lines(head: bytes) -> list[bytes]:
    """The first lines that are not blank, stripped."""
    stripped = (line.strip() for line in head.removeprefix(BOM).split(b"\n"))
    return [line for line in stripped if line][:_SNIFFED_LINES]


def check_text(path: str, format: FileFormat, head: bytes) -> None:
    """Refuses a file whose first bytes show that it is not what its name says.

    Raises:
        UsageError: compressed another way, UTF-16, Parquet, or JSON that is not one object a line.
    """
    if head.startswith(PARQUET_MAGIC):
        raise UsageError(f"{shown(path)}: is a Parquet file, not {format}; name it with --format parquet")
    _refuse_other_contents(path, head)
    lines = first_lines(head)
    if format is not FileFormat.JSONL or not lines:
        return
    if lines[0] == b"[" or lines[0].startswith(b"[{"):
        raise UsageError(f"{shown(path)}: is a JSON array; one object a line is read (jq -c '.[]' makes it)")
    if lines[0] == b"{" and lines[1:] and lines[1].startswith(b'"'):
        raise UsageError(f"{shown(path)}: its JSON spans lines; one object a line is read (jq -c . makes it)")


def _refuse_other_contents(path: str, head: bytes) -> None:
    if compression_of(head) is not None:  # what is looked at here is unpacked
        raise UsageError(f"{shown(path)}: is compressed twice; unpack it once")
    for magic, remedy in _OTHER_CONTENTS.items():
        if head.startswith(magic):
            raise UsageError(f"{shown(path)}: {remedy}")
    # Only with zero bytes too: a damaged first record alone must not stop a run.
    if head.startswith(_UTF16_MARKS) and b"\0" in head:
        raise UsageError(f"{shown(path)}: is UTF-16; save it as UTF-8")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
