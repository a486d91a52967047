"""A Pub/Sub topic or subscription as a ``MessageQueue``."""

import atexit
import threading
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from google.api_core.exceptions import InvalidArgument

from ...domain.records import Failure
from ..addresses import Address, check_options, int_option
from ..errors import UsageError
from ..ports import QueueEntry, ReceivedMessage, SendOutcome
from ..prefetch import Prefetch
from ..telemetry.destinations import destination
from ..telemetry.doors import queue_call
from ..telemetry.tracing import Attributes
from .carrier import MOST_DEADLINE_S, PubSubCarrier
from .endpoint import Endpoint
from .sending import Sender

OPTIONS: Final = frozenset({"endpoint", "receivers", "wait", "deadline"})
"""Options of a ``pubsub://`` address:

``endpoint``: host:port. Google's own, such as the regional ``us-east1-pubsub.googleapis.com:443``, with TLS and
credentials; any other is taken for an emulator. Default PUBSUB_EMULATOR_HOST, else Google's global one.
``receivers``: threads that pull, default 2.
``wait``: seconds a receiver waits before it looks whether it is to stop, default 5.
``deadline``: seconds until retries are given up, default 30.
"""

_REQUEST_S: Final = 10.0
_lock = threading.Lock()
_queues: dict[tuple[object, ...], "PubSubQueue"] = {}


class PubSubQueue:
    """A topic to send to or a subscription to receive from: at-least-once delivery, in order within a group.

    Order needs a subscription with message ordering enabled, and publishers in one region. Made without connecting;
    thread-safe. Get it by ``of``: one a process, however often readers are rebuilt.
    """

    def __init__(self, address: Address, setting: str, visibility_timeout_ms: int) -> None:
        check_options(address, setting, OPTIONS)
        receivers = int_option(address, setting, "receivers", 2, least=1)
        wait_s = int_option(address, setting, "wait", 5, least=1)
        deadline_s = min(max(-(-visibility_timeout_ms // 1_000), 1), MOST_DEADLINE_S)
        self._endpoint = Endpoint(address, setting)
        self._sender = Sender(self._endpoint)
        self._carrier = PubSubCarrier(self._endpoint, deadline_s, wait_s)
        self._prefetch = Prefetch(
            self._carrier,
            receivers=receivers,
            visibility_s=deadline_s,
            wait_s=wait_s,
            name=address.target,
        )
        self._key: tuple[object, ...] | None = None

    @classmethod
    def of(cls, address: Address, setting: str, visibility_timeout_ms: int) -> "PubSubQueue":
        """This process's queue for an address; a new one after ``close``. Closed at the latest when the process ends.

        Args:
            address: ``pubsub://project/topic-or-subscription?…``; see ``OPTIONS``.
            setting: where the address came from, for errors.
            visibility_timeout_ms: how long a received message stays hidden if this process dies; whole seconds are
                used, rounded up, at most ten minutes.

        Raises:
            UsageError: the address or an option is wrong.
        """
        key = (address.target, frozenset(address.options.items()), setting, visibility_timeout_ms)
        with _lock:
            if not _queues:
                atexit.register(_close_all)
            queue = _queues.get(key)
            if queue is None:
                queue = _queues[key] = cls(address, setting, visibility_timeout_ms)
                queue._key = key
            return queue

    def check(self) -> None:
        """Connects once.

        Raises:
            UsageError: there is neither a topic nor a subscription of that name, or no access.
            BackendUnavailableError: Pub/Sub is out of reach.
        """
        try:
            self._topic()
        except UsageError:
            self._subscription()

    def check_topic(self) -> None:
        """Checks that one can send here; errors as with ``check``."""
        self._topic()

    def check_subscription(self, *, ordered: bool) -> None:
        """Checks that one can receive here; errors as with ``check``.

        Args:
            ordered: whether messages of a group have to come in order.
        """
        if not self._subscription().enable_message_ordering and ordered:
            raise UsageError(
                f"--{self._endpoint.setting}: {self._endpoint.shown} does not keep order; create the subscription with "
                "--enable-message-ordering"
            )

    def _topic(self) -> Any:
        publisher = self._endpoint.publisher
        try:
            with self._endpoint.translated_errors():
                return publisher.get_topic(topic=self._endpoint.topic, retry=None, timeout=_REQUEST_S)
        except InvalidArgument:
            self._refuse_name()

    def _subscription(self) -> Any:
        subscriber = self._endpoint.subscriber
        try:
            with self._endpoint.translated_errors():
                return subscriber.get_subscription(
                    subscription=self._endpoint.subscription, retry=None, timeout=_REQUEST_S
                )
        except InvalidArgument:
            self._refuse_name()

    def _refuse_name(self) -> NoReturn:
        raise UsageError(
            f"--{self._endpoint.setting}: {self._endpoint.shown} is not a name Pub/Sub could have"
        ) from None

    @property
    def place(self) -> Attributes:
        """As spans name it."""
        return destination(self._endpoint.shown)

    @queue_call("send")
    def send(self, entries: Sequence[QueueEntry]) -> list[SendOutcome | Failure]:
        """Publishes entries to the topic; see ``Sender.send``."""
        return self._sender.send(entries)

    def receive(self, limit: int) -> list[ReceivedMessage]:
        """Hands out what was pulled from the subscription, without waiting; see ``Prefetch.receive``."""
        return self._prefetch.receive(limit)

    @queue_call("delete")
    def delete(self, receipts: Sequence[str]) -> None:
        """Acknowledges received messages; see ``Prefetch.delete``."""
        self._prefetch.delete(receipts)

    def release(self, receipts: Sequence[str], delay_ms: int) -> None:
        """Gives received messages back; the delay is rounded up to whole seconds, at most ten minutes."""
        self._prefetch.release(receipts, delay_ms)

    def depth(self) -> int:
        """Pub/Sub has no such call.

        Raises:
            UsageError: always; says where the number is.
        """
        raise UsageError(
            f"--{self._endpoint.setting}: Pub/Sub does not say how many messages of {self._endpoint.shown} wait; ask "
            "Cloud Monitoring for subscription/num_undelivered_messages"
        )

    def stop_receiving(self) -> None:
        """For draining: pulls no more, gives back what is not in work; what is in work can still be deleted."""
        self._prefetch.stop_receiving()
        self._carrier.stop()

    def close(self) -> None:
        """Stops receiving and all threads. What is in work comes again later."""
        with _lock:
            if self._key is not None and _queues.get(self._key) is self:
                del _queues[self._key]
        self.stop_receiving()
        self._prefetch.close()


def _close_all() -> None:
    # All stop first, so that their waits run side by side.
    queues = list(_queues.values())
    for queue in queues:
        queue.stop_receiving()
    for queue in queues:
        queue.close()
