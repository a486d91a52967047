"""SQS queues on a real ElasticMQ: order, loss, visibility, deletion, dead-letter queues, misuse."""

import json
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
import stamina

from fan_identity.domain.records import Failure
from fan_identity.io.addresses import Address
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.ports import QueueEntry, ReceivedMessage, SendOutcome
from fan_identity.io.sqs.endpoint import Endpoint
from fan_identity.io.sqs.queue import SqsQueue
from fan_identity.io.sqs.sending import Sender

ENDPOINT = "http://127.0.0.1:19324"
PATIENCE = 60.0
LONG_MS = 60_000


@pytest.fixture(autouse=True)
def _needs(server) -> None:
    server("elasticmq")


@pytest.fixture
def sqs() -> Any:
    return boto3.client("sqs", endpoint_url=ENDPOINT, region_name="us-east-1")


class Queues:
    """Makes queues of their own names, and closes what a test opened on them."""

    def __init__(self, sqs: Any) -> None:
        self.sqs = sqs
        self.opened: list[SqsQueue] = []

    def create(self, *, fifo: bool = True, **attributes: str) -> str:
        name = f"q{uuid.uuid4().hex}{'.fifo' if fifo else ''}"
        given = {"FifoQueue": "true", **attributes} if fifo else attributes
        self.sqs.create_queue(QueueName=name, Attributes=given)
        return name

    def open(self, name: str, visibility_timeout_ms: int = LONG_MS, **options: str) -> SqsQueue:
        """A queue as one process of several has it; ``SqsQueue.of`` would give all of them the same."""
        queue = SqsQueue(address(name, wait="1", **options), "queue", visibility_timeout_ms)
        self.opened.append(queue)
        return queue

    def url(self, name: str) -> str:
        return self.sqs.get_queue_url(QueueName=name)["QueueUrl"]


@pytest.fixture
def queues(sqs: Any) -> Iterator[Queues]:
    queues = Queues(sqs)
    yield queues
    for queue in queues.opened:
        # Nobody waits for fetches under way.
        threading.Thread(target=queue.close, daemon=True).start()


def address(name: str, **options: str) -> Address:
    return Address("sqs", name, {"endpoint": ENDPOINT, "region": "us-east-1", **options})


def entry(group: str, body: str, deduplication_id: str | None = None) -> QueueEntry:
    return QueueEntry(group, deduplication_id or body, body.encode())


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.005)
    return found


def receive(queue: SqsQueue, count: int, limit: int = 10) -> list[ReceivedMessage]:
    """Receives until ``count`` messages have come."""
    received: list[ReceivedMessage] = []
    until(lambda: received.extend(queue.receive(limit)) or len(received) >= count, f"{count} messages")
    return received


def drain(queue: SqsQueue, count: int) -> list[ReceivedMessage]:
    """Receives and deletes until ``count`` messages have come: a group may come in several parts."""
    done: list[ReceivedMessage] = []
    while len(done) < count:
        messages = receive(queue, 1)
        queue.delete([message.receipt for message in messages])
        done += messages
    return done


def bodies(messages: list[ReceivedMessage]) -> list[str]:
    return [message.body.decode() for message in messages]


def test_2000_messages_of_50_groups_reach_3_receivers_once_and_in_order(queues):
    name = queues.create()
    sender = queues.open(name)
    entries = [entry(f"g{number % 50}", str(number)) for number in range(2_000)]
    assert sender.send(entries) == [SendOutcome.SENT] * 2_000
    assert sender.depth() == 2_000
    done: dict[str, list[int]] = defaultdict(list)
    seen: list[ReceivedMessage] = []
    lock = threading.Lock()
    deadline = time.monotonic() + PATIENCE

    def work(queue: SqsQueue) -> None:
        while len(seen) < len(entries) and time.monotonic() < deadline:
            messages = queue.receive(100)
            with lock:
                for message in messages:
                    done[message.group_id].append(int(message.body))
                    seen.append(message)
            queue.delete([message.receipt for message in messages])
            if not messages:
                time.sleep(0.001)

    receivers = [threading.Thread(target=work, args=(queues.open(name),)) for _ in range(3)]
    for receiver in receivers:
        receiver.start()
    for receiver in receivers:
        receiver.join()
    assert done == {f"g{group}": list(range(group, 2_000, 50)) for group in range(50)}
    assert {message.receive_count for message in seen} == {1}
    assert len({message.message_id for message in seen}) == 2_000
    assert all(message.sent_at_ms > 0 for message in seen)
    assert sender.depth() == 0


def test_partial_failures_of_a_real_queue_keep_every_group_in_order(queues, sqs):
    """The queue takes what it is sent; between it and the sender, answers get lost and entries are reported failed."""
    name = queues.create()
    endpoint = Endpoint(address(name), "queue")
    chance = random.Random(7)
    lock = threading.Lock()
    failed = 0

    def call(entries):
        nonlocal failed
        with lock:
            passed = [sent for sent in entries if chance.random() < 0.8]
            failed += len(entries) - len(passed)
        response = sqs.send_message_batch(QueueUrl=endpoint.url, Entries=passed) if passed else {}
        missing = [
            {"Id": sent["Id"], "SenderFault": False, "Code": "InternalError"} for sent in entries if sent not in passed
        ]
        return {"Successful": response.get("Successful", []), "Failed": missing}

    entries = [entry(f"g{number % 20}", str(number)) for number in range(400)]
    with stamina.set_testing(True, attempts=1_000):
        assert Sender(endpoint, call).send(entries) == [SendOutcome.SENT] * 400
    assert failed > 0
    queue = queues.open(name)
    done: dict[str, list[int]] = defaultdict(list)
    for message in drain(queue, 400):
        done[message.group_id].append(int(message.body))
    assert done == {f"g{group}": list(range(group, 400, 20)) for group in range(20)}
    assert queue.depth() == 0


def test_visibility_is_extended_while_work_takes_longer_than_the_timeout(queues, sqs):
    """A message received at the same time that nobody extends shows that the timeout has passed."""
    name = queues.create(fifo=False)
    control = queues.create(fifo=False)
    queue = queues.open(name, visibility_timeout_ms=6_000)
    queue.send([entry("g", str(number)) for number in range(12)])
    in_work = receive(queue, 12)
    sqs.send_message(QueueUrl=queues.url(control), MessageBody="nobody extends me")
    control_receives = 0
    others: list[Any] = []

    def control_came_again() -> bool:
        nonlocal control_receives
        received = sqs.receive_message(QueueUrl=queues.url(control), VisibilityTimeout=6)
        control_receives += len(received.get("Messages", []))
        others.extend(sqs.receive_message(QueueUrl=queues.url(name), VisibilityTimeout=0).get("Messages", []))
        return control_receives == 2

    until(control_came_again, "the control message's visibility ends")
    assert others == []
    queue.delete([message.receipt for message in in_work])
    assert queue.depth() == 0
    assert {message.receive_count for message in in_work} == {1}


def test_what_a_closed_queue_had_in_work_comes_again_when_its_visibility_ends(queues):
    name = queues.create()
    first = queues.open(name, visibility_timeout_ms=1_000)
    first.send([entry("g", "a")])
    receive(first, 1)
    first.close()
    again = receive(queues.open(name), 1)
    assert [message.body for message in again] == [b"a"]
    assert again[0].receive_count > 1


def test_a_message_released_without_delay_comes_again_before_those_behind_it(queues):
    queue = queues.open(queues.create())
    queue.send([entry("g", "a"), entry("g", "b"), entry("g", "c")])
    first = receive(queue, 1, limit=1)
    queue.release([first[0].receipt], 0)
    again = drain(queue, 3)
    assert bodies(again) == ["a", "b", "c"]
    assert again[0].receive_count == 2
    assert again[0].message_id == first[0].message_id
    assert again[0].receipt != first[0].receipt


def test_a_release_with_delay_hides_the_message_and_its_group(queues, sqs):
    name = queues.create()
    queue = queues.open(name)
    queue.send([entry("g", "a"), entry("g", "b"), entry("h", "c")])
    received = {message.body: message for message in receive(queue, 3)}
    queue.release([received[b"a"].receipt, received[b"b"].receipt], 3_600_000)
    queue.release([received[b"c"].receipt], 0)
    assert bodies(receive(queue, 1)) == ["c"]
    # All three are in flight: two wait for the delay, in which nobody gets them.
    assert sqs.receive_message(QueueUrl=queues.url(name)).get("Messages", []) == []
    assert queue.depth() == 3


def test_after_its_receives_a_released_message_lands_in_the_queues_own_dead_letter_queue(queues, sqs):
    dead = queues.create()
    arn = sqs.get_queue_attributes(QueueUrl=queues.url(dead), AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
    queue = queues.open(queues.create(RedrivePolicy=policy))
    assert queue.attributes.max_receives == 3
    queue.send([entry("g", "poison")])
    for receive_count in (1, 2, 3):
        message = receive(queue, 1, limit=1)[0]
        assert (message.body, message.receive_count) == (b"poison", receive_count)
        queue.release([message.receipt], 0)
    dead_queue = queues.open(dead)
    assert bodies(receive(dead_queue, 1)) == ["poison"]


def test_what_the_queue_never_takes_is_a_failure_and_the_rest_is_sent(queues):
    queue = queues.open(queues.create())
    most = 1_048_576
    entries = [
        QueueEntry("g", "1", b"x" * (most + 1)),
        QueueEntry("g", "2", b"y" * most),
        QueueEntry("g", "3", b"a\x00b"),
        entry("g", "fine"),
    ]
    outcomes = queue.send(entries)
    assert [outcome.reason if isinstance(outcome, Failure) else outcome for outcome in outcomes] == [
        "too_large",
        SendOutcome.SENT,
        "unsendable",
        SendOutcome.SENT,
    ]
    assert [len(message.body) for message in drain(queue, 2)] == [most, 4]


def test_every_character_sqs_allows_comes_back_as_it_was_sent(queues):
    queue = queues.open(queues.create())
    text = '\t\n\r "\\ <&> \x7f é \ud7ff\ue000\ufffd \U0001f3ab\U0010ffff'
    queue.send([QueueEntry("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "d", text.encode())])
    assert bodies(receive(queue, 1)) == [text]


def test_a_duplicate_is_received_once(queues):
    queue = queues.open(queues.create())
    assert queue.send([entry("g", "a", "id"), entry("h", "b", "id")]).count(SendOutcome.DUPLICATE) == 1
    queue.send([entry("g", "c", "id")])  # SQS does not say that an earlier call sent it
    assert queue.depth() == 1


def test_stale_receipts_are_ignored(queues):
    queue = queues.open(queues.create())
    queue.send([entry("a", "a"), entry("b", "b")])
    stale = receive(queue, 2)
    queue.release([message.receipt for message in stale], 0)
    fresh = receive(queue, 2)
    queue.delete([message.receipt for message in stale])
    queue.release([message.receipt for message in stale] + ["never was one"], 0)
    assert queue.depth() == 2
    queue.delete([fresh[0].receipt, stale[0].receipt, "never was one", fresh[1].receipt])
    assert queue.depth() == 0
    queue.delete([fresh[0].receipt])
    queue.release([fresh[0].receipt], 1_000)
    queue.delete([])
    queue.release([], 0)


def test_a_standard_queue_works_without_groups(queues):
    queue = queues.open(queues.create(fifo=False))
    assert queue.send([entry("same", str(number), "same") for number in range(25)]) == [SendOutcome.SENT] * 25
    received = receive(queue, 25, limit=25)
    assert sorted(int(message.body) for message in received) == list(range(25))
    assert {message.group_id for message in received} == {message.message_id for message in received}
    queue.delete([message.receipt for message in received])
    assert queue.depth() == 0


def test_on_a_standard_queue_a_message_in_work_holds_nothing_up(queues, sqs):
    name = queues.create(fifo=False)
    for body in ("a", "b"):
        sqs.send_message(QueueUrl=queues.url(name), MessageBody=body, MessageGroupId="tenant")
    queue = queues.open(name)
    assert sorted(bodies(receive(queue, 1, limit=1) + receive(queue, 1, limit=1))) == ["a", "b"]


def test_stopping_gives_back_what_was_fetched_ahead_and_lets_work_end(queues):
    name = queues.create()
    queue = queues.open(name)
    queue.send([entry("g", str(number)) for number in range(5)])
    in_work = receive(queue, 1, limit=1)
    queue.stop_receiving()
    assert queue.receive(10) == []
    queue.delete([in_work[0].receipt])
    queue.close()
    assert bodies(drain(queues.open(name), 4)) == ["1", "2", "3", "4"]


def test_a_process_has_one_queue_for_an_address_until_it_is_closed(queues):
    name = queues.create()
    queue = SqsQueue.of(address(name, wait="1"), "queue", LONG_MS)
    assert SqsQueue.of(address(name, wait="1"), "queue", LONG_MS) is queue
    assert SqsQueue.of(address(name, wait="2"), "queue", LONG_MS) is not queue
    queue.send([entry("g", "a")])
    receive(queue, 1)
    queue.close()
    assert SqsQueue.of(address(name, wait="1"), "queue", LONG_MS) is not queue


def test_a_queue_of_the_kind_that_is_needed_passes(queues):
    queues.open(queues.create()).expect_fifo(True)
    queues.open(queues.create(fifo=False)).expect_fifo(False)


@pytest.mark.parametrize("fifo", [True, False])
def test_a_queue_of_the_other_kind_is_a_mistake_named_with_its_setting(queues, fifo):
    queue = queues.open(queues.create(fifo=not fifo))
    with pytest.raises(UsageError, match=r"^--queue: sqs://\S+ is a (standard|FIFO) queue.*; name a (FIFO|standard)"):
        queue.expect_fifo(fifo)


@pytest.mark.parametrize("fifo", [True, False])
def test_a_missing_queue_is_a_mistake_and_one_of_the_other_kind_is_pointed_out(queues, fifo):
    name = queues.create(fifo=fifo)
    wrong = name.removesuffix(".fifo") if fifo else f"{name}.fifo"
    with pytest.raises(UsageError, match=rf"^--queue: sqs://{wrong} does not exist .*; there is sqs://{name}$"):
        queues.open(wrong).check()
    for use in (lambda queue: queue.send([entry("g", "a")]), lambda queue: queue.depth()):
        with pytest.raises(UsageError, match=r"^--queue: sqs://nothing\.fifo does not exist"):
            use(queues.open("nothing.fifo"))


def test_receiving_from_a_missing_queue_says_so(queues):
    queue = queues.open("nothing.fifo")

    def raises() -> bool:
        try:
            queue.receive(1)
        except UsageError as error:
            return "does not exist" in str(error)
        return False

    until(raises, "the error of the receiving thread")


@pytest.mark.parametrize(
    ("option", "value"), [("recievers", "3"), ("receivers", "0"), ("wait", "21"), ("deadline", "x")]
)
def test_a_wrong_option_is_a_mistake(option, value):
    with pytest.raises(UsageError, match=rf"^--queue: .*{option}"):
        SqsQueue.of(address("q", **{option: value}), "queue", LONG_MS)


def test_a_visibility_timeout_over_twelve_hours_is_a_mistake():
    with pytest.raises(UsageError, match="12 hours"):
        SqsQueue.of(address("q"), "queue", 43_200_001)


def test_no_region_is_a_mistake(monkeypatch, tmp_path):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    queue = SqsQueue(Address("sqs", "q", {"endpoint": "http://127.0.0.1:1"}), "queue", LONG_MS)
    with pytest.raises(UsageError, match=r"^--queue: no region; add \?region="):
        queue.check()


def test_a_server_that_is_not_there_is_an_error_of_the_backend(monkeypatch):
    monkeypatch.setattr("fan_identity.io.aws._ATTEMPTS", 1)
    queue = SqsQueue(Address("sqs", "q", {"endpoint": "http://127.0.0.1:1", "region": "eu-west-1"}), "queue", LONG_MS)
    with pytest.raises(BackendUnavailableError, match=r"^--queue: sqs://q is out of reach"):
        queue.check()
