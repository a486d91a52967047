"""describeDemand: an event with its discovery id and how much it is wanted, from what was stashed."""

from collections.abc import Mapping
from typing import Any

from ..context import Context, unavailable
from ..pipeline import Function


async def request(ctx: Context) -> None:
    """Asks nobody."""
    del ctx


def response(ctx: Context) -> dict[str, Any]:
    """The event as the API shows it.

    Raises:
        FunctionError: 503, the table was away.
    """
    if (error := ctx.stash.get("demandError")) is not None:
        raise unavailable(error)
    event: Mapping[str, Any] = ctx.stash.get("eventData") or {}
    return {
        "eventId": ctx.args["eventId"],
        "discoEventId": ctx.stash["discoEventId"],
        "demandLevel": event.get("demandLevel"),
    }


DESCRIBE_DEMAND = Function(
    "describeDemand", "none", request, response, reads=frozenset({"discoEventId", "eventData", "demandError"})
)
