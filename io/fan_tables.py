"""Where a fan can be in tables: partitions of the fan's own, events that wait, and versions of imports."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ..domain.fan_traces import Fan, speaks_of
from ..domain.imports import ImportKind, VersionRecord, bucket_of
from .errors import BackendUnavailableError
from .import_versions import ImportVersions, Part
from .ports import Item, Table

OUTBOX_PKS: Final = (*(f"OUTBOX#{shard}" for shard in range(8)), "OUTBOX-REFUSED")
"""The partitions of the outbox (``serving.outbox``)."""

_PASSES: Final = 20


@dataclass(frozen=True)
class Partition:
    """A partition of a table that holds the items of one fan and of nobody else."""

    name: str
    table: Table
    pk: str

    def find(self) -> list[Mapping[str, Any]]:
        """Its items in the order of their sort keys."""
        return [readable(item) for item in self.table.query(self.pk)]

    def erase(self) -> int:
        """Deletes its items; how many."""
        deleted = 0
        # What a worker writes meanwhile is deleted too, but not for ever.
        for _ in range(_PASSES):
            items = self.table.query(self.pk)
            if not items:
                return deleted
            self.table.batch_delete([(item["PK"], item["SK"]) for item in items])
            deleted += len(items)
        raise BackendUnavailableError(
            f"{self.name}: the fan's items are written faster than deleted; stop what scores the fan, then try again"
        )


@dataclass(frozen=True)
class WaitingEvents:
    """Events of the fan that wait in the outbox to be published, or that EventBridge refused."""

    name: str
    table: Table
    fan: Fan

    def find(self) -> list[Mapping[str, Any]]:
        """The events' items."""
        return [readable(item) for item in self._items()]

    def erase(self) -> int:
        """Deletes them; how many. An event that is being published meanwhile is published."""
        keys = [(item["PK"], item["SK"]) for item in self._items()]
        self.table.batch_delete(keys)
        return len(keys)

    def _items(self) -> list[Item]:
        return [
            item
            for pk in OUTBOX_PKS
            for item in self.table.query(pk)
            if item.get("user") == self.fan.global_user_id or speaks_of(_bytes(item.get("detail")), self.fan)
        ]


@dataclass(frozen=True)
class ImportedValues:
    """The fan's rows in the packed lists of every version of an import, the active one or not.

    What is in the fan's own partition is not of this place.
    """

    name: str
    versions: ImportVersions
    fan: Fan

    def find(self) -> list[Mapping[str, Any]]:
        """A row each: version, part, and what the list says."""
        return [
            {"version": record.version, "part": str(part), **row}
            for record in self.versions.records()
            for part, _, own in self._lists(record.version)
            for row in own.to_pylist()
        ]

    def erase(self) -> int:
        """Writes the lists anew without the fan; how many rows are gone."""
        gone = 0
        for record in self.versions.records():
            for part, rest, own in self._lists(record.version):
                if own.num_rows:
                    self.versions.replace_bucket(record.version, part, bucket_of(self.fan.global_user_id), rest)
                    gone += own.num_rows
        return gone

    def _lists(self, version: str) -> list[tuple[Part, Any, Any]]:
        """Of each part of a version the fan's bucket without the fan, and the fan's rows in it."""
        lists: list[tuple[Part, Any, Any]] = []
        for part in Part:
            fans = self.versions.bucket(version, part, bucket_of(self.fan.global_user_id))
            if fans is not None:
                users: Sequence[str] = fans["user"].to_pylist()
                own = [user == self.fan.global_user_id for user in users]
                lists.append((part, fans.filter([not mine for mine in own]), fans.filter(own)))
        return lists


@dataclass(frozen=True)
class ImportExamples:
    """Comparisons of versions that name the fan as an example."""

    name: str
    versions: ImportVersions
    fan: Fan

    def find(self) -> list[Mapping[str, Any]]:
        """The examples, each with its version."""
        return [
            {"version": record.version, **msgspec.to_builtins(example)}
            for record in self.versions.records()
            for example in record.comparison.examples
            if example.global_user_id == self.fan.global_user_id
        ]

    def erase(self) -> int:
        """Writes the records anew without them; how many are gone."""
        gone = 0
        for record in self.versions.records():
            rest = tuple(
                example for example in record.comparison.examples if example.global_user_id != self.fan.global_user_id
            )
            if len(rest) < len(record.comparison.examples):
                gone += len(record.comparison.examples) - len(rest)
                self.versions.save(_with_examples(record, rest))
        return gone


def _with_examples(record: VersionRecord, examples: tuple[Any, ...]) -> VersionRecord:
    comparison = msgspec.structs.replace(record.comparison, examples=examples)
    return msgspec.structs.replace(record, comparison=comparison)


def import_versions(table: Table) -> list[ImportVersions]:
    """The versions of every kind of import in a fan identity table."""
    return [ImportVersions(table, kind) for kind in ImportKind]


def readable(item: Item) -> dict[str, Any]:
    """An item as JSON has it: bytes as text where they are text, else in base64 after ``base64:``."""
    return {name: text_of(value) if isinstance(value, bytes) else value for name, value in item.items()}


def text_of(content: bytes) -> str:
    """Bytes as a JSON value."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(content).decode()}"


def _bytes(value: object) -> bytes:
    return value.encode(errors="surrogatepass") if isinstance(value, str) else b""
