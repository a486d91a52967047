"""What is known of the versions of imports, without their fans: for readers that must not need Arrow.

Every function raises BackendUnavailableError where the table is out of reach.
"""

from typing import Final

import msgspec

from ..domain.imports import ImportKind, Pointer, VersionRecord
from ..domain.keys import ACTIVE_SK
from .ports import Table

VERSION_SK: Final = "VERSION#"
"""How the sort key of a version's record begins; the version follows."""


def active_pointer(table: Table, kind: ImportKind) -> Pointer:
    """Which version of a kind is active.

    Args:
        table: the fan identity table.
        kind: of the import.
    """
    item = table.get(kind.pk, ACTIVE_SK)
    return Pointer() if item is None else msgspec.convert(item, Pointer)


def version_record(table: Table, kind: ImportKind, version: str) -> VersionRecord | None:
    """A version's record, or None where there is no such version."""
    item = table.get(kind.pk, VERSION_SK + version)
    return None if item is None else msgspec.convert(item, VersionRecord)


def version_records(table: Table, kind: ImportKind, limit: int | None = None) -> list[VersionRecord]:
    """The newest versions' records, the newest first; all of them where there is no limit."""
    items = table.query(kind.pk, VERSION_SK, newest_first=True, limit=limit)
    return [msgspec.convert(item, VersionRecord) for item in items]
