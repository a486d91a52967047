"""getBotOrNotCursor: where in the fan identity table the bot-or-not score is to be found."""

from typing import Any

from ...domain.keys import ACTIVE_SK, BON_IMPORT_PK, bon_sk
from ..context import Context
from ..pipeline import Function


async def request(ctx: Context) -> Any:
    """Gets which import of bot-or-not scores is active."""
    return await ctx.sources.fan_identity.get(BON_IMPORT_PK, ACTIVE_SK)


def response(ctx: Context) -> str:
    """Stashes the prefix of sort keys to look at: the active import's, else the fan's own scores."""
    ctx.degrade()
    version = None if ctx.result is None else ctx.result.get("importVersion")
    ctx.stash["botCursor"] = bon_sk(version) if isinstance(version, str) else "SCORE#"
    return ctx.stash["botCursor"]


GET_BOT_OR_NOT_CURSOR = Function(
    "getBotOrNotCursor", "fan_identity_table", request, response, writes=frozenset({"botCursor"})
)
