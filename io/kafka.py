"""Kafka topics as streams: ``kafka://host:9092[,host2:9092]/topic?option=value``.

Partitions are assigned by number, not by a consumer group: the runner's checkpoint knows the places, and a rebalance
would move partitions behind its back. Offsets of the group are committed for those who watch its lag.

Options:
    ``group``: the group of the committed offsets; the worker's name where absent.
    ``start``: ``earliest`` (default) or ``latest``, for partitions with no committed offset; or ``start_time`` (ISO
        8601) or ``start_offset`` (each partition; the end of a shorter one).
    ``end_time`` or ``end_offset``: where a bounded read ends, before that record; without them, and at the latest, at
        the end there was when it began. Open transactions are not waited for.
    ``discover_seconds``: how often new partitions are looked for; 5.
    ``unreachable_seconds``: how long brokers may be out of reach before it is an error; 60.
    ``kafka.…``: librdkafka's own, such as ``kafka.security.protocol=SASL_SSL``.

Credentials come from FAN_IDENTITY_KAFKA_USERNAME and FAN_IDENTITY_KAFKA_PASSWORD in the environment of each process.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from .addresses import Address
from .errors import UsageError
from .kafka_address import KafkaSettings, kafka_settings, partition_of, source_of
from .kafka_admin import admin_of
from .kafka_positions import KafkaPositions
from .kafka_reader import KafkaReader
from .ports import Share

__all__ = ["KafkaPositions", "KafkaReader", "KafkaStream", "partition_of", "source_of"]

_CHECK_SECONDS: Final = 10.0


@dataclass(frozen=True)
class KafkaStream:
    """A topic as a ``Stream``. Holds settings only, so it can be pickled; readers connect.

    Attributes:
        settings: what the address says.
    """

    settings: KafkaSettings

    @classmethod
    def of(cls, address: Address, setting: str, worker: str) -> "KafkaStream":
        """The stream of an address.

        Args:
            address: ``kafka://host:9092/topic?option=value``.
            setting: where it came from, for errors.
            worker: names the group where the address does not.

        Raises:
            UsageError: the address or an option is wrong.
        """
        return cls(kafka_settings(address, setting, worker))

    def check(self) -> None:
        """Asks for the topic once.

        Raises:
            UsageError: it does not exist, or options or credentials are wrong.
            BackendUnavailableError: no broker answers.
        """
        admin_of(self.settings).partitions(min(_CHECK_SECONDS, self.settings.unreachable_seconds))

    def open(
        self, share: Share, positions: Mapping[str, str], committed: Callable[[str], str], *, bounded: bool
    ) -> KafkaReader:
        """Starts reading a share; see ``Stream.open``. Partitions are named by their numbers, positions are offsets.

        A partition with neither starts at the group's committed offset, else where the address says, unless others of
        the share have positions: then it is new, and starts at its beginning. A bounded read whose address has a
        ``start_time`` or ``start_offset`` does not ask for the group's offset.

        Raises:
            UsageError: the topic does not exist or cannot be read, or an unbounded read is given an end.
            BackendUnavailableError: no broker was reachable for ``unreachable_seconds``.
        """
        if self.settings.has_end and not bounded:
            raise UsageError(
                f"--{self.settings.setting}: end_time and end_offset are for bounded runs; leave them out, "
                "or run without --streaming"
            )
        return KafkaReader((self.settings, share, bounded), positions, committed)
