"""getAccountFanscoreMemberId: a fan's score by memberId, from the account fan score table."""

from collections.abc import Mapping
from typing import Any

from ...domain.keys import MEMBER_SCORE_SK, member_pk
from ..context import Context
from ..pipeline import Function


async def request(ctx: Context) -> Any:
    """Gets the member's score, unless the fan's own was found."""
    if ctx.stash.get("score") is not None:
        ctx.early_return()
    member_id = _member_id(ctx)
    if member_id is None:
        ctx.early_return()
    return await ctx.sources.account_fanscore.get(member_pk(member_id), MEMBER_SCORE_SK)


def response(ctx: Context) -> float | None:
    """Stashes score and raw score."""
    ctx.degrade("scoreError")
    item: Mapping[str, Any] = ctx.result or {}
    score = item.get("score")
    if isinstance(score, int | float):
        raw = item.get("rawScore")
        ctx.stash["score"] = score
        ctx.stash["rawScore"] = raw if isinstance(raw, int | float) else score
        return score
    return None


def _member_id(ctx: Context) -> str | None:
    """Whose score: a fan's own by their token, whatever they write; anyone's for a service."""
    if ctx.identity.reads_any_fan:
        return ctx.args.get("memberId")
    return ctx.identity.member_id


GET_ACCOUNT_FANSCORE_MEMBER_ID = Function(
    "getAccountFanscoreMemberId",
    "account_fanscore_table",
    request,
    response,
    reads=frozenset({"score"}),
    writes=frozenset({"score", "rawScore", "scoreError"}),
)
