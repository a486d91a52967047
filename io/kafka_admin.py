"""Questions to a Kafka cluster: which partitions, which offsets. Answers are waited for with a deadline, or not at all.

They go through librdkafka's admin client, whose calls can be begun without waiting for them; what concerns the group,
through a consumer that joins no group. One of each serves all readers and position stores of an address in a process;
they are safe in many threads. The admin client's own calls about groups are not used: where the group's coordinator has
just moved or gone, or a new cluster has none yet, they crash the process (librdkafka issues 5040 and 4605).
"""

import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, TypeVar

import stamina
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # pyright: ignore[reportPrivateImportUsage]

from .errors import BackendUnavailableError, UsageError
from .kafka_address import KafkaSettings, client_properties

Key = TypeVar("Key")
Answer = TypeVar("Answer")

OffsetSpec: Any = _OffsetSpec
_CODE: Any = KafkaError  # whose codes with an underscore are librdkafka's own

_ABSENT: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, _CODE._UNKNOWN_TOPIC, _CODE._UNKNOWN_PARTITION})
_REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_PASSING: Final = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.KAFKA_STORAGE_ERROR,
        _CODE._TRANSPORT,
    }
)
_WAITING: Final = frozenset({_CODE._TIMED_OUT, _CODE._WAIT_COORD})
_TURN_SECONDS: Final = 0.05
_GROUP_TURN_SECONDS: Final = 1.0
_HINT_LENGTH: Final = 200


class KafkaAdmin:
    """Asks about one topic.

    Raises:
        UsageError: a property of the address is wrong, or credentials are missing.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._trouble: KafkaError | None = None
        self._trouble_at = 0.0
        self._properties: dict[str, Any] = {**client_properties(settings), "error_cb": self._note}
        self._making_group = threading.Lock()
        self._group: Any = None
        with translated_configuration(settings):
            self._client: Any = AdminClient(self._properties)

    def _note(self, error: KafkaError) -> None:
        """Keeps what librdkafka says between requests: it goes on trying and does not fail by itself."""
        if error.code() != _CODE._ALL_BROKERS_DOWN:  # says less than what came before it
            self._trouble, self._trouble_at = error, time.monotonic()

    def partitions(self, seconds: float) -> list[int]:
        """The numbers of the topic's partitions.

        Raises:
            UsageError: there is no such topic, or it may not be read.
            BackendUnavailableError: no broker answers within ``seconds``.
        """
        answer: Any = self._ask(self._describe, seconds)[self._settings.topic]
        return self._numbers(answer)

    def begin_partitions(self, seconds: float) -> "Future[Any]":
        """As ``partitions``, but does not wait; ``finish_partitions`` gives the answer once it is there."""
        return self._describe(seconds)[self._settings.topic]

    def finish_partitions(self, future: "Future[Any]") -> list[int]:
        """The answer to ``begin_partitions``; raises as ``partitions`` does."""
        self._client.poll(0)
        try:
            numbers = self._numbers(future.result(0))
        except KafkaException as error:
            raise self._translated(error) from None
        self._trouble = None
        return numbers

    def _describe(self, seconds: float) -> dict[str, "Future[Any]"]:
        return self._client.describe_topics(TopicCollection([self._settings.topic]), request_timeout=seconds)

    def _numbers(self, description: Any) -> list[int]:
        numbers = sorted(int(partition.id) for partition in description.partitions)
        if not numbers:
            raise UsageError(f"--{self._settings.setting}: topic {self._settings.topic} has no partitions")
        return numbers

    def earliest(self, partitions: Collection[int], seconds: float) -> dict[int, int]:
        """The first offset there is, by partition; raises as ``partitions`` does."""
        return self._offsets(dict.fromkeys(partitions, OffsetSpec.earliest()), seconds)

    def latest(self, partitions: Collection[int], seconds: float) -> dict[int, int]:
        """By partition the offset after the last that can be read: open transactions begin behind it."""
        return self._offsets(dict.fromkeys(partitions, OffsetSpec.latest()), seconds)

    def at_time(self, partitions: Collection[int], time_ms: int, seconds: float) -> dict[int, int]:
        """The offset of the first record of a time (epoch milliseconds) or later; without one, none is given."""
        found = self._offsets(dict.fromkeys(partitions, OffsetSpec.for_timestamp(max(time_ms, 0))), seconds)
        return {partition: offset for partition, offset in found.items() if offset >= 0}

    def _offsets(self, specs: Mapping[int, Any], seconds: float) -> dict[int, int]:
        if not specs:
            return {}
        topic = self._settings.topic

        def ask(timeout: float) -> dict[TopicPartition, "Future[Any]"]:
            return self._client.list_offsets(
                {TopicPartition(topic, partition): spec for partition, spec in specs.items()},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=timeout,
            )

        return {key.partition: int(answer.offset) for key, answer in self._ask(ask, seconds).items()}

    def committed(self, partitions: Collection[int], seconds: float) -> dict[int, int]:
        """The group's committed offsets; partitions without one are left out. Raises as ``partitions`` does."""
        if not partitions:
            return {}
        places = [TopicPartition(self._settings.topic, number) for number in partitions]
        began = time.monotonic()
        deadline = began + seconds
        try:
            for attempt in stamina.retry_context(on=_passes, attempts=None, timeout=seconds, wait_max=1.0):
                with attempt:
                    found = self._committed(places, began, deadline)
                    return {int(place.partition): int(place.offset) for place in found if place.offset >= 0}
        except KafkaException as error:
            raise self._translated(error) from None
        raise AssertionError("a retried call returns or raises")

    def _committed(self, places: list[TopicPartition], began: float, deadline: float) -> list[TopicPartition]:
        group = self._group_consumer()
        while True:
            try:
                left = max(deadline - time.monotonic(), 0.1)
                found: list[TopicPartition] = group.committed(places, min(left, _GROUP_TURN_SECONDS))
                break
            except KafkaException as error:
                group.poll(0)  # serves the callback that notes troubles
                if (refusal := self._refusal(began)) is not None:
                    raise refusal from None
                if _cause(error).code() not in _WAITING or time.monotonic() >= deadline:
                    raise
        for place in found:
            problem: Any = place.error
            if problem is not None and problem.code() not in _ABSENT:
                raise KafkaException(problem)
        self._trouble = None
        return found

    def _group_consumer(self) -> Any:
        with self._making_group:
            if self._group is None:
                owned = {"group.id": self._settings.group, "enable.auto.commit": False}
                with translated_configuration(self._settings):
                    self._group = Consumer({**self._properties, **owned, "isolation.level": "read_committed"})
            return self._group

    def begin_commit(self, offsets: Mapping[int, int]) -> "Future[list[TopicPartition]]":
        """Commits offsets of the group without waiting. librdkafka gives up after a minute or two.

        Returns:
            The partitions, each with its error where it has one.
        """
        places = [TopicPartition(self._settings.topic, partition, offset) for partition, offset in offsets.items()]
        answer: Future[list[TopicPartition]] = Future()

        def commit() -> None:
            try:
                answer.set_result(self._group_consumer().commit(offsets=places, asynchronous=False))
            except Exception as error:  # raised again by result()
                answer.set_exception(error)

        # Not of a pool: the process could not end while a broker that is away is waited for.
        threading.Thread(target=commit, name="commit offsets", daemon=True).start()
        return answer

    def _ask(self, begin: Callable[[float], Mapping[Key, "Future[Answer]"]], seconds: float) -> dict[Key, Answer]:
        self._client.poll(0)  # what was between requests is not this one's
        began = time.monotonic()
        deadline = began + seconds
        try:
            for attempt in stamina.retry_context(on=_passes, attempts=None, timeout=seconds, wait_max=1.0):
                with attempt:
                    return self._wait(begin(max(deadline - time.monotonic(), 0.1)), began)
        except KafkaException as error:
            raise self._translated(error) from None
        raise AssertionError("a retried call returns or raises")

    def _wait(self, futures: Mapping[Key, "Future[Answer]"], began: float) -> dict[Key, Answer]:
        answers: dict[Key, Answer] = {}
        for key, future in futures.items():
            while key not in answers:
                try:
                    answers[key] = future.result(_TURN_SECONDS)
                except FutureTimeoutError:
                    self._client.poll(0)  # serves the callback that notes troubles
                    if (error := self._refusal(began)) is not None:
                        raise error from None
        self._trouble = None
        return answers

    def _refusal(self, began: float = 0.0) -> UsageError | None:
        """An error where the brokers, asked since ``began``, will not have us: waiting does not mend it."""
        code = None if self._trouble is None or self._trouble_at < began else self._trouble.code()
        if code == _CODE._AUTHENTICATION:
            return UsageError(
                f"--{self._settings.setting}: {self._settings.name} refuses the credentials; check "
                "FAN_IDENTITY_KAFKA_USERNAME, FAN_IDENTITY_KAFKA_PASSWORD, kafka.sasl.mechanism and "
                "kafka.security.protocol"
            )
        if code == _CODE._SSL:
            return UsageError(
                f"--{self._settings.setting}: no TLS connection with {self._settings.name}; "
                "check kafka.ssl.ca.location and kafka.security.protocol"
            )
        return None

    def _translated(self, error: KafkaException) -> UsageError | BackendUnavailableError:
        settings, cause = self._settings, _cause(error)
        if cause.code() in _ABSENT:
            return UsageError(
                f"--{settings.setting}: topic {settings.topic} does not exist at {settings.brokers}; "
                "create it or correct the name"
            )
        if cause.code() in _REFUSED:
            what = "group" if cause.code() == KafkaError.GROUP_AUTHORIZATION_FAILED else "topic"
            name = settings.group if what == "group" else settings.topic
            return UsageError(
                f"--{settings.setting}: the credentials in use may not read {what} {name} at {settings.brokers}"
            )
        if cause.code() in {KafkaError.INVALID_GROUP_ID, KafkaError.TOPIC_EXCEPTION}:
            return UsageError(
                f"--{settings.setting}: Kafka does not take this group's or topic's name ({cause.name()})"
            )
        if (refusal := self._refusal()) is not None:
            return refusal
        trouble = self._trouble or cause
        hint = " ".join(trouble.str().split())[:_HINT_LENGTH]
        return BackendUnavailableError(f"--{settings.setting}: {settings.name} is out of reach ({hint})")


def _cause(error: KafkaException) -> KafkaError:
    cause: Any = error.args[0]
    return cause


def _passes(error: Exception) -> bool:
    return isinstance(error, KafkaException) and _cause(error).code() in _PASSING


@contextmanager
def translated_configuration(settings: KafkaSettings) -> Generator[None]:
    """Turns librdkafka's refusal of a configuration in the block into an error of ours.

    Raises:
        UsageError: naming the property.
    """
    try:
        yield
    except KafkaException as error:
        text = " ".join(_cause(error).str().split())[:_HINT_LENGTH]
        raise UsageError(f"--{settings.setting}: a kafka. option is wrong: {text}") from None


_making = threading.Lock()


def admin_of(settings: KafkaSettings) -> KafkaAdmin:
    """The process's admin client of an address.

    Raises:
        UsageError: as ``KafkaAdmin``.
    """
    with _making:
        return _admin(settings)


@cache
def _admin(settings: KafkaSettings) -> KafkaAdmin:
    return KafkaAdmin(settings)
