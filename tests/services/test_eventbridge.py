"""Events through a real bus, a rule and a queue, and out of their envelope again (ministack)."""

import json
import time
import uuid
from typing import Any

import boto3
import pytest

from fan_identity.domain.envelopes import opened
from fan_identity.io.addresses import Address
from fan_identity.io.errors import UsageError
from fan_identity.io.eventbridge import EventBridgeBus
from fan_identity.io.ports import ReceivedMessage
from fan_identity.io.sqs.queue import SqsQueue

ENDPOINT = "http://127.0.0.1:14566"
OPTIONS = {"endpoint": ENDPOINT, "region": "us-east-1"}
PATIENCE = 60.0
SOURCE = "fan-identity.test"


@pytest.fixture(autouse=True)
def _needs(server) -> None:
    server("ministack")


@pytest.fixture
def routed() -> tuple[EventBridgeBus, str]:
    """A bus whose events of ``SOURCE`` go into a queue; the queue's name."""
    name = f"b{uuid.uuid4().hex}"
    made: dict[str, Any] = {"endpoint_url": ENDPOINT, "region_name": "us-east-1"}
    events, sqs = boto3.client("events", **made), boto3.client("sqs", **made)
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.create_event_bus(Name=name)
    events.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps({"source": [SOURCE]}))
    events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "queue", "Arn": arn}])
    return EventBridgeBus.of(Address("eventbridge", name, OPTIONS), "events"), name


def test_events_reach_the_rules_queue_and_come_out_of_their_envelope(routed):
    bus, name = routed
    bus.check()
    details = [{"globalUserId": f"f{number}", "text": "é \U0001f3ab"} for number in range(23)]
    sent = [(SOURCE, "idv result", json.dumps(detail).encode()) for detail in details]
    elsewhere = ("another source", "idv result", b'{"globalUserId": "not for us"}')
    assert bus.put_events([*sent[:12], elsewhere, *sent[12:]]) == [None] * 24
    queue = SqsQueue(Address("sqs", name, {**OPTIONS, "wait": "1"}), "source", 60_000)
    received: list[ReceivedMessage] = []
    deadline = time.monotonic() + PATIENCE
    while len(received) < 23:
        assert time.monotonic() < deadline
        received += queue.receive(50)
        time.sleep(0.005)
    queue.delete([message.receipt for message in received])
    events = [opened(message.body) for message in received]
    by_user = sorted((json.loads(event.body) for event in events), key=lambda detail: int(detail["globalUserId"][1:]))
    assert by_user == details
    assert {event.detail_type for event in events} == {"idv result"}
    assert len({event.event_id for event in events}) == 23
    assert all(event.time_ms is not None for event in events)
    assert queue.depth() == 0
    queue.close()


def test_a_missing_bus_is_a_mistake_named_with_its_setting():
    with pytest.raises(UsageError, match=r"^--events: eventbridge://nothing does not exist"):
        EventBridgeBus.of(Address("eventbridge", "nothing", OPTIONS), "events").check()
