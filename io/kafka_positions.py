"""Committed group offsets: how far a worker has come, for those who watch its lag, and where a new run starts."""

import atexit
import logging
import threading
from concurrent.futures import Future
from functools import cache
from typing import Any, Final

from .addresses import Address
from .kafka_address import KafkaSettings, kafka_settings, offset_of, partition_of
from .kafka_admin import KafkaAdmin, admin_of
from .telemetry.doors import queue_call
from .telemetry.tracing import Attributes

_log = logging.getLogger(__name__)

_EXIT_SECONDS: Final = 3.0


class KafkaPositions:
    """A ``PositionStore`` in Kafka: offsets of the address's group. Holds settings only, so it can be pickled.

    Sources are named as ``source_of`` names them; the group is the address's, whatever worker is named.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    @classmethod
    def of(cls, address: Address, setting: str, worker: str) -> "KafkaPositions":
        """The positions of a worker in a topic.

        Args:
            address: of the topic.
            setting: where it came from, for errors.
            worker: names the group where the address does not.

        Raises:
            UsageError: as ``kafka_settings``.
        """
        return cls(kafka_settings(address, setting, worker))

    def load(self, worker: str, source: str) -> str:
        """The group's committed offset of a partition, or "" where there is none.

        Raises:
            UsageError: the group may not be read.
            BackendUnavailableError: no broker answers.
        """
        del worker
        partition = self._partition(source)
        admin = admin_of(self._settings)
        found = admin.committed([partition], float(self._settings.unreachable_seconds))
        return str(found[partition]) if partition in found else ""

    @property
    def place(self) -> Attributes:
        """As spans name it."""
        return {"messaging.system": "kafka", "messaging.destination.name": self._settings.topic}

    @queue_call("commit")
    def commit(self, worker: str, source: str, position: str) -> None:
        """Commits a partition's position soon, unless this process committed the same or a later one before.

        Returns at once. A commit that fails is logged and goes along with the next one; only the lag shown is late.
        """
        del worker
        if position:
            _committer(self._settings).commit(self._partition(source), offset_of(position, self._settings.setting))

    def flush(self, seconds: float) -> bool:
        """Waits until all was committed; False where that took too long or failed."""
        return _committer(self._settings).flush(seconds)

    def _partition(self, source: str) -> int:
        topic, partition = partition_of(source)
        if topic != self._settings.topic:
            raise ValueError("a partition of another topic")
        return partition


class _Committer:
    """Sends the highest offsets, one request at a time: what comes meanwhile travels together in the next one."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._name = f"{settings.name}, group {settings.group}"
        self._admin: KafkaAdmin = admin_of(settings)
        self._changed = threading.Condition()
        self._highest: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self._sending: dict[int, int] = {}
        self._failed = False

    def commit(self, partition: int, offset: int) -> None:
        with self._changed:
            if offset <= self._highest.get(partition, -1):
                return
            self._highest[partition] = self._waiting[partition] = offset
            self._send()

    def flush(self, seconds: float) -> bool:
        with self._changed:
            self._send()
            self._changed.wait_for(lambda: not self._sending, seconds)
            return not self._sending and not self._waiting

    def _send(self) -> None:
        """Sends what waits unless a request is under way; its answer comes to ``_sent`` in a thread of its own."""
        if self._waiting and not self._sending:
            self._sending, self._waiting = self._waiting, {}
            self._admin.begin_commit(self._sending).add_done_callback(self._sent)

    def _sent(self, answer: "Future[Any]") -> None:
        error = _error_of(answer)
        with self._changed:
            sent, self._sending = self._sending, {}
            if error is None:
                self._failed = False
                self._send()
            else:
                self._waiting = sent | self._waiting
                if not self._failed:
                    _log.warning("%s: committing offsets failed (%s); the lag shown is late", self._name, error)
                self._failed = True
            self._changed.notify_all()


def _error_of(answer: "Future[Any]") -> str | None:
    """The name of what went wrong with a commit, or None."""
    failure: Any = answer.exception()
    if failure is not None:
        cause: Any = failure.args[0] if failure.args else failure
        return str(cause.name()) if hasattr(cause, "name") else type(failure).__name__
    places: Any = answer.result()
    return next((str(place.error.name()) for place in places if place.error is not None), None)


_making = threading.Lock()


def _committer(settings: KafkaSettings) -> _Committer:
    with _making:
        return _cached(settings)


@cache
def _cached(settings: KafkaSettings) -> _Committer:
    """One a process and address: what was committed before is known however often positions are unpickled."""
    committer = _Committer(settings)
    atexit.register(committer.flush, _EXIT_SECONDS)
    return committer
