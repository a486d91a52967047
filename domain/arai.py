"""ARAI: what the Accounts service knows of a user's activity, as the model sees it."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from .activity import MalformedRecordError, format_time_ms
from .keys import user_pk
from .profile import FEATURES, Profile

ARAI_TYPE = "arai"
_SK_PREFIX = "ARAI#"


class Arai(msgspec.Struct, frozen=True, gc=False):
    """What is known of a user as of one moment.

    Attributes:
        profile: the features the embedded model scores.
        response: the Accounts service's whole answer, sent to a remote model; {} where profiles are built here.
    """

    profile: Profile
    response: Mapping[str, Any] = {}


def arai_of(response: Mapping[str, Any], as_of_ms: int) -> Arai:
    """Reads an ARAI response: its ``features`` object holds numbers by the names of ``FEATURES``; others are ignored.

    Args:
        response: the Accounts service's answer.
        as_of_ms: the moment it is of, epoch milliseconds.

    Raises:
        MalformedRecordError: ``features`` is no object, or a feature is neither a finite number nor null.
    """
    features = response.get("features", {})
    if not isinstance(features, Mapping):
        raise MalformedRecordError("features is not an object")
    values: list[float | None] = []
    found: Mapping[str, Any] = features  # pyright: ignore[reportUnknownVariableType]
    for name in FEATURES:
        value: Any = found.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (value is None or number):
            raise MalformedRecordError(f"features.{name} is not a finite number")
        values.append(value)
    return Arai(Profile(as_of_ms, tuple(values)), response)


def arai_sk(time_ms: int) -> str:
    """The sort key of an ARAI item: ``ARAI#<time>``, fixed width, UTC."""
    return _SK_PREFIX + format_time_ms(time_ms)


def arai_item(global_user_id: str, response: Mapping[str, Any], fetched_at_ms: int) -> dict[str, Any]:
    """The item that stores a response, as the reference has it."""
    return {
        "PK": user_pk(global_user_id),
        "SK": arai_sk(fetched_at_ms),
        "type": ARAI_TYPE,
        "globalUserId": global_user_id,
        "araiResponse": dict(response),
        "dateUpdated": format_time_ms(fetched_at_ms),
    }
