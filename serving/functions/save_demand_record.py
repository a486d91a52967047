"""saveDemandRecord: stores what the fan registers for, merged with what was there."""

from collections.abc import Mapping
from typing import Any, Final

from ...domain.demand import demand_item, demand_sk, fan_pk
from ...io.clock import now_ms
from ..context import Context, FunctionError
from ..pipeline import Function

_TRIES: Final = 5


async def request(ctx: Context) -> dict[str, Any]:
    """Puts the item; where another request was faster, merges with what that one wrote."""
    user = ctx.stash["userInfo"]
    existing: Mapping[str, Any] | None = ctx.stash["existingSaleRecord"]
    wanted = _wanted(ctx)
    for _ in range(_TRIES):
        item = demand_item(existing, wanted, user["global_user_id"], now_ms())
        if await ctx.sources.demand.put_revision(item, int(existing.get("revision", 0) if existing else 0)):
            return item
        pk = fan_pk(user["global_user_id"])
        existing = await ctx.sources.demand.get(pk, demand_sk(wanted["eventId"], wanted["saleId"]))
    raise FunctionError("the record is being changed elsewhere; try again", "409", "CONFLICT")


def response(ctx: Context) -> dict[str, Any]:
    """The record as the caller sees it."""
    ctx.raise_error()
    record = ctx.result
    return {"status": "SUCCESS", "record": {**record, "fanId": record["globalUserId"]}}


def _wanted(ctx: Context) -> dict[str, Any]:
    event: Mapping[str, Any] = ctx.stash["eventRecord"] or {}
    user = ctx.stash["userInfo"]
    given = ctx.args["input"]
    return {
        "eventId": given["eventId"],
        "saleId": given["saleId"],
        "email": given.get("email") or user["email"],
        "memberId": user["member_id"],
        "discoEventId": event.get("discoEventId"),
        "demandLevel": event.get("demandLevel"),
    }


SAVE_DEMAND_RECORD = Function(
    "saveDemandRecord",
    "demand_table",
    request,
    response,
    reads=frozenset({"userInfo", "existingSaleRecord", "eventRecord"}),
    has_effect=True,
)
