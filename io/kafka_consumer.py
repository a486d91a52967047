"""librdkafka's consumer, configured to be told where to read and to say what it would pass over in silence."""

from typing import Any, Final

from confluent_kafka import Consumer, KafkaError

from .kafka_address import KafkaSettings, client_properties
from .kafka_admin import translated_configuration

_DEFAULTS: Final[dict[str, Any]] = {
    # An answer without records is held back this long; a place that moved waits for it.
    "fetch.wait.max.ms": 100,
    # What a full queue waits before it fetches again: a second, as librdkafka has it, starves a fast reader.
    "fetch.queue.backoff.ms": 20,
    "queued.max.messages.kbytes": 16_384,
    "log.connection.close": False,
}


def _ignore(_: KafkaError) -> None:
    """What goes wrong between requests: librdkafka tries again by itself, and the watch sees what lasts."""


def new_consumer(settings: KafkaSettings, *, bounded: bool) -> Any:
    """A consumer with nothing assigned; it connects when first used.

    Raises:
        UsageError: a property of the address is wrong, or credentials are missing.
    """
    owned = {
        "group.id": settings.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Offsets that are gone are an error we see, count and say, instead of a silent jump.
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        # Tells the end where the last offsets are markers of transactions or were compacted away.
        "enable.partition.eof": bounded,
        "error_cb": _ignore,
    }
    with translated_configuration(settings):
        return Consumer({**_DEFAULTS, **client_properties(settings), **owned})
