"""getEventDemandRecord: how much an event is wanted, from the demand table."""

from typing import Any

from ...domain.demand import EVENT_SK, event_pk
from ..context import Context
from ..pipeline import Function


async def request(ctx: Context) -> Any:
    """Gets the event's demand by its discovery id."""
    event_id = ctx.stash.get("discoEventId")
    if event_id is None:
        ctx.early_return()
    return await ctx.sources.demand.get(event_pk(event_id), EVENT_SK)


def response(ctx: Context) -> Any:
    """Stashes the event's data; with the table away the boost is 0."""
    ctx.degrade("demandError")
    ctx.stash["eventData"] = ctx.result
    return ctx.result


GET_EVENT_DEMAND_RECORD = Function(
    "getEventDemandRecord",
    "demand_table",
    request,
    response,
    reads=frozenset({"discoEventId"}),
    writes=frozenset({"eventData", "demandError"}),
)
