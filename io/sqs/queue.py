"""An SQS queue as a ``MessageQueue``."""

import atexit
import threading
from collections.abc import Sequence
from typing import Final

from ...domain.records import Failure
from ..addresses import Address, check_options, int_option
from ..aws import AWS_OPTIONS
from ..errors import UsageError
from ..ports import QueueEntry, ReceivedMessage, SendOutcome
from ..prefetch import Prefetch
from ..telemetry.destinations import destination
from ..telemetry.doors import queue_call
from ..telemetry.tracing import Attributes
from .carrier import SqsCarrier, whole_seconds
from .endpoint import Endpoint, QueueAttributes
from .sending import Sender

OPTIONS: Final = AWS_OPTIONS | {"account", "receivers", "wait", "deadline"}
"""Options of an ``sqs://`` address: region and endpoint as everywhere; ``account`` that owns the queue;
``receivers`` (threads that fetch, default 2); ``wait`` (seconds one fetch waits, 1 to 20, default 2: what stopping
takes on an idle queue); ``deadline`` (seconds until retries are given up, default 30)."""

_MOST_WAIT_S: Final = 20
_COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)

_lock = threading.Lock()
_queues: dict[tuple[object, ...], "SqsQueue"] = {}


class SqsQueue:
    """An SQS queue: at-least-once delivery; where its name ends in ``.fifo``, in order within a group.

    Made without connecting. Thread-safe. Get it by ``of``: one a process, however often readers are rebuilt, so that
    they share its threads and what it holds.

    Messages are fetched ahead, and SQS counts one that is fetched as received, also where it is given back unseen: at
    a restart, or because one before it in its group was given back. So ``receive_count`` says of the first message of
    a group alone how often it failed; and with a redrive policy ``maxReceiveCount`` should be well above the attempts
    a worker makes, or SQS moves to the dead-letter queue what only stood behind a failing message.
    """

    def __init__(self, address: Address, setting: str, visibility_timeout_ms: int) -> None:
        check_options(address, setting, OPTIONS)
        self._setting = setting
        receivers = int_option(address, setting, "receivers", 2, least=1)
        wait_s = int_option(address, setting, "wait", 2, least=1)
        if wait_s > _MOST_WAIT_S:
            raise UsageError(f"--{setting}: option wait is at most {_MOST_WAIT_S} seconds")
        visibility_s = whole_seconds(visibility_timeout_ms, setting)
        self._endpoint = Endpoint(address, setting)
        self._sender = Sender(self._endpoint)
        self._prefetch = Prefetch(
            SqsCarrier(self._endpoint, visibility_s, wait_s),
            receivers=receivers,
            visibility_s=visibility_s,
            wait_s=wait_s,
            name=self._endpoint.name,
        )
        self._key: tuple[object, ...] | None = None

    @classmethod
    def of(cls, address: Address, setting: str, visibility_timeout_ms: int) -> "SqsQueue":
        """This process's queue for an address; a new one after ``close``. Closed at the latest when the process ends.

        Args:
            address: ``sqs://name[.fifo]?…``; see ``OPTIONS``.
            setting: where the address came from, for errors.
            visibility_timeout_ms: how long a received message stays hidden if this process dies; whole seconds are
                used, rounded up.

        Raises:
            UsageError: an option is wrong.
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

    @property
    def attributes(self) -> QueueAttributes:
        """What the queue says of itself, read once; errors as with ``check``."""
        return self._endpoint.attributes

    def check(self) -> None:
        """Connects once.

        Raises:
            UsageError: the queue does not exist or is of the other kind than its name says; credentials or region are
                missing or refused.
            BackendUnavailableError: SQS is out of reach.
        """
        try:
            fifo = self._endpoint.attributes.fifo
        except UsageError as error:
            other = self._endpoint.other_kind()
            if other is None:
                raise
            raise UsageError(f"{error}; there is {other}") from None
        if fifo != self._endpoint.fifo:
            is_a, named = ("FIFO", "standard") if fifo else ("standard", "FIFO")
            raise UsageError(
                f"--{self._setting}: sqs://{self._endpoint.name} is a {is_a} queue under the name of a {named} one; "
                "create one of the right kind"
            )

    def expect_fifo(self, fifo: bool) -> None:
        """Checks the queue as ``check`` does, and that it is of the kind its use needs.

        Raises:
            UsageError: it is not.
            BackendUnavailableError: SQS is out of reach.
        """
        self.check()
        if fifo and not self._endpoint.fifo:
            raise UsageError(
                f"--{self._setting}: sqs://{self._endpoint.name} is a standard queue and keeps no order; name a FIFO "
                "queue (ending in .fifo)"
            )
        if not fifo and self._endpoint.fifo:
            raise UsageError(
                f"--{self._setting}: sqs://{self._endpoint.name} is a FIFO queue; name a standard one "
                "here (without .fifo)"
            )

    @property
    def place(self) -> Attributes:
        """As spans name it."""
        return destination(f"sqs://{self._endpoint.name}")

    @queue_call("send")
    def send(self, entries: Sequence[QueueEntry]) -> list[SendOutcome | Failure]:
        """Sends entries; see ``Sender.send``."""
        return self._sender.send(entries)

    def receive(self, limit: int) -> list[ReceivedMessage]:
        """Hands out what was fetched, without waiting; see ``Prefetch.receive``."""
        return self._prefetch.receive(limit)

    @queue_call("delete")
    def delete(self, receipts: Sequence[str]) -> None:
        """Deletes received messages; receipts no longer valid are ignored. See ``Prefetch.delete``."""
        self._prefetch.delete(receipts)

    def release(self, receipts: Sequence[str], delay_ms: int) -> None:
        """Gives received messages back; the delay is rounded up to whole seconds. See ``Prefetch.release``."""
        self._prefetch.release(receipts, delay_ms)

    def depth(self) -> int:
        """How many messages wait, are in flight or delayed; SQS's counts are approximate."""
        counts = self._endpoint.read_attributes(*_COUNTS)
        return sum(int(counts.get(name, 0)) for name in _COUNTS)

    def stop_receiving(self) -> None:
        """For draining: fetches no more, gives back what is not in work; what is in work can still be deleted."""
        self._prefetch.stop_receiving()

    def close(self) -> None:
        """Stops receiving and all threads; takes up to the ``wait`` option. What is in work comes again later."""
        with _lock:
            if self._key is not None and _queues.get(self._key) is self:
                del _queues[self._key]
        self._prefetch.close()


def _close_all() -> None:
    # All stop first, so that their waits run side by side.
    queues = list(_queues.values())
    for queue in queues:
        queue.stop_receiving()
    for queue in queues:
        queue.close()
