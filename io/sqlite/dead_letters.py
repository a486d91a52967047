"""Dead letters and committed positions in SQLite."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ...domain.records import DeadLetter
from ..clock import now_ms
from ..ports import StoredDeadLetter
from .store import SqliteStore

_COLUMNS: Final = (
    "dead_letter_id, worker, reason, error, stack, attempts, request_id, activity_id, source, position, payload"
)

_PAGE: Final = 100

_MATCHING: Final = (
    "FROM dead_letters WHERE (? IS NULL OR worker = ?) AND (? IS NULL OR reason = ?) AND (NOT ? OR redriven_at IS NULL)"
)


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
                f"INSERT INTO dead_letters ({_COLUMNS}, written_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET error = excluded.error, stack = excluded.stack, "
                "attempts = max(attempts, excluded.attempts), redriven_at = NULL",
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
                        now,
                    )
                    for letter in letters
                ],
            )

    def select(
        self, *, worker: str | None = None, reason: str | None = None, waiting_only: bool = True, limit: int = -1
    ) -> list[StoredDeadLetter]:
        """Letters by worker and reason, oldest first; ``limit`` -1 for all."""
        with self._store.translated_errors():
            rows = self._store.connection.execute(
                f"SELECT {_COLUMNS}, written_at, redriven_at {_MATCHING} ORDER BY written_at, dead_letter_id LIMIT ?",
                (worker, worker, reason, reason, waiting_only, limit),
            ).fetchall()
        return [_stored(row) for row in rows]

    def count(self, *, worker: str | None = None, reason: str | None = None, waiting_only: bool = True) -> int:
        """How many letters ``select`` would find without a limit."""
        with self._store.translated_errors():
            return int(
                self._store.connection.execute(
                    f"SELECT count(*) {_MATCHING}", (worker, worker, reason, reason, waiting_only)
                ).fetchone()[0]
            )

    def get(self, letter_id: str) -> StoredDeadLetter | None:
        """The letter whose id is ``letter_id`` or begins with it where only one does; else None."""
        with self._store.translated_errors():
            rows = self._store.connection.execute(
                f"SELECT {_COLUMNS}, written_at, redriven_at FROM dead_letters "
                "WHERE substr(dead_letter_id, 1, ?) = ? LIMIT 2",
                (len(letter_id), letter_id),
            ).fetchall()
        return _stored(rows[0]) if len(rows) == 1 else None

    def mark_redriven(self, letter_ids: Sequence[str]) -> None:
        """Remembers that letters were sent again; they stay to be looked at."""
        now = now_ms()
        with self._store.transaction() as connection:
            connection.executemany(
                "UPDATE dead_letters SET redriven_at = ?, attempts = attempts + 1 WHERE dead_letter_id = ?",
                [(now, letter_id) for letter_id in letter_ids],
            )

    def each(self) -> Iterator[StoredDeadLetter]:
        """Every letter, redriven or not, a few at a time; each as of when it is read."""
        after = ""
        while True:
            with self._store.translated_errors():
                rows = self._store.connection.execute(
                    f"SELECT {_COLUMNS}, written_at, redriven_at FROM dead_letters "
                    "WHERE dead_letter_id > ? ORDER BY dead_letter_id LIMIT ?",
                    (after, _PAGE),
                ).fetchall()
            yield from map(_stored, rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def delete(self, letter_ids: Sequence[str]) -> None:
        """Deletes letters in one transaction; one that is not there is no error."""
        with self._store.transaction() as connection:
            connection.executemany(
                "DELETE FROM dead_letters WHERE dead_letter_id = ?", [(letter_id,) for letter_id in letter_ids]
            )


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
