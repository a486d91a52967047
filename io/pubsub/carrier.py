"""Pub/Sub as ``io/prefetch.py`` needs it: pulling, ack deadlines, acknowledgement."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import grpc
from google.api_core import exceptions
from google.api_core.exceptions import DeadlineExceeded, InvalidArgument
from google.api_core.gapic_v1 import routing_header
from google.pubsub_v1.types import PullRequest, PullResponse

from ..batching import batches
from ..errors import BackendUnavailableError, FanIdentityError
from ..inflight import Delivery
from ..ports import ReceivedMessage
from .endpoint import Endpoint

MOST_DEADLINE_S: Final = 600
"""An ack deadline is at most ten minutes (Pub/Sub API reference, ModifyAckDeadlineRequest)."""

_MOST_IDS: Final = 1_000
_MOST_ID_BYTES: Final = 400_000  # a request of ack ids may have 512 KiB
_ID_ROUND: Final = 8
_unwrapped = cast("Callable[[Any], Any]", PullResponse.pb)  # pyright: ignore[reportUnknownMemberType]
_metadata = cast("Callable[[Any], Any]", routing_header.to_grpc_metadata)  # pyright: ignore[reportUnknownMemberType]
_failure = cast("Callable[[Any], Exception]", exceptions.from_grpc_error)  # pyright: ignore[reportUnknownMemberType]
_REQUEST_S: Final = 10.0
_PULL_S: Final = 120.0  # the service ends a pull without messages sooner by itself
_TRACES: Final = ("traceparent", "googclient_traceparent")  # Google's own publishers write the second


class PubSubCarrier:
    """Pulls from one subscription; see ``Carrier``.

    Unary pull: on an ordered subscription no further message of a key comes while one is outstanding. A pull is not
    given up after a wait, since what is sent in that moment would stay hidden, and its key locked, until the
    subscription's own ack deadline ends: it stays, and a later ``fetch`` takes what it brings.

    A pull that waits need not see that an acknowledgement unlocked a key (Google's fake looks every 0.5 s), so after
    one somebody who waits asks again, at once.

    Args:
        endpoint: the subscription.
        deadline_s: how long a pulled message is kept from others, seconds.
        wait_s: how long one ``fetch`` waits for messages.
    """

    fetched_at_once = 100
    renewals_at_once = _MOST_IDS

    def __init__(self, endpoint: Endpoint, deadline_s: int, wait_s: float) -> None:
        self._endpoint = endpoint
        self._deadline_s = deadline_s
        self._wait_s = wait_s
        self._sequence = itertools.count()
        self._changed = threading.Condition()
        self._waiting: list[Any] = []  # pulls that nobody waits for just now
        self._ordered = self._unlocked = self._stopped = False

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
        with self._changed:
            if self._stopped:
                return []
            pull: Any = self._waiting.pop() if self._waiting else None
        if pull is None:
            pull = self._begin(at_once=False)
            pull.add_done_callback(self._tell)
        with self._changed:
            self._changed.wait_for(lambda: pull.done() or self._unlocked or self._stopped, self._wait_s)
            unlocked, self._unlocked = self._unlocked, False
            stays = not pull.done() and not self._stopped
            if stays:
                self._waiting.append(pull)
        if not stays:
            return self._end(pull)
        return self._brought(self._begin(at_once=True)) if unlocked else []

    def stop(self) -> None:
        """Ends the pulls under way and gives back what they brought. No ``fetch`` brings anything any more."""
        with self._changed:
            self._stopped = True
            pulls, self._waiting = self._waiting, []
            self._changed.notify_all()
        for pull in pulls:
            with contextlib.suppress(FanIdentityError):
                brought = self._end(pull)
                self.give_back([delivery.message.receipt for delivery in brought], 0)

    def _begin(self, *, at_once: bool) -> Any:
        # The stub and not the client's method, which can only wait.
        subscription = self._endpoint.subscription
        request = PullRequest(subscription=subscription, max_messages=self.fetched_at_once, return_immediately=at_once)
        return self._endpoint.subscriber.transport.pull.future(
            request,
            timeout=_REQUEST_S if at_once else _PULL_S,
            metadata=(_metadata((("subscription", subscription),)),),
        )

    def _tell(self, pull: Any) -> None:
        del pull
        with self._changed:
            self._changed.notify_all()

    def _end(self, pull: Any) -> list[Delivery]:
        if not pull.done():
            pull.cancel()
        return [] if pull.cancelled() else self._brought(pull)

    def _brought(self, pull: Any) -> list[Delivery]:
        with self._endpoint.translated_errors():
            try:
                response = pull.result()
            except grpc.RpcError as error:
                failure = _failure(error)
                if isinstance(failure, DeadlineExceeded):  # nothing came
                    return []
                raise failure from None
        # The plain protobuf message: reading through the client's wrappers costs ten times as much.
        received = _unwrapped(response).received_messages
        self._ordered = self._ordered or any(one.message.ordering_key for one in received)
        return [self._delivery(one) for one in received]

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
        with self._changed:
            self._unlocked = self._ordered
            self._changed.notify_all()

    def give_back(self, receipts: Sequence[str], delay_ms: int) -> None:
        """Nacks messages, or lets their deadlines end after the delay (whole seconds, at most ten minutes)."""
        delay_s = min(-(-max(delay_ms, 0) // 1_000), MOST_DEADLINE_S)
        for attempt in self._endpoint.retrying():
            with attempt, contextlib.suppress(InvalidArgument):
                self._modify(receipts, delay_s)


def _batches(receipts: Sequence[str]) -> list[list[str]]:
    return list(batches(receipts, lambda receipt: len(receipt) + _ID_ROUND, _MOST_IDS, _MOST_ID_BYTES))
