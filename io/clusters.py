"""The folder of ``clusters build``: assignments in Parquet files, which ``startClusterImport`` takes, and what is told.

``clusters/*.parquet``, ``_review/*.parquet``, ``_lineage.jsonl`` and ``_summary.json``.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .errors import BackendUnavailableError, UsageError
from .file_ranges import shown

CLUSTERS_FOLDER: Final = "clusters"
# An import of a build's folder leaves out what begins with an underscore.
REVIEW_FOLDER: Final = "_review"
LINEAGE_FILE: Final = "_lineage.jsonl"
SUMMARY_FILE: Final = "_summary.json"

_COLUMNS: Final = ("globalUserId", "clusterId")
_ROWS: Final = 50_000


def cluster_files(path: Path) -> list[Path]:
    """The files of a build's folder, also those of clusters put aside for review, or a file itself; sorted.

    Args:
        path: the folder, or one Parquet file.

    Raises:
        UsageError: there is none.
    """
    if not path.is_dir():
        if not path.is_file():
            raise UsageError(f"{shown(str(path))}: no such file or folder; name the folder of a build")
        return [path]
    found = [file for name in (CLUSTERS_FOLDER, REVIEW_FOLDER) for file in sorted(path.glob(f"{name}/*.parquet"))]
    if not found:
        raise UsageError(f"{shown(str(path))}: holds no clusters; name the folder of a build, or its Parquet file")
    return found


def read_assignments(path: str) -> Iterator[tuple[list[str], list[str]]]:
    """Reads a file's fans and their cluster ids, in batches.

    Raises:
        UsageError: no Parquet file, without these columns of text, with nulls in them, or damaged.
        BackendUnavailableError: it cannot be read any more.
    """
    for table in read_rows(path, _COLUMNS):
        fans, clusters = (table.column(name).to_pylist() for name in _COLUMNS)
        if not all(isinstance(value, str) for value in (*fans, *clusters)):
            raise UsageError(f"{shown(path)}: {' and '.join(_COLUMNS)} must be text in every row")
        yield fans, clusters


def read_rows(path: str, columns: tuple[str, ...], where: tuple[str, str] | None = None) -> Iterator[Any]:
    """Reads record batches of a file.

    Args:
        path: of the file.
        columns: which.
        where: a column and the text that rows must have there; all rows where there is none.

    Raises:
        UsageError: no Parquet file, without these columns, or damaged.
        BackendUnavailableError: it cannot be read any more.
    """
    import pyarrow as pa  # noqa: PLC0415 - takes 0.2 s to import
    import pyarrow.dataset as ds  # noqa: PLC0415

    try:
        source = ds.dataset(path, format="parquet")
        missing = [name for name in columns if name not in source.schema.names]
        if missing:
            raise UsageError(f"{shown(path)}: has no column {missing[0]}; name the files of a build")
        wanted = None if where is None else ds.field(where[0]) == where[1]
        yield from source.to_batches(columns=list(columns), filter=wanted, batch_size=_ROWS, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BackendUnavailableError(f"{shown(path)}: cannot be read: {error.strerror}") from None
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"{shown(path)}: is no readable Parquet file: {text}") from None
