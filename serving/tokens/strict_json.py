"""JSON from outside, read in one way only: what two readers could read differently is refused."""

import json
from typing import Any

import msgspec


class DuplicateKeyError(ValueError):
    """An object names a key twice: readers differ in which one counts (RFC 8259, 4)."""


def read_object(data: bytes) -> dict[str, Any]:
    """Reads a JSON object in UTF-8.

    Raises:
        DuplicateKeyError: an object in it names a key twice.
        ValueError: it is none, holds NaN, an infinity or half a character, or is nested too deeply.
    """
    try:
        # Two readers: the first refuses NaN and half characters (lone surrogates), the second keys named twice.
        msgspec.json.decode(data)
        value = json.loads(data.decode(), object_pairs_hook=_once_each)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise DuplicateKeyError("a key is named twice")
    return made
