"""upsertUser: tells everyone who wants to know of a fan's entry, by an event on EventBridge."""

from typing import Any, Final

from ...domain.activity import format_time_ms
from ...io.clock import now_ms
from ..context import Context
from ..pipeline import Function
from ..shared import throw_if_not_logged_in

EVENT: Final = "user.upsert"


async def request(ctx: Context) -> str:
    """Stores the event; publishing is not waited for."""
    global_user_id = throw_if_not_logged_in(ctx)
    given = {name: value for name, value in ctx.args["input"].items() if value is not None}
    detail = {**given, "globalUserId": global_user_id, "occurredAt": format_time_ms(now_ms())}
    if ctx.identity.member_id is not None:
        detail["memberId"] = ctx.identity.member_id
    return await ctx.sources.outbox.add(EVENT, detail)


def response(ctx: Context) -> dict[str, Any]:
    """The event's id, by which it can be found downstream."""
    ctx.raise_error()
    return {"status": "ACCEPTED", "eventId": ctx.result}


UPSERT_USER = Function("upsertUser", "upsert_user", request, response, has_effect=True)
