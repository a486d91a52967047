"""JSON values as DynamoDB's typed attributes and back, and how large DynamoDB counts them.

Numbers: DynamoDB holds decimal numbers of up to 38 digits and forgets how they were written: 5.0 becomes 5. Reading
gives back a value **equal** to the one written: an int where the number is whole and below 10**38, else a float. So
ints stay ints, floats with a fraction stay floats, and 5.0 comes back as 5. A whole float below 10**38 is written with
all its digits (1e23 as 99999999999999991611392), which is what keeps it equal.

Source: DynamoDB developer guide, "Supported data types and naming rules", "Item sizes and formats", "Constraints".
"""

import math
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final, cast

Attribute = Mapping[str, Any]
"""A typed value of the protocol: one entry, from a type's letter to the value, as ``{"S": "text"}``.

Bytes (``B``) are bytes, as boto3 has them, or their base64, as DynamoDB's JSON has them.
"""

MAX_ITEM_BYTES: Final = 400 * 1_024
"""The largest item, names included, as DynamoDB counts."""

MAX_PK_BYTES: Final = 2_048
MAX_SK_BYTES: Final = 1_024

MAX_DEPTH: Final = 32
"""Containers in containers; DynamoDB's limit."""

_WHOLE_LIMIT: Final = 10**38
_LEAST: Final = 1e-130
_TOO_GREAT: Final = 1e126
_WHOLE: Final = re.compile(r"-?[0-9]{1,38}")


class UnsupportedItemError(ValueError):
    """An item that DynamoDB can never hold; the message names the rule, no value of the item.

    Attributes:
        reason: a short code, as ``Failure`` has it.
    """

    reason: ClassVar[str] = "unsupported"


class ItemTooLargeError(UnsupportedItemError):
    """An item over 400 KB."""

    reason: ClassVar[str] = "too_large"


def attributes_of(item: Mapping[str, Any]) -> dict[str, Attribute]:
    """An item as typed attributes.

    Args:
        item: JSON values by attribute name; bytes are allowed too, tuples are lists.

    Raises:
        UnsupportedItemError: a value is none of JSON's, a number is NaN, infinite or outside what DynamoDB holds, a
            name is empty or no text, a text holds a lone surrogate, or containers nest deeper than 32.
    """
    return _map(item, 0)


def item_of(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    """The item of typed attributes. Sets, which this program never writes, become sorted lists."""
    return {name: value_of(attribute) for name, attribute in attributes.items()}


def attribute_of(value: Any, depth: int = 0) -> Attribute:
    """A value as a typed attribute; ``depth`` is the number of containers around it. Raises as ``attributes_of``."""
    writer = _WRITERS.get(cast("type[Any]", type(value)))
    if writer is None:
        writer = next((writer for kind, writer in _WRITERS.items() if isinstance(value, kind)), None)
        if writer is None:
            raise UnsupportedItemError(f"a value of type {type(value).__name__} is no JSON value")
    return writer(value, depth)


def value_of(attribute: Attribute) -> Any:
    """The value of a typed attribute."""
    ((kind, value),) = attribute.items()
    reader = _READERS.get(kind)
    return value if reader is None else reader(value)


def size_of(attributes: Mapping[str, Attribute]) -> int:
    """Bytes of an item as DynamoDB counts them, or somewhat less: every number is counted as one of two digits.

    An item over ``MAX_ITEM_BYTES`` by this count is too large; of one just below it the server has the last word.
    """
    return sum(len(name.encode()) + _size(attribute) for name, attribute in attributes.items())


def key_problem(pk: Any, sk: Any) -> str | None:
    """Why these cannot be an item's keys, or None: keys are texts of 1 to 2,048 (``PK``) or 1,024 (``SK``) bytes."""
    for name, key, limit in (("PK", pk, MAX_PK_BYTES), ("SK", sk, MAX_SK_BYTES)):
        if not isinstance(key, str):
            return f"{name} is no text"
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            return f"{name} holds a lone surrogate"
        if not 0 < size <= limit:
            return f"{name} is empty" if size == 0 else f"{name} is over {limit:,} bytes"
    return None


def _text(value: str, depth: int) -> Attribute:
    if not value.isascii():
        _check_unicode(value)
    return {"S": value}


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnsupportedItemError("a text holds a lone surrogate") from None


def _int(value: int, depth: int) -> Attribute:
    if not -_WHOLE_LIMIT < value < _WHOLE_LIMIT:
        raise UnsupportedItemError("a whole number has more than 38 digits")
    return {"N": str(int(value))}


def _float(value: float, depth: int) -> Attribute:
    if not math.isfinite(value):
        raise UnsupportedItemError("a number is NaN or infinite")
    size = abs(value)
    if size and not _LEAST <= size < _TOO_GREAT:
        raise UnsupportedItemError("a number is outside ±1e-130 to ±1e126")
    if size < _WHOLE_LIMIT and value.is_integer():
        return {"N": str(int(value))}
    return {"N": float.__repr__(value)}


def _list(values: list[Any] | tuple[Any, ...], depth: int) -> Attribute:
    _check_depth(depth)
    return {"L": [attribute_of(value, depth + 1) for value in values]}


def _dict(values: Mapping[Any, Any], depth: int) -> Attribute:
    _check_depth(depth)
    return {"M": _map(values, depth + 1)}


def _map(values: Mapping[Any, Any], depth: int) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise UnsupportedItemError("an attribute's name is empty or no text")
        if not name.isascii():
            _check_unicode(name)
        attributes[name] = attribute_of(value, depth)
    return attributes


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise UnsupportedItemError(f"values nest deeper than {MAX_DEPTH}")


def _null(value: None, depth: int) -> Attribute:
    return {"NULL": True}


def _bool(value: bool, depth: int) -> Attribute:
    return {"BOOL": value}


def _bytes(value: bytes | bytearray, depth: int) -> Attribute:
    return {"B": bytes(value)}


_WRITERS: Final[dict[type[Any], Callable[[Any, int], Attribute]]] = {
    str: _text,
    bool: _bool,  # before int, whose subclass it is
    int: _int,
    float: _float,
    type(None): _null,
    dict: _dict,
    list: _list,
    tuple: _list,
    bytes: _bytes,
    bytearray: _bytes,
    Mapping: _dict,
}


def _number(text: str) -> int | float:
    if _WHOLE.fullmatch(text):
        return int(text)
    number = Decimal(text)
    # A server may write a whole number with an exponent or a fraction of zeros.
    if number.copy_abs() < _WHOLE_LIMIT and number == number.to_integral_value():
        return int(number)
    return float(text)


def _sorted_numbers(texts: list[str]) -> list[int | float]:
    return sorted(map(_number, texts))


def _no_value(value: bool) -> None:
    return None


def _values(attributes: list[Attribute]) -> list[Any]:
    return [value_of(attribute) for attribute in attributes]


def _binary(value: bytes | str) -> bytes:
    return b64decode(value) if isinstance(value, str) else value


def _sorted_binaries(values: list[bytes | str]) -> list[bytes]:
    return sorted(map(_binary, values))


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "B": _binary,
    "N": _number,
    "NULL": _no_value,
    "M": item_of,
    "L": _values,
    "SS": sorted,
    "BS": _sorted_binaries,
    "NS": _sorted_numbers,
}


def _size(attribute: Attribute) -> int:
    ((kind, value),) = attribute.items()
    match kind:
        case "S":
            return len(value) if value.isascii() else len(value.encode())
        case "B":
            return len(value)
        case "N":
            return 2
        case "M":
            return 3 + len(value) + size_of(value)
        case "L":
            return 3 + len(value) + sum(map(_size, value))
        case _:
            return 1
