"""Envelopes of EventBridge and SNS, in each other, broken, and things that only look like one."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.envelopes import Opened, opened

EVENT = b'{"globalUserId": "f1",  "n": 1.0, "\\u0061": "\\u00e9"}'  # its own spelling has to survive


def event_bridge(
    detail: bytes, *, detail_type: str = "idv result", event_id: str = "e1", time: str | None = None
) -> bytes:
    fields = {
        "version": "0",
        "id": event_id,
        "detail-type": detail_type,
        "source": "fan-identity",
        "account": "1",
        "time": time or "2024-06-14T09:00:00Z",
        "region": "eu-west-1",
        "resources": [],
        "detail": msgspec.Raw(detail),
    }
    return msgspec.json.encode(fields)


def notification(message: bytes, *, message_id: str = "n1", timestamp: str = "2024-06-14T10:00:00.500Z") -> bytes:
    fields = {
        "Type": "Notification",
        "MessageId": message_id,
        "TopicArn": "arn:aws:sns:eu-west-1:1:t",
        "Message": message.decode(),
        "Timestamp": timestamp,
        "Signature": "x",
    }
    return json.dumps(fields).encode()


NINE = 1_718_355_600_000
TEN = NINE + 3_600_500


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (EVENT, Opened(EVENT)),
        (event_bridge(EVENT), Opened(EVENT, "idv result", "e1", NINE)),
        (notification(EVENT), Opened(EVENT, None, "n1", TEN)),
        (notification(event_bridge(EVENT)), Opened(EVENT, "idv result", "e1", NINE)),
        (event_bridge(notification(EVENT)), Opened(EVENT, "idv result", "e1", NINE)),
        (notification(notification(EVENT), message_id="n2"), Opened(EVENT, None, "n1", TEN)),
        (
            event_bridge(event_bridge(EVENT), detail_type="outer", event_id="e2"),
            Opened(EVENT, "idv result", "e1", NINE),
        ),
        (event_bridge(notification(event_bridge(EVENT))), Opened(EVENT, "idv result", "e1", NINE)),
    ],
    ids=["bare", "eventbridge", "sns", "in sns", "in eventbridge", "sns twice", "eventbridge twice", "three"],
)
def test_the_event_is_taken_out_as_it_stood(body, event):
    assert opened(body) == event


def test_at_most_three_envelopes_are_opened():
    third = event_bridge(EVENT)
    body = notification(notification(notification(third)))
    assert opened(body).body == third


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"not json",
        b"\xff\xfe",
        b'{"detail": {"a": 1}}',
        b'{"detail-type": "x", "detail": {}}',
        event_bridge(b"null"),
        event_bridge(b'"text"'),
        event_bridge(b"[{}]"),
        event_bridge(EVENT).replace(b'"idv result"', b"1"),
        event_bridge(EVENT)[:-1],
        b'{"Type": "Notification", "MessageId": "n"}',
        b'{"Type": "SubscriptionConfirmation", "MessageId": "n", "Message": "m"}',
        b'{"Type": "Notification", "MessageId": "n", "Message": {"a": 1}}',
        b'{"Type": "Notification", "MessageId": "n", "Message": "\\ud800"}',
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_what_is_no_envelope_is_returned_as_it_is(body):
    assert opened(body) == Opened(body)


@pytest.mark.parametrize("time", ["yesterday", "", "9" * 40, "2024-06-14T99:00:00Z"])
def test_a_time_that_cannot_be_read_is_none_and_the_event_still_comes_out(time):
    body = event_bridge(EVENT, time=time or " ")
    assert opened(body) == Opened(EVENT, "idv result", "e1", None)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
def test_no_body_raises(body):
    assert opened(body).body == body


json_objects = st.dictionaries(
    st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()), max_size=4
)


@given(json_objects, st.lists(st.booleans(), max_size=3), st.sampled_from([None, 1]))
def test_any_event_survives_its_envelopes_byte_for_byte(event, envelopes, indent):
    original = json.dumps(event, indent=indent).encode()
    body = original
    for as_notification in envelopes:
        body = notification(body) if as_notification else event_bridge(body)
    assert opened(body).body == original
