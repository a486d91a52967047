"""The embedded FIFO queue: order, groups, deduplication, visibility, receive count, two processes."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fan_identity.io.ports import QueueEntry, ReceivedMessage, SendOutcome
from fan_identity.io.sqlite.queue import DEDUPLICATION_WINDOW_MS, SqliteQueue
from fan_identity.io.sqlite.store import SqliteStore

VISIBILITY_MS = 1_000


class Clock:
    """A clock a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> SqliteQueue:
    store = SqliteStore(tmp_path / "q.db")
    return SqliteQueue(store, "q.fifo", visibility_timeout_ms=VISIBILITY_MS, clock_ms=clock)


def entry(group: str, body: str, *, dedup: str | None = None, precedence: bytes = b"") -> QueueEntry:
    return QueueEntry(group, body if dedup is None else dedup, body.encode(), lambda: precedence)


def bodies(messages: list[ReceivedMessage]) -> list[str]:
    return [message.body.decode() for message in messages]


def test_messages_of_a_group_come_in_the_order_sent(queue: SqliteQueue) -> None:
    queue.send([entry("a", "a1"), entry("b", "b1"), entry("a", "a2")])
    assert bodies(queue.receive(10)) == ["a1", "a2", "b1"]


def test_a_group_in_flight_is_locked_until_all_of_it_is_deleted(queue: SqliteQueue) -> None:
    queue.send([entry("a", "a1"), entry("a", "a2"), entry("a", "a3")])
    first = queue.receive(2)
    assert queue.receive(10) == []
    queue.delete([first[0].receipt])
    assert queue.receive(10) == []
    queue.delete([first[1].receipt])
    assert bodies(queue.receive(10)) == ["a3"]


def test_a_message_not_deleted_comes_again_after_the_visibility_timeout(queue: SqliteQueue, clock: Clock) -> None:
    queue.send([entry("a", "a1"), entry("a", "a2")])
    queue.receive(10)
    clock.now += VISIBILITY_MS - 1
    assert queue.receive(10) == []
    clock.now += 1
    again = queue.receive(10)
    assert bodies(again) == ["a1", "a2"]
    assert [message.receive_count for message in again] == [2, 2]


def test_a_stale_receipt_deletes_nothing(queue: SqliteQueue, clock: Clock) -> None:
    queue.send([entry("a", "a1")])
    stale = queue.receive(1)
    clock.now += VISIBILITY_MS
    queue.receive(1)
    queue.delete([stale[0].receipt])
    assert queue.depth() == 1


def test_the_same_deduplication_id_is_a_duplicate_within_the_window_only(queue: SqliteQueue, clock: Clock) -> None:
    assert queue.send([entry("a", "x"), entry("a", "x")]) == [SendOutcome.SENT, SendOutcome.DUPLICATE]
    queue.delete([message.receipt for message in queue.receive(10)])
    clock.now += DEDUPLICATION_WINDOW_MS - 1
    assert queue.send([entry("a", "x")]) == [SendOutcome.DUPLICATE]
    clock.now += DEDUPLICATION_WINDOW_MS
    assert queue.send([entry("a", "x")]) == [SendOutcome.SENT]


def test_of_two_messages_with_one_id_the_one_of_lower_precedence_stays_whatever_the_order(
    queue: SqliteQueue,
) -> None:
    early = entry("a", "early", dedup="id", precedence=b"1")
    late = entry("b", "late", dedup="id", precedence=b"2")
    queue.send([late, early])
    assert bodies(queue.receive(10)) == ["early"]


def test_a_received_message_is_not_replaced(queue: SqliteQueue) -> None:
    queue.send([entry("a", "late", dedup="id", precedence=b"2")])
    received = queue.receive(1)
    assert queue.send([entry("a", "early", dedup="id", precedence=b"1")]) == [SendOutcome.DUPLICATE]
    queue.delete([received[0].receipt])
    assert queue.depth() == 0


def test_a_message_that_keeps_coming_back_travels_alone(queue: SqliteQueue, clock: Clock) -> None:
    queue.send([entry("a", "a1"), entry("a", "a2"), entry("b", "b1")])
    for _ in range(2):
        queue.receive(10)
        clock.now += VISIBILITY_MS
    alone = queue.receive(10)
    assert bodies(alone) == ["a1"]
    queue.delete([alone[0].receipt])
    assert bodies(queue.receive(10)) == ["a2"]


def test_release_makes_a_killed_receivers_messages_receivable(queue: SqliteQueue) -> None:
    queue.send([entry("a", "a1")])
    queue.receive(10)
    assert queue.release_in_flight() == 1
    assert bodies(queue.receive(10)) == ["a1"]


def test_queues_in_one_store_do_not_mix(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q.db")
    one, other = SqliteQueue(store, "one"), SqliteQueue(store, "other")
    one.send([entry("a", "x")])
    assert other.send([entry("a", "x")]) == [SendOutcome.SENT]
    assert other.depth() == 1
    other.delete([message.receipt for message in other.receive(10)])
    assert bodies(one.receive(10)) == ["x"]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5, unique=True))
@settings(max_examples=30, deadline=None)
def test_any_text_is_a_group_of_its_own(tmp_path_factory: pytest.TempPathFactory, groups: list[str]) -> None:
    queue = SqliteQueue(SqliteStore(tmp_path_factory.mktemp("q") / "q.db"), "q")
    queue.send([QueueEntry(group, str(index), str(index).encode()) for index, group in enumerate(groups)])
    received = queue.receive(10)
    assert {message.group_id: message.body for message in received} == {
        group: str(index).encode() for index, group in enumerate(groups)
    }


class QueueMachine(RuleBasedStateMachine):
    """Whatever senders, receivers, crashes and time do: nothing is lost, and no group is ever out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = SqliteQueue(
            SqliteStore(Path(":memory:")), "q", visibility_timeout_ms=VISIBILITY_MS, clock_ms=self.clock
        )
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.done: dict[str, list[int]] = defaultdict(list)
        self.in_flight: list[ReceivedMessage] = []
        self.number = 0

    @rule(group=st.sampled_from("abc"), times=st.integers(1, 3))
    def send(self, group: str, times: int) -> None:
        for _ in range(times):
            self.number += 1
            self.queue.send([QueueEntry(group, str(self.number), str(self.number).encode())])
            self.sent[group].append(self.number)

    @rule(limit=st.integers(1, 4))
    def receive_and_delete(self, limit: int) -> None:
        received = self.queue.receive(limit)
        for message in received:
            self.done[message.group_id].append(int(message.body))
        self.queue.delete([message.receipt for message in received])

    @rule(limit=st.integers(1, 4))
    def receive_and_crash(self, limit: int) -> None:
        self.in_flight += self.queue.receive(limit)

    @rule()
    def a_late_receiver_deletes(self) -> None:
        # Its visibility timeout may have ended; then the receipts are void unless nobody received the message since.
        for message in self.in_flight:
            before = self.queue.depth()
            self.queue.delete([message.receipt])
            if self.queue.depth() < before:
                self.done[message.group_id].append(int(message.body))
        self.in_flight = []

    @rule(milliseconds=st.sampled_from([1, VISIBILITY_MS]))
    def time_passes(self, milliseconds: int) -> None:
        self.clock.now += milliseconds

    @invariant()
    def groups_are_done_in_order(self) -> None:
        for group, done in self.done.items():
            assert done == self.sent[group][: len(done)]

    def teardown(self) -> None:
        for _ in range(10 * self.number + 1):
            self.clock.now += VISIBILITY_MS
            self.receive_and_delete(10)
        assert self.done == self.sent


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


_RECEIVER = """
import sys
from pathlib import Path
from fan_identity.io.sqlite.queue import SqliteQueue
from fan_identity.io.sqlite.store import SqliteStore
queue = SqliteQueue(SqliteStore(Path(sys.argv[1])), "q")
while messages := queue.receive(7):
    for message in messages:
        print(message.group_id, message.body.decode(), flush=True)
    queue.delete([message.receipt for message in messages])
"""


def test_two_processes_share_a_queue_without_loss_duplicates_or_disorder(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    queue = SqliteQueue(SqliteStore(path), "q")
    queue.send([entry(f"g{number % 40}", str(number)) for number in range(2_000)])
    receivers = [
        subprocess.Popen([sys.executable, "-c", _RECEIVER, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    seen: list[int] = []
    for receiver in receivers:
        output, _ = receiver.communicate(timeout=120)
        assert receiver.returncode == 0
        per_group: dict[str, list[int]] = defaultdict(list)
        for line in output.splitlines():
            group, number = line.split()
            per_group[group].append(int(number))
            seen.append(int(number))
        assert all(numbers == sorted(numbers) for numbers in per_group.values())
    # A receiver that finds every group locked by the other ends early; whatever it left the other took.
    assert sorted(seen) == list(range(2_000))
    assert queue.depth() == 0
