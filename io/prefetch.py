"""The receiving half of a remote queue: threads that fetch ahead, and one that keeps what is held invisible to others.

A service (SQS, Pub/Sub) supplies four calls, a ``Carrier``; everything else about receiving is the same.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from .errors import FanIdentityError, text_of
from .inflight import Delivery, InFlight
from .ports import ReceivedMessage

_log = logging.getLogger(__name__)

_IDLE_S: Final = 1.0
_TICKS: Final = 10  # a renewal that failed is tried again this often within the time it has left
_JOIN_MARGIN_S: Final = 5.0


class Carrier(Protocol):
    """What a service does for a receiver. Every call raises UsageError or BackendUnavailableError."""

    @property
    def fetched_at_once(self) -> int:
        """How many messages one ``fetch`` may bring."""
        ...

    @property
    def renewals_at_once(self) -> int:
        """How many messages one ``extend`` takes."""
        ...

    def fetch(self) -> list[Delivery]:
        """Waits a bounded time for messages and receives some; retries by itself."""
        ...

    def extend(self, held: Sequence[tuple[str, float]]) -> list[str]:
        """Keeps messages invisible for another visibility timeout.

        Args:
            held: receipts, each with how long ago the message was fetched, seconds.

        Returns:
            The receipts the service no longer knows.
        """
        ...

    def delete(self, receipts: Sequence[str]) -> None:
        """Deletes messages, ignores unknown receipts; retries by itself."""
        ...

    def give_back(self, receipts: Sequence[str], delay_ms: int) -> None:
        """Makes messages receivable after a delay, ignores unknown receipts; retries by itself.

        Also called while the process ends, when no thread pool is left: in the calling thread.
        """
        ...


class Prefetch:
    """Receives through a carrier; threads start at the first ``receive``.

    What is returned by ``receive`` is kept invisible to others until deleted or released, whatever time that takes:
    a caller that drops messages without either keeps them from everyone until this process ends.

    Args:
        carrier: the service.
        receivers: how many threads fetch.
        visibility_s: the visibility timeout, seconds; extended when half of it has passed.
        wait_s: how long one fetch may wait for messages, seconds.
        name: of the queue, for the threads' names.
        clock: seconds that only grow; tests pass their own.
    """

    def __init__(
        self,
        carrier: Carrier,
        *,
        receivers: int,
        visibility_s: float,
        wait_s: float,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._carrier = carrier
        self._receivers = receivers
        self._wait_s = wait_s
        self._tick_s = min(_IDLE_S, visibility_s / 2 / _TICKS)
        self._name = name
        self._in_flight = InFlight(visibility_s / 2, room=carrier.fetched_at_once * receivers, clock=clock)
        self._lock = threading.Lock()
        self._renewing = threading.Lock()  # held during one extension, so that what is given back is not hidden again
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._renewer: threading.Thread | None = None
        self._failure: Exception | None = None

    def receive(self, limit: int) -> list[ReceivedMessage]:
        """Hands out up to ``limit`` of the messages fetched so far, and never waits; [] after ``stop_receiving``.

        Raises:
            UsageError: the queue does not exist, or credentials or region are wrong.
            BackendUnavailableError: the queue is out of reach, after retries; the next call tries again.
        """
        if limit <= 0 or self._stopped.is_set():
            return []
        with self._lock:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            self._start()
        return self._in_flight.take(limit)

    def delete(self, receipts: Sequence[str]) -> None:
        """Deletes messages, also where one was delivered anew meanwhile: its effect is written.

        Raises:
            BackendUnavailableError: after retries; the messages come again when their visibility ends.
        """
        named = self._in_flight.give_up(receipts)
        try:
            if named:
                self._carrier.delete(named)
        finally:
            self._in_flight.forget(named)

    def release(self, receipts: Sequence[str], delay_ms: int) -> None:
        """Gives messages back, and with them what was fetched ahead of their groups: it must not overtake them.

        Raises:
            BackendUnavailableError: after retries; the messages come again when their visibility ends.
        """
        named = self._in_flight.with_followers(self._in_flight.give_up(receipts))
        if not named:
            return
        with self._renewing:
            pass  # an extension under way ends first; those given up are in no later one
        # Before they are given back: Pub/Sub may deliver them again under the same receipt while the call returns.
        self._in_flight.forget(named)
        self._carrier.give_back(named, delay_ms)

    def stop_receiving(self) -> None:
        """Fetches no more and gives back what was fetched ahead; what is in work stays invisible to others.

        Does not wait for the fetches under way; what these still bring is given back as well.
        """
        self._stopped.set()
        self._give_back_quietly(self._in_flight.close())

    def close(self) -> None:
        """Stops receiving, waits for the threads and ends extending: what is in work comes again in due time."""
        self.stop_receiving()
        self._ended.set()
        with self._lock:
            threads = [*self._threads, *([self._renewer] if self._renewer is not None else [])]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(self._wait_s + _JOIN_MARGIN_S)

    def _start(self) -> None:
        if self._stopped.is_set():
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(self._receivers - len(self._threads)):
            thread = threading.Thread(target=self._fetch_ahead, name=f"fetch {self._name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        if self._renewer is None:
            self._renewer = threading.Thread(target=self._keep_invisible, name=f"extend {self._name}", daemon=True)
            self._renewer.start()

    def _fetch_ahead(self) -> None:
        while not self._stopped.is_set() and self._failure is None:
            if not self._in_flight.wait_for_room(_IDLE_S):
                continue
            try:
                self.fetch_once()
            except Exception as error:  # raised again by receive
                self._failure = error

    def fetch_once(self) -> None:
        """What the fetching threads do over and over: one fetch, taken in; errors as with ``receive``."""
        self._give_back_quietly(self._in_flight.add(self._carrier.fetch()))

    def _keep_invisible(self) -> None:
        reachable = True
        while not self._ended.wait(self._tick_s):
            try:
                while not self._ended.is_set() and self.extend_some():
                    pass
                reachable = True
            except Exception as error:  # whatever it is, the next tick has to come
                if reachable:
                    told = text_of(error)
                    _log.warning("messages in work could not be kept invisible and may come again: %s", told)
                reachable = False

    def extend_some(self) -> bool:
        """What the extending thread does over and over: one call for messages that are due.

        Returns:
            Whether any were.

        Raises:
            BackendUnavailableError: the service is out of reach.
        """
        with self._renewing:
            due = self._in_flight.due(self._carrier.renewals_at_once)
            if not due:
                return False
            lost = self._carrier.extend(due)
            followers = self._in_flight.lost(lost)
            self._in_flight.renewed(receipt for receipt, _ in due)
        self._give_back_quietly(followers)
        return True

    def _give_back_quietly(self, receipts: Sequence[str]) -> None:
        """Where this fails, the visibility timeout gives the messages back."""
        try:
            if receipts:
                self._carrier.give_back(receipts, 0)
        except FanIdentityError as error:
            _log.warning("messages could not be given back and stay hidden for a while: %s", error)
