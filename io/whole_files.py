"""Files that are there wholly or not at all: an older one stays until the new one is complete."""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from .errors import UsageError

_OWNER_ONLY: Final = 0o600
_EVERYBODY: Final = 0o666  # less the umask


def check_writable(path: Path, setting: str) -> None:
    """Says early, before a long run, that a file cannot be written there.

    Raises:
        UsageError: the folder is missing or not writable, or the path is no regular file.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"--{setting}: {path} is not a file")  # a folder; or /dev/null, which must not be replaced
    if not path.parent.is_dir():
        raise UsageError(f"--{setting}: cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"--{setting}: cannot write {path}: the folder is not writable")


def write_whole(path: Path, content: bytes, setting: str, *, private: bool = False) -> None:
    """Writes a file, replacing the one of that name in one step.

    Args:
        path: of the file; a link stays one.
        content: what it holds.
        setting: where the path came from, for the error.
        private: readable for its owner alone.

    Raises:
        UsageError: it cannot be written there.
    """
    try:
        check_writable(path, setting)
        target = path.resolve()
        temporary = target.with_name(f".{setting}-{secrets.token_hex(8)}.tmp")
        try:
            mode = _OWNER_ONLY if private else _EVERYBODY
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError, RuntimeError) as error:  # the latter two: a NUL in the name, links in a circle
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--{setting}: cannot write {path}: {reason}") from None
