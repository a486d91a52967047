"""The folder of one run, where its steps leave what the next ones read: on this machine, in S3 or in Google Cloud."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyarrow import fs

from .errors import BackendUnavailableError, UsageError

_REMOTE: Final = ("s3://", "gs://")
_PREFIX: Final = "fan-identity-import-"
"""Of folders on this machine. Each is locked by its run; the lock ends with the process, however that ends."""


@dataclass(frozen=True)
class WorkFolder:
    """A run's own folder. Small and picklable; every worker opens it for itself.

    A file is written whole and under a name that its content decides, so a step that is run twice writes it twice the
    same.

    Attributes:
        address: an absolute path, or ``s3://bucket/folder`` or ``gs://bucket/folder``.

    Every method raises BackendUnavailableError where the folder cannot be read or written.
    """

    address: str

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return not self.address.startswith(_REMOTE)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file."""
        with self._opened(name) as (files, path), files.open_output_stream(path) as stream:
            stream.write(data)

    def read(self, name: str) -> bytes:
        """The contents of a file."""
        with self._opened(name) as (files, path), files.open_input_stream(path) as stream:
            return stream.read()

    def names(self, prefix: str) -> list[str]:
        """The files whose name begins with ``prefix``, in order."""
        with self._opened("") as (files, path):
            found = files.get_file_info(fs.FileSelector(path.rstrip("/"), allow_not_found=True))
        return sorted(info.base_name for info in found if info.base_name.startswith(prefix))

    def mark(self, step: str) -> None:
        """Leaves a mark that a part of a step is done, for who shows progress; of no consequence where it fails."""
        with contextlib.suppress(BackendUnavailableError):
            self.write(f"mark-{step}-{secrets.token_hex(8)}", b"")

    def marks(self, step: str) -> int:
        """How many marks a step left; told on this machine only."""
        if not self.is_local:
            return 0
        return sum(1 for _ in Path(self.address).glob(f"mark-{step}-*"))

    @contextmanager
    def _opened(self, name: str) -> Generator[tuple[Any, str]]:
        try:
            if self.is_local:
                files, path = fs.LocalFileSystem(), self.address
            else:
                files, path = fs.FileSystem.from_uri(self.address)
            yield files, f"{path}/{name}"
        except (OSError, ValueError) as error:
            raise BackendUnavailableError(f"work folder {self.address}: {' '.join(str(error).split())[:200]}") from None


@contextmanager
def work_folder(address: str | None, run: str) -> Generator[WorkFolder]:
    """The folder of a run, gone when the context ends.

    Args:
        address: an existing folder to make it in: a path, ``s3://bucket/folder`` or ``gs://bucket/folder``; this
            machine's folder for temporary files where None.
        run: names it.

    Raises:
        UsageError: the folder to make it in does not exist.
        BackendUnavailableError: it cannot be written.
    """
    if address is not None and address.startswith(_REMOTE):
        folder = WorkFolder(f"{address.rstrip('/')}/{run}")
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                files, path = fs.FileSystem.from_uri(folder.address)
                files.delete_dir(path)
        return
    if address is not None and not Path(address).is_dir():
        raise UsageError(f"--work: there is no folder {address}; make it, or leave --work out")
    with _held_folder(address, run) as path:
        yield WorkFolder(str(path))


@contextmanager
def _held_folder(address: str | None, run: str) -> Generator[Path]:
    """A new folder on this machine, locked as long as this process lives."""
    path = lock = None
    try:
        while path is None:
            path, lock = _made(address, run)
    except OSError as error:
        raise BackendUnavailableError(f"--work: no folder can be made there: {error.strerror}") from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _made(address: str | None, run: str) -> tuple[Path | None, int | None]:
    """Makes and locks a folder; None where ``remove_abandoned`` of another run came in between."""
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{run}-", dir=address))
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return path, lock
    os.close(lock)
    return None, None


def remove_abandoned(address: str | None) -> None:
    """Removes folders on this machine that killed runs left: they hold ids of fans. Those of runs at work stay.

    Args:
        address: where folders are made, as for ``work_folder``; in S3 and Google Cloud the bucket's own rules remove.
    """
    if address is not None and address.startswith(_REMOTE):
        return
    for folder in Path(address or tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
