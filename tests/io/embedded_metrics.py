"""CloudWatch's embedded metric format as its specification has it, to check lines against.

Source: CloudWatch user guide, "Specification: Embedded metric format": its JSON schema, and its rules on members.
"""

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(min_length=1, max_length=1_024)]
Dimension = Annotated[str, Meta(min_length=1, max_length=250)]
Unit = Literal[
    *("Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes", "Bits"),
    *("Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count", "Bytes/Second", "Kilobytes/Second"),
    *("Megabytes/Second", "Gigabytes/Second", "Terabytes/Second", "Bits/Second", "Kilobits/Second", "Megabits/Second"),
    *("Gigabits/Second", "Terabits/Second", "Count/Second", "None"),
]
VALUES = 100
VALUE_CHARACTERS = 1_024


class MetricDefinition(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    name: Name
    unit: Unit = "None"
    storage_resolution: Literal[1, 60] = 60


class MetricDirective(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    namespace: Name
    dimensions: Annotated[list[Annotated[list[Dimension], Meta(max_length=30)]], Meta(min_length=1)]
    metrics: Annotated[list[MetricDefinition], Meta(max_length=100)]


class Metadata(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    timestamp: Annotated[int, Meta(gt=0)]
    cloud_watch_metrics: list[MetricDirective]


def checked(line: str) -> dict[str, Any]:
    """A line as a value, after checking that CloudWatch would make metrics of it.

    Raises:
        msgspec.ValidationError, AssertionError: it would not.
    """
    assert "\n" not in line
    value: dict[str, Any] = json.loads(line)
    metadata = msgspec.convert(value["_aws"], Metadata, strict=True)
    for directive in metadata.cloud_watch_metrics:
        for dimension in (name for names in directive.dimensions for name in names):
            assert isinstance(value[dimension], str) and 0 < len(value[dimension]) <= VALUE_CHARACTERS, dimension
        names = [metric.name for metric in directive.metrics]
        assert len(names) == len(set(names))
        for name in names:
            numbers = value[name] if isinstance(value[name], list) else [value[name]]
            assert 0 < len(numbers) <= VALUES
            assert all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers), name
    return value
