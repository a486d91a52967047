"""The console's imports: the newest versions, what each changed, and taking the active one back."""

from typing import Annotated, Any, Final, Literal

import msgspec
from starlette.routing import Route

from ...domain.activity import format_time_ms
from ...domain.import_summary import headline, record_json
from ...domain.imports import ImportKind, VersionRecord
from ...io.import_records import active_pointer, version_record, version_records
from ...io.ports import Table
from .commands import Commands
from .guard import Asked, Guard, Nothing, conflict, not_found
from .jobs import JobKind
from .threads import Threads

_SHOWN_OF_EACH: Final = 50
_TABLE: Final = "fan_identity"
_SENTENCES: Final = 2

KindName = Literal["botOrNot", "cluster"]
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}\Z")]


class OneVersion(msgspec.Struct, forbid_unknown_fields=True):
    """A version."""

    kind: KindName
    version: Version


class TakeBack(msgspec.Struct, forbid_unknown_fields=True):
    """A rollback: of the version the operator saw as the active one."""

    kind: KindName
    active: Version


class Imports:
    """The routes of imports.

    Args:
        table: the fan identity table.
        threads: where it is read.
        commands: takes a version back.
    """

    def __init__(self, table: Table, threads: Threads, commands: Commands) -> None:
        self._table = table
        self._threads = threads
        self._commands = commands

    def routes(self, guard: Guard) -> list[Route]:
        """The routes."""
        return [
            guard.read("/imports", self._all, Nothing),
            guard.read("/imports/{kind}/{version}", self._one, OneVersion),
            guard.act("/imports/{kind}/rollback", self._roll_back, TakeBack),
        ]

    async def _all(self, asked: Asked, nothing: Nothing) -> dict[str, Any]:
        del asked, nothing
        return {"imports": await self._threads.ask(_TABLE, self._listed)}

    def _listed(self) -> list[dict[str, Any]]:
        found: list[VersionRecord] = []
        active: set[str | None] = set()
        for kind in ImportKind:
            active.add(active_pointer(self._table, kind).import_version)
            found += version_records(self._table, kind, _SHOWN_OF_EACH)
        found.sort(key=lambda record: record.started_at, reverse=True)
        return [_shown(record, active=record.version in active) for record in found]

    async def _one(self, asked: Asked, one: OneVersion) -> dict[str, Any]:
        del asked
        record = await self._threads.ask(_TABLE, version_record, self._table, ImportKind(one.kind), one.version)
        if record is None:
            raise not_found("version")
        return _without_fans(record)

    async def _roll_back(self, asked: Asked, wanted: TakeBack) -> dict[str, Any]:
        kind = ImportKind(wanted.kind)
        pointer = await self._threads.ask(_TABLE, active_pointer, self._table, kind)
        if pointer.import_version != wanted.active:
            raise conflict("another version is active now: look at it first", "CHANGED")
        command = ["imports", "rollback", kind.value, f"--active={wanted.active}", "--json"]
        details: dict[str, str | int] = {"kind": kind.value}
        return {
            "job": await self._commands.start(
                asked, JobKind.ROLLBACK, "imports.rollback", wanted.active, details, command
            )
        }


def _shown(record: VersionRecord, *, active: bool) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "version": record.version,
        "state": record.state,
        "active": active,
        "startedAt": format_time_ms(record.started_at),
        "rows": record.comparison.rows,
        "summary": headline(record)[:_SENTENCES],
    }


def _without_fans(record: VersionRecord) -> dict[str, Any]:
    """A record for machines, less what names fans or quotes their rows: the command line has that."""
    shown = record_json(record)
    comparison = shown["comparison"]
    examples = [
        {name: value for name, value in example.items() if name != "globalUserId"} for example in comparison["examples"]
    ]
    return {**shown, "comparison": {**comparison, "examples": examples, "badExamples": []}}
