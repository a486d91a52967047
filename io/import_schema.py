"""Which columns of a file an import reads, and whether the file is one of its kind."""

from collections.abc import Iterable
from typing import NamedTuple

from ..domain.imports import ImportKind
from .errors import UsageError
from .import_ranges import ALIASES, UPDATED_COLUMN, USER_COLUMN

_MAX_COLUMNS_SHOWN = 20


class Columns(NamedTuple):
    """Where the columns of an import stand in a file, counted from 0.

    Attributes:
        user: ``globalUserId``.
        value: ``bonScore`` or ``clusterId``.
        updated: ``updatedAt``, or None where the file has no such column.
    """

    user: int
    value: int
    updated: int | None


def place_columns(names: Iterable[str], kind: ImportKind, file: str) -> Columns:
    """Finds the columns of an import.

    Args:
        names: of the file's columns.
        kind: what is imported.
        file: how errors call the file.

    Raises:
        UsageError: a column is missing (names it and lists those there are), the file is one of the other kind (names
            its command), or two columns fill one field.
    """
    found = list(names)
    places: dict[str, int] = {}
    for place, column in enumerate(found):
        field = ALIASES.get(column, column)
        if field in places and field in (USER_COLUMN, kind.value_column, UPDATED_COLUMN):
            first = found[places[field]]
            raise UsageError(f"{file}: the columns {first!a} and {column!a} fill the same field; remove one")
        places[field] = place
    missing = [name for name in (USER_COLUMN, kind.value_column) if name not in places]
    if missing:
        other = ImportKind.CLUSTER if kind is ImportKind.BOT_OR_NOT else ImportKind.BOT_OR_NOT
        if other.value_column in places and kind.value_column in missing:
            raise UsageError(
                f"{file}: has {other.value_column} and no {kind.value_column}: a file for {other.worker}, "
                f"not for {kind.worker}; import it with {other.worker}"
            )
        raise UsageError(
            f"{file}: misses the column{'s' * (len(missing) > 1)} {', '.join(missing)}; found: {_listed(found)}"
        )
    return Columns(places[USER_COLUMN], places[kind.value_column], places.get(UPDATED_COLUMN))


def _listed(columns: list[str]) -> str:
    shown = ", ".join(
        (column if column.isprintable() else ascii(column))[:80] or "''" for column in columns[:_MAX_COLUMNS_SHOWN]
    )
    more = f" and {len(columns) - _MAX_COLUMNS_SHOWN} more" if len(columns) > _MAX_COLUMNS_SHOWN else ""
    return (shown or "none") + more
