"""DynamoDB's typed JSON, as stream records carry it, and the plain JSON it stands for.

Source: Amazon DynamoDB API reference, AttributeValue.
"""

from collections.abc import Mapping
from typing import Any, Final

from .activity import MalformedRecordError

_MAX_DEPTH: Final = 40  # DynamoDB allows 32


def plain(image: Mapping[str, Any]) -> dict[str, Any]:
    """An item's attributes as plain JSON values; binary stays base64 text, sets become lists.

    Raises:
        MalformedRecordError: a value is not typed as DynamoDB types it.
    """
    return {name: _plain(value, 0) for name, value in image.items()}


def _plain(typed: Any, depth: int) -> Any:  # noqa: PLR0911 - one a type
    if not isinstance(typed, dict) or len(typed) != 1 or depth > _MAX_DEPTH:  # pyright: ignore[reportUnknownArgumentType]
        raise MalformedRecordError("an attribute is not DynamoDB's typed JSON")
    ((kind, value),) = typed.items()  # pyright: ignore[reportUnknownVariableType]
    match kind, value:
        case ("S" | "B", str()):
            return value  # pyright: ignore[reportUnknownVariableType]
        case "N", str():
            return _number(value)
        case "BOOL", bool():
            return value
        case "NULL", bool():
            return None
        case "M", dict():
            return {str(name): _plain(inner, depth + 1) for name, inner in value.items()}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        case "L", list():
            return [_plain(inner, depth + 1) for inner in value]  # pyright: ignore[reportUnknownVariableType]
        case ("SS" | "BS", list()):
            return [str(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        case "NS", list():
            return [_number(str(inner)) for inner in value]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        case _:  # pyright: ignore[reportUnknownVariableType]
            raise MalformedRecordError("an attribute is not DynamoDB's typed JSON")


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        raise MalformedRecordError("a number attribute is no number") from None
    if number in (float("inf"), float("-inf")) or number != number:  # noqa: PLR0124 - NaN
        raise MalformedRecordError("a number attribute is not finite")
    return number
