"""Pub/Sub as ``io/prefetch.py`` needs it: pulling, ack deadlines, acknowledgement."""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from google.api_core.exceptions import DeadlineExceeded, InvalidArgument
from google.pubsub_v1.types import PullResponse

from ..batching import batches
from ..errors import BackendUnavailableError
from ..inflight import Delivery
from ..ports import ReceivedMessage
from .endpoint import Endpoint

MOST_DEADLINE_S: Final = 600
"""An ack deadline is at most ten minutes (Pub/Sub API reference, ModifyAckDeadlineRequest)."""

_MOST_IDS: Final = 1_000
_MOST_ID_BYTES: Final = 400_000  # a request of ack ids may have 512 KiB
_ID_ROUND: Final = 8
_unwrapped = cast("Callable[[Any], Any]", PullResponse.pb)  # pyright: ignore[reportUnknownMemberType]
_REQUEST_S: Final = 10.0
_TRACES: Final = ("traceparent", "googclient_traceparent")  # Google's own publishers write the second


class PubSubCarrier:
    """Pulls from one subscription; see ``Carrier``.

    Unary pull: on an ordered subscription no further message of a key comes while one is outstanding. What Pub/Sub
    sends in the moment a pull is given up after its wait stays hidden until the subscription's own ack deadline ends.

    Args:
        endpoint: the subscription.
        deadline_s: how long a pulled message is kept from others, seconds.
        wait_s: how long one pull waits for messages.
    """

    fetched_at_once = 100
    renewals_at_once = _MOST_IDS

    def __init__(self, endpoint: Endpoint, deadline_s: int, wait_s: int) -> None:
        self._endpoint = endpoint
        self._deadline_s = deadline_s
        self._wait_s = wait_s
        self._sequence = itertools.count()

    def fetch(self) -> list[Delivery]:
        """Pulls messages, and gives them this carrier's deadline in place of the subscription's own."""
        for attempt in self._endpoint.retrying():
            with attempt:
                deliveries = self._pull()
                # Where this fails the subscription's deadline holds, and the next extension comes before most end.
                with contextlib.suppress(BackendUnavailableError, InvalidArgument):
                    self._modify([delivery.message.receipt for delivery in deliveries], self._deadline_s)
                return deliveries
        return []

    def _pull(self) -> list[Delivery]:
        subscriber = self._endpoint.subscriber
        with self._endpoint.translated_errors():
            try:
                response = subscriber.pull(
                    subscription=self._endpoint.subscription,
                    max_messages=self.fetched_at_once,
                    retry=None,
                    timeout=self._wait_s,
                )
            except DeadlineExceeded:  # nothing came
                return []
        # The plain protobuf message: reading through the client's wrappers costs ten times as much.
        raw = _unwrapped(response)
        return [self._delivery(received) for received in raw.received_messages]

    def _delivery(self, received: Any) -> Delivery:
        message = received.message
        group_id = str(message.ordering_key or message.message_id)
        return Delivery(
            ReceivedMessage(
                receipt=str(received.ack_id),
                group_id=group_id,
                body=bytes(message.data),
                # Counted by Pub/Sub only where the subscription has a dead-letter policy.
                receive_count=int(received.delivery_attempt) or 1,
                message_id=str(message.message_id),
                sent_at_ms=message.publish_time.seconds * 1_000 + message.publish_time.nanos // 1_000_000,
                trace=next((message.attributes[name] for name in _TRACES if name in message.attributes), ""),
            ),
            group_id,
            next(self._sequence),
        )

    def extend(self, held: Sequence[tuple[str, float]]) -> list[str]:
        """Extends ack deadlines. Pub/Sub does not say which of the messages are no longer this receiver's."""
        with contextlib.suppress(InvalidArgument):
            self._modify([receipt for receipt, _ in held], self._deadline_s)
        return []

    def _modify(self, receipts: Sequence[str], deadline_s: int) -> None:
        subscriber = self._endpoint.subscriber
        for batch in _batches(receipts):
            with self._endpoint.translated_errors():
                subscriber.modify_ack_deadline(
                    subscription=self._endpoint.subscription,
                    ack_ids=batch,
                    ack_deadline_seconds=deadline_s,
                    retry=None,
                    timeout=_REQUEST_S,
                )

    def delete(self, receipts: Sequence[str]) -> None:
        """Acknowledges messages; a subscription with exactly-once delivery refuses stale ids, which is ignored."""
        for batch in _batches(receipts):
            for attempt in self._endpoint.retrying():
                with attempt, contextlib.suppress(InvalidArgument):
                    subscriber = self._endpoint.subscriber
                    with self._endpoint.translated_errors():
                        subscriber.acknowledge(
                            subscription=self._endpoint.subscription, ack_ids=batch, retry=None, timeout=_REQUEST_S
                        )

    def give_back(self, receipts: Sequence[str], delay_ms: int) -> None:
        """Nacks messages, or lets their deadlines end after the delay (whole seconds, at most ten minutes)."""
        delay_s = min(-(-max(delay_ms, 0) // 1_000), MOST_DEADLINE_S)
        for attempt in self._endpoint.retrying():
            with attempt, contextlib.suppress(InvalidArgument):
                self._modify(receipts, delay_s)


def _batches(receipts: Sequence[str]) -> list[list[str]]:
    return list(batches(receipts, lambda receipt: len(receipt) + _ID_ROUND, _MOST_IDS, _MOST_ID_BYTES))
