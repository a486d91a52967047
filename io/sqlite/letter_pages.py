"""Pages of dead letters in SQLite, newest first, whatever is looked for and however many there are.

Letters of one worker and reason that all wait (or do not) stand in an index by time. A page is merged from the ends of
those stretches that are looked for: there are as many as workers have reasons, some dozens, and of each no more is read
than the page needs. Without that, a rare kind among a million letters would be looked for in all of them.
"""

import heapq
import re
import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Final

from ...domain.dead_letters import LetterFilter
from ..ports import LetterHead, LetterPage

_CURSOR: Final = re.compile(r"(\d{1,15})-(.{1,200})", re.DOTALL)
_HEAD: Final = (
    "dead_letter_id, worker, reason, error, attempts, written_at, redriven_at, source, position, code_version"
)
_AT_ONCE: Final = 8
_END: Final = 2**63 - 1
_WAITING: Final = "redriven_at IS NULL"
_REDRIVEN: Final = "redriven_at IS NOT NULL"

_Key = tuple[int, str]


def page_of(connection: sqlite3.Connection, where: LetterFilter, after: str | None, limit: int) -> LetterPage:
    """A page; see ``DeadLetterArchive.page``.

    Raises:
        ValueError: ``after`` is nothing a page said.
    """
    before = None if after is None else _key_of(after)
    found = list(islice(heapq.merge(*_stretches(connection, where, before), reverse=True), limit + 1))
    rows = (
        connection.execute(f"SELECT {_HEAD} FROM dead_letters WHERE dead_letter_id = ?", (letter_id,)).fetchone()
        for _, letter_id in found[:limit]
    )
    heads = [LetterHead(*row) for row in rows if row is not None]  # one may have been deleted meanwhile
    return LetterPage(heads, None if len(found) <= limit else _cursor_of(found[limit - 1]))


def conditions_of(where: LetterFilter) -> tuple[str, tuple[object, ...]]:
    """The FROM and WHERE of a filter, and the values it binds."""
    wanted = {
        "worker = ?": where.worker,
        "reason = ?": where.reason,
        "instr(error, ?) > 0": where.error,
        "written_at >= ?": where.since_ms,
        "written_at < ?": where.until_ms,
        "code_version = ?": where.code_version,
        "activity_id = ?": where.activity_id,
    }
    given = {condition: value for condition, value in wanted.items() if value is not None}
    conditions = [*given, *_states(where), "TRUE"]
    return f"FROM dead_letters WHERE {' AND '.join(conditions)}", tuple(given.values())


def _states(where: LetterFilter) -> list[str]:
    return [*([_WAITING] if where.waiting_only else []), *([_REDRIVEN] if where.redriven_only else [])]


def _stretches(connection: sqlite3.Connection, where: LetterFilter, before: _Key | None) -> Iterator[Iterator[_Key]]:
    """The keys (time, id) of each stretch that is looked for, newest first."""
    states = _states(where)
    if where.activity_id is not None or len(states) > 1:  # an activity has a handful of letters
        yield _stretch(connection, where, before)
        return
    for state in states or (_WAITING, _REDRIVEN):
        for worker, reason in _kinds(connection, state, where):
            yield _stretch(connection, _of_kind(where, worker, reason), before, state)


def _of_kind(where: LetterFilter, worker: str, reason: str) -> LetterFilter:
    return LetterFilter(
        worker, reason, where.error, where.since_ms, where.until_ms, where.code_version, waiting_only=False
    )


def _stretch(
    connection: sqlite3.Connection, where: LetterFilter, before: _Key | None, state: str = "TRUE"
) -> Iterator[_Key]:
    """A stretch's keys, a few at a time: of most stretches a page needs none or few."""
    conditions, values = conditions_of(where)
    while True:
        end = "" if before is None else "AND (written_at, dead_letter_id) < (?, ?)"
        keys = connection.execute(
            f"SELECT written_at, dead_letter_id {conditions} AND {state} {end} "
            f"ORDER BY written_at DESC, dead_letter_id DESC LIMIT {_AT_ONCE}",
            (*values, *(before or ())),
        ).fetchall()
        yield from keys
        if len(keys) < _AT_ONCE:
            return
        before = keys[-1]


def _kinds(connection: sqlite3.Connection, state: str, where: LetterFilter) -> Iterator[tuple[str, str]]:
    """Workers and their reasons among letters of a state: from each one the index leads to the next."""
    if where.worker is not None and where.reason is not None:
        yield where.worker, where.reason
        return
    worker, reason = where.worker or "", ""
    while True:
        row = connection.execute(
            f"SELECT worker, reason FROM dead_letters WHERE {state} AND (worker, reason, written_at) > (?, ?, ?) "
            "ORDER BY worker, reason, written_at LIMIT 1",
            (worker, reason, _END),  # with the time SQLite seeks behind a kind's letters; else it reads them
        ).fetchone()
        if row is None or (where.worker is not None and row[0] != where.worker):
            return
        worker, reason = row
        if where.reason in (None, reason):
            yield worker, reason


def _cursor_of(key: _Key) -> str:
    return f"{key[0]}-{key[1]}"


def _key_of(cursor: str) -> _Key:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise ValueError("no page of letters ends there")
    return int(found[1]), found[2]
