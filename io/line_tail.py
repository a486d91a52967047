"""Following a text file that grows: a web server's log, or JSON lines another process appends."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Self

from ..domain.records import RawRecord
from .errors import BackendUnavailableError, UsageError
from .file_ranges import FileFormat, local_path, shown, unpacked_name
from .record_batches import BATCH_BYTES, access_log_records, jsonl_records
from .text_lines import BLOCK_BYTES, BOM, Lines, OpenFile, find_newline, located, pread, read_line

_log = logging.getLogger(__name__)
_POSITION = re.compile(r"(\d{1,20}):(\d{1,20})", re.ASCII)
_LIKELY_LINE_BYTES = 512
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")


class LineTail:
    """Reads what is appended to a file, line by line, without ever waiting.

    Every line is read once, in order, if the tail is always resumed from the position that came with the last records
    whose effects are done; from an older position, the lines since then come again (at least once).

    - A last line without a newline is being written: it stays until its newline comes.
    - Rotated (the path is another file now, and that one has been written to): the old file is read to its end, an
      unfinished last line of it included, then the new one from its start. While nothing ran, the old file is
      looked for beside the path (``access.log.1``); of several rotations in that time, only the first file is found.
    - Truncated in place: read from its start again. Lines written and truncated away between two polls are lost, and a
      file that is already longer again than before cannot be told from one that only grew.

    Not safe for use by several threads at once.
    """

    def __init__(self, path: str, format: FileFormat, position: str = "") -> None:
        """Prepares to follow a file; nothing is opened before the first ``poll``.

        Args:
            path: plain, or ``file:///absolute/path``. It need not exist yet.
            format: JSON lines or access log.
            position: where to go on, from an earlier ``poll``; "" for the file's start.

        Raises:
            UsageError: CSV, Parquet and compressed files cannot be followed; or ``position`` is none.
        """
        if unpacked_name(path) != path:
            raise UsageError(f"{shown(path)}: a compressed file cannot be followed; leave out --streaming to read it")
        if format not in (FileFormat.JSONL, FileFormat.ACCESS_LOG):
            raise UsageError(f"{shown(path)}: {format} files cannot be followed; only jsonl and access-log can")
        self._path = Path(local_path(path))
        self._name = shown(str(self._path))
        self._records_of = jsonl_records if format is FileFormat.JSONL else access_log_records
        self._file: OpenFile | None = None
        self._inode: int | None = None
        self._offset = 0
        self._searched = 0  # up to here the unfinished line has no newline
        if position:
            match = _POSITION.fullmatch(position)
            if match is None:
                raise UsageError(
                    f"{self._name}: the position to go on from is not inode:offset; start from the beginning"
                )
            self._inode, self._offset = int(match[1]), int(match[2])

    @property
    def position(self) -> str:
        """Where the next ``poll`` reads: ``inode:offset``, in bytes; "" before the file exists."""
        return "" if self._inode is None else f"{self._inode}:{self._offset}"

    def poll(self, max_records: int = 500, max_bytes: int = BATCH_BYTES) -> tuple[list[RawRecord], str]:
        """Reads lines that are complete now; returns at once where there are none.

        Args:
            max_records: the most records to return.
            max_bytes: the most bytes to return; a longer line comes alone.

        Returns:
            The records, and the position behind them.

        Raises:
            BackendUnavailableError: the file cannot be opened or read.
            UsageError: a line is over 64 MiB, or the path is no regular file.
        """
        block = max(1, min(max_bytes, BLOCK_BYTES, max_records * _LIKELY_LINE_BYTES))
        file = self._file or self._open()
        if file is None:
            return [], self.position
        records = self._read(file, max_records, block)
        if not records and self._is_rotated():
            # Once more: lines may have come between reading and looking at the path.
            records = self._read(file, max_records, block)
            if not records:
                records = self._finish(file)
                if not records and (file := self._open()) is not None:
                    records = self._read(file, max_records, block)
        return records, self.position

    def drain(self, max_records: int = 500) -> Iterator[tuple[list[RawRecord], str]]:
        """Polls until no complete line is left; a last line without newline stays for the next start."""
        while (result := self.poll(max_records))[0]:
            yield result

    def close(self) -> None:
        """Closes the file; a later ``poll`` opens it again where it stopped."""
        if self._file is not None:
            os.close(self._file.descriptor)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> OpenFile | None:
        """Opens the file the position is in; None where it does not exist."""
        path = self._path
        status = self._status(path)
        if self._inode is not None and (status is None or status.st_ino != self._inode):
            renamed = self._find_renamed()
            if renamed is not None:
                path = renamed
            elif status is not None:
                _log.warning(
                    "a followed file was rotated away while nothing read it; reading the new one from its start"
                )
                self._inode, self._offset = None, 0
        if status is None and path is self._path:
            return None
        try:
            # O_NONBLOCK: opening a pipe would wait for its writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from None
        opened = os.fstat(descriptor)
        if not S_ISREG(opened.st_mode):
            os.close(descriptor)
            raise UsageError(f"{self._name}: is not a regular file; name a file to follow")
        if self._inode is not None and opened.st_ino != self._inode:
            os.close(descriptor)  # rotated at this moment: the next poll sorts it out
            return None
        self._inode = opened.st_ino
        self._searched = 0
        self._file = OpenFile(descriptor, self._name)
        return self._file

    def _find_renamed(self) -> Path | None:
        """The file the position is in, under the name a rotation gave it."""
        try:
            with os.scandir(self._path.parent) as entries:
                for entry in entries:
                    # Inode numbers are used again: by its name and size it must be able to be that file.
                    if (
                        entry.inode() == self._inode
                        and entry.name.startswith(self._path.name)
                        and not entry.name.endswith(_COMPRESSED)
                        and entry.stat().st_size >= self._offset
                    ):
                        return Path(entry.path)
        except OSError:
            return None
        return None

    def _is_rotated(self) -> bool:
        """True where the path is another file now; an empty one may not be in use by the writer yet."""
        status = self._status(self._path)
        return status is not None and status.st_ino != self._inode and status.st_size > 0

    def _status(self, path: Path) -> os.stat_result | None:
        try:
            return path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from None

    def _read(self, file: OpenFile, max_records: int, block: int) -> list[RawRecord]:
        if os.fstat(file.descriptor).st_size < self._offset:
            _log.warning("a followed file was truncated; reading it from its start again")
            self._offset = self._searched = 0
        # Blank lines are no records: an empty result must mean that there is no complete line.
        while (lines := self._next_lines(file, max_records, block)) is not None:
            self._offset = lines.end
            self._searched = 0
            if records := self._records_of(lines).records:
                return records
        return []

    def _next_lines(self, file: OpenFile, max_records: int, block: int) -> Lines | None:
        start = self._line_start(file)
        data = pread(file, block, start)
        cut = data.rfind(b"\n")
        if cut >= 0:
            # Splitting no further than needed; the rest is read again by the next poll.
            return located(data[: cut + 1].split(b"\n", max_records)[:-1], start)
        if len(data) < block:
            return None
        size = os.fstat(file.descriptor).st_size  # before searching: what comes meanwhile is searched next time
        newline = find_newline(file, start, max(start + len(data), min(self._searched, size)))
        if newline is None:
            self._searched = size
            return None
        line, end = read_line(file, start, newline)
        return Lines([start], [line], end)

    def _line_start(self, file: OpenFile) -> int:
        if self._offset == 0 and pread(file, len(BOM), 0) == BOM:
            return len(BOM)
        return self._offset

    def _finish(self, file: OpenFile) -> list[RawRecord]:
        """Takes the last, unfinished line of a rotated file and leaves the file."""
        start = self._line_start(file)
        line, _ = read_line(file, start, None)
        self.close()
        status = self._status(self._path)
        self._inode = None if status is None else status.st_ino
        self._offset = 0
        return self._records_of(Lines([start], [line], start)).records if line else []

    def _unavailable(self, error: OSError) -> BackendUnavailableError:
        return BackendUnavailableError(f"{self._name}: cannot be followed: {error.strerror}")
