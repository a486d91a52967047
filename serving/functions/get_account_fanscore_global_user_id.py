"""getAccountFanscoreGlobalUserId: a fan's score by globalUserId, from the fan identity table."""

from typing import Any

from ...domain.keys import LATEST_SK, user_pk
from ..context import Context
from ..pipeline import Function


async def request(ctx: Context) -> Any:
    """Gets the fan's latest item."""
    return await ctx.sources.fan_identity.get(user_pk(ctx.args["globalUserId"]), LATEST_SK)


def response(ctx: Context) -> float | None:
    """Stashes the score where there is one. With the table away the score may still come by member."""
    ctx.degrade("scoreError")
    score = None if ctx.result is None else ctx.result.get("accountScore")
    if isinstance(score, int | float):
        ctx.stash["score"] = score
        return score
    return None


GET_ACCOUNT_FANSCORE_GLOBAL_USER_ID = Function(
    "getAccountFanscoreGlobalUserId", "fan_identity_table", request, response, writes=frozenset({"score", "scoreError"})
)
