"""From a table's columns to an activity's JSON: which column fills which field. Shared by CSV and Parquet."""

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from .errors import UsageError

ID_FIELDS = frozenset(
    (
        "activityId",
        "activityType",
        "globalUserId",
        "memberId",
        "eventId",
        "saleId",
        "ipAddress",
        "deviceId",
        "userAgent",
    )
)
"""Fields that are text on the wire, whatever type a table gives them."""

REQUIRED_COLUMNS = ("activityId", "activityType", "occurredAt", "globalUserId")
_GROUP_OF_COLUMN = {"ipAddress": "context", "deviceId": "context", "userAgent": "context", "outcome": "attributes"}
_GROUPS = ("context", "attributes")
_MAX_COLUMNS_SHOWN = 20


class RowError(ValueError):
    """A row that is no activity; the message holds no value of the row."""


class RowEncoder:
    """Writes rows of a table as activities.

    A column is called as the field it fills: ``activityId``; ``ipAddress`` or ``context.ipAddress``; ``outcome`` or
    ``attributes.outcome``; any other ``attributes.name``. ``context`` and ``attributes`` themselves may be columns of
    JSON objects. Further columns travel along as unknown fields. A column without a name is left out (spreadsheets
    and data frames write such ones).

    Attributes:
        columns: the columns' names, in order.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        places = [_place(column) for column in columns]
        self._top = [(i, key) for i, (group, key) in enumerate(places) if group is None and key]
        self._grouped = {name: [(i, key) for i, (group, key) in enumerate(places) if group == name] for name in _GROUPS}

    def encode(self, values: Sequence[object]) -> bytes:
        """Writes one row as a JSON object in UTF-8.

        Args:
            values: one a column; None is absent.

        Raises:
            RowError: text that is not UTF-8, or a ``context`` or ``attributes`` cell that is no JSON object.
        """
        row: dict[str, object] = {key: value for i, key in self._top if (value := values[i]) is not None}
        for group, columns in self._grouped.items():
            members: dict[object, object] = {}
            for i, key in columns:
                if (value := values[i]) is None:
                    continue
                if key:
                    members[key] = value
                else:
                    members.update(_object_of(value, group))
            if members:
                row[group] = members
        try:
            return _encode(row)
        except UnicodeEncodeError:
            raise RowError("not UTF-8") from None
        except (TypeError, ValueError, RecursionError):
            raise RowError("a value cannot be written as JSON") from None


_encode = msgspec.json.Encoder(enc_hook=str, decimal_format="string").encode


def field_of(column: str) -> str:
    """The name of the field a column fills, without its group: ``ipAddress`` of ``context.ipAddress``."""
    return _place(column)[1]


def _place(column: str) -> tuple[str | None, str]:
    """The group a column belongs to (None: the activity itself) and its key there ("": the whole group)."""
    if column in _GROUPS:
        return column, ""
    group, dot, key = column.partition(".")
    if dot and group in _GROUPS and key:
        return group, key
    return _GROUP_OF_COLUMN.get(column), column


def _object_of(value: object, group: str) -> dict[object, object]:
    try:
        if isinstance(value, str):
            return msgspec.json.decode(value, type=dict[object, object])
        # A dict, or pairs: how Arrow gives a map.
        return dict(cast("Iterable[tuple[object, object]]", value))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        raise RowError(f"column {group} is not a JSON object") from None


def check_columns(columns: Iterable[str], name: str) -> None:
    """Checks that a table's columns make activities.

    Args:
        columns: their names.
        name: how errors call the file.

    Raises:
        UsageError: a required column is missing (lists the missing and the found ones), or two fill one field.
    """
    found = list(columns)
    if missing := [column for column in REQUIRED_COLUMNS if column not in found]:
        raise UsageError(f"{name}: misses the columns {', '.join(missing)}; found: {_listed(found)}")
    by_place: dict[tuple[str | None, str], str] = {}
    for column in filter(None, found):
        place = _place(column)
        if place in by_place:
            raise UsageError(f"{name}: the columns {by_place[place]!a} and {column!a} fill the same field; rename one")
        by_place[place] = column


def _listed(columns: list[str]) -> str:
    shown = ", ".join(column if column.isprintable() else ascii(column) for column in columns[:_MAX_COLUMNS_SHOWN])
    more = f" and {len(columns) - _MAX_COLUMNS_SHOWN} more" if len(columns) > _MAX_COLUMNS_SHOWN else ""
    return (shown or "none") + more
