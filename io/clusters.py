"""Cluster assignments in Parquet files, as ``clusters build`` writes them and ``startClusterImport`` reads them."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .errors import BackendUnavailableError, UsageError
from .file_ranges import shown

CLUSTERS_PREFIX: Final = "clusters"
REVIEW_PREFIX: Final = "review"
LINEAGE_FILE: Final = "lineage.jsonl"
SUMMARY_FILE: Final = "summary.json"

_COLUMNS: Final = ("globalUserId", "clusterId")
_ROWS: Final = 50_000


def cluster_files(path: Path, *, review: bool = True) -> list[Path]:
    """The files of a build's folder, or a file itself, sorted.

    Args:
        path: the folder, or one Parquet file.
        review: also those of clusters put aside for review.

    Raises:
        UsageError: there is none.
    """
    if not path.is_dir():
        if not path.is_file():
            raise UsageError(f"{shown(str(path))}: no such file or folder; name the folder of a build")
        return [path]
    prefixes = (CLUSTERS_PREFIX, REVIEW_PREFIX) if review else (CLUSTERS_PREFIX,)
    found = sorted(file for prefix in prefixes for file in path.glob(f"{prefix}-*.parquet"))
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
