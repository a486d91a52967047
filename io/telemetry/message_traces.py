"""The traces of single messages: where one is continued from, and how it goes on in what is sent.

A sampled message has a span ``process <queue>`` in its own trace while its batch is worked on, and a span ``send
<queue>`` for what is sent because of it; that one's context travels in the message (docs/decisions/0018).
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Protocol

import msgspec

from ...domain.envelopes import opened
from ...domain.traceparent import TraceParent, parse_traceparent
from .destinations import name_of
from .doors import Place
from .tracing import Span, new_span, switch

_MARK: Final = b"traceparent"  # without quotes: in an envelope they are escaped
_SEND: Final = {"messaging.operation.name": "send", "messaging.operation.type": "send"}


class Carrier(Protocol):
    """What a source delivers: a record or message that may carry a traceparent."""

    @property
    def trace(self) -> str:
        """What travelled beside it, as it came; "" where nothing did."""
        ...

    @property
    def body(self) -> bytes | None:
        """JSON, or None."""
        ...


class _Body(msgspec.Struct, gc=False):
    traceparent: Any = None
    dynamodb: Any = None


_decoder: Final = msgspec.json.Decoder(_Body)


def may_have_parent(item: Carrier) -> bool:
    """Whether it is worth asking ``parent_of``."""
    return bool(item.trace) or (item.body is not None and _MARK in item.body)


def parent_of(item: Carrier) -> TraceParent | None:
    """The span a record or message was sent in: of what travelled beside it, else of its JSON's ``traceparent``.

    Envelopes are opened; of a change record of DynamoDB it is the new image's attribute. What is no traceparent is
    ignored.
    """
    if item.trace:
        return parse_traceparent(item.trace)
    body = item.body
    return _in_body(body) if body is not None and _MARK in body else None


def _in_body(body: bytes) -> TraceParent | None:
    try:
        found = _decoder.decode(opened(body).body)
        if found.traceparent is not None:
            return parse_traceparent(found.traceparent)
        return parse_traceparent(found.dynamodb["NewImage"]["traceparent"]["S"])
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, KeyError):
        return None


class Sending:
    """The spans of messages sent because of others, open while the block runs.

    Args:
        causes: for each message the traceparent of what causes it; "" where there is none.
        queue: where they go.
    """

    def __init__(self, causes: Sequence[str], queue: Place) -> None:
        self.traces: list[str] = list(causes)
        """For each message the traceparent it is to carry."""
        self._spans: dict[int, Span] = {}
        if not switch.on or not any(causes):
            return
        for index, cause in enumerate(causes):
            parent = parse_traceparent(cause) if cause else None
            if parent is not None and parent.sampled:
                attributes = {**queue.place, **_SEND}
                span = new_span(f"send {name_of(attributes)}", "producer", parent=parent, attributes=attributes)
                self._spans[index] = span
                self.traces[index] = str(span.place)

    def failed(self, index: int, reason: str) -> None:
        """Notes why a message was not taken: a Failure's reason."""
        if index in self._spans:
            self._spans[index].fail(reason)

    def __enter__(self) -> "Sending":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for span in self._spans.values():
            span.end(error)
