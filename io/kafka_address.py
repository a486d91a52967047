"""Addresses of Kafka topics, ``kafka://host:9092[,host2:9092]/topic?option=value``, and what a client is told."""

import os
import re
from dataclasses import dataclass
from typing import Any, Final

from .addresses import Address, check_options, int_option, time_option_ms
from .errors import UsageError

LIBRDKAFKA: Final = "kafka."
"""Options that begin so are librdkafka's, without it: ``kafka.security.protocol=SASL_SSL``.

They are documented at https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md.
"""

OPTIONS: Final = frozenset(
    {
        "group",
        "start",
        "start_time",
        "start_offset",
        "end_time",
        "end_offset",
        "discover_seconds",
        "unreachable_seconds",
        "kafka.<librdkafka's property>",
    }
)

MAX_OFFSET: Final = 2**63 - 1

_SECRETS: Final = {
    "sasl.username": "FAN_IDENTITY_KAFKA_USERNAME",
    "sasl.password": "FAN_IDENTITY_KAFKA_PASSWORD",
    "ssl.key.password": "FAN_IDENTITY_KAFKA_SSL_KEY_PASSWORD",
    "ssl.keystore.password": "FAN_IDENTITY_KAFKA_SSL_KEYSTORE_PASSWORD",
    "sasl.oauthbearer.client.secret": "FAN_IDENTITY_KAFKA_OAUTH_CLIENT_SECRET",
}
"""Properties that are read from the environment of the process that connects, and from nowhere else."""

_SECRET_MARKS: Final = ("password", "passphrase", "secret", "key.pem", "sasl.oauthbearer.config")
_OWNED: Final = frozenset(
    {
        "bootstrap.servers",
        "metadata.broker.list",
        "group.id",
        "group.instance.id",
        "enable.auto.commit",
        "auto.commit.enable",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "enable.partition.eof",
        "isolation.level",
        "logger",
        "plugin.library.paths",  # loads code
    }
)
# Names with "_" stand for callbacks in confluent-kafka's configuration, but for this one.
_PROPERTY: Final = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*|log_level", re.ASCII)
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII
)
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_MAX_PORT: Final = 65_535
_EXAMPLE: Final = "kafka://host:9092/topic"


@dataclass(frozen=True)
class KafkaSettings:
    """What an address says, checked; holds no secret and is pickled into pipelines.

    Attributes:
        setting: where the address came from, for errors.
        brokers: the bootstrap servers, ``host:port`` separated by commas.
        topic: the topic's name.
        group: the group that holds the committed offsets.
        latest: a partition without any position starts at its end instead of its beginning.
        start_time_ms: … at the first record of this time or later, epoch milliseconds.
        start_offset: … at this offset.
        end_time_ms: a bounded read ends before the first record of this time or later.
        end_offset: … before this offset.
        discover_seconds: how often new partitions are looked for.
        unreachable_seconds: how long no broker may be reachable before it is an error.
        properties: librdkafka's own, by name.
    """

    setting: str
    brokers: str
    topic: str
    group: str
    latest: bool = False
    start_time_ms: int | None = None
    start_offset: int | None = None
    end_time_ms: int | None = None
    end_offset: int | None = None
    discover_seconds: int = 5
    unreachable_seconds: int = 60
    properties: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The address without its options."""
        return f"kafka://{self.brokers}/{self.topic}"

    @property
    def has_start(self) -> bool:
        """Whether the address itself says where to start, by time or offset."""
        return self.start_time_ms is not None or self.start_offset is not None

    @property
    def has_end(self) -> bool:
        """Whether the address itself says where to end."""
        return self.end_time_ms is not None or self.end_offset is not None


def kafka_settings(address: Address, setting: str, worker: str) -> KafkaSettings:
    """Checks an address.

    Args:
        address: ``kafka://host:9092/topic?option=value``.
        setting: where it came from, for errors.
        worker: names the group where the address does not.

    Raises:
        UsageError: it is no topic's address, has an unknown, contradicting or reserved option, or a secret in it.
    """
    brokers, topic = _target(address, setting)
    properties = {name: value for name, value in address.options.items() if name.startswith(LIBRDKAFKA)}
    check_options(address, setting, {*OPTIONS, *properties})
    for names in (("start", "start_time", "start_offset"), ("end_time", "end_offset")):
        given = [name for name in names if name in address.options]
        if len(given) > 1:
            raise UsageError(f"--{setting}: options {given[0]} and {given[1]} contradict each other; give one of them")
    start = address.options.get("start", "earliest")
    if start not in {"earliest", "latest"}:
        raise UsageError(
            f"--{setting}: option start is earliest or latest; a time is start_time, an offset start_offset"
        )
    group = address.options.get("group", worker)
    if not group or not group.isprintable():
        raise UsageError(f"--{setting}: option group is the name of a consumer group")
    settings = KafkaSettings(
        setting=setting,
        brokers=brokers,
        topic=topic,
        group=group,
        latest=start == "latest",
        start_time_ms=time_option_ms(address, setting, "start_time"),
        start_offset=_offset_option(address, setting, "start_offset"),
        end_time_ms=time_option_ms(address, setting, "end_time"),
        end_offset=_offset_option(address, setting, "end_offset"),
        discover_seconds=int_option(address, setting, "discover_seconds", 5, least=1),
        unreachable_seconds=int_option(address, setting, "unreachable_seconds", 60, least=1),
        properties=tuple(sorted((_property(name, setting), value) for name, value in properties.items())),
    )
    for first, last, kind in (
        (settings.start_time_ms, settings.end_time_ms, "time"),
        (settings.start_offset, settings.end_offset, "offset"),
    ):
        if first is not None and last is not None and first > last:
            raise UsageError(f"--{setting}: end_{kind} lies before start_{kind}")
    return settings


def _target(address: Address, setting: str) -> tuple[str, str]:
    """Brokers and topic."""
    brokers, separator, topic = address.target.partition("/")
    if "@" in brokers:
        raise UsageError(f"--{setting}: {_credentials_remedy()}")
    for broker in brokers.split(","):
        match = _HOST.fullmatch(broker)
        if match is None or (match[2] is not None and not 0 < int(match[2]) <= _MAX_PORT):
            raise UsageError(f"--{setting}: Kafka's brokers are written {_EXAMPLE} or kafka://a:9092,b:9092/topic")
    if not separator or not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise UsageError(
            f"--{setting}: no topic's name follows the brokers; write {_EXAMPLE} with letters, digits, '.', '_' and '-'"
        )
    return brokers, topic


def _offset_option(address: Address, setting: str, name: str) -> int | None:
    if name not in address.options:
        return None
    offset = int_option(address, setting, name, 0)
    if offset > MAX_OFFSET:
        raise UsageError(f"--{setting}: option {name} is greater than any offset")
    return offset


def _property(option: str, setting: str) -> str:
    """The property an option passes through to librdkafka."""
    name = option.removeprefix(LIBRDKAFKA)
    if name in _SECRETS or any(mark in name for mark in _SECRET_MARKS):
        variable = _SECRETS.get(name)
        remedy = f"set {variable} in the environment" if variable else "keep it in a file (kafka.ssl.key.location)"
        raise UsageError(f"--{setting}: {option} is a secret and does not belong into an address; {remedy}")
    if name in _OWNED:
        remedy = {"group.id": "; use group=", "auto.offset.reset": "; use start="}.get(name, "")
        raise UsageError(f"--{setting}: option {option} is not free: reading depends on it{remedy}")
    if not _PROPERTY.fullmatch(name):
        raise UsageError(f"--{setting}: option {option!r} names no property of librdkafka")
    return name


def _credentials_remedy() -> str:
    user, password = _SECRETS["sasl.username"], _SECRETS["sasl.password"]
    return f"credentials do not belong into an address; set {user} and {password} in the environment"


def client_properties(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of an address is configured with; secrets come from this process's environment.

    Raises:
        UsageError: authentication is asked for without a mechanism or without credentials.
    """
    properties: dict[str, Any] = {
        "client.id": "fan-identity",
        # librdkafka would write to standard error; what matters comes back as errors.
        "log_level": 0,
        "reconnect.backoff.max.ms": 2_000,
        **dict(settings.properties),
        "bootstrap.servers": settings.brokers,
    }
    for name, variable in _SECRETS.items():
        if secret := os.environ.get(variable):
            properties[name] = secret
    if str(properties.get("security.protocol", "")).upper().startswith("SASL"):
        mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms"))
        if mechanism is None:
            raise UsageError(
                f"--{settings.setting}: SASL needs a mechanism; "
                "add kafka.sasl.mechanism=SCRAM-SHA-512 (or PLAIN, OAUTHBEARER)"
            )
        if mechanism != "OAUTHBEARER" and not {"sasl.username", "sasl.password"} <= properties.keys():
            raise UsageError(
                f"--{settings.setting}: no credentials for Kafka; "
                f"set {_SECRETS['sasl.username']} and {_SECRETS['sasl.password']} in the environment"
            )
    return properties


def source_of(address: Address, partition: str) -> str:
    """Names one partition of an address to a position store: ``kafka://host:9092/topic#3``."""
    return f"{address.scheme}://{address.target}#{partition}"


def partition_of(source: str) -> tuple[str, int]:
    """Topic and partition number of what ``source_of`` composed.

    Raises:
        ValueError: it did not compose this.
    """
    name, _, partition = source.rpartition("#")
    topic = name.rpartition("/")[2]
    if not name.startswith("kafka://") or not (partition.isascii() and partition.isdigit()):
        raise ValueError("not a partition of a Kafka topic")
    return topic, int(partition)


def offset_of(position: str, setting: str) -> int:
    """A position as an offset.

    Raises:
        UsageError: it is none, but perhaps another kind of stream's.
    """
    if not (position.isascii() and position.isdigit()) or len(position) > len(str(MAX_OFFSET)):
        raise UsageError(f"--{setting}: a remembered position is no Kafka offset; was it another kind of stream's?")
    offset = int(position)
    if offset > MAX_OFFSET:
        raise UsageError(f"--{setting}: a remembered position is greater than any offset")
    return offset
