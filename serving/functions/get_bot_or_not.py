"""getBotOrNot: how likely a fan is a bot, from the fan identity table."""

from typing import Any

from ...domain.keys import user_pk
from ..context import Context
from ..pipeline import Function


async def request(ctx: Context) -> Any:
    """Queries the newest item under the cursor."""
    return await ctx.sources.fan_identity.query(
        user_pk(ctx.args["globalUserId"]), ctx.stash["botCursor"], newest_first=True, limit=1
    )


def response(ctx: Context) -> float | None:
    """Stashes the score, 0 (fan) to 1 (bot); with the table away the boost is 0."""
    ctx.degrade()
    score = ctx.result[0].get("bonScore") if ctx.result else None
    ctx.stash["botScore"] = score if isinstance(score, int | float) else None
    return ctx.stash["botScore"]


GET_BOT_OR_NOT = Function(
    "getBotOrNot",
    "fan_identity_table",
    request,
    response,
    reads=frozenset({"botCursor"}),
    writes=frozenset({"botScore"}),
)
