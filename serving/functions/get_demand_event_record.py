"""getDemandEventRecord: the event a fan registers for, from the demand table."""

from typing import Any

from ...domain.demand import EVENT_SK, event_pk
from ..context import Context
from ..pipeline import Function


async def request(ctx: Context) -> Any:
    """Gets the event's demand."""
    return await ctx.sources.demand.get(event_pk(ctx.args["input"]["eventId"]), EVENT_SK)


def response(ctx: Context) -> Any:
    """Stashes the event, or None for one nobody has described yet."""
    ctx.raise_error()
    ctx.stash["eventRecord"] = ctx.result
    return ctx.result


GET_DEMAND_EVENT_RECORD = Function(
    "getDemandEventRecord", "demand_table", request, response, writes=frozenset({"eventRecord"})
)
