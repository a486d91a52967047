"""A FIFO queue in SQLite, after SQS: groups, deduplication window, visibility timeout, receive count.

A group is received by one receiver at a time and in the order sent. Every change is one transaction, so a killed
process leaves each message either waiting, in flight until its visibility timeout ends, or deleted.

What is in flight is kept per group, not per message: a delivery takes a group's messages from its head up to
``in_flight_to``, and those up to ``received_to`` were in some delivery before. That is the same to a receiver, and a
delivery writes one row a group.
"""

import hashlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ...domain.records import Failure
from ..clock import now_ms
from ..ports import QueueEntry, ReceivedMessage, SendOutcome
from ..telemetry.doors import queue_call
from ..telemetry.tracing import Attributes
from .store import SqliteStore

DEDUPLICATION_WINDOW_MS: Final = 5 * 60 * 1_000
"""As SQS has it."""

DEFAULT_VISIBILITY_TIMEOUT_MS: Final = 60_000

_PAGE: Final = 1_000

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
        self._number: int | None = None
        self._purged_at = 0

    @property
    def place(self) -> Attributes:
        """As spans name it."""
        return {"messaging.system": "sqlite", "messaging.destination.name": self._name}

    @queue_call("send")
    def send(self, entries: Sequence[QueueEntry]) -> list[SendOutcome | Failure]:
        """Sends entries in order, in one transaction.

        An entry whose deduplication id was sent within the last five minutes is a duplicate. Where it has the lower
        precedence and the earlier message was not received yet, it takes that message's place.

        Returns:
            For each entry whether it was sent or was a duplicate (of two, one counts as the duplicate either way).

        Raises:
            BackendUnavailableError: the store cannot be written.
        """
        if not entries:
            return []
        queue = self._queue
        now = self._clock_ms()
        with self._store.transaction() as connection:
            self._purge_deduplication(connection, now)
            seq: int = connection.execute("SELECT last_seq FROM queues WHERE queue = ?", (queue,)).fetchone()[0]
            outcomes: list[SendOutcome | Failure] = []
            for entry in entries:
                seq += 1
                outcomes.append(self._send_one(connection, entry, seq, now))
            connection.execute("UPDATE queues SET last_seq = ? WHERE queue = ?", (seq, queue))
        return outcomes

    def _send_one(self, connection: sqlite3.Connection, entry: QueueEntry, seq: int, now: int) -> SendOutcome:
        queue, own = self._queue, entry.precedence()
        digest = hashlib.blake2b(entry.deduplication_id.encode(), digest_size=16).digest()
        known = connection.execute(
            "SELECT sent_at, precedence, group_id, seq FROM deduplication WHERE queue = ? AND deduplication_id = ?",
            (queue, digest),
        ).fetchone()
        outcome = SendOutcome.SENT
        if known is not None and known[0] > now - DEDUPLICATION_WINDOW_MS:
            now, precedence, group_id, earlier = known
            outcome = SendOutcome.DUPLICATE
            if own >= precedence or not self._is_untouched(connection, group_id, earlier):
                return outcome
            self._remove(connection, group_id, [earlier])
        connection.execute("INSERT INTO messages VALUES (?, ?, ?, ?)", (queue, entry.group_id, seq, entry.body))
        connection.execute(
            "INSERT INTO message_groups (queue, group_id, head_seq) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (queue, entry.group_id, seq),
        )
        connection.execute(
            "INSERT OR REPLACE INTO deduplication VALUES (?, ?, ?, ?, ?, ?)",
            (queue, digest, now, own, entry.group_id, seq),
        )
        return outcome

    def _is_untouched(self, connection: sqlite3.Connection, group_id: str, seq: int) -> bool:
        row = connection.execute(
            "SELECT received_to FROM messages JOIN message_groups USING (queue, group_id) "
            "WHERE queue = ? AND group_id = ? AND seq = ?",
            (self._queue, group_id, seq),
        ).fetchone()
        return row is not None and row[0] < seq

    def receive(self, limit: int) -> list[ReceivedMessage]:
        """Receives up to ``limit`` messages: whole groups, the one with the oldest message first. Does not wait.

        Raises:
            BackendUnavailableError: the store cannot be written.
        """
        now = self._clock_ms()
        delivery = secrets.token_hex(8)
        received: list[ReceivedMessage] = []
        if not self._any_receivable(now):
            return received
        with self._store.transaction() as connection:
            groups = connection.execute(
                "SELECT group_id, head_seq, received_to, receives FROM message_groups "
                "WHERE queue = ? AND locked_until <= ? ORDER BY head_seq LIMIT ?",
                (self._queue, now, limit),
            ).fetchall()
            for group_id, head_seq, received_to, receives in groups:
                room = limit - len(received)
                if receives >= _SUSPECT_RECEIVES:
                    if received:
                        continue
                    room = 1
                rows = connection.execute(
                    "SELECT seq, body FROM messages WHERE queue = ? AND group_id = ? AND seq >= ? ORDER BY seq LIMIT ?",
                    (self._queue, group_id, head_seq, room),
                ).fetchall()
                connection.execute(
                    "UPDATE message_groups SET locked_until = ?, in_flight_to = ?, received_to = ?, receives = ?, "
                    "delivery = ? WHERE queue = ? AND group_id = ?",
                    (
                        now + self._visibility_timeout_ms,
                        rows[-1][0],
                        max(received_to, rows[-1][0]),
                        receives + 1,
                        delivery,
                        self._queue,
                        group_id,
                    ),
                )
                received += [
                    ReceivedMessage(
                        receipt=f"{delivery}/{seq}/{group_id}",
                        group_id=group_id,
                        body=body,
                        receive_count=(receives if seq <= received_to else 0) + 1,
                        message_id=str(seq),
                    )
                    for seq, body in rows
                ]
                if len(received) >= limit or receives >= _SUSPECT_RECEIVES:
                    break
        return received

    def _any_receivable(self, now: int) -> bool:
        """Whether receiving could bring anything; asked first, since an idle receiver must not lock out senders."""
        queue = self._queue
        with self._store.translated_errors():
            return (
                self._store.connection.execute(
                    "SELECT 1 FROM message_groups WHERE queue = ? AND locked_until <= ? LIMIT 1", (queue, now)
                ).fetchone()
                is not None
            )

    @queue_call("delete")
    def delete(self, receipts: Sequence[str]) -> None:
        """Deletes received messages in one transaction; receipts of an earlier delivery are ignored.

        A group becomes receivable again once none of its messages is in flight, so deleting a delivery's messages
        in one call keeps the group in order.

        Raises:
            BackendUnavailableError: the store cannot be written.
        """
        if not receipts:
            return
        seqs: dict[tuple[str, str], list[int]] = {}
        for receipt in receipts:
            delivery, seq, group_id = receipt.split("/", 2)
            seqs.setdefault((group_id, delivery), []).append(int(seq))
        queue = self._queue
        with self._store.transaction() as connection:
            for (group_id, delivery), own in seqs.items():
                row = connection.execute(
                    "SELECT delivery FROM message_groups WHERE queue = ? AND group_id = ?", (queue, group_id)
                ).fetchone()
                if row is not None and row[0] == delivery:
                    self._remove(connection, group_id, own)

    def release(self, receipts: Sequence[str], delay_ms: int) -> None:
        """Makes received messages receivable again after a delay; their receive counts stay.

        A group is locked as a whole, so all of a delivery's messages that were not deleted come back with the ones
        named here, in order.

        Raises:
            BackendUnavailableError: the store cannot be written.
        """
        if not receipts:
            return
        groups = {(group_id, delivery) for delivery, _, group_id in (receipt.split("/", 2) for receipt in receipts)}
        queue = self._queue
        with self._store.transaction() as connection:
            connection.executemany(
                "UPDATE message_groups SET locked_until = ? WHERE queue = ? AND group_id = ? AND delivery = ?",
                [(self._clock_ms() + delay_ms, queue, group_id, delivery) for group_id, delivery in sorted(groups)],
            )

    def _remove(self, connection: sqlite3.Connection, group_id: str, seqs: Sequence[int]) -> None:
        group = (self._queue, group_id)
        connection.executemany(
            "DELETE FROM messages WHERE queue = ? AND group_id = ? AND seq = ?", [(*group, seq) for seq in seqs]
        )
        head = connection.execute(
            "SELECT seq FROM messages WHERE queue = ? AND group_id = ? ORDER BY seq LIMIT 1", group
        ).fetchone()
        if head is None:
            connection.execute("DELETE FROM message_groups WHERE queue = ? AND group_id = ?", group)
            return
        # With a head behind what was delivered nothing of the group is in flight any more. A head that this delivery
        # did not hold was received once less; it stays suspect, but failures of those before it are not its own.
        connection.execute(
            "UPDATE message_groups SET head_seq = ?1, locked_until = iif(?1 > in_flight_to, 0, locked_until), "
            "receives = CASE WHEN ?1 > received_to THEN 0 WHEN ?1 > in_flight_to THEN min(receives - 1, ?4) "
            "ELSE receives END WHERE queue = ?2 AND group_id = ?3",
            (head[0], *group, _SUSPECT_RECEIVES),
        )

    def each(self) -> Iterator[tuple[str, int, bytes]]:
        """Every message, waiting or in flight: group, number and body; a few at a time, each as of when it is read."""
        after: tuple[str, int] = ("", -1)
        while True:
            with self._store.translated_errors():
                rows = self._store.connection.execute(
                    "SELECT group_id, seq, body FROM messages WHERE queue = ? AND (group_id, seq) > (?, ?) "
                    "ORDER BY group_id, seq LIMIT ?",
                    (self._queue, *after, _PAGE),
                ).fetchall()
            yield from rows
            if len(rows) < _PAGE:
                return
            after = rows[-1][:2]

    def rewrite(self, messages: Sequence[tuple[str, int, bytes | None]]) -> None:
        """Gives messages (group, number) another body, or deletes them where it is None, in one transaction.

        Who has received one goes on with what it received.
        """
        with self._store.transaction() as connection:
            for group_id, seq, body in messages:
                if body is None:
                    self._remove(connection, group_id, [seq])
                else:
                    connection.execute(
                        "UPDATE messages SET body = ? WHERE queue = ? AND group_id = ? AND seq = ?",
                        (body, self._queue, group_id, seq),
                    )

    def forget_sent(self, group_id: str) -> None:
        """Forgets which messages of a group were sent within the deduplication window, and so the group's name."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM deduplication WHERE queue = ? AND group_id = ?", (self._queue, group_id))

    def release_in_flight(self) -> int:
        """Makes every message in flight receivable now. For a caller that knows no other receiver is alive.

        Returns:
            How many groups were in flight.
        """
        queue = self._queue
        with self._store.transaction() as connection:
            return connection.execute(
                "UPDATE message_groups SET locked_until = 0 WHERE queue = ? AND locked_until > 0", (queue,)
            ).rowcount

    def depth(self) -> int:
        """How many messages wait or are in flight."""
        queue = self._queue
        with self._store.translated_errors():
            return int(
                self._store.connection.execute("SELECT count(*) FROM messages WHERE queue = ?", (queue,)).fetchone()[0]
            )

    def oldest_ms(self) -> int | None:
        """How long the oldest message has waited, milliseconds; None where none waits.

        When a message was sent is kept as long as it could have a duplicate: an older one is told as having waited
        that long, whatever it did.
        """
        queue = self._queue
        with self._store.translated_errors():
            oldest, sent_at = self._store.connection.execute(
                "SELECT oldest, (SELECT max(sent_at) FROM deduplication WHERE queue = ?1 AND seq = oldest) "
                "FROM (SELECT min(head_seq) AS oldest FROM message_groups WHERE queue = ?1)",
                (queue,),
            ).fetchone()
        if oldest is None:
            return None
        longest = DEDUPLICATION_WINDOW_MS
        return longest if sent_at is None else min(max(self._clock_ms() - sent_at, 0), longest)

    def last_sent(self) -> int:
        """The number of the message sent last; it only grows. 0 before the first."""
        queue = self._queue
        with self._store.translated_errors():
            return int(
                self._store.connection.execute("SELECT last_seq FROM queues WHERE queue = ?", (queue,)).fetchone()[0]
            )

    @property
    def _queue(self) -> int:
        """The queue's number in the store; the queue is made when first used, outside any transaction."""
        if self._number is None:
            with self._store.transaction() as connection:
                connection.execute("INSERT INTO queues (name) VALUES (?) ON CONFLICT DO NOTHING", (self._name,))
                self._number = int(
                    connection.execute("SELECT queue FROM queues WHERE name = ?", (self._name,)).fetchone()[0]
                )
        return self._number

    def _purge_deduplication(self, connection: sqlite3.Connection, now: int) -> None:
        if now - self._purged_at < DEDUPLICATION_WINDOW_MS:
            return
        connection.execute(
            "DELETE FROM deduplication WHERE queue = ? AND sent_at <= ?", (self._queue, now - DEDUPLICATION_WINDOW_MS)
        )
        self._purged_at = now
