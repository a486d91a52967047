"""Pulling from a subscription that answers when the test says so: what it sends is taken, or given back."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.pubsub_v1.types import AcknowledgeRequest, ModifyAckDeadlineRequest, PullRequest, PullResponse

from fan_identity.io.addresses import Address
from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.pubsub.carrier import PubSubCarrier
from fan_identity.io.pubsub.endpoint import Endpoint

PATIENCE = 60.0


class Subscription:
    """A subscription's server: each pull waits for what the test sends; of what is received it keeps a record."""

    def __init__(self) -> None:
        self.sent: queue.Queue[list[dict[str, Any]]] = queue.Queue()
        self.pulls: queue.Queue[PullRequest] = queue.Queue()
        self.cancelled = threading.Event()
        self.deadlines: queue.Queue[tuple[str, int]] = queue.Queue()

    def pull(self, request: PullRequest, context: grpc.ServicerContext) -> Any:
        self.pulls.put(request)
        if request.return_immediately:
            return PullResponse(received_messages=self.sent.get_nowait() if not self.sent.empty() else [])
        answers = threading.Event()
        context.add_callback(lambda: None if answers.is_set() else self.ended())
        messages = self.sent.get(timeout=PATIENCE)
        answers.set()
        return PullResponse(received_messages=messages)

    def ended(self) -> None:
        self.cancelled.set()
        self.sent.put([])  # nobody waits for it any more

    def modify(self, request: ModifyAckDeadlineRequest, context: grpc.ServicerContext) -> Any:
        del context
        for ack_id in request.ack_ids:
            self.deadlines.put((ack_id, request.ack_deadline_seconds))
        return _Empty()

    def acknowledge(self, request: AcknowledgeRequest, context: grpc.ServicerContext) -> Any:
        del request, context
        return _Empty()

    def send(self, body: str, key: str = "g") -> None:
        message = {"data": body.encode(), "message_id": body, "ordering_key": key}
        self.sent.put([{"ack_id": f"of {body}", "message": message}])


class _Empty:
    @staticmethod
    def serialize(value: object) -> bytes:
        del value
        return b""


@pytest.fixture
def subscription() -> Subscription:
    return Subscription()


@pytest.fixture
def endpoint(subscription: Subscription) -> Iterator[Endpoint]:
    def method(serve: Any, request: Any, answer: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(serve, request.deserialize, answer.serialize)

    methods = {
        "Pull": method(subscription.pull, PullRequest, PullResponse),
        "ModifyAckDeadline": method(subscription.modify, ModifyAckDeadlineRequest, _Empty),
        "Acknowledge": method(subscription.acknowledge, AcknowledgeRequest, _Empty),
    }
    with ThreadPoolExecutor(8) as pool:
        server: Any = grpc.server(pool)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", methods)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield Endpoint(Address("pubsub", "test/name", {"endpoint": f"127.0.0.1:{port}", "deadline": "1"}), "source")
        server.stop(None).wait()


def test_what_comes_after_a_fetch_stopped_waiting_is_what_the_next_one_brings(endpoint, subscription):
    """A pull that is given up would leave it hidden, and its key locked, until the subscription's deadline ends."""
    carrier = PubSubCarrier(endpoint, 60, 0.05)
    assert carrier.fetch() == carrier.fetch() == []
    subscription.send("a")
    brought = carrier.fetch()
    while not brought:
        brought = carrier.fetch()
    assert [delivery.message.body for delivery in brought] == [b"a"]
    assert subscription.pulls.qsize() == 1
    assert not subscription.cancelled.is_set()
    assert subscription.deadlines.get(timeout=PATIENCE) == ("of a", 60)


def test_after_an_acknowledgement_of_a_key_who_waits_asks_at_once(endpoint, subscription):
    carrier = PubSubCarrier(endpoint, 60, PATIENCE)
    subscription.send("a")
    [first] = carrier.fetch()
    carrier.delete([first.message.receipt])
    assert carrier.fetch() == [], "at once, and there was nothing"
    asked = [subscription.pulls.get(timeout=PATIENCE).return_immediately for _ in range(3)]
    assert sorted(asked) == [False, False, True]
    carrier.stop()


def test_without_keys_nobody_asks_at_once(endpoint, subscription):
    carrier = PubSubCarrier(endpoint, 60, 0.05)
    subscription.send("a", key="")
    [first] = carrier.fetch() or carrier.fetch()
    carrier.delete([first.message.receipt])
    assert carrier.fetch() == []
    assert not any(subscription.pulls.get(timeout=PATIENCE).return_immediately for _ in range(2))
    carrier.stop()


def test_stopping_ends_pulls_and_gives_back_what_they_brought(endpoint, subscription):
    carrier = PubSubCarrier(endpoint, 60, 0.05)
    assert carrier.fetch() == []
    [pull] = carrier._waiting
    came = threading.Event()
    pull.add_done_callback(lambda _: came.set())
    subscription.send("a")
    assert came.wait(PATIENCE)
    carrier.stop()
    assert subscription.deadlines.get(timeout=PATIENCE) == ("of a", 0)
    assert carrier.fetch() == []
    assert subscription.pulls.qsize() == 1


def test_stopping_does_not_wait_for_who_waits(endpoint, subscription):
    carrier = PubSubCarrier(endpoint, 60, PATIENCE)
    with ThreadPoolExecutor(1) as pool:
        fetch = pool.submit(carrier.fetch)
        assert subscription.pulls.get(timeout=PATIENCE)
        carrier.stop()
        assert fetch.result(PATIENCE / 2) == []
    assert subscription.cancelled.wait(PATIENCE)


def test_what_goes_wrong_is_raised_and_the_next_fetch_pulls_anew(endpoint, subscription):
    gone = Endpoint(Address("pubsub", "test/name", {"endpoint": "127.0.0.1:9", "deadline": "1"}), "source")
    carrier = PubSubCarrier(gone, 60, PATIENCE)
    for _ in range(2):
        with pytest.raises(BackendUnavailableError, match="out of reach"):
            carrier.fetch()
    assert carrier._waiting == []
