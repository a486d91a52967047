"""Events onto a bus that fails in part: only what failed is put again, within both limits."""

import random

import pytest
import stamina
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.records import Failure
from fan_identity.io import eventbridge
from fan_identity.io.addresses import Address
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.eventbridge import EventBridgeBus


class FakeBus:
    """Takes events; of each request some may fail. ``always`` holds codes by detail that never change."""

    def __init__(self, seed: int = 0, failures: int = 0, always: dict[str, str] | None = None) -> None:
        self.random = random.Random(seed)
        self.failures = failures
        self.always = always or {}
        self.put: list[str] = []
        self.requests: list[list[dict[str, str]]] = []

    def put_events(self, *, Entries):
        self.requests.append(Entries)
        if self.fails():
            raise EndpointConnectionError(endpoint_url="http://x")
        answers = []
        for entry in Entries:
            code = self.always.get(entry["Detail"])
            if code is None and self.fails():
                code = self.random.choice(["InternalFailure", "ThrottlingException"])
            if code is None:
                self.put.append(entry["Detail"])
            answers.append({"ErrorCode": code, "ErrorMessage": "x"} if code else {"EventId": "e"})
        return {"Entries": answers, "FailedEntryCount": sum("ErrorCode" in answer for answer in answers)}

    def fails(self) -> bool:
        if self.failures <= 0 or self.random.random() < 0.6:
            return False
        self.failures -= 1
        return True


@pytest.fixture(autouse=True)
def _no_waiting():
    with stamina.set_testing(True, attempts=1_000):
        yield


def bus_on(fake: FakeBus, patch: pytest.MonkeyPatch) -> EventBridgeBus:
    patch.setattr(eventbridge, "client", lambda *_: fake)
    return EventBridgeBus.of(Address("eventbridge", "bus", {}), "events")


@given(st.integers(0, 45), st.integers(0, 2**32), st.integers(0, 40))
@settings(deadline=None)
def test_every_event_is_put_once_whatever_fails(count, seed, failures):
    fake = FakeBus(seed, failures)
    details = [f'{{"n": {number}}}' for number in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        outcomes = bus_on(fake, patch).put_events([("s", "t", detail.encode()) for detail in details])
    assert outcomes == [None] * count
    assert sorted(fake.put) == sorted(details)
    assert all(1 <= len(request) <= 10 for request in fake.requests)


@given(st.lists(st.sampled_from([10, 100_000, 131_072, 262_000, 262_142, 262_143]), max_size=14))
@settings(deadline=None, max_examples=30)
def test_no_request_is_over_256_kilobytes(sizes):
    fake = FakeBus()
    events = [("s", "t", b'{"n": "' + b"x" * (size - 9) + b'"}') for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        outcomes = bus_on(fake, patch).put_events(events)
    assert [outcome is None for outcome in outcomes] == [size + 2 <= 262_144 for size in sizes]
    assert all(outcome.reason == "too_large" for outcome in outcomes if outcome is not None)
    for request in fake.requests:
        assert sum(len(entry["Source"] + entry["DetailType"] + entry["Detail"]) for entry in request) <= 262_144


def test_what_is_refused_is_put_once_and_its_batch_mates_are_on_the_bus(monkeypatch):
    fake = FakeBus(always={'{"a": 2}': "MalformedDetail"})
    outcomes = bus_on(fake, monkeypatch).put_events([("s", "t", b'{"a": %d}' % number) for number in range(4)])
    assert outcomes == [None, None, Failure("refused", "MalformedDetail"), None]
    assert fake.put == ['{"a": 0}', '{"a": 1}', '{"a": 3}']
    assert len(fake.requests) == 1
    assert {entry["EventBusName"] for entry in fake.requests[0]} == {"bus"}


@pytest.mark.parametrize("detail", [b"", b"[]", b'"x"', b"{", b"\xff", b'{"a": "\xff"}', b"nope"])
def test_a_detail_that_is_no_json_object_is_not_put(monkeypatch, detail):
    fake = FakeBus()
    outcomes = bus_on(fake, monkeypatch).put_events([("s", "t", detail), ("s", "t", b"{}")])
    assert outcomes[0] is not None
    assert outcomes[0].reason == "unsendable"
    assert outcomes[1] is None
    assert fake.put == ["{}"]


def test_what_the_bus_cannot_take_until_the_deadline_may_be_put_again_later(monkeypatch):
    fake = FakeBus(always={'{"a": 1}': "InternalFailure"})
    with stamina.set_testing(True, attempts=3):
        outcomes = bus_on(fake, monkeypatch).put_events([("s", "t", b'{"a": 0}'), ("s", "t", b'{"a": 1}')])
    assert outcomes[0] is None
    assert outcomes[1] is not None
    assert (outcomes[1].reason, outcomes[1].retryable, outcomes[1].attempts) == ("unavailable", True, 3)
    assert [len(request) for request in fake.requests] == [2, 1, 1]


def test_a_bus_out_of_reach_and_a_refused_caller_are_errors(monkeypatch):
    fake = FakeBus(failures=10**9)
    fake.random = random.Random(2)
    bus = bus_on(fake, monkeypatch)
    monkeypatch.setattr(fake, "fails", lambda: True)
    with (
        stamina.set_testing(True, attempts=3),
        pytest.raises(BackendUnavailableError, match="--events: eventbridge://"),
    ):
        bus.put_events([("s", "t", b"{}")])

    def refuse(**_):
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "PutEvents")

    monkeypatch.setattr(fake, "put_events", refuse)
    with pytest.raises(UsageError, match="--events: the AWS credentials in use are refused"):
        bus.put_events([("s", "t", b"{}")])


def test_an_unknown_option_is_a_mistake():
    with pytest.raises(UsageError, match="--events: eventbridge:// has no option 'bus'"):
        EventBridgeBus.of(Address("eventbridge", "bus", {"bus": "x"}), "events")
