"""How far a worker is behind the end of its Kafka topic: what its group has not committed yet."""

from .addresses import parse_address
from .kafka_address import kafka_settings
from .kafka_admin import admin_of


def kafka_lag(text: str, worker: str, seconds: float) -> dict[int, int]:
    """Records that are in the topic and not committed by the worker's group, by partition; 0 where it is at the end.

    A partition of which nothing is committed counts from where the worker would begin: its first record, or its end
    where the address says ``start=latest``.

    Args:
        text: ``kafka://host:9092/topic?option=value``.
        worker: names the group where the address does not.
        seconds: what each of the questions may take.

    Raises:
        UsageError: the address is wrong, there is no such topic, or it may not be read.
        BackendUnavailableError: no broker answers in time.
    """
    settings = kafka_settings(parse_address(text, "source"), "source", worker)
    admin = admin_of(settings)
    partitions = admin.partitions(seconds)
    ends = admin.latest(partitions, seconds)
    committed = admin.committed(partitions, seconds)
    fresh = [partition for partition in partitions if partition not in committed]
    begins = ends if settings.latest else admin.earliest(fresh, seconds)
    return {
        partition: max(ends[partition] - committed.get(partition, begins.get(partition, ends[partition])), 0)
        for partition in partitions
    }
