"""Publishing to Pub/Sub in order.

The unary call is used and not the client library's batching publisher: a request holds messages of one ordering key
(as Pub/Sub demands) and is taken or refused as a whole, so order needs no more than sending a key's requests one after
the other; nothing has to be resumed after a failure, and each entry's outcome is known when the call returns.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from google.api_core.exceptions import InvalidArgument
from google.pubsub_v1.types import PubsubMessage

from ...domain.records import Failure
from ..batching import batches
from ..ports import QueueEntry, SendOutcome
from ..worker_pool import WorkerPool
from .endpoint import Endpoint

# https://cloud.google.com/pubsub/quotas#resource_limits
_MOST_MESSAGES: Final = 1_000
_MOST_BYTES: Final = 10_000_000
_MOST_KEY_BYTES: Final = 1_024
_ROUND_MESSAGE: Final = 64  # what one message costs in a request beyond its data, key and attribute
_REQUEST_S: Final = 10.0

_POOL: Final = WorkerPool(32, "pubsub")
"""Where users differ, nearly every message is a request of its own: many wait side by side."""

DEDUPLICATION_ATTRIBUTE: Final = "deduplicationId"
"""Carries an entry's deduplication id: Pub/Sub itself keeps no window of them."""


class _Outgoing(msgspec.Struct, frozen=True, gc=False):
    index: int
    size: int
    entry: QueueEntry


class Sender:
    """Publishes to one topic."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def send(self, entries: Sequence[QueueEntry]) -> list[SendOutcome | Failure]:
        """Publishes entries, a group's in their order; groups side by side.

        The group is the ordering key, the deduplication id travels as the attribute ``deduplicationId``. Pub/Sub drops
        no duplicates; a request repeated because its answer was lost delivers its messages twice.

        Returns:
            In the entries' order: sent, or a Failure: ``too_large``, ``unsendable`` (group or deduplication id over
            1,024 bytes, or no text), ``refused`` by Pub/Sub.

        Raises:
            UsageError: the topic does not exist or access is denied.
            BackendUnavailableError: at the deadline some were not published, nor those behind them in their groups.
        """
        outcomes: list[SendOutcome | Failure] = [SendOutcome.SENT] * len(entries)
        groups: dict[str, list[_Outgoing]] = {}
        for index, entry in enumerate(entries):
            outgoing = _outgoing(index, entry)
            if isinstance(outgoing, Failure):
                outcomes[index] = outgoing
            else:
                groups.setdefault(entry.group_id, []).append(outgoing)
        for failed in _POOL.side_by_side(self._publish_group, list(groups.values())):
            for index, failure in failed:
                outcomes[index] = failure
        return outcomes

    def _publish_group(self, group: Sequence[_Outgoing]) -> list[tuple[int, Failure]]:
        return [
            failed
            for batch in batches(group, lambda outgoing: outgoing.size, _MOST_MESSAGES, _MOST_BYTES)
            for failed in self._publish(batch)
        ]

    def _publish(self, batch: Sequence[_Outgoing]) -> list[tuple[int, Failure]]:
        messages = [
            PubsubMessage(
                data=outgoing.entry.body,
                ordering_key=outgoing.entry.group_id,
                attributes={DEDUPLICATION_ATTRIBUTE: outgoing.entry.deduplication_id},
            )
            for outgoing in batch
        ]
        try:
            for attempt in self._endpoint.retrying():
                with attempt:
                    publisher = self._endpoint.publisher
                    with self._endpoint.translated_errors():
                        publisher.publish(topic=self._endpoint.topic, messages=messages, retry=None, timeout=_REQUEST_S)
        except InvalidArgument:
            # Refused as a whole: each by itself, so that the one at fault takes no other with it.
            if len(batch) == 1:
                return [(batch[0].index, Failure("refused", "InvalidArgument"))]
            return [failed for outgoing in batch for failed in self._publish([outgoing])]
        return []


def _outgoing(index: int, entry: QueueEntry) -> _Outgoing | Failure:
    try:
        key, deduplication_id = entry.group_id.encode(), entry.deduplication_id.encode()
    except UnicodeEncodeError:
        return Failure("unsendable", "the message's group or deduplication id is no text")
    if len(key) > _MOST_KEY_BYTES or len(deduplication_id) > _MOST_KEY_BYTES:
        return Failure("unsendable", "the message's group or deduplication id is over 1,024 bytes")
    size = len(entry.body) + len(key) + len(deduplication_id) + _ROUND_MESSAGE
    if size > _MOST_BYTES:
        return Failure("too_large", f"the message has {size} bytes; Pub/Sub takes {_MOST_BYTES}")
    return _Outgoing(index, size, entry)
