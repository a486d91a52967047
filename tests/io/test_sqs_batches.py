"""Sending to SQS, which fails in every way it can: nothing lost, nothing twice, no group out of order."""

import random
import threading
from collections import defaultdict

import pytest
import stamina
from botocore.exceptions import ClientError, ConnectionClosedError
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.records import Failure
from fan_identity.io.addresses import Address
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.ports import QueueEntry, SendOutcome
from fan_identity.io.sqs.endpoint import MOST_BYTES, Endpoint, QueueAttributes
from fan_identity.io.sqs.plan import Outgoing, Plan
from fan_identity.io.sqs.sending import Sender

REFUSED = "refuse me"


class FakeQueue:
    """Takes batches as SQS does, and keeps what was taken, in order; fails as often as it is told to.

    An answer may be lost after messages were taken; a message whose deduplication id was taken is taken no second time.
    """

    def __init__(self, seed: int = 0, failures: int = 0) -> None:
        self.random = random.Random(seed)
        self.failures = failures
        self.taken: list[tuple[str | None, str]] = []
        self.ids: dict[str, str] = {}
        self.calls: list[list[dict[str, str]]] = []
        self.lock = threading.Lock()

    def __call__(self, entries):
        with self.lock:
            self.calls.append(list(entries))
            kind = self.failing("lost", "closed", "throttled", "broken")
            if kind == "closed":
                raise ConnectionClosedError(endpoint_url="http://x")
            if kind == "throttled":
                raise ClientError({"Error": {"Code": "RequestThrottled"}}, "SendMessageBatch")
            if kind == "broken":
                raise ClientError({"Error": {"Code": "InternalError"}}, "SendMessageBatch")
            if any(REFUSED in entry["MessageBody"] for entry in entries) and self.random.random() < 0.5:
                raise ClientError({"Error": {"Code": "InvalidParameterValue"}}, "SendMessageBatch")
            response = {"Successful": [], "Failed": []}
            for entry in entries:
                self.take(entry, response)
            if kind == "lost":
                raise ConnectionClosedError(endpoint_url="http://x")
            self.random.shuffle(response["Successful"])
            return response

    def take(self, entry, response) -> None:
        if REFUSED in entry["MessageBody"]:
            response["Failed"].append({"Id": entry["Id"], "SenderFault": True, "Code": "InvalidMessageContents"})
            return
        kind = self.failing("error", "throttled", "silent")
        if kind == "silent":
            return
        if kind is not None:
            code = "InternalError" if kind == "error" else "ThrottlingException"
            response["Failed"].append({"Id": entry["Id"], "SenderFault": kind == "throttled", "Code": code})
            return
        deduplication_id = entry.get("MessageDeduplicationId", f"none {len(self.taken)}")
        if deduplication_id not in self.ids:
            self.ids[deduplication_id] = f"m{len(self.ids)}"
            self.taken.append((entry.get("MessageGroupId"), entry["MessageBody"]))
        response["Successful"].append({"Id": entry["Id"], "MessageId": self.ids[deduplication_id]})

    def failing(self, *kinds: str) -> str | None:
        if self.failures <= 0 or self.random.random() < 0.6:
            return None
        self.failures -= 1
        return self.random.choice(kinds)


def sender_to(queue, *, fifo: bool = True, most_bytes: int = MOST_BYTES) -> Sender:
    endpoint = Endpoint(Address("sqs", "q.fifo" if fifo else "q"), "queue")
    endpoint.attributes = QueueAttributes(fifo, most_bytes, None)
    return Sender(endpoint, queue)


def entry(group: str, body: str, deduplication_id: str | None = None) -> QueueEntry:
    return QueueEntry(group, deduplication_id or body.replace(" ", "_"), body.encode())


@pytest.fixture(autouse=True)
def _no_waiting():
    with stamina.set_testing(True, attempts=1_000):
        yield


@given(
    groups=st.lists(st.integers(0, 12), min_size=1, max_size=80),
    refused=st.sets(st.integers(0, 79)),
    seed=st.integers(0, 2**32),
    failures=st.integers(0, 60),
)
@settings(max_examples=150, deadline=None)
def test_whatever_fails_each_message_arrives_once_and_in_its_groups_order(groups, refused, seed, failures):
    queue = FakeQueue(seed, failures)
    entries = [
        entry(f"g{group}", f"{REFUSED if index in refused else ''}{index}") for index, group in enumerate(groups)
    ]
    outcomes = sender_to(queue).send(entries)
    expected = defaultdict(list)
    for index, (sent, outcome) in enumerate(zip(entries, outcomes, strict=True)):
        if index in refused:
            assert outcome in (
                Failure("refused", "InvalidMessageContents"),
                Failure("refused", "InvalidParameterValue"),
            )
        else:
            assert outcome is SendOutcome.SENT
            expected[sent.group_id].append(sent.body.decode())
    taken = defaultdict(list)
    for group, body in queue.taken:
        taken[group].append(body)
    assert taken == expected
    for call in queue.calls:
        assert len(call) <= 10
        assert len({sent["MessageGroupId"] for sent in call}) == len(call)
        assert len({sent["Id"] for sent in call}) == len(call)


def test_where_one_entry_makes_sqs_refuse_the_whole_batch_the_others_are_sent():
    queue = FakeQueue()

    def call(entries):
        if any(sent["MessageBody"] == "bad" for sent in entries):
            raise ClientError({"Error": {"Code": "InvalidParameterValue"}}, "SendMessageBatch")
        return queue(entries)

    bodies = ["a", "b", "bad", "c"]
    outcomes = sender_to(call).send([entry(f"g{body}", body) for body in bodies])
    assert outcomes == [
        Failure("refused", "InvalidParameterValue") if body == "bad" else SendOutcome.SENT for body in bodies
    ]
    assert [body for _, body in queue.taken] == ["a", "b", "c"]


@given(
    sizes=st.lists(st.sampled_from([1, 1_000, 300_000, 524_288, MOST_BYTES, MOST_BYTES + 1]), max_size=14),
)
@settings(max_examples=25, deadline=None)
def test_no_batch_is_over_a_mebibyte_and_what_is_too_large_takes_nothing_with_it(sizes):
    queue = FakeQueue()
    outcomes = sender_to(queue).send([QueueEntry("g", str(i), b"x" * size) for i, size in enumerate(sizes)])
    assert [outcome is SendOutcome.SENT for outcome in outcomes] == [size <= MOST_BYTES for size in sizes]
    assert all(outcome.reason == "too_large" for outcome in outcomes if isinstance(outcome, Failure))
    assert [len(body) for _, body in queue.taken] == [size for size in sizes if size <= MOST_BYTES]
    assert all(sum(len(sent["MessageBody"]) for sent in call) <= MOST_BYTES for call in queue.calls)


@pytest.mark.parametrize("fifo", [True, False])
def test_the_byte_limit_holds_across_groups(fifo):
    queue = FakeQueue()
    sender_to(queue, fifo=fifo).send([QueueEntry(f"g{i}", str(i), b"x" * 400_000) for i in range(7)])
    assert len(queue.taken) == 7
    assert all(len(call) <= 2 for call in queue.calls)


def test_a_queue_of_smaller_messages_says_what_it_takes():
    assert sender_to(FakeQueue(), most_bytes=2_048).send([QueueEntry("g", "d", b"x" * 2_049)]) == [
        Failure("too_large", "the message has 2049 bytes; the queue takes 2048")
    ]


@pytest.mark.parametrize(
    "bad",
    [
        QueueEntry("g", "d", b""),
        QueueEntry("g", "d", b"\xff"),
        QueueEntry("g", "d", b"\xed\xa0\x80"),  # half a surrogate pair
        QueueEntry("g", "d", b"a\x00b"),
        QueueEntry("g", "d", b"a\x1bb"),
        QueueEntry("g", "d", "a\ufffeb".encode()),
        QueueEntry("g", "d", "a\uffffb".encode()),
        QueueEntry("", "d", b"x"),
        QueueEntry("é", "d", b"x"),
        QueueEntry("g" * 129, "d", b"x"),
        QueueEntry("g", "d d", b"x"),
        QueueEntry("g", "", b"x"),
    ],
    ids=repr,
)
def test_what_sqs_would_not_take_is_not_sent(bad):
    queue = FakeQueue()
    good = entry("g", "fine")
    outcomes = sender_to(queue).send([bad, good])
    assert isinstance(outcomes[0], Failure)
    assert outcomes[0].reason == "unsendable"
    assert not outcomes[0].retryable
    assert outcomes[1] is SendOutcome.SENT
    assert queue.taken == [("g", "fine")]


@pytest.mark.parametrize("body", ["\t\r\n", "\x7f\x85", "\ud7ff\ue000\ufffd", "\U0001f3ab\U0010ffff"], ids=ascii)
def test_every_character_sqs_allows_is_sent(body):
    queue = FakeQueue()
    sender_to(queue).send([entry("g", body, "d")])
    assert queue.taken == [("g", body)]


def test_of_two_entries_with_one_deduplication_id_one_is_the_duplicate():
    queue = FakeQueue()
    outcomes = sender_to(queue).send([entry("g", "a", "d"), entry("g", "b", "d"), entry("g", "c")])
    assert outcomes == [SendOutcome.SENT, SendOutcome.DUPLICATE, SendOutcome.SENT]
    assert queue.taken == [("g", "a"), ("g", "c")]


def test_a_standard_queue_gets_bodies_alone():
    queue = FakeQueue()
    sender_to(queue, fifo=False).send([entry("g", str(number), "same") for number in range(10)])
    assert sorted(int(body) for _, body in queue.taken) == list(range(10))
    assert [sorted(call[0]) for call in queue.calls] == [["Id", "MessageBody"]]


def test_what_stays_out_of_reach_is_an_error_and_nothing_is_sent_behind_it():
    queue = FakeQueue()
    held = threading.Event()

    def call(entries):
        if any(sent["MessageGroupId"] == "held" for sent in entries):
            held.set()
            raise ConnectionClosedError(endpoint_url="http://x")
        return queue(entries)

    sender = sender_to(call)
    entries = [entry("held", "first"), entry("held", "second"), *(entry(f"g{n}", f"g{n}") for n in range(40))]
    with (
        stamina.set_testing(True, attempts=3),
        pytest.raises(BackendUnavailableError, match=r"^--queue: sqs://q\.fifo"),
    ):
        sender.send(entries)
    assert held.is_set()
    assert not any(group == "held" for group, _ in queue.taken)


@pytest.mark.parametrize("code", ["AccessDenied", "QueueDoesNotExist"])
def test_what_is_the_users_mistake_is_said_at_once(code):
    calls = []

    def call(entries):
        calls.append(entries)
        raise ClientError({"Error": {"Code": code}}, "SendMessageBatch")

    with pytest.raises(UsageError, match="--queue"):
        sender_to(call).send([entry("g", "a")])
    assert len(calls) == 1


def test_a_defect_in_a_sending_thread_reaches_the_caller():
    def call(entries):
        raise KeyError("Successful")

    with pytest.raises(KeyError):
        sender_to(call).send([entry(f"g{number}", str(number)) for number in range(30)])


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(0, 2**32))
@settings(deadline=None)
def test_batches_are_full_while_enough_groups_wait(keys, seed):
    plan = Plan()
    waiting = defaultdict(list)
    for index, key in enumerate(keys):
        waiting[key].append(index)
        plan.add(Outgoing(index, key, 1, {}))
    chance = random.Random(seed)
    travelling: list[Outgoing] = []
    while waiting or travelling:
        batch = plan.next_batch(partial=not travelling)
        if batch:
            ready = [key for key in waiting if key not in {outgoing.key for outgoing in travelling}]
            assert len(batch) == min(10, len(ready))
            for outgoing in batch:
                assert outgoing.index == waiting[outgoing.key][0]
            travelling += batch
            continue
        outgoing = travelling.pop(chance.randrange(len(travelling)))
        plan.settle(outgoing)
        waiting[outgoing.key].pop(0)
        if not waiting[outgoing.key]:
            del waiting[outgoing.key]
    assert not plan.ready
