"""What calls of DynamoDB cost: asked for while somebody listens to metrics, since the answer grows by it."""

from collections.abc import Mapping
from typing import Any, Final

from ..telemetry import metrics

_READS: Final = frozenset({"get_item", "batch_get_item", "query", "scan", "GetItem", "BatchGetItem", "Query", "Scan"})
_FREE: Final = frozenset({"describe_table"})


def with_capacity(operation: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """A call's parameters, and that its cost is to be told, while anybody listens.

    Args:
        operation: as boto3 or the service names it.
        parameters: of the call.
    """
    if not metrics.switch.on or operation in _FREE:
        return parameters
    return {**parameters, "ReturnConsumedCapacity": "TOTAL"}


def observe_capacity(table: str, operation: str, answer: Mapping[str, Any]) -> None:
    """Tells what a call cost, where its answer says so.

    Args:
        table: by the setting that names it.
        operation: as ``with_capacity`` has it.
        answer: of the service.
    """
    told: Any = answer.get("ConsumedCapacity")
    if told:
        units = sum(float(one.get("CapacityUnits", 0)) for one in (told if isinstance(told, list) else [told]))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportUnknownVariableType]
        metrics.observe_capacity(table, "read" if operation in _READS else "write", units)
