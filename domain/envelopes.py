"""Envelopes: what AWS wraps around an event on its way into a queue.

An event put on an EventBridge bus reaches SQS inside EventBridge's envelope, one published to an SNS topic inside a
notification, and either can stand in the other. Sources: EventBridge user guide, "Events"; SNS developer guide,
"HTTP/HTTPS notification JSON format".
"""

from typing import Final

import msgspec

from .activity import MalformedRecordError, parse_time_ms

_MOST_DEPTH: Final = 3


class Opened(msgspec.Struct, frozen=True):
    """An event without its envelopes.

    Attributes:
        body: the event's bytes as they stood in the innermost envelope.
        detail_type: EventBridge's ``detail-type``; None where no EventBridge envelope was there.
        event_id: the innermost EventBridge envelope's ``id``, else the innermost notification's ``MessageId``, or None.
        time_ms: that envelope's time, epoch milliseconds; None where there is none that can be read.
    """

    body: bytes
    detail_type: str | None = None
    event_id: str | None = None
    time_ms: int | None = None


class _EventBridge(msgspec.Struct, gc=False):
    version: str
    id: str
    detail_type: str = msgspec.field(name="detail-type")
    source: str
    detail: msgspec.Raw
    time: str | None = None


class _Notification(msgspec.Struct, rename="pascal", gc=False, tag_field="Type", tag="Notification"):
    message_id: str
    message: str
    timestamp: str | None = None


_event_bridge = msgspec.json.Decoder(_EventBridge)
_notification = msgspec.json.Decoder(_Notification)


def opened(body: bytes) -> Opened:
    """Takes an event out of its envelopes, at most three.

    What is no envelope (or no JSON at all) is returned as it is: whoever decodes it says what is wrong with it.
    """
    event = Opened(body)
    for _ in range(_MOST_DEPTH):
        inner = _opened_once(event)
        if inner is None:
            break
        event = inner
    return event


def envelope_types(body: bytes) -> set[str]:
    """The detail types of all of EventBridge's envelopes around an event; more than one where they do not agree.

    Who may send events of one type may put any envelope into theirs, and ``opened`` goes by the innermost.
    """
    event, types = Opened(body), set[str]()
    for _ in range(_MOST_DEPTH):
        inner = _opened_once(event)
        if inner is None:
            break
        event = inner
        if event.detail_type is not None:
            types.add(event.detail_type)
    return types


def _opened_once(event: Opened) -> Opened | None:
    try:
        envelope = _event_bridge.decode(event.body)
        detail = bytes(envelope.detail)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _notified(event)
    if not detail.startswith(b"{"):
        return None
    return Opened(detail, envelope.detail_type, envelope.id, _time_ms(envelope.time))


def _notified(event: Opened) -> Opened | None:
    try:
        notification = _notification.decode(event.body)
        body = notification.message.encode()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if event.detail_type is not None:
        return msgspec.structs.replace(event, body=body)
    return Opened(body, None, notification.message_id, _time_ms(notification.timestamp))


def _time_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_time_ms(text)
    except MalformedRecordError:
        return None
