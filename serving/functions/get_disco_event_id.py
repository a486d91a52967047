"""getDiscoEventId: an event's id in discovery, from the demand table."""

from typing import Any

from ...domain.demand import DISCO_SK, event_pk
from ..context import Context
from ..pipeline import Function


async def request(ctx: Context) -> Any:
    """Gets the event's mapping; without an event there is none."""
    event_id = ctx.args.get("eventId")
    if event_id is None:
        ctx.early_return()
    return await ctx.sources.demand.get(event_pk(event_id), DISCO_SK)


def response(ctx: Context) -> str:
    """Stashes the discovery id; an event that is not mapped goes by its own."""
    ctx.degrade("demandError")
    mapped = None if ctx.result is None else ctx.result.get("discoEventId")
    ctx.stash["discoEventId"] = mapped if isinstance(mapped, str) and mapped else ctx.args["eventId"]
    return ctx.stash["discoEventId"]


GET_DISCO_EVENT_ID = Function(
    "getDiscoEventId", "demand_table", request, response, writes=frozenset({"discoEventId", "demandError"})
)
