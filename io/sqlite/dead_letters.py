"""Dead letters and committed positions in SQLite."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from ...domain.dead_letters import WAITING, LetterFilter, LetterTally, RedriveAttempt, tally_letters
from ...domain.records import DeadLetter
from ..clock import now_ms
from ..ports import LetterPage, StoredDeadLetter
from .letter_pages import conditions_of, page_of
from .store import SqliteStore

_COLUMNS: Final = (
    "dead_letter_id, worker, reason, error, stack, attempts, request_id, activity_id, source, position, payload, "
    "code_version"
)

_PAGE: Final = 100

_STORED: Final = f"{_COLUMNS}, written_at, redriven_at"
_ORDER: Final = "ORDER BY written_at, dead_letter_id"


class SqliteDeadLetters:
    """The dead letters of a store.

    Every method raises BackendUnavailableError where the store cannot be read or written.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Writes letters in one transaction; one written before waits again and keeps its first time."""
        now = now_ms()
        with self._store.transaction() as connection:
            connection.executemany(
                f"INSERT INTO dead_letters ({_COLUMNS}, written_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET error = excluded.error, stack = excluded.stack, "
                "code_version = excluded.code_version, attempts = max(attempts, excluded.attempts), redriven_at = NULL",
                [
                    (
                        letter.dead_letter_id,
                        letter.worker,
                        letter.reason,
                        letter.error,
                        letter.stack,
                        letter.attempts,
                        letter.request_id,
                        letter.activity_id,
                        letter.source,
                        letter.position,
                        letter.payload,
                        letter.code_version,
                        now,
                    )
                    for letter in letters
                ],
            )

    def select(self, where: LetterFilter = WAITING, *, limit: int = -1) -> list[StoredDeadLetter]:
        """Letters that match, oldest first; ``limit`` -1 for all."""
        conditions, values = conditions_of(where)
        return [_stored(row) for row in self._rows(f"{_STORED} {conditions} {_ORDER} LIMIT ?", (*values, limit))]

    def pages(self, where: LetterFilter = WAITING, *, size: int = _PAGE) -> Iterator[list[StoredDeadLetter]]:
        """As ``select``, a page at a time, each as of when it is read."""
        conditions, values = conditions_of(where)
        after: tuple[int, str] = (-1, "")
        while True:
            rows = self._rows(
                f"{_STORED} {conditions} AND (written_at, dead_letter_id) > (?, ?) {_ORDER} LIMIT ?",
                (*values, *after, size),
            )
            page = [_stored(row) for row in rows]
            if page:
                yield page
                after = page[-1].written_at_ms, page[-1].letter.dead_letter_id
            if len(page) < size:
                return

    def page(self, where: LetterFilter = WAITING, *, after: str | None = None, limit: int = 50) -> LetterPage:
        """A page of the letters that match, the newest first; raises ValueError where ``after`` is none of ours."""
        with self._store.translated_errors():
            return page_of(self._store.connection, where, after, limit)

    def count(self, where: LetterFilter = WAITING) -> int:
        """How many letters match."""
        conditions, values = conditions_of(where)
        return int(self._rows(f"count(*) {conditions}", values)[0][0])

    def count_up_to(self, most: int, where: LetterFilter = WAITING, *, seconds: float | None = None) -> int:
        """How many letters match, counted no further than ``most``; an index is read: ``seconds`` are not needed."""
        del seconds
        conditions, values = conditions_of(where)
        return int(self._rows(f"count(*) FROM (SELECT 1 {conditions} LIMIT ?)", (*values, most))[0][0])

    def numbers(self, where: LetterFilter = WAITING) -> list[LetterTally]:
        """As ``tally``, without examples: a million are counted in a tenth of a second."""
        conditions, values = conditions_of(where)
        rows = self._rows(
            f"worker, reason, count(*) AS number {conditions} GROUP BY worker, reason "
            "ORDER BY number DESC, worker, reason",
            values,
        )
        return [LetterTally(worker, reason, number) for worker, reason, number in rows]

    def tally(self, where: LetterFilter = WAITING) -> list[LetterTally]:
        """The letters that match by worker and reason, most first."""
        conditions, values = conditions_of(where)
        with self._store.translated_errors():
            return tally_letters(
                self._store.connection.execute(f"SELECT worker, reason, dead_letter_id {conditions} {_ORDER}", values)
            )

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._store.translated_errors():
            return self._store.connection.execute(f"SELECT {query}", values).fetchall()

    def get(self, letter_id: str) -> StoredDeadLetter | None:
        """The letter whose id is ``letter_id`` or begins with it where only one does; else None."""
        rows = self._rows(
            f"{_STORED} FROM dead_letters WHERE dead_letter_id >= ? AND dead_letter_id < ? || char(1114111) LIMIT 2",
            (letter_id, letter_id),
        )
        return _stored(rows[0]) if len(rows) == 1 else None

    def record(self, attempts: Sequence[RedriveAttempt]) -> None:
        """Adds attempts to letters' histories in one transaction; what was queued or rejected no longer waits."""
        with self._store.transaction() as connection:
            for attempt in attempts:
                redriven_at = None if attempt.outcome == "failed" else attempt.at
                known = connection.execute(
                    "UPDATE dead_letters SET redriven_at = coalesce(?, redriven_at), attempts = attempts + 1 "
                    "WHERE dead_letter_id = ?",
                    (redriven_at, attempt.dead_letter_id),
                ).rowcount
                if known:
                    connection.execute(
                        "INSERT OR REPLACE INTO dead_letter_attempts VALUES (?, ?, ?, ?, ?, ?)",
                        msgspec.structs.astuple(attempt),
                    )

    def history(self, letter_id: str) -> list[RedriveAttempt]:
        """A letter's attempts, oldest first."""
        rows = self._rows(
            "dead_letter_id, at, outcome, error, request_id, code_version FROM dead_letter_attempts "
            "WHERE dead_letter_id = ? ORDER BY at, request_id",
            (letter_id,),
        )
        return [RedriveAttempt(*row) for row in rows]

    def each(self) -> Iterator[StoredDeadLetter]:
        """Every letter, redriven or not, a few at a time; each as of when it is read."""
        after = ""
        while True:
            with self._store.translated_errors():
                rows = self._store.connection.execute(
                    f"SELECT {_STORED} FROM dead_letters WHERE dead_letter_id > ? ORDER BY dead_letter_id LIMIT ?",
                    (after, _PAGE),
                ).fetchall()
            yield from map(_stored, rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def delete(self, letter_ids: Sequence[str]) -> None:
        """Deletes letters and their histories in one transaction; one that is not there is no error."""
        ids = [(letter_id,) for letter_id in letter_ids]
        with self._store.transaction() as connection:
            connection.executemany("DELETE FROM dead_letter_attempts WHERE dead_letter_id = ?", ids)
            connection.executemany("DELETE FROM dead_letters WHERE dead_letter_id = ?", ids)


def _stored(row: tuple[Any, ...]) -> StoredDeadLetter:
    *fields, written_at, redriven_at = row
    return StoredDeadLetter(DeadLetter(*fields), written_at, redriven_at)


class SqlitePositions:
    """How far each worker has read each source that keeps no position of its own, such as a growing file."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def load(self, worker: str, source: str) -> str:
        """The committed position, or "" where there is none."""
        with self._store.translated_errors():
            row = self._store.connection.execute(
                "SELECT position FROM positions WHERE worker = ? AND source = ?", (worker, source)
            ).fetchone()
        return "" if row is None else row[0]

    def commit(self, worker: str, source: str, position: str) -> None:
        """Remembers that everything up to ``position`` had its effect."""
        with self._store.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (worker, source, position))
