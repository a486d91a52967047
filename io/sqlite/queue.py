"""A FIFO queue in SQLite, after SQS: groups, deduplication window, visibility timeout, receive count.

A group is received by one receiver at a time and in the order sent. Every change is one transaction, so a killed
process leaves each message either waiting, in flight until its visibility timeout ends, or deleted.
"""

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from ..clock import now_ms
from ..ports import QueueEntry, ReceivedMessage, SendOutcome
from .store import SqliteStore

DEDUPLICATION_WINDOW_MS: Final = 5 * 60 * 1_000
"""As SQS has it."""

DEFAULT_VISIBILITY_TIMEOUT_MS: Final = 60_000

_SUSPECT_RECEIVES: Final = 2
"""A message received this often without being deleted is next delivered alone with its receiver: if it is what kills
receivers, its neighbours do not share its fate."""


class SqliteQueue:
    """One named queue in a store. Delivery is at least once; order holds within a group.

    Args:
        store: the file.
        name: the queue's name; several share a file.
        visibility_timeout_ms: how long a received message stays invisible to others unless deleted.
        clock_ms: the time in epoch milliseconds; tests pass their own.
    """

    def __init__(
        self,
        store: SqliteStore,
        name: str,
        *,
        visibility_timeout_ms: int = DEFAULT_VISIBILITY_TIMEOUT_MS,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._store = store
        self._name = name
        self._visibility_timeout_ms = visibility_timeout_ms
        self._clock_ms = clock_ms
        self._purged_at = 0

    def send(self, entries: Sequence[QueueEntry]) -> list[SendOutcome]:
        """Sends entries in order, in one transaction.

        An entry whose deduplication id was sent within the last five minutes is a duplicate. Where it has the lower
        precedence and the earlier message was not received yet, it takes that message's place.

        Returns:
            For each entry whether it was sent or was a duplicate (of two, one counts as the duplicate either way).

        Raises:
            BackendUnavailableError: the store cannot be written.
        """
        now = self._clock_ms()
        outcomes: list[SendOutcome] = []
        with self._store.transaction() as connection:
            self._purge_deduplication(connection, now)
            for entry in entries:
                outcomes.append(self._send_one(connection, entry, now))
        return outcomes

    def _send_one(self, connection: sqlite3.Connection, entry: QueueEntry, now: int) -> SendOutcome:
        deduplication_id = entry.deduplication_id.encode()
        known = connection.execute(
            "SELECT sent_at, precedence, seq FROM deduplication WHERE queue = ? AND deduplication_id = ?",
            (self._name, deduplication_id),
        ).fetchone()
        if known is not None and known[0] > now - DEDUPLICATION_WINDOW_MS:
            _, precedence, seq = known
            if entry.precedence < precedence and self._is_untouched(connection, seq):
                self._remove(connection, [seq])
                self._insert(connection, entry, deduplication_id, known[0])
            return SendOutcome.DUPLICATE
        self._insert(connection, entry, deduplication_id, now)
        return SendOutcome.SENT

    def _insert(self, connection: sqlite3.Connection, entry: QueueEntry, deduplication_id: bytes, now: int) -> None:
        seq = connection.execute(
            "INSERT INTO messages (queue, group_id, body, sent_at) VALUES (?, ?, ?, ?)",
            (self._name, entry.group_id, entry.body, now),
        ).lastrowid
        connection.execute(
            "INSERT INTO message_groups (queue, group_id, head_seq) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (self._name, entry.group_id, seq),
        )
        connection.execute(
            "INSERT OR REPLACE INTO deduplication VALUES (?, ?, ?, ?, ?)",
            (self._name, deduplication_id, now, entry.precedence, seq),
        )

    @staticmethod
    def _is_untouched(connection: sqlite3.Connection, seq: int) -> bool:
        row = connection.execute("SELECT receive_count FROM messages WHERE seq = ?", (seq,)).fetchone()
        return row is not None and row[0] == 0

    def receive(self, limit: int) -> list[ReceivedMessage]:
        """Receives up to ``limit`` messages: whole groups, the one with the oldest message first. Does not wait.

        Raises:
            BackendUnavailableError: the store cannot be written.
        """
        now = self._clock_ms()
        delivery = secrets.token_hex(8)
        received: list[ReceivedMessage] = []
        with self._store.transaction() as connection:
            groups = connection.execute(
                "SELECT group_id FROM message_groups WHERE queue = ? AND locked_until <= ? ORDER BY head_seq LIMIT ?",
                (self._name, now, limit),
            ).fetchall()
            for (group_id,) in groups:
                room = limit - len(received)
                rows = connection.execute(
                    "SELECT seq, body, receive_count FROM messages WHERE queue = ? AND group_id = ? "
                    "ORDER BY seq LIMIT ?",
                    (self._name, group_id, room),
                ).fetchall()
                if rows[0][2] >= _SUSPECT_RECEIVES:
                    if received:
                        continue
                    rows = rows[:1]
                    room = 1
                self._take(connection, group_id, rows[-1][0], now, delivery)
                received += [
                    ReceivedMessage(f"{seq}/{delivery}", group_id, body, count + 1) for seq, body, count in rows
                ]
                if len(rows) >= room:
                    break
        return received

    def _take(self, connection: sqlite3.Connection, group_id: str, last_seq: int, now: int, delivery: str) -> None:
        connection.execute(
            "UPDATE messages SET receive_count = receive_count + 1, receipt = ? "
            "WHERE queue = ? AND group_id = ? AND seq <= ?",
            (delivery, self._name, group_id, last_seq),
        )
        # Receipts of a delivery whose visibility timeout ended are void; a message with a receipt is in flight.
        connection.execute(
            "UPDATE messages SET receipt = NULL WHERE queue = ? AND group_id = ? AND seq > ? AND receipt IS NOT NULL",
            (self._name, group_id, last_seq),
        )
        connection.execute(
            "UPDATE message_groups SET locked_until = ? WHERE queue = ? AND group_id = ?",
            (now + self._visibility_timeout_ms, self._name, group_id),
        )

    def delete(self, receipts: Sequence[str]) -> None:
        """Deletes received messages in one transaction; receipts of an earlier delivery are ignored.

        A group becomes receivable again once none of its messages is in flight, so deleting a delivery's messages
        in one call keeps the group in order.

        Raises:
            BackendUnavailableError: the store cannot be written.
        """
        with self._store.transaction() as connection:
            seqs: list[int] = []
            for receipt in receipts:
                seq, _, delivery = receipt.partition("/")
                row = connection.execute("SELECT receipt FROM messages WHERE seq = ?", (int(seq),)).fetchone()
                if row is not None and row[0] == delivery:
                    seqs.append(int(seq))
            self._remove(connection, seqs)

    def _remove(self, connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
        groups: dict[str, None] = {}
        for seq in seqs:
            row = connection.execute("DELETE FROM messages WHERE seq = ? RETURNING group_id", (seq,)).fetchone()
            groups[row[0]] = None
        for group_id in groups:
            head = connection.execute(
                "SELECT seq, receipt FROM messages WHERE queue = ? AND group_id = ? ORDER BY seq LIMIT 1",
                (self._name, group_id),
            ).fetchone()
            if head is None:
                connection.execute(
                    "DELETE FROM message_groups WHERE queue = ? AND group_id = ?", (self._name, group_id)
                )
            else:
                # A head without receipt was never received: nothing of the group is in flight any more.
                connection.execute(
                    "UPDATE message_groups SET head_seq = ?, locked_until = iif(? IS NULL, 0, locked_until) "
                    "WHERE queue = ? AND group_id = ?",
                    (head[0], head[1], self._name, group_id),
                )

    def release_in_flight(self) -> int:
        """Makes every message in flight receivable now. For a caller that knows no other receiver is alive.

        Returns:
            How many groups were in flight.
        """
        with self._store.transaction() as connection:
            return connection.execute(
                "UPDATE message_groups SET locked_until = 0 WHERE queue = ? AND locked_until > 0", (self._name,)
            ).rowcount

    def depth(self) -> int:
        """How many messages wait or are in flight."""
        with self._store.translated_errors():
            return int(
                self._store.connection.execute(
                    "SELECT count(*) FROM messages WHERE queue = ?", (self._name,)
                ).fetchone()[0]
            )

    def last_sent(self) -> int:
        """The number of the message sent last, of any queue in the store; it only grows. 0 before the first."""
        with self._store.translated_errors():
            row = self._store.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        return 0 if row is None else int(row[0])

    def _purge_deduplication(self, connection: sqlite3.Connection, now: int) -> None:
        if now - self._purged_at < DEDUPLICATION_WINDOW_MS:
            return
        connection.execute(
            "DELETE FROM deduplication WHERE queue = ? AND sent_at <= ?", (self._name, now - DEDUPLICATION_WINDOW_MS)
        )
        self._purged_at = now
