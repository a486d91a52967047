"""Pub/Sub on Google's own fake server: ordering keys, acknowledgement, nack, deadlines, misuse."""

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stamina
from google.api_core.exceptions import InvalidArgument, ServiceUnavailable

from fan_identity.domain.records import Failure
from fan_identity.io.addresses import Address
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.ports import QueueEntry, ReceivedMessage, SendOutcome
from fan_identity.io.pubsub.endpoint import Endpoint
from fan_identity.io.pubsub.queue import PubSubQueue
from fan_identity.io.pubsub.sending import DEDUPLICATION_ATTRIBUTE, Sender

HOST = "127.0.0.1:18085"
PATIENCE = 60.0
LONG_MS = 60_000


@pytest.fixture(autouse=True)
def _needs(server) -> None:
    server("pubsub")


def address(name: str, **options: str) -> Address:
    return Address("pubsub", f"test/{name}", {"endpoint": HOST, **options})


class Topics:
    """Makes topics with a subscription of the same name, and closes what a test opened on them."""

    def __init__(self) -> None:
        self.opened: list[PubSubQueue] = []

    def create(self, *, ordered: bool = True, deadline_s: int = 10) -> str:
        name = f"t{uuid.uuid4().hex}"
        endpoint = Endpoint(address(name), "source")
        endpoint.publisher.create_topic(name=endpoint.topic)
        endpoint.subscriber.create_subscription(
            request={
                "name": endpoint.subscription,
                "topic": endpoint.topic,
                "enable_message_ordering": ordered,
                "ack_deadline_seconds": deadline_s,
            }
        )
        return name

    def open(self, name: str, visibility_timeout_ms: int = LONG_MS, **options: str) -> PubSubQueue:
        queue = PubSubQueue(address(name, wait="1", **options), "source", visibility_timeout_ms)
        self.opened.append(queue)
        return queue


@pytest.fixture
def topics() -> Iterator[Topics]:
    topics = Topics()
    yield topics
    for queue in topics.opened:
        # Nobody waits for fetches under way.
        threading.Thread(target=queue.close, daemon=True).start()


def entry(group: str, body: str) -> QueueEntry:
    return QueueEntry(group, f"id of {body}", body.encode())


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.005)


def receive(queue: PubSubQueue, count: int, limit: int = 10) -> list[ReceivedMessage]:
    received: list[ReceivedMessage] = []
    until(lambda: received.extend(queue.receive(limit)) or len(received) >= count, f"{count} messages")
    return received


def drain(queue: PubSubQueue, count: int) -> list[ReceivedMessage]:
    """Receives and acknowledges: of a key nothing more comes before."""
    done: list[ReceivedMessage] = []
    while len(done) < count:
        messages = receive(queue, 1, limit=100)
        queue.delete([message.receipt for message in messages])
        done += messages
    return done


def test_messages_of_a_key_are_received_once_and_in_the_order_sent(topics):
    name = topics.create()
    entries = [entry(f"g{number % 60}", str(number)) for number in range(300)]
    assert topics.open(name).send(entries) == [SendOutcome.SENT] * 300
    received = drain(topics.open(name), 300)
    done: dict[str, list[int]] = defaultdict(list)
    for message in received:
        done[message.group_id].append(int(message.body))
    assert done == {f"g{group}": list(range(group, 300, 60)) for group in range(60)}
    assert {message.receive_count for message in received} == {1}
    assert all(message.sent_at_ms > 0 for message in received)


@pytest.mark.slow
def test_a_trickle_of_few_keys_comes_whole_in_order_and_without_standing_still(topics):
    """While a key is locked pulls wait, and the fake's do not see that it is unlocked: a message a wait is too slow."""
    name = topics.create(deadline_s=600)  # what is dropped on the way does not come again
    sender, queue = topics.open(name), topics.open(name)
    groups = ["one" if number % 2 else f"g{number // 2 % 50}" for number in range(600)]
    done: dict[str, list[int]] = defaultdict(list)
    sent = 0

    def trickle() -> None:
        nonlocal sent
        for number, group in enumerate(groups):
            sender.send([entry(group, str(number))])
            sent += 1
            time.sleep(0.01)  # the pace of the trickle, nothing waits for it

    thread = threading.Thread(target=trickle)
    thread.start()

    def all_done() -> bool:
        messages = queue.receive(100)
        queue.delete([message.receipt for message in messages])
        for message in messages:
            done[message.group_id].append(int(message.body))
        return sum(map(len, done.values())) >= len(groups)

    until(all_done, "all are done")
    thread.join()
    assert sent == len(groups)
    assert done == {group: [n for n, of in enumerate(groups) if of == group] for group in set(groups)}


def test_a_message_carries_its_key_and_its_deduplication_id(topics):
    name = topics.create()
    topics.open(name).send([QueueEntry("gruppe ü", "id ü", b"\x00\xff any bytes")])
    endpoint = Endpoint(address(name), "source")
    message = endpoint.subscriber.pull(subscription=endpoint.subscription, max_messages=1).received_messages[0].message
    assert message.data == b"\x00\xff any bytes"
    assert message.ordering_key == "gruppe ü"
    assert dict(message.attributes) == {DEDUPLICATION_ATTRIBUTE: "id ü"}


def test_a_nacked_message_comes_again_before_those_behind_it(topics):
    queue = topics.open(topics.create())
    queue.send([entry("g", "a"), entry("g", "b"), entry("h", "c")])
    seen: list[str] = []
    failed = False
    while len(seen) < 3:
        for message in receive(queue, 1):
            if message.body == b"a" and not failed:
                failed = True
                queue.release([message.receipt], 0)
                continue
            seen.append(message.body.decode())
            queue.delete([message.receipt])
    assert failed
    assert [body for body in seen if body != "c"] == ["a", "b"]


def test_deadlines_are_extended_while_work_takes_longer_and_what_is_acknowledged_never_comes_again(topics):
    """The control message, which nobody extends, shows that the deadline has passed."""
    name, control = topics.create(deadline_s=10), topics.create(deadline_s=10)
    mine, other = topics.open(name, visibility_timeout_ms=6_000), topics.open(name, visibility_timeout_ms=6_000)
    mine.send([entry(f"g{number}", str(number)) for number in range(3)])
    in_work = receive(mine, 3)
    mine.delete([in_work[0].receipt])
    topics.open(control).send([entry("g", "nobody extends me")])
    endpoint = Endpoint(address(control), "source")
    pulls = 0

    def control_came_again() -> bool:
        nonlocal pulls
        pulled = endpoint.subscriber.pull(subscription=endpoint.subscription, max_messages=1).received_messages
        if pulled:
            pulls += 1
            endpoint.subscriber.modify_ack_deadline(
                subscription=endpoint.subscription, ack_ids=[pulled[0].ack_id], ack_deadline_seconds=6
            )
        assert other.receive(10) == []
        return pulls == 2

    until(control_came_again, "the control message's deadline ends")
    mine.release([message.receipt for message in in_work[1:]], 0)
    mine.stop_receiving()
    again = receive(other, 2)
    assert sorted(message.body for message in again) == sorted(message.body for message in in_work[1:])


def test_stopping_gives_back_what_was_fetched_ahead(topics):
    name = topics.create()
    queue = topics.open(name)
    queue.send([entry(f"g{number}", str(number)) for number in range(5)])
    in_work = receive(queue, 1, limit=1)
    queue.close()
    queue.delete([in_work[0].receipt])
    others = drain(topics.open(name), 4)
    assert sorted(message.body for message in [*in_work, *others]) == [b"0", b"1", b"2", b"3", b"4"]


class FailingPublisher:
    """Stands before the real client: fails, loses answers, or refuses, as told."""

    def __init__(self, publisher: Any, fail: Callable[[list[bytes]], Exception | None]) -> None:
        self.publisher = publisher
        self.fail = fail
        self.requests: list[list[bytes]] = []

    def publish(self, *, topic: str, messages: Any, **call: Any) -> None:
        bodies = [message.data for message in messages]
        self.requests.append(bodies)
        error = self.fail(bodies)
        if error is not None:
            raise error
        self.publisher.publish(topic=topic, messages=messages, **call)


@pytest.fixture
def failing(topics, monkeypatch):
    """A sender to a new topic whose requests fail as a function says, the topic's name, and the requests made."""

    def make(fail: Callable[[list[bytes]], Exception | None]) -> tuple[Sender, str, FailingPublisher]:
        name = topics.create()
        endpoint = Endpoint(address(name), "source")
        publisher = FailingPublisher(endpoint.publisher, fail)
        monkeypatch.setattr(Endpoint, "publisher", publisher)
        return Sender(endpoint), name, publisher

    return make


def test_after_failures_a_keys_messages_are_published_again_in_order(failing, topics, monkeypatch):
    monkeypatch.setattr("fan_identity.io.pubsub.sending._MOST_MESSAGES", 2)
    failures = iter([ServiceUnavailable("x")] * 3)
    sender, name, publisher = failing(lambda _: next(failures, None))
    with stamina.set_testing(True, attempts=10):
        assert sender.send([entry("g", str(number)) for number in range(5)]) == [SendOutcome.SENT] * 5
    assert publisher.requests[:4] == [[b"0", b"1"]] * 4
    assert [message.body for message in drain(topics.open(name), 5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_key_that_stays_out_of_reach_is_an_error_and_nothing_of_it_is_sent_behind(failing, topics, monkeypatch):
    monkeypatch.setattr("fan_identity.io.pubsub.sending._MOST_MESSAGES", 1)
    sender, name, publisher = failing(lambda bodies: ServiceUnavailable("x") if bodies == [b"bad"] else None)
    entries = [entry("g", "first"), entry("g", "bad"), entry("g", "behind"), entry("h", "other")]
    with (
        stamina.set_testing(True, attempts=3),
        pytest.raises(
            BackendUnavailableError, match=r"^--source: pubsub://\S+ is out of reach \(ServiceUnavailable\)$"
        ),
    ):
        sender.send(entries)
    assert [b"behind"] not in publisher.requests
    assert sorted(message.body for message in drain(topics.open(name), 2)) == [b"first", b"other"]


def test_what_pubsub_refuses_is_a_failure_and_its_batch_mates_are_published(failing, topics):
    sender, name, _ = failing(lambda bodies: InvalidArgument("x") if b"bad" in bodies else None)
    outcomes = sender.send([entry("g", "a"), entry("g", "bad"), entry("g", "b")])
    assert outcomes == [SendOutcome.SENT, Failure("refused", "InvalidArgument"), SendOutcome.SENT]
    assert [message.body for message in drain(topics.open(name), 2)] == [b"a", b"b"]


def test_what_pubsub_never_takes_is_not_sent(topics):
    name = topics.create()
    outcomes = topics.open(name).send(
        [
            QueueEntry("g", "d", b"x" * 10_000_001),
            QueueEntry("k" * 1_025, "d", b"x"),
            QueueEntry("\ud800", "d", b"x"),
            entry("g", "fine"),
        ]
    )
    assert [outcome.reason if isinstance(outcome, Failure) else outcome for outcome in outcomes] == [
        "too_large",
        "unsendable",
        "unsendable",
        SendOutcome.SENT,
    ]
    assert [message.body for message in drain(topics.open(name), 1)] == [b"fine"]


def test_a_pull_may_bring_more_than_grpcs_own_limit(topics):
    queue = topics.open(topics.create())
    queue.send([QueueEntry(f"g{number}", str(number), bytes([number]) * 2_000_000) for number in range(4)])
    assert sorted(message.body[0] for message in drain(queue, 4)) == [0, 1, 2, 3]


def test_a_missing_topic_or_subscription_is_a_mistake_named_with_its_setting(topics):
    queue = topics.open("nothing")
    for use in (
        queue.check,
        queue.check_topic,
        lambda: queue.check_subscription(ordered=False),
        lambda: queue.send([entry("g", "a")]),
    ):
        with pytest.raises(UsageError, match=r"^--source: pubsub://test/nothing does not exist"):
            use()

    def raises() -> bool:
        try:
            queue.receive(1)
        except UsageError as error:
            return "does not exist" in str(error)
        return False

    until(raises, "the error of the receiving thread")


def test_a_subscription_without_order_is_a_mistake_where_order_is_needed(topics):
    queue = topics.open(topics.create(ordered=False))
    queue.check()
    queue.check_topic()
    queue.check_subscription(ordered=False)
    with pytest.raises(UsageError, match=r"^--source: .* does not keep order; .*--enable-message-ordering"):
        queue.check_subscription(ordered=True)
    topics.open(topics.create()).check_subscription(ordered=True)


def test_the_emulator_of_the_environment_is_used(topics, monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", HOST)
    PubSubQueue(Address("pubsub", f"test/{topics.create()}", {}), "source", LONG_MS).check()


def test_a_process_has_one_queue_for_an_address_until_it_is_closed(topics):
    name = topics.create()
    queue = PubSubQueue.of(address(name), "source", LONG_MS)
    assert PubSubQueue.of(address(name), "source", LONG_MS) is queue
    queue.close()
    assert PubSubQueue.of(address(name), "source", LONG_MS) is not queue


@pytest.mark.parametrize("target", ["", "topic", "project/", "/topic", "project/topic/more", "project/a", "P/topic"])
def test_a_target_of_another_form_is_a_mistake(target):
    with pytest.raises(UsageError, match="--source: write pubsub://project/topic"):
        PubSubQueue.of(Address("pubsub", target, {}), "source", LONG_MS)


def test_an_unknown_option_is_a_mistake_and_so_is_asking_for_the_depth():
    with pytest.raises(UsageError, match="--source: pubsub:// has no option 'region'"):
        PubSubQueue.of(address("topic", region="x"), "source", LONG_MS)
    with pytest.raises(UsageError, match="num_undelivered_messages"):
        PubSubQueue(address("topic"), "source", LONG_MS).depth()
