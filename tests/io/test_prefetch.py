"""Receiving ahead of the work, against a queue in memory that locks groups, lets receipts lapse and delivers again."""

import itertools
import threading
from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.inflight import Delivery
from fan_identity.io.ports import ReceivedMessage
from fan_identity.io.prefetch import Prefetch

VISIBILITY_S = 60.0
PATIENCE = 60.0


class FakeFifo:
    """A FIFO queue: a group is locked while one of its messages is invisible. Time is a number that tests move."""

    fetched_at_once = 4
    renewals_at_once = 3

    def __init__(self, *, same_receipts: bool = False) -> None:
        self.now = 0.0
        self.waiting: dict[str, list[int]] = defaultdict(list)  # in sequence, those in flight included
        self.invisible_until: dict[int, float] = {}
        self.receives: dict[int, int] = defaultdict(int)
        self.receipts: dict[str, tuple[str, int]] = {}
        self.newest: dict[int, str] = {}
        self.numbers = itertools.count()
        self.same_receipts = same_receipts  # Pub/Sub may deliver again under the same one
        self.deleted: list[int] = []

    def send(self, group: str) -> int:
        number = next(self.numbers)
        self.waiting[group].append(number)
        return number

    def visible(self, number: int) -> bool:
        return self.invisible_until.get(number, 0.0) <= self.now

    def fetch(self) -> list[Delivery]:
        fetched: list[Delivery] = []
        for group in list(self.waiting):
            if not all(self.visible(number) for number in self.waiting[group]):
                continue
            for number in self.waiting[group][: self.fetched_at_once - len(fetched)]:
                self.receives[number] += 1
                receipt = f"r{number}" if self.same_receipts else f"r{number}/{self.receives[number]}"
                self.receipts[receipt] = (group, number)
                self.newest[number] = receipt
                self.invisible_until[number] = self.now + VISIBILITY_S
                message = ReceivedMessage(receipt, group, str(number).encode(), self.receives[number], f"m{number}")
                fetched.append(Delivery(message, group, number))
        return fetched

    def known(self, receipts: Sequence[str]) -> list[tuple[str, int]]:
        """What receipts stand for: for nothing once the message is deleted, visible or delivered again."""
        found = [(receipt, *self.receipts[receipt]) for receipt in receipts]
        return [
            (group, number)
            for receipt, group, number in found
            if self.newest[number] == receipt and number in self.waiting[group] and not self.visible(number)
        ]

    def extend(self, held: Sequence[tuple[str, float]]) -> list[str]:
        assert 0 < len(held) <= self.renewals_at_once
        assert all(age >= VISIBILITY_S / 2 for _, age in held)
        known = {number for _, number in self.known([receipt for receipt, _ in held])}
        for number in known:
            self.invisible_until[number] = self.now + VISIBILITY_S
        return [receipt for receipt, _ in held if self.receipts[receipt][1] not in known]

    def delete(self, receipts: Sequence[str]) -> None:
        for group, number in self.known(receipts):
            self.waiting[group].remove(number)
            self.deleted.append(number)

    def give_back(self, receipts: Sequence[str], delay_ms: int) -> None:
        for _, number in self.known(receipts):
            self.invisible_until[number] = self.now + delay_ms / 1_000

    def depth(self) -> int:
        return sum(map(len, self.waiting.values()))


class Driven(Prefetch):
    """Its threads' work is done by the test, step by step."""

    def _start(self) -> None:
        pass


def prefetch_of(queue: FakeFifo) -> Prefetch:
    return Driven(queue, receivers=1, visibility_s=VISIBILITY_S, wait_s=1, name="q", clock=lambda: queue.now)


class ReceiverMachine(RuleBasedStateMachine):
    """Two processes on one queue. Whatever is fetched, lost, given back and done: no group is done out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FakeFifo()
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.done: dict[str, list[int]] = defaultdict(list)  # as processed; what comes again was processed before
        self.processes = [prefetch_of(self.queue) for _ in range(2)]
        self.work: list[list[ReceivedMessage]] = [[], []]

    @rule(group=st.sampled_from("abc"), times=st.integers(1, 3))
    def send(self, group: str, times: int) -> None:
        for _ in range(times):
            self.sent[group].append(self.queue.send(group))

    @rule(process=st.integers(0, 1))
    def fetch(self, process: int) -> None:
        self.processes[process].fetch_once()

    @rule(process=st.integers(0, 1), limit=st.integers(1, 4))
    def take(self, process: int, limit: int) -> None:
        taken = self.processes[process].receive(limit)
        busy = {message.group_id for message in self.work[process]}
        groups = [message.group_id for message in taken]
        assert len({message.message_id for message in taken}) == len(taken)
        assert not busy & set(groups)
        assert [key for key, _ in itertools.groupby(groups)] == list(dict.fromkeys(groups))  # together
        self.work[process] += taken

    @rule(process=st.integers(0, 1), fail_at=st.integers(0, 8), delay_s=st.sampled_from([0, 5]))
    def finish(self, process: int, fail_at: int, delay_s: int) -> None:
        """Processes what is in work in order; one message fails, and it and those of its group behind it go back."""
        work, self.work[process] = self.work[process], []
        failed_group = work[fail_at].group_id if fail_at < len(work) else None
        good, bad = [], []
        for position, message in enumerate(work):
            if position >= fail_at and message.group_id == failed_group:
                bad.append(message)
                continue
            good.append(message)
            number = int(message.body)
            if number not in self.done[message.group_id]:
                self.done[message.group_id].append(number)
        self.processes[process].release([message.receipt for message in bad], delay_s * 1_000)
        self.processes[process].delete([message.receipt for message in good])

    @rule(process=st.integers(0, 1))
    def extend(self, process: int) -> None:
        while self.processes[process].extend_some():
            pass

    @rule(seconds=st.sampled_from([1.0, VISIBILITY_S / 2, VISIBILITY_S]))
    def time_passes(self, seconds: float) -> None:
        self.queue.now += seconds

    @rule(process=st.integers(0, 1))
    def restart(self, process: int) -> None:
        self.processes[process].close()
        assert self.processes[process].receive(10) == []
        self.processes[process] = prefetch_of(self.queue)
        self.work[process] = []

    @invariant()
    def groups_are_done_in_order(self) -> None:
        for group, done in self.done.items():
            assert done == self.sent[group][: len(done)]

    def teardown(self) -> None:
        for process in (0, 1):
            self.restart(process)
        for _ in range(len(self.queue.receives) + self.queue.depth() + 1):
            self.queue.now += VISIBILITY_S
            self.fetch(0)
            self.take(0, 4)
            self.finish(0, 99, 0)
        assert self.queue.depth() == 0
        assert {group: done for group, done in self.done.items() if done} == self.sent


TestReceiverMachine = ReceiverMachine.TestCase
TestReceiverMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("same_receipts", [False, True])
def test_while_it_is_extended_a_message_is_received_once_however_long_it_takes(same_receipts):
    queue = FakeFifo(same_receipts=same_receipts)
    for _ in range(4):
        queue.send("a")
    mine, other = prefetch_of(queue), prefetch_of(queue)
    mine.fetch_once()
    in_work = mine.receive(2)
    for _ in range(20):
        queue.now += VISIBILITY_S / 2
        while mine.extend_some():
            pass
        other.fetch_once()
        assert other.receive(10) == []
    mine.delete([message.receipt for message in in_work])
    ahead = mine.receive(10)
    assert [message.body for message in in_work + ahead] == [b"0", b"1", b"2", b"3"]
    assert {message.receive_count for message in in_work + ahead} == {1}


@pytest.mark.parametrize("same_receipts", [False, True])
def test_a_message_given_back_comes_again_before_those_behind_it(same_receipts):
    queue = FakeFifo(same_receipts=same_receipts)
    for _ in range(3):
        queue.send("a")
    prefetch = prefetch_of(queue)
    prefetch.fetch_once()
    prefetch.release([prefetch.receive(1)[0].receipt], 0)
    assert prefetch.receive(10) == []
    prefetch.fetch_once()
    again = prefetch.receive(10)
    assert [(message.body, message.receive_count) for message in again] == [(b"0", 2), (b"1", 2), (b"2", 2)]


@pytest.mark.parametrize("same_receipts", [False, True])
def test_what_was_delivered_anew_while_in_work_is_deleted_with_the_old_receipt(same_receipts):
    queue = FakeFifo(same_receipts=same_receipts)
    queue.send("a")
    prefetch = prefetch_of(queue)
    prefetch.fetch_once()
    old = prefetch.receive(1)
    queue.now += VISIBILITY_S
    prefetch.fetch_once()
    assert queue.receives[0] == 2
    assert prefetch.receive(1) == []
    prefetch.delete([old[0].receipt])
    assert queue.deleted == [0]
    assert prefetch.receive(1) == []
    queue.send("a")
    prefetch.fetch_once()
    assert [message.body for message in prefetch.receive(1)] == [b"1"]


def test_what_lapsed_while_it_waited_here_is_handed_out_once_as_delivered_last():
    queue = FakeFifo()
    queue.send("a")
    queue.send("a")
    prefetch = prefetch_of(queue)
    prefetch.fetch_once()
    queue.now += VISIBILITY_S
    prefetch.fetch_once()
    assert [(message.body, message.receive_count) for message in prefetch.receive(10)] == [(b"0", 2), (b"1", 2)]


@pytest.mark.parametrize("in_work", [0, 1])
def test_behind_a_message_that_was_lost_nothing_of_its_group_is_handed_out(in_work):
    """Its visibility ended unseen: it comes again, and what was fetched behind it must not come before it."""
    queue = FakeFifo()
    for _ in range(3):
        queue.send("a")
    prefetch = prefetch_of(queue)
    prefetch.fetch_once()
    working = prefetch.receive(in_work)
    queue.invisible_until[0] = 0.0
    queue.now += VISIBILITY_S / 2
    assert prefetch.extend_some()
    assert all(queue.visible(number) for number in range(3))
    assert prefetch.receive(10) == []
    prefetch.fetch_once()
    if working:
        assert prefetch.receive(10) == []  # until the work on it ends
        prefetch.release([working[0].receipt], 0)
        prefetch.fetch_once()
    assert [message.body for message in prefetch.receive(10)] == [b"0", b"1", b"2"]


def test_stopping_gives_back_what_is_not_in_work_and_what_comes_too_late():
    queue = FakeFifo()
    for _ in range(2):
        queue.send("a")
    prefetch = prefetch_of(queue)
    prefetch.fetch_once()
    in_work = prefetch.receive(1)
    queue.send("b")
    prefetch.stop_receiving()
    assert [queue.visible(number) for number in range(2)] == [False, True]
    prefetch.fetch_once()
    assert all(queue.visible(number) for number in (1, 2))
    prefetch.delete([message.receipt for message in in_work])
    assert queue.deleted == [0]


class Failing(FakeFifo):
    """Fails at first, then delivers."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.errors = [error]
        self.lock = threading.Lock()

    def fetch(self) -> list[Delivery]:
        with self.lock:
            if self.errors:
                raise self.errors.pop()
            return super().fetch()


@pytest.mark.parametrize("error", [UsageError("--queue: x"), BackendUnavailableError("--queue: y"), KeyError("Z")])
def test_what_goes_wrong_in_a_thread_is_raised_where_one_receives_and_the_next_call_tries_again(error):
    queue = Failing(error)
    queue.send("a")
    prefetch = Prefetch(queue, receivers=2, visibility_s=VISIBILITY_S, wait_s=1, name="q")
    raised: list[Exception] = []
    received: list[ReceivedMessage] = []
    never = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        try:
            received += prefetch.receive(1)
        except (UsageError, BackendUnavailableError, KeyError) as seen:
            raised.append(seen)
        if raised and received:
            break
        never.wait(0.005)
    prefetch.close()
    assert raised == [error]
    assert [message.body for message in received] == [b"0"]
