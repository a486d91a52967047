"""Sources and queues as messaging's semantic conventions name them.

Source: OpenTelemetry semantic conventions 1.38, "Messaging spans". Systems they do not list go by their own names.
"""

from functools import lru_cache
from pathlib import PurePath
from typing import Final

from .tracing import Attributes, Value

_SYSTEMS: Final = {
    "kafka": "kafka",
    "kinesis": "aws_kinesis",
    "dynamodb-streams": "aws_dynamodb_streams",
    "dynamodb": "aws_dynamodb_streams",
    "sqs": "aws_sqs",
    "pubsub": "gcp_pubsub",
    "sqlite": "sqlite",
    "eventbridge": "aws_eventbridge",
    "file": "file",
}
_ARN_PARTS: Final = 6


@lru_cache(1_024)
def destination(source: str) -> dict[str, Value]:
    """Attributes of where messages come from or go to.

    Args:
        source: an address, with ``#partition`` behind it where it is a partition's; an ARN, ``kafka:topic#partition``
            or an EventBridge source, as Lambda events have them; or a file's absolute path.

    >>> destination("kafka://host:9092/activities#3")["messaging.destination.partition.id"]
    '3'
    """
    address, _, partition = source.partition("?")[0].partition("#")
    scheme, separator, target = address.partition("://")
    if source.startswith("arn:"):
        # arn:aws:sqs:region:account:name, …:kinesis:…:stream/name, …:dynamodb:…:table/name/stream/time
        parts = source.split(":", _ARN_PARTS - 1)
        scheme, target = parts[2] if len(parts) == _ARN_PARTS else "", parts[-1]
        target = target.split("/")[1] if "/" in target else target
    elif address.startswith("/"):
        scheme, target = "file", PurePath(address).name
    elif not separator:
        scheme, _, target = address.partition(":")
        if scheme != "kafka":  # an EventBridge event's source, such as com.example.idv
            scheme, target = "eventbridge", address
    elif scheme in ("kafka", "pubsub"):
        target = target.rpartition("/")[2]
    elif scheme == "sqlite":
        target = ""
    attributes: dict[str, Value] = {"messaging.system": _SYSTEMS.get(scheme, "other")}
    if target:
        attributes["messaging.destination.name"] = target
    if partition:
        attributes["messaging.destination.partition.id"] = partition
    return attributes


def name_of(attributes: Attributes) -> str:
    """The destination's name in a span's name: of a low cardinality, without the partition."""
    return str(attributes.get("messaging.destination.name", attributes["messaging.system"]))
