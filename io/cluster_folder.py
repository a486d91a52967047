"""How the folder of ``clusters build`` comes to be: written aside, and moved to its names when all of it is there."""

import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .clusters import CLUSTERS_FOLDER, LINEAGE_FILE, REVIEW_FOLDER, SUMMARY_FILE
from .errors import BackendUnavailableError, UsageError
from .file_ranges import shown

_RESULTS: Final = (REVIEW_FOLDER, LINEAGE_FILE, CLUSTERS_FOLDER, SUMMARY_FILE)
"""In the order they get their names: the folder with the clusters appears as a whole, the summary last."""
# With an underscore: an import of the folder leaves out what a killed run left.
_UNFINISHED: Final = "_unfinished-"


def check_folder(folder: Path) -> None:
    """Makes the folder of a result, where there is none.

    Raises:
        UsageError: it cannot be made or written, or holds clusters already.
    """
    name = shown(str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = next((result for result in reversed(_RESULTS) if (folder / result).exists()), None)
    except OSError as error:
        raise UsageError(f"{name}: cannot be written: {error.strerror}; name another folder with --to") from None
    if taken is not None:
        raise UsageError(f"{name}: holds {taken} of an earlier build; name another folder with --to")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{name}: cannot be written; name another folder with --to")


@contextmanager
def unfinished(folder: Path) -> Generator[Path]:
    """A folder in the folder of a result, to write it in; gone in the end, or where a step fails.

    Raises:
        BackendUnavailableError: it cannot be made.
    """
    aside = folder / f"{_UNFINISHED}{secrets.token_hex(4)}"
    try:
        aside.mkdir()
    except OSError as error:
        raise _unwritable(aside, error) from None
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def finish(aside: Path, folder: Path, summary: bytes, *, review: bool) -> None:
    """Moves a result to its names.

    Args:
        aside: from ``unfinished``, with all of the result but the summary.
        folder: of the result.
        summary: the summary's text.
        review: whether there are clusters under review; else their folder, with a file of no rows, is left out.

    Raises:
        BackendUnavailableError: something cannot be written.
    """
    try:
        (aside / SUMMARY_FILE).write_bytes(summary)
        for name in _RESULTS:
            if review or name != REVIEW_FOLDER:
                (aside / name).rename(folder / name)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(path: Path, error: OSError) -> BackendUnavailableError:
    return BackendUnavailableError(f"{shown(str(path))}: cannot be written: {error.strerror}")
