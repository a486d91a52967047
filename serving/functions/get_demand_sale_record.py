"""getDemandSaleRecord: what the fan registered for before, from the demand table."""

from typing import Any

from ...domain.demand import demand_sk, fan_pk
from ..context import Context
from ..pipeline import Function


async def request(ctx: Context) -> Any:
    """Gets the fan's record of this event and sale."""
    wanted = ctx.args["input"]
    pk = fan_pk(ctx.stash["userInfo"]["global_user_id"])
    return await ctx.sources.demand.get(pk, demand_sk(wanted["eventId"], wanted["saleId"]))


def response(ctx: Context) -> Any:
    """Stashes the record, or None."""
    ctx.raise_error()
    ctx.stash["existingSaleRecord"] = ctx.result
    return ctx.result


GET_DEMAND_SALE_RECORD = Function(
    "getDemandSaleRecord",
    "demand_table",
    request,
    response,
    reads=frozenset({"userInfo"}),
    writes=frozenset({"existingSaleRecord"}),
)
